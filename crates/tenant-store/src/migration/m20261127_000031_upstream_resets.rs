//! Adds how often an upstream was begun anew with. A release that does not know it never does.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = big_integer("resets");
        manager.alter_table(Table::alter().table("upstream").add_column(column.default(0)).to_owned()).await
    }
}
