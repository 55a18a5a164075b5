//! Reading a snapshot: the whole of the database at one moment, or what changed since another one was read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tenant_store::{Grant, Offer, Still, Store, StoreError, Tenant, TenantId, TenantState, TenantStore, Tool};

use super::revoked::RevokedThings;
use super::{Entry, Shelf, Snapshot, own_names};
use crate::catalog::item::{Item, Own};
use crate::policy::{Administration, GrantIndex, RevokedCallers};

impl Snapshot {
    /// Reads the whole of the database as it is at one moment, one tenant at a time. A tenant with a row that does not parse is
    /// left out and costs nobody else anything: a grant that was taken away elsewhere must not live on because of it.
    pub async fn load(store: &Store, administration: Administration) -> Result<Self, StoreError> {
        Self::all_of(&store.still().await?, administration).await
    }

    /// What changed since this one was read is read anew, and what did not is shared with it.
    pub(super) async fn next(&self, store: &Store, administration: Administration) -> Result<Self, StoreError> {
        self.next_of(&store.still().await?, administration).await
    }

    async fn all_of(still: &Still, administration: Administration) -> Result<Self, StoreError> {
        let revision = still.revision().await?;
        let tenants = still.tenants(None).await?;
        let mut all = Self::new(revision, GrantIndex::default(), HashMap::new());
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
            return Self::all_of(still, administration).await;
        };
        // What is there no more was changed, too.
        let alive = still.tenant_ids().await?;
        let mut old: HashSet<TenantId> = self.shelves.keys().filter(|id| !alive.contains(id)).copied().collect();
        old.extend(tenants.iter().map(|tenant| tenant.id));
        let (mut grants, mut shelves) = (self.grants.clone(), self.shelves.clone());
        grants.remove(&old);
        shelves.retain(|tenant, _| !old.contains(tenant));
        let mut next = Self::new(revision, grants, shelves);
        next.take(still, tenants, administration).await?;
        Ok(next)
    }

    /// Reads these tenants, which are not in it.
    #[expect(clippy::disallowed_methods, reason = "this is where the grants of the database begin to count")]
    async fn take(
        &mut self,
        still: &Still,
        tenants: impl IntoIterator<Item = Tenant>,
        administration: Administration,
    ) -> Result<(), StoreError> {
        let revocations = still.revocations().await?;
        self.grants.set_revoked(RevokedCallers::of(&revocations));
        let mut revoked = RevokedThings::by_tenant(&revocations);
        for tenant in tenants {
            let revoked = revoked.remove(&tenant.id).unwrap_or_default();
            // Nobody reaches what is suspended, shredded or revoked, and nothing of it is called.
            if tenant.state != TenantState::Active || revoked.has_all() {
                continue;
            }
            match read(&tenant, &still.tenant(administration.scope(tenant.id)), revoked).await {
                Ok((shelf, its_grants)) => {
                    self.grants.add(&tenant, its_grants);
                    self.shelves.insert(tenant.id, Arc::new(shelf));
                }
                Err(error @ StoreError::Corrupt { .. }) => left_out(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One tenant's part of a snapshot.
async fn read(tenant: &Tenant, rows: &TenantStore, revoked: RevokedThings) -> Result<(Shelf, Vec<Grant>), StoreError> {
    let grants = rows.grants().await?;
    let upstreams: HashMap<_, _> =
        rows.upstreams().await?.into_iter().map(|upstream| (upstream.id, Arc::new(upstream))).collect();
    let tools = rows.tools().await?;
    let offers = rows.offers().await?;
    let is_used = |id| upstreams.get(&id).is_some_and(|upstream| upstream.spec.enabled) && !revoked.has_upstream(id);
    let own = Own::of(&offers, is_used);
    let names = own_names(&tools);
    let entry = |tool: &Tool| {
        Entry::from_row(tenant, upstreams.get(&tool.upstream)?, tool, (&names, &own, &revoked)).map(Arc::new)
    };
    let entries = tools.iter().filter_map(entry).collect();
    let item =
        |offer: &Offer| Item::from_row(tenant, upstreams.get(&offer.upstream)?, offer, (&own, &revoked)).map(Arc::new);
    let items = offers.iter().filter_map(item).collect();
    let credentials = rows.sealed_credentials().await?;
    let egress_hosts = tenant.spec.egress_hosts.clone();
    let tenant_name = tenant.spec.display_name.clone();
    let tenant_slug = tenant.slug.clone();
    let only_with_resources = own.only;
    let shelf = Shelf {
        tenant_slug,
        tenant_name,
        upstreams,
        entries,
        items,
        only_with_resources,
        credentials,
        egress_hosts,
        revoked,
    };
    Ok((shelf, grants))
}

fn left_out(error: &StoreError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "a tenant's rows are unreadable: it is not served until they are mended"
    );
}
