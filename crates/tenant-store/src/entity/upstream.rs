//! Table `upstream`.

use sea_orm::entity::prelude::*;

use crate::choice::{OnArguments, OnNewTool, OnToolChange};
use crate::id::{TenantId, UpstreamId};
use crate::name::{ToolPrefix, UpstreamSlug};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "upstream")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: UpstreamId,
    pub(crate) slug: UpstreamSlug,
    pub(crate) url: String,
    /// JSON of an `UpstreamProtocol`.
    pub(crate) protocol: String,
    pub(crate) prefix: Option<ToolPrefix>,
    /// JSON of an `UpstreamAuth`.
    pub(crate) auth: String,
    pub(crate) call_timeout_ms: i64,
    pub(crate) concurrency: i64,
    pub(crate) on_tool_change: OnToolChange,
    pub(crate) on_new_tool: OnNewTool,
    pub(crate) on_arguments: OnArguments,
    /// JSON of a map from local name to class.
    pub(crate) classes: String,
    pub(crate) enabled: bool,
    /// The version that the last stored credential got. It only grows, so that no two credentials of an upstream ever have
    /// the same version, not even when the first is long gone.
    pub(crate) credential_version: i64,
    pub(crate) resets: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
