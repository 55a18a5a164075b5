//! Table `revocation`.

use sea_orm::entity::prelude::*;

use crate::id::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revocation")]
pub(crate) struct Model {
    /// SHA-256 of `what`, in hexadecimal digits: it is revoked once.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) key: String,
    /// Whose it is, where it is a tenant's.
    pub(crate) tenant_id: Option<TenantId>,
    /// JSON.
    pub(crate) what: String,
    pub(crate) reason: String,
    pub(crate) at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
