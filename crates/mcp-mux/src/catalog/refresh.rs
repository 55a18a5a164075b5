//! Keeping the catalog fresh, in the background: each upstream is listed now and then, and what it says is stored.
//!
//! An upstream that fails keeps the tools it had. Changes of configuration are noticed by looking at the revision.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tenant_store::{
    EgressHosts, ExposedName, LocalName, NameGiven, NewOffer, NewTool, OfferKey, OfferKind, Replaced, SealedCredential,
    StoreError, TenantId, TenantSlug, TenantStore, Upstream, UpstreamId,
};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::definition::{Definition, DefinitionError};
use super::hearing::{self, Heard, Key};
use super::item;
use super::name::{Origin, expose};
use super::snapshot::{Catalog, Snapshot};
use crate::upstream::{Link, ListKind, Peer, Pool, Proofs, UpstreamError, list};

/// How often the revision is looked at.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How many upstreams are listed at the same time.
const LISTED_AT_ONCE_MAX: usize = 16;
/// How long after its word a change is looked at: often there are several at once.
const HEARD_WAIT: Duration = Duration::from_millis(200);
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
    heard: Heard,
    wake: Notify,
}

/// When an upstream is listed next, and the wait if that fails.
#[derive(Debug, Clone)]
struct Schedule {
    upstream: Arc<Upstream>,
    versions: Vec<u32>,
    hosts: Option<EgressHosts>,
    due: Instant,
    retry: Duration,
    /// It is being listed now; to be cancelled when that is not what is configured any more.
    runs: Option<CancellationToken>,
    /// It said that a list changed since it was begun to be listed.
    is_stale: bool,
}

impl Schedule {
    /// Whether what one of them begins is right for the other: at the same address, with the same credential, to the same hosts.
    fn is_under_the_conditions_of(&self, other: &Self) -> bool {
        *self.upstream == *other.upstream && self.versions == other.versions && self.hosts == other.hosts
    }
}

/// One upstream whose time has come.
struct Due {
    key: (TenantId, UpstreamId),
    upstream: Arc<Upstream>,
    versions: Vec<u32>,
    snapshot: Arc<Snapshot>,
    superseded: CancellationToken,
}

/// Whose list is taken over.
#[derive(Clone, Copy)]
struct Listing<'l> {
    rows: &'l TenantStore,
    tenant: &'l TenantSlug,
    upstream: &'l Upstream,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("the upstream {0}")]
    Upstream(UpstreamError),
    #[error("the upstream was configured anew while it was listed")]
    Superseded,
    #[error("what the upstream listed cannot be stored")]
    Store(#[from] StoreError),
}

impl Refresher {
    /// Lists each upstream every `every`; exposed names are at most `name_chars_max` long.
    pub fn new(catalog: Arc<Catalog>, pool: Pool, every: Duration, name_chars_max: usize) -> Self {
        Self {
            catalog,
            pool,
            every,
            name_chars_max,
            naming: Mutex::new(()),
            heard: Heard::default(),
            wake: Notify::new(),
        }
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
        let listen = hearing::listen(&self.catalog, &self.pool, &self.heard);
        tokio::join!(follow, listen, self.list(&mut schedules));
    }

