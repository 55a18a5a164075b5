//! Creates the table of what upstreams offer besides tools, which goes with its upstream.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, string_null, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut upstream = ForeignKey::create();
        upstream
            .from("offer", ("tenant_id", "upstream_id"))
            .to("upstream", ("tenant_id", "id"))
            .on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("offer")
            .col(string("tenant_id"))
            .col(string("upstream_id"))
            .col(string("kind"))
            .col(text("key"))
            .col(string_null("exposed"))
            .col(text("definition"))
            .col(big_integer("position"))
            .primary_key(Index::create().col("tenant_id").col("upstream_id").col("kind").col("key"))
            .foreign_key(&mut upstream)
            .to_owned();
        manager.create_table(table).await?;
        // Only prompts have exposed names, and any number of other offers may have none.
        let names =
            Index::create().name("offer_exposed").table("offer").col("tenant_id").col("exposed").unique().to_owned();
        manager.create_index(names).await
    }
}
