//! Creates the table of tenants.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("tenant")
            .col(string("id").primary_key())
            .col(string("slug"))
            .col(string("display_name"))
            .col(string("state"))
            .to_owned();
        manager.create_table(table).await?;
        let slugs = Index::create().name("tenant_slug").table("tenant").col("slug").unique().to_owned();
        manager.create_index(slugs).await
    }
}
