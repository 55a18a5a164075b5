//! Table `tenant`.

use sea_orm::entity::prelude::*;

use crate::choice::{AuditContent, FlowPolicy, TenantState};
use crate::id::TenantId;
use crate::name::TenantSlug;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: TenantId,
    pub(crate) slug: TenantSlug,
    pub(crate) display_name: String,
    pub(crate) state: TenantState,
    pub(crate) egress_hosts: Option<String>,
    pub(crate) flow_policy: FlowPolicy,
    pub(crate) audit_content: AuditContent,
    /// At which it changed last, as triggers note it.
    pub(crate) revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