    /// Lists what is due, for ever. What takes long keeps nothing else waiting.
    async fn list(&self, schedules: &mut HashMap<(TenantId, UpstreamId), Schedule>) {
        let mut listings = FuturesUnordered::new();
        let mut look_in = POLL_EVERY;
        loop {
            let room = LISTED_AT_ONCE_MAX.saturating_sub(listings.len());
            listings.extend(self.due(schedules, room).into_iter().map(|due| self.refresh_one(due)));
            tokio::select! {
                Some(listed) = listings.next() => self.note(schedules, listed).await,
                () = tokio::time::sleep(mem::replace(&mut look_in, POLL_EVERY)) => {}
                changed = self.heard.next() => {
                    hasten(schedules, &changed);
                    look_in = HEARD_WAIT;
                }
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
            tracing::error!(
                error = &error as &dyn Error,
                "the database cannot be read; what was read last stays in use"
            );
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
                let hosts = shelf.egress_hosts().cloned();
                let fresh =
                    Schedule { upstream, versions, hosts, due: now, retry: RETRY_FIRST, runs: None, is_stale: false };
                let schedule = schedules.entry(key).or_insert_with(|| fresh.clone());
                if !schedule.is_under_the_conditions_of(&fresh) {
                    // What runs was begun under the old configuration, at the old address and with the old credential.
                    schedule.runs.iter().for_each(CancellationToken::cancel);
                    *schedule = Schedule { runs: schedule.runs.take(), ..fresh };
                }
                if schedule.due <= now && schedule.runs.is_none() && due.len() < room {
                    let superseded = CancellationToken::new();
                    schedule.runs = Some(superseded.clone());
                    schedule.is_stale = false;
                    let (upstream, versions) = (Arc::clone(&schedule.upstream), schedule.versions.clone());
                    due.push(Due { key, upstream, versions, snapshot: Arc::clone(&snapshot), superseded });
                }
            }
        }
        schedules.retain(|key, schedule| {
            let stays = known.contains(key);
            if !stays {
                schedule.runs.iter().for_each(CancellationToken::cancel);
            }
            stays
        });
        self.pool.keep(&known);
        due
    }

    async fn refresh_one(&self, due: Due) -> (Due, Result<bool, RefreshError>) {
        let result = tokio::select! {
            biased;
            () = due.superseded.cancelled() => Err(RefreshError::Superseded),
            result = self.refresh(&due.snapshot, &due.upstream) => result,
        };
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
        schedule.runs = None;
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
        schedule.due = Instant::now() + if mem::take(&mut schedule.is_stale) { HEARD_WAIT } else { wait };
    }

    /// Lists one upstream and stores what it says; `true` if anything changed.
    async fn refresh(&self, snapshot: &Snapshot, upstream: &Arc<Upstream>) -> Result<bool, RefreshError> {
        let scope = self.catalog.administration().scope(upstream.tenant);
        let rows = self.catalog.store().tenant(scope);
        let shelf = snapshot.shelf_in(scope).ok_or(RefreshError::Superseded)?;
        let stored = shelf.credentials(upstream.id);

        let proofs = Proofs { caller: None, rows: &rows, stored: &stored };
        let link = self
            .pool
            .link(scope, upstream, (&proofs, Peer::default()), shelf.egress_hosts())
            .map_err(RefreshError::Upstream)?;
        let tools = all_of(&link, &proofs, ListKind::Tools).await?;
        let listing = Listing { rows: &rows, tenant: shelf.tenant_slug(), upstream };
        let mut changed = self.take_tools(listing, &tools).await?;
        // Not before the tools: what they are asked for with is agreed on by then.
        for (kind, list) in [
            (OfferKind::Prompt, ListKind::Prompts),
            (OfferKind::Resource, ListKind::Resources),
            (OfferKind::Template, ListKind::Templates),
        ] {
            let listed = all_of(&link, &proofs, list).await?;
            changed |= self.take_offers(listing, kind, &listed).await?;
        }
        Ok(changed)
    }

    async fn take_tools(
        &self,
        Listing { rows, tenant, upstream }: Listing<'_>,
        listed: &[Box<RawValue>],
    ) -> Result<bool, RefreshError> {
        let mut definitions = Vec::new();
        let mut locals = HashSet::new();
        for raw in listed {
            match Definition::parse(raw) {
                Ok(definition) if locals.insert(definition.local.clone()) => definitions.push(definition),
                Ok(definition) => {
                    tracing::warn!(upstream.id = %upstream.id, mcp.tool = %definition.local, "a tool is listed twice");
                }
                Err(error) => left_out(upstream, &error),
            }
        }
        let _naming = self.naming.lock().await;
        let tools = self.named(tenant, upstream, &rows.names_given().await?, definitions);
        Ok(rows.replace_tools(upstream, &tools).await? == Replaced::Changed)
    }

