//! The snapshot that requests read, and the one place that holds the current one.

mod read;
mod revoked;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use moka::sync::Cache;
use tenant_store::{
    AuditContent, EgressHosts, ExposedName, FlowPolicy, LocalName, Revision, Revoked, SealedCredential,
    SealedRecordingKey, Store, StoreError, Tenant, TenantId, TenantScope, TenantSlug, Timestamp, Tool, ToolClass,
    Upstream, UpstreamId,
};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub(super) use self::revoked::RevokedThings;
use super::arguments::ArgumentSchema;
use super::definition::Definition;
use super::item::{Item, Own};
use super::shown::shown;
use super::sought::Names;
use super::view::{Face, View};
use crate::policy::{Access, Administration, EntryFacts, GrantIndex, Reach, ReachKey, RevokedCallers};
use crate::telemetry::Metrics;

/// Longest name of a tool (MCP 2026-07-28 `server/tools`).
const OWN_NAME_BYTES_MAX: usize = 128;
/// Bytes of encoded lists kept per snapshot; the least used are built again when needed.
const VIEW_CACHE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One tool as it stands in the catalog.
#[derive(Debug)]
pub struct Entry {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The tenant's short name.
    pub tenant_slug: TenantSlug,
    /// The upstream that offers it.
    pub upstream: Arc<Upstream>,
    /// The name under which all tenants' tools are listed together.
    pub exposed: ExposedName,
    /// What clients are told of it.
    pub definition: Definition,
    /// What its arguments are held against.
    pub(crate) arguments: ArgumentSchema,
    class: ToolClass,
    state: EntryState,
    keeps_own_name: bool,
    renamed: Box<str>,
    /// What the tenant's own endpoint shows in its place, because it belongs to an app.
    at_tenant: Option<Box<str>>,
}

/// What else but grants decides whether a tool can be used.
#[derive(Debug)]
struct EntryState {
    is_enabled: bool,
    is_approved: bool,
    is_revoked: bool,
}

impl Entry {
    fn from_row(
        tenant: &Tenant,
        upstream: &Arc<Upstream>,
        tool: &Tool,
        (names, own, revoked): (&HashSet<&str>, &Own, &RevokedThings),
    ) -> Option<Self> {
        let definition = Definition::parse(&shown(&tool.definition, "name")?).ok()?;
        let keeps_own_name = names.contains(tool.local.as_str());
        let exposed = (!keeps_own_name).then_some(tool.exposed.as_str());
        let carried = |page: &str| own.carried(tenant, upstream, page);
        let class = class_set(upstream, tool).unwrap_or(definition.class);
        Some(Self {
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            class,
            state: EntryState {
                is_enabled: tool.enabled && upstream.spec.enabled,
                is_approved: tool.approved.as_ref() == Some(&tool.digest),
                is_revoked: revoked.has(upstream.id, tool.local.as_str()),
            },
            keeps_own_name,
            at_tenant: definition.with_apps(exposed, tenant.slug.as_str(), carried).map(Into::into),
            renamed: definition.renamed(tool.exposed.as_str(), tenant.slug.as_str()).into(),
            exposed: tool.exposed.clone(),
            upstream: Arc::clone(upstream),
            arguments: ArgumentSchema::default(),
            definition,
        })
    }

    /// The name that clients see.
    pub fn exposed(&self) -> &ExposedName {
        &self.exposed
    }

    /// The level that it asks for.
    pub fn class(&self) -> ToolClass {
        self.class
    }

    /// The name at the upstream.
    pub fn local(&self) -> &LocalName {
        &self.definition.local
    }

