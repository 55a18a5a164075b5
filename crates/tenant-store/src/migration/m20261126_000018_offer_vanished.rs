//! Adds when an upstream stopped listing a prompt, whose exposed name stays its own. What is there is listed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("offer").add_column(big_integer_null("vanished_ms")).to_owned()).await
    }
}
