//! Creates the table of grants.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenant = ForeignKey::create();
        tenant.from("tenant_grant", "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("tenant_grant")
            .col(string("tenant_id"))
            .col(string("id"))
            .col(string("name"))
            .col(string("issuer"))
            .col(text("groups"))
            .col(text("subjects"))
            .col(string("level"))
            .col(text("allow"))
            .col(text("deny"))
            .primary_key(Index::create().col("tenant_id").col("id"))
            .foreign_key(&mut tenant)
            .to_owned();
        manager.create_table(table).await?;
        let mut names = Index::create();
        names.name("tenant_grant_name").table("tenant_grant").col("tenant_id").col("name").unique();
        manager.create_index(names).await
    }
}
