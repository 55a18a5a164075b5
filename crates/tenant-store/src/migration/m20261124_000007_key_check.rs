//! Creates the table of check values, by which a wrong key is noticed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{blob, string};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table =
            Table::create().table("key_check").col(string("key_id").primary_key()).col(blob("sealed")).to_owned();
        manager.create_table(table).await
    }
}
