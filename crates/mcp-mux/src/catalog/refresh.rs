//! Keeping the catalog fresh, in the background: each upstream is listed now and then, and what it says is stored.
//!
//! An upstream that fails keeps the tools it had. Changes of configuration are noticed by looking at the revision.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
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
        let list = async {
            loop {
                self.reload().await;
                self.refresh_due(&mut schedules).await;
                tokio::select! {
                    () = tokio::time::sleep(POLL_EVERY) => {}
                    () = self.wake.notified() => {}
                }
            }
        };
        tokio::join!(follow, list);
    }

    /// Lists every upstream once, whatever the schedule; for start-up scripts and tests that need the lists complete.
    pub async fn refresh_all(&self) {
        self.reload().await;
        self.refresh_due(&mut HashMap::new()).await;
        self.reload().await;
    }

    async fn reload(&self) {
        if let Err(error) = self.catalog.reload().await {
            tracing::error!(error = &error as &dyn Error, "the catalog cannot be read; the last snapshot stays in use");
        }
    }

    async fn refresh_due(&self, schedules: &mut HashMap<(TenantId, UpstreamId), Schedule>) {
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
                let fresh = Schedule { upstream: Arc::clone(upstream), versions, due: now, retry: RETRY_FIRST };
                let schedule = schedules.entry(key).or_insert_with(|| fresh.clone());
                if *schedule.upstream != *fresh.upstream || schedule.versions != fresh.versions {
                    *schedule = fresh;
                }
                if schedule.due <= now {
                    due.push((key, Arc::clone(upstream)));
                }
            }
        }
        schedules.retain(|key, _| known.contains(key));

        let listings = due.into_iter().map(|(key, upstream)| {
            let snapshot = Arc::clone(&snapshot);
            async move { (key, self.refresh(&snapshot, &upstream).await) }
        });
        let mut listings = futures::stream::iter(listings).buffer_unordered(LISTED_AT_ONCE_MAX);
        while let Some((key, result)) = listings.next().await {
            let Some(schedule) = schedules.get_mut(&key) else { continue };
            let wait = match result {
                Ok(changed) => {
                    schedule.retry = RETRY_FIRST;
                    if changed {
                        self.reload().await;
                    }
                    self.every
                }
                Err(error) => {
                    let (tenant, upstream) = key;
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
