//! Creates the table of tools, which go with their upstream.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, string, string_null, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut upstream = ForeignKey::create();
        upstream
            .from("tool", ("tenant_id", "upstream_id"))
            .to("upstream", ("tenant_id", "id"))
            .on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("tool")
            .col(string("tenant_id"))
            .col(string("upstream_id"))
            .col(text("local"))
            .col(string_null("exposed"))
            .col(text("definition"))
            .col(string("digest"))
            .col(string_null("approved"))
            .col(big_integer("position"))
            .col(boolean("enabled"))
            .col(big_integer_null("vanished_ms"))
            .primary_key(Index::create().col("tenant_id").col("upstream_id").col("local"))
            .foreign_key(&mut upstream)
            .to_owned();
        manager.create_table(table).await?;
        // A tool that is no longer listed has no exposed name, and any number of tools may have none.
        let names =
            Index::create().name("tool_exposed").table("tool").col("tenant_id").col("exposed").unique().to_owned();
        manager.create_index(names).await
    }
}