    /// What policy needs to know about it.
    pub fn facts(&self) -> EntryFacts<'_> {
        EntryFacts {
            tenant: self.tenant,
            upstream: self.upstream.id,
            upstream_slug: &self.upstream.slug,
            local: self.definition.local.as_str(),
            exposed: self.exposed.as_str(),
            class: self.class,
            enabled: self.state.is_enabled,
            approved: self.state.is_approved,
            revoked: self.state.is_revoked,
        }
    }

    /// Whether `face` shows it to anybody. Apps work at their tenant's own endpoint only, and so does what is there for them.
    pub(super) fn is_on(&self, face: Face) -> bool {
        face == Face::Tenant || !self.definition.is_for_apps_only()
    }

    /// The name and the definition that are shown on `face`.
    pub(super) fn shown(&self, face: Face) -> (&str, &str) {
        let at_tenant = self.at_tenant.as_deref();
        match face {
            Face::Tenant if self.keeps_own_name => {
                (self.local().as_str(), at_tenant.unwrap_or(self.definition.raw().get()))
            }
            Face::Tenant => (self.exposed.as_str(), at_tenant.unwrap_or(&self.renamed)),
            Face::Aggregate => (self.exposed.as_str(), &self.renamed),
        }
    }
}

/// The tools that the tenant's own endpoint shows under the upstreams' own names: those that any client takes, that only one
/// upstream of the tenant uses, and that are nobody's exposed name. It is the same for each caller, so that a name does not go to
/// another upstream with a grant.
fn own_names<'t>(tools: &'t [Tool]) -> HashSet<&'t str> {
    let mut counts: HashMap<&'t str, usize> = HashMap::new();
    for tool in tools {
        *counts.entry(tool.local.as_str()).or_default() += 1;
        *counts.entry(tool.exposed.as_str()).or_default() += 1;
    }
    let plain = |name: &&str| {
        name.len() <= OWN_NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    tools.iter().map(|tool| tool.local.as_str()).filter(plain).filter(|name| counts.get(name) == Some(&1)).collect()
}

/// The class that the operator set: for the tool's name at the upstream or, if there is none, for the one that clients see.
fn class_set(upstream: &Upstream, tool: &Tool) -> Option<ToolClass> {
    let classes = &upstream.spec.classes;
    let shown = || classes.iter().find(|(name, _)| name.as_str() == tool.exposed.as_str()).map(|(_, class)| class);
    classes.get(&tool.local).or_else(shown).copied()
}

/// What one tenant has in the snapshot. Reached only with an [`Access`] to that tenant, or in passing by [`View`].
#[derive(Debug)]
pub struct Shelf {
    tenant_slug: TenantSlug,
    tenant_name: String,
    upstreams: HashMap<UpstreamId, Arc<Upstream>>,
    entries: Vec<Arc<Entry>>,
    items: Vec<Arc<Item>>,
    only_with_resources: Option<UpstreamId>,
    credentials: Vec<SealedCredential>,
    egress_hosts: Option<EgressHosts>,
    flow_policy: FlowPolicy,
    audit_content: AuditContent,
    recording_key: Option<SealedRecordingKey>,
    revoked: RevokedThings,
}

impl Shelf {
    /// The tenant's short name.
    pub fn tenant_slug(&self) -> &TenantSlug {
        &self.tenant_slug
    }

    /// What people call the tenant.
    pub fn tenant_name(&self) -> &str {
        &self.tenant_name
    }

    /// The entries, in the order of upstream and of the upstream's own list.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The prompts, resources and templates, in the order of upstream and of the upstream's own lists.
    pub fn items(&self) -> &[Arc<Item>] {
        &self.items
    }

    /// Tools and items: the kind of each, and what policy needs to know about it.
    pub fn everything(&self) -> impl Iterator<Item = (&'static str, EntryFacts<'_>)> {
        let tools = self.entries.iter().map(|entry| ("tool", entry.facts()));
        tools.chain(self.items.iter().map(|item| (item.kind.as_str(), item.facts())))
    }

    /// The only upstream that has resources, if there is just one: then its own URIs say enough.
    pub fn only_with_resources(&self) -> Option<&Arc<Upstream>> {
        self.upstream(self.only_with_resources?)
    }

