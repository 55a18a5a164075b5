//! One tenant's door: a [`TenantScope`] says which tenant, a [`TenantStore`] reads and writes that tenant's rows and no others.

use std::sync::Weak;

use crate::error::StoreError;
use crate::id::TenantId;
use crate::store::Store;
use crate::store::transaction::{Reading, SharedTransaction, Whose, Writing};

/// Which tenant's rows a [`TenantStore`] reaches.
///
/// Whoever can make one can reach any tenant: only the server's `policy` may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantScope(TenantId);

/// One tenant's rows. Every method filters by the tenant, so that another tenant's row and no row are the same answer.
///
/// From [`Store::tenant`] each writing method is a transaction of its own, and raises the revision if it changed something.
/// From [`Change::tenant`](crate::Change::tenant) all methods work inside that change, and fail once it is over.
#[derive(Debug, Clone)]
pub struct TenantStore {
    store: Store,
    scope: TenantScope,
    within: Option<Weak<SharedTransaction>>,
}

impl TenantScope {
    /// The scope of one tenant.
    pub fn of(tenant: TenantId) -> Self {
        Self(tenant)
    }

    /// The tenant.
    pub fn tenant(self) -> TenantId {
        self.0
    }
}

impl TenantStore {
    pub(crate) fn new(store: Store, scope: TenantScope, within: Option<Weak<SharedTransaction>>) -> Self {
        Self { store, scope, within }
    }

    /// The tenant.
    pub fn id(&self) -> TenantId {
        self.scope.tenant()
    }

    /// The same as a scope.
    pub fn scope(&self) -> TenantScope {
        self.scope
    }

    fn whose(&self) -> Whose {
        Whose::Tenant(self.id())
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What a method that only reads works on.
    pub(crate) async fn reading(&self) -> Result<Reading, StoreError> {
        match &self.within {
            None => Reading::of_its_own(&self.store, self.whose()).await,
            Some(change) => Reading::of_change(change, self.whose()).await,
        }
    }

    /// What a method that writes works on: all of it happens, or nothing.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        match &self.within {
            None => Writing::of_its_own(&self.store, self.whose()).await,
            Some(change) => Writing::of_change(change, self.whose()).await,
        }
    }
}
