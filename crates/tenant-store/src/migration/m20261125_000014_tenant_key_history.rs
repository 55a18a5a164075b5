//! Adds under which key-encryption keys a data key was wrapped before: copies of it may lie in backups under each of them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = text("wrapped_before").default("[]").take();
        manager.alter_table(Table::alter().table("tenant_key").add_column(column).to_owned()).await
    }
}
