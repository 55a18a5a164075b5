//! Adds what an upstream speaks. Those that were there before speak MCP.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut protocol = text("protocol");
        protocol.default(r#""mcp""#);
        manager.alter_table(Table::alter().table("upstream").add_column(protocol).to_owned()).await
    }
}
