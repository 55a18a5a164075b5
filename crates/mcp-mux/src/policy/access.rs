//! From a caller to what it can reach: one [`Access`] per tenant in which a grant covers it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tenant_store::{
    Grant, GrantId, Group, IssuerName, Subject, Tenant, TenantId, TenantScope, TenantSlug, TenantState,
};

use crate::caller::Caller;

/// Every grant of every active tenant, found by whom it covers. Built once per snapshot.
#[derive(Debug, Default)]
pub struct GrantIndex {
    by_group: HashMap<(IssuerName, Group), Vec<Arc<CoveringGrant>>>,
    by_subject: HashMap<(IssuerName, Subject), Vec<Arc<CoveringGrant>>>,
}

/// A grant together with the tenant it belongs to.
#[derive(Debug)]
struct CoveringGrant {
    tenant: TenantId,
    tenant_slug: TenantSlug,
    grant: Grant,
}

/// What policy decided one caller may do in one tenant; the only key to that tenant's rows, credentials, pools and caches.
#[derive(Debug, Clone)]
pub struct Access {
    scope: TenantScope,
    tenant_slug: TenantSlug,
    grants: Vec<Arc<CoveringGrant>>,
}

/// All the accesses of a caller, in the order of the tenants' slugs.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    accesses: Vec<Access>,
}

/// Two reaches with the same key see the same things in the same snapshot: it lists the grants that made the reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReachKey(Box<[(TenantId, GrantId)]>);

impl GrantIndex {
    /// Adds a tenant's grants. Those of a tenant that is not active cover nobody.
    pub fn add(&mut self, tenant: &Tenant, grants: Vec<Grant>) {
        if tenant.state != TenantState::Active {
            return;
        }
        for grant in grants.into_iter().filter(|grant| grant.tenant == tenant.id) {
            let issuer = grant.spec.issuer.clone();
            let groups = grant.spec.groups.clone();
            let subjects = grant.spec.subjects.clone();
            let grant = Arc::new(CoveringGrant { tenant: tenant.id, tenant_slug: tenant.slug.clone(), grant });
            for group in groups {
                self.by_group.entry((issuer.clone(), group)).or_default().push(Arc::clone(&grant));
            }
            for subject in subjects {
                self.by_subject.entry((issuer.clone(), subject)).or_default().push(Arc::clone(&grant));
            }
        }
    }

    /// Whether some grant names this group of that issuer.
    pub fn names(&self, issuer: &IssuerName, group: &Group) -> bool {
        self.by_group.contains_key(&(issuer.clone(), group.clone()))
    }

    /// What `caller` can reach. A group counts only as a group of the caller's own issuer. The cost grows with the caller's
    /// groups and grants, not with the number of tenants.
    pub fn reach(&self, caller: &Caller) -> Reach {
        let issuer = &caller.principal.issuer;
        let by_subject = self.by_subject.get(&(issuer.clone(), caller.principal.subject.clone()));
        let by_group = caller.groups.iter().filter_map(|group| self.by_group.get(&(issuer.clone(), group.clone())));
        let covering = by_subject.into_iter().chain(by_group).flatten();

        let mut by_tenant: BTreeMap<&TenantSlug, BTreeMap<GrantId, &Arc<CoveringGrant>>> = BTreeMap::new();
        for grant in covering.filter(|grant| caller.bounds.include(grant.tenant)) {
            by_tenant.entry(&grant.tenant_slug).or_default().insert(grant.grant.id, grant);
        }
        Reach {
            accesses: by_tenant.into_values().filter_map(|grants| Access::from_grants(grants.into_values())).collect(),
        }
    }
}

impl Access {
    #[expect(clippy::disallowed_methods, reason = "policy is where doors to a tenant's rows are opened")]
    fn from_grants<'g>(grants: impl Iterator<Item = &'g Arc<CoveringGrant>>) -> Option<Self> {
        let grants: Vec<_> = grants.cloned().collect();
        let first = grants.first()?;
        Some(Self { scope: TenantScope::of(first.tenant), tenant_slug: first.tenant_slug.clone(), grants })
    }

    /// The door to the tenant's rows.
    pub fn scope(&self) -> TenantScope {
        self.scope
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.scope.tenant()
    }

    /// The tenant's short name.
    pub fn tenant_slug(&self) -> &TenantSlug {
        &self.tenant_slug
    }

    /// The grants that cover the caller in this tenant, ordered by id.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().map(|covering| &covering.grant)
    }
}

impl Reach {
    /// The accesses, in the order of the tenants' slugs.
    pub fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// The access to `tenant`, if there is one.
    pub fn access(&self, tenant: TenantId) -> Option<&Access> {
        self.accesses.iter().find(|access| access.tenant() == tenant)
    }

    /// Only what lies in the tenant called `slug`: nothing, when the caller does not reach it or there is no such tenant.
    #[must_use]
    pub fn narrowed_to(self, slug: &str) -> Self {
        Self { accesses: self.accesses.into_iter().filter(|access| access.tenant_slug.as_str() == slug).collect() }
    }

    /// What tells reaches apart within one snapshot.
    pub fn key(&self) -> ReachKey {
        let grants = self.accesses.iter().flat_map(|access| access.grants().map(|grant| (access.tenant(), grant.id)));
        ReachKey(grants.collect())
    }
}
