//! The other ways to a tenant's rows: work that no caller asked for, and accounts that callers have already.

use tenant_store::{AccountHeld, TenantId, TenantScope};

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

    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        Self(())
    }

    /// The scope of one tenant.
    #[expect(clippy::disallowed_methods, reason = "policy is where doors to a tenant's rows are opened")]
    pub fn scope(self, tenant: TenantId) -> TenantScope {
        TenantScope::of(tenant)
    }
}

/// Where a principal has an account it may look at it and end it, whether or not a grant covers it still. The scope is for that alone.
#[expect(clippy::disallowed_methods, reason = "policy is where doors to a tenant's rows are opened")]
pub fn own_account(held: AccountHeld) -> TenantScope {
    TenantScope::of(held.tenant())
}
