//! Table `replica`: the processes that serve.

use sea_orm::entity::prelude::*;

use crate::id::ReplicaId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "replica")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: ReplicaId,
    pub(crate) version: String,
    /// By the replica's own clock.
    pub(crate) started_ms: i64,
    /// By the database's clock.
    pub(crate) seen_ms: i64,
    /// The revision that it serves.
    pub(crate) revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
