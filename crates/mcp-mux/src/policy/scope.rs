//! The second way to a tenant's rows: work that no caller asked for.

use tenant_store::{TenantId, TenantScope};

/// The platform acting for itself: building a snapshot, refreshing a catalog, applying a manifest.
///
/// `app` makes one for background work and the command line makes one for an operator; nothing that serves a request holds
/// one.
#[derive(Debug, Clone, Copy)]
pub struct Administration(());

impl Administration {
    /// For the composition root and the command line.
    pub fn for_the_platform() -> Self {
        Self(())
    }

    /// The scope of one tenant.
    #[expect(clippy::disallowed_methods, reason = "policy is where doors to a tenant's rows are opened")]
    pub fn scope(self, tenant: TenantId) -> TenantScope {
        TenantScope::of(tenant)
    }
}