    async fn take_offers(
        &self,
        listing: Listing<'_>,
        kind: OfferKind,
        listed: &[Box<RawValue>],
    ) -> Result<bool, RefreshError> {
        let Listing { rows, upstream, .. } = listing;
        let mut keys = HashSet::new();
        let mut offers = Vec::new();
        for raw in listed {
            match item::parse(kind, raw) {
                Ok((_, key)) if keys.insert(key.clone()) => {
                    offers.push(NewOffer { key, exposed: None, definition: raw.clone() });
                }
                Ok((_, key)) => tracing::warn!(upstream.id = %upstream.id, %kind, %key, "it is listed twice"),
                Err(error) => left_out(upstream, &error),
            }
        }
        let _naming = self.naming.lock().await;
        if kind == OfferKind::Prompt && !offers.is_empty() {
            offers = self.named_prompts(listing, offers).await?;
        }
        Ok(rows.replace_offers(upstream, kind, &offers).await? == Replaced::Changed)
    }

    /// Gives each prompt its exposed name: the one it has, or a new one that no other prompt of the tenant has.
    async fn named_prompts(
        &self,
        Listing { rows, tenant, upstream }: Listing<'_>,
        offers: Vec<NewOffer>,
    ) -> Result<Vec<NewOffer>, StoreError> {
        let known = rows.offers().await?;
        let given: HashMap<&OfferKey, &ExposedName> = known
            .iter()
            .filter(|offer| (offer.upstream, offer.kind) == (upstream.id, OfferKind::Prompt))
            .filter_map(|offer| Some((&offer.key, offer.exposed.as_ref()?)))
            .collect();
        let mut taken: HashSet<ExposedName> = known.iter().filter_map(|offer| offer.exposed.clone()).collect();
        let origin = Origin { tenant, upstream: &upstream.slug, prefix: upstream.spec.prefix.as_ref() };
        let named = offers.into_iter().filter_map(|offer| {
            let exposed = match given.get(&offer.key) {
                Some(exposed) => (*exposed).clone(),
                None => expose(origin, &offer.key.as_str().parse().ok()?, &taken, self.name_chars_max)?,
            };
            taken.insert(exposed.clone());
            Some(NewOffer { exposed: Some(exposed), ..offer })
        });
        Ok(named.collect())
    }

    /// Gives each definition its exposed name: the one it has, or a new one that nothing else in the tenant has or had.
    fn named(
        &self,
        tenant: &TenantSlug,
        upstream: &Upstream,
        known: &[NameGiven],
        definitions: Vec<Definition>,
    ) -> Vec<NewTool> {
        let given: HashMap<&LocalName, &ExposedName> =
            known.iter().filter(|name| name.upstream == upstream.id).map(|name| (&name.local, &name.exposed)).collect();
        let mut taken: HashSet<ExposedName> = known.iter().map(|name| name.exposed.clone()).collect();
        let origin = Origin { tenant, upstream: &upstream.slug, prefix: upstream.spec.prefix.as_ref() };
        let tools = definitions.into_iter().filter_map(|definition| {
            let exposed = match given.get(&definition.local) {
                Some(exposed) => (*exposed).clone(),
                None => expose(origin, &definition.local, &taken, self.name_chars_max)?,
            };
            taken.insert(exposed.clone());
            Some(NewTool { local: definition.local.clone(), exposed, definition: definition.raw().to_owned() })
        });
        tools.collect()
    }
}

/// Those that said that a list changed are due soon. One that says so all the time is listed once in a while nevertheless.
fn hasten(schedules: &mut HashMap<Key, Schedule>, changed: &HashSet<Key>) {
    let soon = Instant::now() + HEARD_WAIT;
    for key in changed {
        if let Some(schedule) = schedules.get_mut(key) {
            schedule.due = schedule.due.min(soon);
            schedule.is_stale = true;
        }
    }
}

fn left_out(upstream: &Upstream, error: &DefinitionError) {
    tracing::warn!(upstream.id = %upstream.id, error = error as &dyn Error, "a definition that the upstream lists is left out");
}

async fn all_of(link: &Arc<Link>, proofs: &Proofs<'_>, kind: ListKind) -> Result<Vec<Box<RawValue>>, RefreshError> {
    let listed = list(link, proofs, kind).await.map_err(RefreshError::Upstream)?;
    if listed.truncated {
        let upstream = link.upstream().id;
        tracing::warn!(upstream.id = %upstream, list = ?kind, "the upstream lists more than is taken; the rest is left out");
    }
    Ok(listed.items)
}
