//! Table `audit_pruned`: how far each writer's part of a chain was deleted, because its time was over.

use sea_orm::entity::prelude::*;

use crate::id::AuditWriterId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_pruned")]
pub(crate) struct Model {
    /// A tenant's id, or `platform`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) chain: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) writer: AuditWriterId,
    /// The last event that is gone.
    pub(crate) seq: i64,
    pub(crate) at_ms: i64,
    /// SHA-256 of that event's line, in hexadecimal digits.
    pub(crate) hash: String,
    pub(crate) key_id: String,
    pub(crate) signature: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
