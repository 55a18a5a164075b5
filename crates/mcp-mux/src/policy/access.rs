//! From a caller to what it can reach: one [`Access`] per tenant in which a grant covers it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tenant_store::{
    Grant, GrantId, Group, IssuerName, Subject, Tenant, TenantId, TenantScope, TenantSlug, TenantState,
};

use super::revoked::RevokedCallers;
use crate::caller::{Caller, Principal};

/// Every grant of every active tenant, found by whom it covers. Built once per snapshot.
#[derive(Debug, Clone, Default)]
pub struct GrantIndex {
    by_issuer: HashMap<IssuerName, IssuerGrants, RandomState>,
    revoked: Arc<RevokedCallers>,
}

/// The grants that name somebody of one issuer.
#[derive(Debug, Clone, Default)]
struct IssuerGrants {
    by_group: HashMap<Group, Vec<Arc<CoveringGrant>>, RandomState>,
    by_subject: HashMap<Subject, Vec<Arc<CoveringGrant>>, RandomState>,
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

/// Grants by their ids.
pub(super) type Grants<'g> = BTreeMap<GrantId, &'g Grant>;

/// All the accesses of a caller, in the order of the tenants' slugs.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    accesses: Vec<Access>,
    is_revoked: bool,
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
            let of_issuer = self.by_issuer.entry(grant.spec.issuer.clone()).or_default();
            let grant = Arc::new(CoveringGrant { tenant: tenant.id, tenant_slug: tenant.slug.clone(), grant });
            for group in &grant.grant.spec.groups {
                of_issuer.by_group.entry(group.clone()).or_default().push(Arc::clone(&grant));
            }
            for subject in &grant.grant.spec.subjects {
                of_issuer.by_subject.entry(subject.clone()).or_default().push(Arc::clone(&grant));
            }
        }
    }

    /// Takes out the grants of those tenants.
    pub fn remove(&mut self, tenants: &HashSet<TenantId>) {
        for of_issuer in self.by_issuer.values_mut() {
            of_issuer.by_group.retain(|_, grants| stays(grants, tenants));
            of_issuer.by_subject.retain(|_, grants| stays(grants, tenants));
        }
    }

    /// The groups of an issuer that grants name.
    pub fn groups_of(&self, issuer: &IssuerName) -> Vec<Group> {
        let of_issuer = self.by_issuer.get(issuer);
        let mut groups: Vec<Group> = of_issuer.map(|all| all.by_group.keys().cloned().collect()).unwrap_or_default();
        groups.sort();
        groups
    }

    /// Whether some grant names this group of that issuer.
    pub fn names(&self, issuer: &IssuerName, group: &Group) -> bool {
        self.by_issuer.get(issuer).is_some_and(|of_issuer| of_issuer.by_group.contains_key(group))
    }

    /// From here on these callers are revoked, and no others.
    pub fn set_revoked(&mut self, revoked: RevokedCallers) {
        // The same ones stay what decisions rest on.
        if *self.revoked != revoked {
            self.revoked = Arc::new(revoked);
        }
    }

    /// The callers that are revoked.
    pub fn revoked(&self) -> &RevokedCallers {
        &self.revoked
    }

    /// The same for whoever compares.
    pub fn shared_revoked(&self) -> Arc<RevokedCallers> {
        Arc::clone(&self.revoked)
    }

    /// The grants in `tenant` that cover that principal in those groups, but for what is revoked.
    pub(super) fn covering(&self, principal: &Principal, groups: &[Group], tenant: TenantId) -> Grants<'_> {
        let Some(of_issuer) = self.by_issuer.get(&principal.issuer) else { return Grants::default() };
        let groups = self.revoked.without(&principal.issuer, groups);
        of_tenant(of_issuer.covering(&principal.subject, groups), tenant)
    }

    /// The grant of that id.
    pub fn find(&self, tenant: TenantId, id: GrantId) -> Option<&Grant> {
        of_tenant(self.by_issuer.values().flat_map(IssuerGrants::all), tenant).remove(&id)
    }

    /// All grants, each as often as it names somebody.
    pub fn all(&self) -> impl Iterator<Item = &Grant> {
        self.by_issuer.values().flat_map(IssuerGrants::all).map(|covering| &covering.grant)
    }

    /// The grants in `tenant` for principals of that issuer besides those.
    pub(super) fn others(&self, issuer: &IssuerName, tenant: TenantId, besides: &Grants<'_>) -> Vec<&Grant> {
        let Some(of_issuer) = self.by_issuer.get(issuer) else { return Vec::new() };
        of_tenant(of_issuer.all(), tenant)
            .into_iter()
            .filter(|(id, _)| !besides.contains_key(id))
            .map(|(_, grant)| grant)
            .collect()
    }

    /// What `caller` can reach. A group counts only as a group of the caller's own issuer. The cost grows with the caller's
    /// groups and grants, not with the number of tenants.
    pub fn reach(&self, caller: &Caller) -> Reach {
        if self.revoked.has(&caller.principal) {
            return Reach { is_revoked: true, ..Reach::default() };
        }
        let Some(of_issuer) = self.by_issuer.get(&caller.principal.issuer) else { return Reach::default() };
        let groups = self.revoked.without(&caller.principal.issuer, &caller.groups);
        let covering = of_issuer.covering(&caller.principal.subject, groups);

        // By id too: whatever happens to names, no tenant's grants open another's door.
        let mut by_tenant: BTreeMap<(&TenantSlug, TenantId), BTreeMap<GrantId, &Arc<CoveringGrant>>> = BTreeMap::new();
        for grant in covering.filter(|grant| caller.bounds.include(grant.tenant)) {
            by_tenant.entry((&grant.tenant_slug, grant.tenant)).or_default().insert(grant.grant.id, grant);
        }
        let accesses = by_tenant.into_values().filter_map(|grants| Access::from_grants(grants.into_values())).collect();
        Reach { accesses, is_revoked: false }
    }
}

