//! Table `directory_user`: the people whom identity providers push.

use sea_orm::entity::prelude::*;

use crate::choice::DirectoryState;
use crate::id::DirectoryUserId;
use crate::name::{DirectoryText, IssuerName, Subject};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "directory_user")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: DirectoryUserId,
    pub(crate) issuer: IssuerName,
    /// Unique together with the issuer.
    pub(crate) subject: Subject,
    pub(crate) external_id: Option<DirectoryText>,
    pub(crate) user_name: DirectoryText,
    /// In lower case, as it is looked for.
    pub(crate) user_name_key: String,
    pub(crate) display_name: Option<DirectoryText>,
    /// In lower case, as it is looked for.
    pub(crate) display_key: Option<String>,
    pub(crate) state: DirectoryState,
    /// Since when it is let in, or is not.
    pub(crate) since_ms: i64,
    pub(crate) created_ms: i64,
    pub(crate) modified_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
