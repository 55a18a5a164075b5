//! Table `credential`.

use sea_orm::entity::prelude::*;

use crate::choice::CredentialKind;
use crate::credentials::CredentialOwner;
use crate::id::{TenantId, UpstreamId};
use crate::name::SecretName;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credential")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) upstream_id: UpstreamId,
    /// `tenant`, or the principal whose it is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) owner: CredentialOwner,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) name: SecretName,
    pub(crate) kind: CredentialKind,
    pub(crate) version: i64,
    /// The data key it is sealed with.
    pub(crate) key_id: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) stored_at_ms: i64,
    /// Until when one replica has it to itself.
    pub(crate) leased_until_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::tenant_key::Entity",
        from = "(Column::TenantId, Column::KeyId)",
        to = "(super::tenant_key::Column::TenantId, super::tenant_key::Column::Id)"
    )]
    TenantKey,
    #[sea_orm(
        belongs_to = "super::upstream::Entity",
        from = "(Column::TenantId, Column::UpstreamId)",
        to = "(super::upstream::Column::TenantId, super::upstream::Column::Id)"
    )]
    Upstream,
}

impl Related<super::tenant_key::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::TenantKey.def()
    }
}

impl Related<super::upstream::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Upstream.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
