//! Keeping the catalog fresh, in the background: each upstream is listed now and then, and what it says is stored.
//!
//! An upstream that fails keeps the tools it had. Changes of configuration are noticed by looking at the revision.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tenant_store::{ExposedName, LocalName, NewTool, SealedCredential, StoreError, TenantId, Upstream, UpstreamId};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::definition::Definition;
use super::name::{Origin, expose};
use super::snapshot::{Catalog, Snapshot};
use crate::upstream::{Pool, UpstreamError, list_tools};

/// How often the revision is looked at.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How many upstreams are listed at the same time.
const LISTED_AT_ONCE_MAX: usize = 16;
/// The first wait after a failure; it doubles up to the regular interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Lists upstreams and stores what they say.
#[derive(Debug)]
pub struct Refresher {
    catalog: Arc<Catalog>,
    pool: Pool,
    every: Duration,
    name_chars_max: usize,
    /// One at a time gives names and stores them, so that two upstreams of a tenant cannot be given the same one.
    naming: Mutex<()>,
    wake: Notify,
}

/// When an upstream is listed next, and the wait if that fails.
#[derive(Debug, Clone)]
struct Schedule {
    upstream: Arc<Upstream>,
    versions: Vec<u32>,
    due: Instant,
    retry: Duration,
    /// It is being listed now.
    runs: bool,
}

/// One upstream whose time has come.
struct Due {
    key: (TenantId, UpstreamId),
    upstream: Arc<Upstream>,
    versions: Vec<u32>,
    snapshot: Arc<Snapshot>,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("the upstream {0}")]
    Upstream(UpstreamError),
    #[error("what the upstream listed cannot be stored")]
    Store(#[from] StoreError),
}

impl Refresher {
    /// Lists each upstream every `every`; exposed names are at most `name_chars_max` long.
    pub fn new(catalog: Arc<Catalog>, pool: Pool, every: Duration, name_chars_max: usize) -> Self {
        Self { catalog, pool, every, name_chars_max, naming: Mutex::new(()), wake: Notify::new() }
    }

    /// Looks at the revision and the upstreams now rather than at the next tick.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Runs until dropped. Changes of configuration are followed beside the listing, so that no upstream delays them.
    pub async fn run(self: Arc<Self>) {
        let mut schedules = HashMap::new();
        let follow = async {
            loop {
                tokio::time::sleep(POLL_EVERY).await;
                self.reload().await;
            }
        };
        tokio::join!(follow, self.list(&mut schedules));
    }

    /// Lists what is due, for ever. What takes long keeps nothing else waiting.
    async fn list(&self, schedules: &mut HashMap<(TenantId, UpstreamId), Schedule>) {
        let mut listings = FuturesUnordered::new();
        loop {
            let room = LISTED_AT_ONCE_MAX.saturating_sub(listings.len());
            listings.extend(self.due(schedules, room).into_iter().map(|due| self.refresh_one(due)));
            tokio::select! {
                Some(listed) = listings.next() => self.note(schedules, listed).await,
                () = tokio::time::sleep(POLL_EVERY) => {}
                () = self.wake.notified() => self.reload().await,
            }
        }
    }

    /// Lists every upstream once, whatever the schedule; for start-up scripts and tests that need the lists complete.
    pub async fn refresh_all(&self) {
        self.reload().await;
        let mut schedules = HashMap::new();
        let due = self.due(&mut schedules, usize::MAX);
        let listings = due.into_iter().map(|due| self.refresh_one(due));
        let mut listings = futures::stream::iter(listings).buffer_unordered(LISTED_AT_ONCE_MAX);
        while let Some(listed) = listings.next().await {
            self.note(&mut schedules, listed).await;
        }
        self.reload().await;
    }

    async fn reload(&self) {
        if let Err(error) = self.catalog.reload().await {
            tracing::error!(error = &error as &dyn Error, "the catalog cannot be read; the last snapshot stays in use");
        }
    }

    /// Up to `room` upstreams whose time has come; they run from now on.
    fn due(&self, schedules: &mut HashMap<(TenantId, UpstreamId), Schedule>, room: usize) -> Vec<Due> {
        let snapshot = self.catalog.snapshot();
        let now = Instant::now();
        let mut due = Vec::new();
        let mut known = HashSet::new();
        for (tenant, shelf) in snapshot.shelves() {
            for upstream in shelf.upstreams().filter(|upstream| upstream.spec.enabled) {
                let key = (tenant, upstream.id);
                let versions: Vec<u32> =
                    shelf.credentials(upstream.id).into_iter().map(SealedCredential::version).collect();
                known.insert(key);
                let upstream = Arc::clone(upstream);
                let fresh = Schedule { upstream, versions, due: now, retry: RETRY_FIRST, runs: false };
                let schedule = schedules.entry(key).or_insert_with(|| fresh.clone());
                if *schedule.upstream != *fresh.upstream || schedule.versions != fresh.versions {
                    *schedule = Schedule { runs: schedule.runs, ..fresh };
                }
                if schedule.due <= now && !schedule.runs && due.len() < room {
                    schedule.runs = true;
                    let (upstream, versions) = (Arc::clone(&schedule.upstream), schedule.versions.clone());
                    due.push(Due { key, upstream, versions, snapshot: Arc::clone(&snapshot) });
                }
            }
        }
        schedules.retain(|key, _| known.contains(key));
        due
    }

