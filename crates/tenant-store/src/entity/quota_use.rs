//! Table `quota_use`: how many calls were made in a tenant in a day or a month, of what a quota is about.

use sea_orm::entity::prelude::*;

use crate::id::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "quota_use")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    /// `2026-11-30` or `2026-11`, in UTC.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) period: String,
    /// What is counted, in words of whoever counts.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) counted: String,
    pub(crate) calls: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
