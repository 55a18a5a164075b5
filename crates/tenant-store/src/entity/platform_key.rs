//! Table `platform_key`: the data keys of the platform itself, wrapped. The one table with keys that belong to no tenant.

use sea_orm::entity::prelude::*;

use crate::name::KekId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "platform_key")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    pub(crate) kek_id: KekId,
    pub(crate) wrapped: Vec<u8>,
    pub(crate) created_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
