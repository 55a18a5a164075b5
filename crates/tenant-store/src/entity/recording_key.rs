//! Table `recording_key`: what recorded arguments and results of tenants are sealed with, sealed itself.

use sea_orm::entity::prelude::*;

use crate::id::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "recording_key")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    pub(crate) id: String,
    /// The data key it is sealed with.
    pub(crate) key_id: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) created_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::tenant_key::Entity",
        from = "(Column::TenantId, Column::KeyId)",
        to = "(super::tenant_key::Column::TenantId, super::tenant_key::Column::Id)"
    )]
    TenantKey,
}

impl Related<super::tenant_key::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::TenantKey.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
