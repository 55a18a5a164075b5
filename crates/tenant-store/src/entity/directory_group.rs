//! Table `directory_group`: the groups that identity providers push.

use sea_orm::entity::prelude::*;

use crate::id::DirectoryGroupId;
use crate::name::{DirectoryText, Group, IssuerName};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "directory_group")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: DirectoryGroupId,
    pub(crate) issuer: IssuerName,
    /// As grants name it. Providers have several groups of a name.
    pub(crate) name: Group,
    pub(crate) external_id: Option<DirectoryText>,
    pub(crate) display_name: DirectoryText,
    /// In lower case, as it is looked for.
    pub(crate) display_key: String,
    pub(crate) created_ms: i64,
    pub(crate) modified_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