    async fn refresh_one(&self, due: Due) -> (Due, Result<bool, RefreshError>) {
        let result = self.refresh(&due.snapshot, &due.upstream).await;
        (due, result)
    }

    /// Takes over what one listing brought, and says when the next one is due.
    async fn note(
        &self,
        schedules: &mut HashMap<(TenantId, UpstreamId), Schedule>,
        (listed, result): (Due, Result<bool, RefreshError>),
    ) {
        if matches!(result, Ok(true)) {
            self.reload().await;
        }
        let Some(schedule) = schedules.get_mut(&listed.key) else { return };
        schedule.runs = false;
        // One that was changed meanwhile is due at once.
        if *schedule.upstream != *listed.upstream || schedule.versions != listed.versions {
            return;
        }
        let wait = match result {
            Ok(_) => {
                schedule.retry = RETRY_FIRST;
                self.every
            }
            Err(error) => {
                let (tenant, upstream) = listed.key;
                tracing::warn!(
                    tenant.id = %tenant, upstream.id = %upstream, error = &error as &dyn Error,
                    "an upstream's tools could not be listed; those known stay listed"
                );
                let wait = schedule.retry.min(self.every);
                schedule.retry = wait.saturating_mul(2);
                wait
            }
        };
        schedule.due = Instant::now() + wait;
    }

    /// Lists one upstream and stores what it says; `true` if anything changed.
    async fn refresh(&self, snapshot: &Snapshot, upstream: &Arc<Upstream>) -> Result<bool, RefreshError> {
        let scope = self.catalog.administration().scope(upstream.tenant);
        let rows = self.catalog.store().tenant(scope);
        let shelves = snapshot.shelves().filter(|(tenant, _)| *tenant == upstream.tenant);
        let stored: Vec<&SealedCredential> = shelves.flat_map(|(_, shelf)| shelf.credentials(upstream.id)).collect();

        let link = self.pool.link(scope, upstream, &stored).map_err(RefreshError::Upstream)?;
        let listed = list_tools(&link, &rows, &stored).await.map_err(RefreshError::Upstream)?;
        if listed.truncated {
            tracing::warn!(upstream.id = %upstream.id, "the upstream lists more tools than are taken; the rest is left out");
        }
        let mut definitions = Vec::new();
        let mut locals = HashSet::new();
        for raw in &listed.tools {
            match Definition::parse(raw) {
                Ok(definition) if locals.insert(definition.local.clone()) => definitions.push(definition),
                Ok(definition) => {
                    tracing::warn!(upstream.id = %upstream.id, mcp.tool = %definition.local, "a tool is listed twice");
                }
                Err(error) => {
                    tracing::warn!(upstream.id = %upstream.id, error = &error as &dyn Error, "a listed tool is left out");
                }
            }
        }
        let _naming = self.naming.lock().await;
        let tools = self.named(upstream, &rows.tools().await?, definitions).await?;
        Ok(rows.replace_tools(upstream.id, &tools, upstream.spec.on_tool_change).await?)
    }

    /// Gives each definition its exposed name: the one it has, or a new one that nothing else in the tenant has.
    async fn named(
        &self,
        upstream: &Upstream,
        known: &[tenant_store::Tool],
        definitions: Vec<Definition>,
    ) -> Result<Vec<NewTool>, StoreError> {
        let tenants = self.catalog.store().tenants().await?;
        let tenant = tenants.iter().find(|tenant| tenant.id == upstream.tenant);
        let Some(tenant) = tenant else { return Ok(Vec::new()) };
        let given: HashMap<&LocalName, &ExposedName> =
            known.iter().filter(|tool| tool.upstream == upstream.id).map(|tool| (&tool.local, &tool.exposed)).collect();
        let mut taken: HashSet<ExposedName> = known.iter().map(|tool| tool.exposed.clone()).collect();
        let origin = Origin { tenant: &tenant.slug, upstream: &upstream.slug, prefix: upstream.spec.prefix.as_ref() };
        let tools = definitions.into_iter().filter_map(|definition| {
            let exposed = match given.get(&definition.local) {
                Some(exposed) => (*exposed).clone(),
                None => expose(origin, &definition.local, &taken, self.name_chars_max)?,
            };
            taken.insert(exposed.clone());
            Some(NewTool { local: definition.local.clone(), exposed, definition: definition.raw().to_owned() })
        });
        Ok(tools.collect())
    }
}
