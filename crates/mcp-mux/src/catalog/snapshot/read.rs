//! Reading a snapshot: the whole of the database at one moment, or what changed since another one was read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use tenant_store::{Offer, Still, Store, StoreError, Tenant, TenantId, TenantRows, TenantScope, TenantState, Tool};

use super::revoked::RevokedThings;
use super::{Entry, Regard, Shelf, Snapshot, own_names};
use crate::catalog::item::{Item, Own};
use crate::policy::{Administration, GrantIndex, RevokedCallers};

impl Snapshot {
    /// Reads the whole of the database as it is at one moment, hundreds of tenants at a time. A tenant with a row that does not parse is
    /// left out and costs nobody else anything: a grant that was taken away elsewhere must not live on because of it.
    pub async fn load(store: &Store, administration: Administration) -> Result<Self, StoreError> {
        Self::read_all(&store.still().await?, administration, Regard::Revocations).await
    }

    /// The same as it would be if nothing were revoked: what grants and manifests say.
    pub async fn load_unrevoked(store: &Store, administration: Administration) -> Result<Self, StoreError> {
        Self::read_all(&store.still().await?, administration, Regard::Nothing).await
    }

    /// What changed since this one was read is read anew, and what did not is shared with it.
    pub(super) async fn next(&self, store: &Store, administration: Administration) -> Result<Self, StoreError> {
        self.next_of(&store.still().await?, administration).await
    }

    async fn read_all(still: &Still, administration: Administration, regard: Regard) -> Result<Self, StoreError> {
        let revision = still.revision().await?;
        let tenants = still.tenants(None).await?;
        let mut all = Self::new((revision, regard), GrantIndex::default(), HashMap::new());
        for error in tenants.iter().filter_map(|tenant| tenant.as_ref().err()) {
            left_out(error);
        }
        all.take(still, tenants.into_iter().flatten(), administration).await?;
        Ok(all)
    }

    /// The same for a moment that somebody else looks at too: that of a change that is not made yet.
    pub async fn next_of(&self, still: &Still, administration: Administration) -> Result<Self, StoreError> {
        let revision = still.revision().await?;
        let tenants: Result<Vec<_>, _> = still.tenants(Some(self.revision)).await?.into_iter().collect();
        // Whose row it is that does not parse nobody knows, nor what was changed in a database that was put back to an earlier state.
        let Some(tenants) = tenants.ok().filter(|_| self.revision <= revision) else {
            return Self::read_all(still, administration, self.regard).await;
        };
        // What is there no more was changed, too.
        let alive = still.tenant_ids().await?;
        let mut old: HashSet<TenantId> = self.shelves.keys().filter(|id| !alive.contains(id)).copied().collect();
        old.extend(tenants.iter().map(|tenant| tenant.id));
        let (mut grants, mut shelves) = (self.grants.clone(), self.shelves.clone());
        grants.remove(&old);
        shelves.retain(|tenant, _| !old.contains(tenant));
        let mut next = Self::new((revision, self.regard), grants, shelves);
        next.take(still, tenants, administration).await?;
        Ok(next)
    }

    /// Reads these tenants, which are not in it, many at once.
    #[expect(clippy::disallowed_methods, reason = "this is where the grants of the database begin to count")]
    async fn take(
        &mut self,
        still: &Still,
        tenants: impl IntoIterator<Item = Tenant>,
        administration: Administration,
    ) -> Result<(), StoreError> {
        let revocations = match self.regard {
            Regard::Revocations => still.revocations().await?,
            Regard::Nothing => Vec::new(),
        };
        self.revoked_at = revocations.iter().map(|revocation| (revocation.what.clone(), revocation.at)).collect();
        self.grants.set_revoked(RevokedCallers::of(&revocations));
        let mut revoked = RevokedThings::by_tenant(&revocations);
        // Nobody reaches what is suspended, shredded or revoked, and nothing of it is called.
        let is_revoked = |tenant: &Tenant| revoked.get(&tenant.id).is_some_and(RevokedThings::has_all);
        let active = tenants.into_iter().filter(|tenant| tenant.state == TenantState::Active && !is_revoked(tenant));
        let active: BTreeMap<TenantId, Tenant> = active.map(|tenant| (tenant.id, tenant)).collect();
        let scopes: Vec<TenantScope> = active.keys().map(|id| administration.scope(*id)).collect();
        for part in still.parts(&scopes).await? {
            for (scope, rows) in still.rows_of(part).await? {
                let Some(tenant) = active.get(&scope.tenant()) else { continue };
                match rows {
                    Ok(mut rows) => {
                        self.grants.add(tenant, mem::take(&mut rows.grants));
                        let revoked = revoked.remove(&tenant.id).unwrap_or_default();
                        self.shelves.insert(tenant.id, Arc::new(Shelf::of(tenant, rows, revoked)));
                    }
                    Err(error @ StoreError::Corrupt { .. }) => left_out(&error),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Shelf {
    /// One tenant's part of a snapshot.
    fn of(tenant: &Tenant, rows: TenantRows, revoked: RevokedThings) -> Self {
        let TenantRows { tools, offers, sealed_credentials: credentials, recording_key, .. } = rows;
        let upstreams: HashMap<_, _> =
            rows.upstreams.into_iter().map(|upstream| (upstream.id, Arc::new(upstream))).collect();
        let is_used = |id| {
            let is_enabled = upstreams.get(&id).is_some_and(|upstream| upstream.spec.enabled);
            is_enabled && !revoked.has_upstream(id)
        };
        let own = Own::of(&offers, is_used);
        let names = own_names(&tools);
        let entry = |tool: &Tool| {
            Entry::from_row(tenant, upstreams.get(&tool.upstream)?, tool, (&names, &own, &revoked)).map(Arc::new)
        };
        let item = |offer: &Offer| {
            Item::from_row(tenant, upstreams.get(&offer.upstream)?, offer, (&own, &revoked)).map(Arc::new)
        };
        Self {
            tenant_slug: tenant.slug.clone(),
            tenant_name: tenant.spec.display_name.clone(),
            entries: tools.iter().filter_map(entry).collect(),
            items: offers.iter().filter_map(item).collect(),
            only_with_resources: own.only,
            credentials,
            egress_hosts: tenant.spec.egress_hosts.clone(),
            flow_policy: tenant.spec.flow_policy,
            audit_content: tenant.spec.audit_content,
            recording_key,
            upstreams,
            revoked,
        }
    }
}

fn left_out(error: &StoreError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "a tenant's rows are unreadable: it is not served until they are mended"
    );
}
