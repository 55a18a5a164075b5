//! Table `usage_day`: how often a tenant's tool was called on a day.

use sea_orm::entity::prelude::*;

use crate::id::TenantId;
use crate::name::{LocalName, UpstreamSlug};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "usage_day")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    /// `2026-11-30`, in UTC.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) day: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) upstream: UpstreamSlug,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tool: LocalName,
    pub(crate) calls: i64,
    pub(crate) errors: i64,
    pub(crate) duration_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
