//! What of one tenant is revoked.

use std::collections::{HashMap, HashSet};

use tenant_store::{LocalName, Revocation, Revoked, TenantId, UpstreamId};

/// The upstreams and tools of a tenant that are revoked, or the tenant as a whole.
#[derive(Debug, Clone, Default)]
pub(in crate::catalog) struct RevokedThings {
    all: bool,
    upstreams: HashSet<UpstreamId>,
    tools: HashMap<UpstreamId, HashSet<LocalName>>,
}

impl RevokedThings {
    /// What is revoked, by tenant.
    pub(in crate::catalog) fn by_tenant(revocations: &[Revocation]) -> HashMap<TenantId, Self> {
        let mut by_tenant: HashMap<TenantId, Self> = HashMap::new();
        for Revocation { what, .. } in revocations {
            let Some(tenant) = what.tenant() else { continue };
            let things = by_tenant.entry(tenant).or_default();
            match what {
                Revoked::Tenant { .. } => things.all = true,
                Revoked::Upstream { upstream, .. } => {
                    things.upstreams.insert(*upstream);
                }
                Revoked::Tool { upstream, local, .. } => {
                    things.tools.entry(*upstream).or_default().insert(local.clone());
                }
                Revoked::Principal { .. } | Revoked::Group { .. } => {}
            }
        }
        by_tenant
    }

    /// Whether the tenant is revoked.
    pub(in crate::catalog) fn has_all(&self) -> bool {
        self.all
    }

    /// Whether that upstream is revoked.
    pub(in crate::catalog) fn has_upstream(&self, upstream: UpstreamId) -> bool {
        self.all || self.upstreams.contains(&upstream)
    }

    /// Whether what has that name at that upstream is revoked, or the upstream is.
    pub(in crate::catalog) fn has(&self, upstream: UpstreamId, local: &str) -> bool {
        self.has_upstream(upstream) || self.tools.get(&upstream).is_some_and(|tools| tools.contains(local))
    }
}
