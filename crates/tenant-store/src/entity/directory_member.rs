//! Table `directory_member`: who is in which group.

use sea_orm::entity::prelude::*;

use crate::id::{DirectoryGroupId, DirectoryUserId};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "directory_member")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) group_id: DirectoryGroupId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) user_id: DirectoryUserId,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::directory_group::Entity",
        from = "Column::GroupId",
        to = "super::directory_group::Column::Id"
    )]
    Group,
}

impl ActiveModelBehavior for ActiveModel {}
