//! Table `api_key`.

use sea_orm::entity::prelude::*;

use crate::id::ApiKeyId;
use crate::name::{ApiKeyName, IssuerName, Subject};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_key")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: ApiKeyId,
    pub(crate) name: ApiKeyName,
    pub(crate) issuer: IssuerName,
    pub(crate) subject: Subject,
    /// SHA-256 of the key.
    pub(crate) digest: Vec<u8>,
    /// A JSON list of tenants' ids; without one, the key is good in all.
    pub(crate) tenants: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) revoked_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
