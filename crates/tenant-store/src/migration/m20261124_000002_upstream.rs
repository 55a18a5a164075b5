//! Creates the table of upstreams.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, string, string_null, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenant = ForeignKey::create();
        tenant.from("upstream", "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("upstream")
            .col(string("tenant_id"))
            .col(string("id"))
            .col(string("slug"))
            .col(text("url"))
            .col(string_null("prefix"))
            .col(text("auth"))
            .col(big_integer("call_timeout_ms"))
            .col(big_integer("concurrency"))
            .col(string("on_tool_change"))
            .col(text("classes"))
            .col(boolean("enabled"))
            .col(big_integer("credential_version"))
            .primary_key(Index::create().col("tenant_id").col("id"))
            .foreign_key(&mut tenant)
            .to_owned();
        manager.create_table(table).await?;
        let slugs =
            Index::create().name("upstream_slug").table("upstream").col("tenant_id").col("slug").unique().to_owned();
        manager.create_index(slugs).await
    }
}
