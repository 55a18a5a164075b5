//! The snapshot that requests read, and the one place that holds the current one.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use serde_json::value::RawValue;
use tenant_store::{
    ExposedName, LocalName, Revision, SealedCredential, Store, StoreError, Tenant, TenantId, TenantSlug, Tool,
    ToolClass, Upstream, UpstreamId,
};

use super::definition::Definition;
use super::view::{Face, View};
use crate::policy::{Access, Administration, EntryFacts, GrantIndex, Reach, ReachKey};

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
    /// What the upstream says about it.
    pub definition: Definition,
    class: ToolClass,
    enabled: bool,
    approved: bool,
    renamed: Box<str>,
}

impl Entry {
    fn from_row(tenant: &Tenant, upstream: &Arc<Upstream>, tool: &Tool) -> Option<Self> {
        let definition = Definition::parse(&tool.definition).ok()?;
        let class = upstream.spec.classes.get(&tool.local).copied().unwrap_or(definition.class);
        Some(Self {
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            class,
            enabled: tool.enabled && upstream.spec.enabled,
            approved: tool.approved.as_ref() == Some(&tool.digest),
            renamed: definition.renamed(tool.exposed.as_str(), tenant.slug.as_str()).into(),
            exposed: tool.exposed.clone(),
            upstream: Arc::clone(upstream),
            definition,
        })
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
            local: &self.definition.local,
            class: self.class,
            enabled: self.enabled,
            approved: self.approved,
        }
    }

    /// The definition under the exposed name.
    pub(super) fn renamed(&self) -> &str {
        &self.renamed
    }

    /// The definition as the upstream wrote it.
    pub(super) fn raw(&self) -> &RawValue {
        self.definition.raw()
    }
}

/// What one tenant has in the snapshot. Reached only with an [`Access`] to that tenant, or in passing by [`View`].
#[derive(Debug)]
pub struct Shelf {
    upstreams: HashMap<UpstreamId, Arc<Upstream>>,
    entries: Vec<Arc<Entry>>,
    credentials: Vec<SealedCredential>,
}

impl Shelf {
    /// The entries, in the order of upstream and of the upstream's own list.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The upstream, if it still belongs to the tenant.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Arc<Upstream>> {
        self.upstreams.get(&id)
    }

    /// The tenant's upstreams, in no particular order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The sealed credentials that were stored for one upstream.
    pub fn credentials(&self, upstream: UpstreamId) -> Vec<&SealedCredential> {
        self.credentials.iter().filter(|credential| credential.upstream() == upstream).collect()
    }
}

/// An immutable copy of everything that requests decide by.
#[derive(Debug)]
pub struct Snapshot {
    /// The state of the database that this is a copy of.
    pub revision: Revision,
    grants: GrantIndex,
    shelves: HashMap<TenantId, Shelf>,
    views: Cache<(Face, ReachKey), Arc<View>>,
}

impl Snapshot {
    /// Reads the whole of the database, one tenant at a time. The revision is read first: a change that lands meanwhile leads
    /// to one reading too many, never to one too few.
    pub async fn load(store: &Store, administration: Administration) -> Result<Self, StoreError> {
        let revision = store.revision().await?;
        let mut grants = GrantIndex::default();
        let mut shelves = HashMap::new();
        for tenant in store.tenants().await? {
            let rows = store.tenant(administration.scope(tenant.id));
            grants.add(&tenant, rows.grants().await?);
            let upstreams: HashMap<_, _> =
                rows.upstreams().await?.into_iter().map(|upstream| (upstream.id, Arc::new(upstream))).collect();
            let tools = rows.tools().await?;
            let entries = tools
                .iter()
                .filter_map(|tool| Entry::from_row(&tenant, upstreams.get(&tool.upstream)?, tool).map(Arc::new));
            let shelf = Shelf { entries: entries.collect(), credentials: rows.sealed_credentials().await?, upstreams };
            shelves.insert(tenant.id, shelf);
        }
        let views = Cache::builder()
            .max_capacity(VIEW_CACHE_BYTES_MAX)
            .weigher(|_, view: &Arc<View>| u32::try_from(view.weight()).unwrap_or(u32::MAX))
            .build();
        Ok(Self { revision, grants, shelves, views })
    }

    /// What a caller can reach.
    pub fn grants(&self) -> &GrantIndex {
        &self.grants
    }

    /// The shelf that an access opens.
    pub fn shelf(&self, access: &Access) -> Option<&Shelf> {
        self.shelves.get(&access.tenant())
    }

    /// What `reach` sees on `face`: built once per distinct set of grants, then shared.
    pub fn view(&self, face: Face, reach: &Reach) -> Arc<View> {
        self.views.get_with((face, reach.key()), || Arc::new(View::build(self, face, reach)))
    }

    /// Every tenant's shelf, for work that no caller asked for.
    pub(super) fn shelves(&self) -> impl Iterator<Item = (TenantId, &Shelf)> {
        self.shelves.iter().map(|(tenant, shelf)| (*tenant, shelf))
    }
}

/// The holder of the current snapshot.
#[derive(Debug)]
pub struct Catalog {
    store: Store,
    administration: Administration,
    current: ArcSwap<Snapshot>,
}

impl Catalog {
    /// Reads the first snapshot; without one there is nothing to serve.
    pub async fn open(store: Store, administration: Administration) -> Result<Self, StoreError> {
        let snapshot = Snapshot::load(&store, administration).await?;
        Ok(Self { store, administration, current: ArcSwap::from_pointee(snapshot) })
    }

    /// The snapshot of this moment. A request takes it once and decides by nothing else.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the snapshot if the database has moved on; `true` if it had. When the database cannot be read, the last
    /// snapshot stays.
    pub async fn reload(&self) -> Result<bool, StoreError> {
        if self.store.revision().await? == self.current.load().revision {
            return Ok(false);
        }
        self.current.store(Arc::new(Snapshot::load(&self.store, self.administration).await?));
        Ok(true)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn administration(&self) -> Administration {
        self.administration
    }
}