    /// The upstream, if it still belongs to the tenant.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Arc<Upstream>> {
        self.upstreams.get(&id)
    }

    /// Whether the tenant has that upstream, not switched off and not revoked.
    pub fn uses(&self, upstream: UpstreamId) -> bool {
        let is_enabled = self.upstream(upstream).is_some_and(|upstream| upstream.spec.enabled);
        is_enabled && !self.revoked.has_upstream(upstream)
    }

    /// Whether what has that name at that upstream is revoked.
    pub fn has_revoked(&self, upstream: UpstreamId, local: &str) -> bool {
        self.revoked.has(upstream, local)
    }

    /// The tenant's upstreams that are in use, in no particular order.
    pub fn upstreams_in_use(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams().filter(|upstream| self.uses(upstream.id))
    }

    /// The tenant's upstreams, in no particular order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The hosts at which the tenant's upstreams may be, where its operator narrowed them.
    pub fn egress_hosts(&self) -> Option<&EgressHosts> {
        self.egress_hosts.as_ref()
    }

    /// What of calls the tenant's record holds, and the key that this is sealed with.
    pub fn audit_content(&self) -> (AuditContent, Option<&SealedRecordingKey>) {
        (self.audit_content, self.recording_key.as_ref())
    }

    /// The sealed credentials that were stored for one upstream.
    pub fn credentials(&self, upstream: UpstreamId) -> Vec<&SealedCredential> {
        self.credentials.iter().filter(|credential| credential.upstream() == upstream).collect()
    }
}

/// What a snapshot regards besides what operators configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Regard {
    /// What is revoked: so requests are decided.
    Revocations,
    /// Nothing: so manifests are judged, which say what holds once everything is reinstated.
    Nothing,
}

/// What decisions about one tenant's things rest on, grants included: as long as it is the same, so are they. It opens nothing.
#[derive(Debug, Clone)]
pub struct Ground {
    shelf: Arc<Shelf>,
    revoked: Arc<RevokedCallers>,
}

impl PartialEq for Ground {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shelf, &other.shelf) && Arc::ptr_eq(&self.revoked, &other.revoked)
    }
}

/// An immutable copy of everything that requests decide by.
#[derive(Debug)]
pub struct Snapshot {
    /// The state of the database that this is a copy of.
    pub revision: Revision,
    regard: Regard,
    grants: GrantIndex,
    shelves: HashMap<TenantId, Arc<Shelf>>,
    /// When what is revoked was revoked.
    revoked_at: HashMap<Revoked, Timestamp>,
    views: Cache<(Face, ReachKey), Arc<View>, RandomState>,
    names: Names,
}

impl Snapshot {
    fn new((revision, regard): (Revision, Regard), grants: GrantIndex, shelves: HashMap<TenantId, Arc<Shelf>>) -> Self {
        let views = Cache::builder()
            .max_capacity(VIEW_CACHE_BYTES_MAX)
            .weigher(|_, view: &Arc<View>| u32::try_from(view.weight()).unwrap_or(u32::MAX))
            .build_with_hasher(RandomState::default());
        Self { revision, regard, grants, shelves, revoked_at: HashMap::new(), views, names: Names::default() }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// A tenant's shelf, for what is not decided by.
    pub(super) fn shelf_of(&self, tenant: TenantId) -> Option<&Shelf> {
        self.shelves.get(&tenant).map(AsRef::as_ref)
    }

    /// What a caller can reach.
    pub fn grants(&self) -> &GrantIndex {
        &self.grants
    }

    /// The shelf that an access opens.
    pub fn shelf(&self, access: &Access) -> Option<&Shelf> {
        self.shelves.get(&access.tenant()).map(AsRef::as_ref)
    }

    /// The shelf behind a door that policy opened without a grant.
    pub fn shelf_in(&self, scope: TenantScope) -> Option<&Shelf> {
        self.shelves.get(&scope.tenant()).map(AsRef::as_ref)
    }

    /// What `reach` sees on `face`: built once per distinct set of grants, then shared.
    pub fn view(&self, face: Face, reach: &Reach) -> Arc<View> {
        self.views.get_with((face, reach.key()), || Arc::new(View::build(self, face, reach)))
    }

    /// What decisions about a tenant's things rest on here; nothing, if it is not served.
    pub fn ground(&self, tenant: TenantId) -> Option<Ground> {
        let shelf = Arc::clone(self.shelves.get(&tenant)?);
        Some(Ground { shelf, revoked: self.grants.shared_revoked() })
    }

    /// The short name of a tenant that is served.
    pub fn tenant_slug(&self, tenant: TenantId) -> Option<&TenantSlug> {
        Some(self.shelves.get(&tenant)?.tenant_slug())
    }

    /// What becomes of a served tenant's text in arguments to another.
    pub fn flow_policy(&self, tenant: TenantId) -> Option<FlowPolicy> {
        Some(self.shelves.get(&tenant)?.flow_policy)
    }

    /// The tenants of which something is not what it was in `before`.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<TenantId> {
        let is_same = |id: &TenantId| match (self.shelves.get(id), before.shelves.get(id)) {
            (Some(after), Some(before)) => Arc::ptr_eq(after, before),
            _ => false,
        };
        self.shelves.keys().chain(before.shelves.keys()).filter(|id| !is_same(id)).copied().collect()
    }

