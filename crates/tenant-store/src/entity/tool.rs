//! Table `tool`.

use sea_orm::entity::prelude::*;

use crate::id::{TenantId, UpstreamId};
use crate::name::{ExposedName, LocalName};
use crate::tools::{Digest, Pin};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tool")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) upstream_id: UpstreamId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) local: LocalName,
    /// None only in rows of a tool that vanished before names stayed with it.
    pub(crate) exposed: Option<ExposedName>,
    /// The upstream's own text, byte for byte; empty once the tool has vanished.
    pub(crate) definition: String,
    pub(crate) digest: Digest,
    pub(crate) approved: Option<Digest>,
    /// The definition that was approved, where another one took its place.
    pub(crate) approved_definition: Option<String>,
    /// The pin of a definition that an operator rejected.
    pub(crate) rejected: Option<Pin>,
    pub(crate) position: i64,
    pub(crate) enabled: bool,
    /// When the upstream stopped listing it, if it did.
    pub(crate) vanished_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::upstream::Entity",
        from = "(Column::TenantId, Column::UpstreamId)",
        to = "(super::upstream::Column::TenantId, super::upstream::Column::Id)"
    )]
    Upstream,
}

impl Related<super::upstream::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Upstream.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
