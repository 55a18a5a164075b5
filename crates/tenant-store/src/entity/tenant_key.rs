//! Table `tenant_key`: the data keys of tenants, wrapped.

use sea_orm::entity::prelude::*;

use crate::choice::DataKeyState;
use crate::id::TenantId;
use crate::name::KekId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant_key")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    /// Under which key it is wrapped; the last one, once it is destroyed.
    pub(crate) kek_id: KekId,
    /// Under which keys it was wrapped before, as a JSON list: backups may still hold it so.
    pub(crate) wrapped_before: String,
    /// Empty once it is destroyed.
    pub(crate) wrapped: Vec<u8>,
    pub(crate) state: DataKeyState,
    pub(crate) created_ms: i64,
    /// How often it sealed.
    pub(crate) seals: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