    /// Every tenant's shelf, for work that no caller asked for.
    pub fn shelves(&self) -> impl Iterator<Item = (TenantId, &Shelf)> {
        self.shelves.iter().map(|(tenant, shelf)| (*tenant, &**shelf))
    }

    /// Whether that upstream of that tenant is in use.
    pub(super) fn uses(&self, (tenant, upstream): (TenantId, UpstreamId)) -> bool {
        self.shelves.get(&tenant).is_some_and(|shelf| shelf.uses(upstream))
    }
}

/// The holder of the current snapshot.
#[derive(Debug)]
pub struct Catalog {
    store: Store,
    administration: Administration,
    metrics: Metrics,
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<Revision>,
    /// When the database answered last.
    answered_at: watch::Sender<Instant>,
    /// One at a time reads and replaces, so that a slow reading of an old state never replaces a newer one. Holds the revision up
    /// to which dead data keys were dropped.
    reloading: Mutex<Revision>,
}

impl Catalog {
    /// Reads the first snapshot; without one there is nothing to serve.
    pub async fn open(store: Store, administration: Administration) -> Result<Self, StoreError> {
        let snapshot = Snapshot::load(&store, administration).await?;
        let reloading = Mutex::new(snapshot.revision);
        let (changed, _) = watch::channel(snapshot.revision);
        let (answered_at, _) = watch::channel(Instant::now());
        let (metrics, current) = (Metrics::unread(), ArcSwap::from_pointee(snapshot));
        Ok(Self { store, administration, metrics, current, changed, answered_at, reloading })
    }

    /// The same, counted and measured there.
    #[must_use]
    pub fn measured(self, metrics: Metrics) -> Self {
        metrics.serves(self.current.load().revision);
        Self { metrics, ..self }
    }

    /// The snapshot of this moment. A request takes it once and decides by nothing else.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Tells of each new snapshot.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// How long ago the database answered, which is asked every few seconds. The snapshot may be as old.
    pub fn silence(&self) -> Duration {
        self.answered_at.borrow().elapsed()
    }

    /// Replaces the snapshot if the database has moved on; `true` if it had. Then the data keys that are no more are dropped from
    /// memory. When the database cannot be read, the last snapshot stays, and the next call tries again what is left to do.
    pub async fn reload(&self) -> Result<bool, StoreError> {
        let mut swept_at = self.reloading.lock().await;
        let moved = self.store.revision().await? != self.current.load().revision;
        if moved {
            let snapshot = self.snapshot().next(&self.store, self.administration).await?;
            let (revision, snapshot) = (snapshot.revision, Arc::new(snapshot));
            let before = self.current.swap(Arc::clone(&snapshot));
            self.changed.send_replace(revision);
            self.measure(&before, &snapshot);
        }
        // Not before what it holds could be read, too.
        self.answered_at.send_replace(Instant::now());
        let revision = self.current.load().revision;
        self.store.drop_idle_keys().await;
        if *swept_at != revision {
            // After a step back nobody knows which keys are dead.
            let since = if *swept_at < revision { *swept_at } else { Revision(0) };
            self.store.drop_dead_keys(since).await?;
            *swept_at = revision;
        }
        Ok(moved)
    }

    /// What was revoked since the snapshot before is in force now.
    fn measure(&self, before: &Snapshot, now: &Snapshot) {
        self.metrics.serves(now.revision);
        let at = self.store.now();
        let new = now.revoked_at.iter().filter(|(what, _)| !before.revoked_at.contains_key(*what));
        for (_, moment) in new {
            self.metrics.revoked(at.since(*moment));
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn administration(&self) -> Administration {
        self.administration
    }
}
