//! Table `tenant_grant`: the grants. SQL keeps the word `grant` for itself.

use sea_orm::entity::prelude::*;

use crate::choice::Level;
use crate::id::{GrantId, TenantId};
use crate::name::{GrantName, IssuerName};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant_grant")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: GrantId,
    pub(crate) name: GrantName,
    pub(crate) issuer: IssuerName,
    /// JSON list of groups.
    pub(crate) groups: String,
    /// JSON list of subjects.
    pub(crate) subjects: String,
    pub(crate) level: Level,
    /// JSON list of tool patterns.
    pub(crate) allow: String,
    /// JSON list of tool patterns.
    pub(crate) deny: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
