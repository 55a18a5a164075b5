//! Table `upstream_health`.

use sea_orm::entity::prelude::*;

use crate::id::{TenantId, UpstreamId};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "upstream_health")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) upstream_id: UpstreamId,
    pub(crate) asked_ms: i64,
    pub(crate) listed_ms: Option<i64>,
    /// Where it failed last: since when it does.
    pub(crate) failing_since_ms: Option<i64>,
    /// Where it failed last: how.
    pub(crate) error: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