impl IssuerGrants {
    /// Those that name the subject or one of its groups.
    fn covering<'i, 'g>(
        &'i self,
        subject: &Subject,
        groups: impl Iterator<Item = &'g Group>,
    ) -> impl Iterator<Item = &'i Arc<CoveringGrant>> {
        let by_group = groups.filter_map(|group| self.by_group.get(group));
        self.by_subject.get(subject).into_iter().chain(by_group).flatten()
    }

    /// Each as often as it names somebody.
    fn all(&self) -> impl Iterator<Item = &Arc<CoveringGrant>> {
        self.by_subject.values().chain(self.by_group.values()).flatten()
    }
}

fn of_tenant<'g>(grants: impl Iterator<Item = &'g Arc<CoveringGrant>>, tenant: TenantId) -> Grants<'g> {
    let grants = grants.filter(|covering| covering.tenant == tenant);
    grants.map(|covering| (covering.grant.id, &covering.grant)).collect()
}

/// Whether any of them is left without those tenants'.
fn stays(grants: &mut Vec<Arc<CoveringGrant>>, tenants: &HashSet<TenantId>) -> bool {
    grants.retain(|grant| !tenants.contains(&grant.tenant));
    !grants.is_empty()
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
        let Self { accesses, is_revoked } = self;
        let accesses = accesses.into_iter().filter(|access| access.tenant_slug.as_str() == slug).collect();
        Self { accesses, is_revoked }
    }

    /// Whether the caller is revoked, and reaches nothing for that.
    pub fn is_revoked(&self) -> bool {
        self.is_revoked
    }

    /// What tells reaches apart within one snapshot.
    pub fn key(&self) -> ReachKey {
        let grants = self.accesses.iter().flat_map(|access| access.grants().map(|grant| (access.tenant(), grant.id)));
        ReachKey(grants.collect())
    }
}
