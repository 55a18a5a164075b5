//! Table `offer`.

use sea_orm::entity::prelude::*;

use crate::choice::OfferKind;
use crate::id::{TenantId, UpstreamId};
use crate::name::{ExposedName, OfferKey};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "offer")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) upstream_id: UpstreamId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) kind: OfferKind,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) key: OfferKey,
    /// Prompts have one.
    pub(crate) exposed: Option<ExposedName>,
    /// The upstream's own text, byte for byte; an empty object once the prompt has vanished.
    pub(crate) definition: String,
    pub(crate) position: i64,
    /// When the upstream stopped listing the prompt, if it did.
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
