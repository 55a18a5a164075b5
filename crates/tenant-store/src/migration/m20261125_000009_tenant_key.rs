//! Creates the tables of data keys, of tenants and of the platform, and drops the check values that the latter replace.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, string};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenant = ForeignKey::create();
        tenant.from("tenant_key", "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("tenant_key")
            .col(string("tenant_id"))
            .col(string("id"))
            .col(string("kek_id"))
            .col(blob("wrapped"))
            .col(string("state"))
            .col(big_integer("created_ms"))
            .col(big_integer("seals"))
            .primary_key(Index::create().col("tenant_id").col("id"))
            .foreign_key(&mut tenant)
            .to_owned();
        manager.create_table(table).await?;
        let table = Table::create()
            .table("platform_key")
            .col(string("id").primary_key())
            .col(string("kek_id"))
            .col(blob("wrapped"))
            .col(big_integer("created_ms"))
            .to_owned();
        manager.create_table(table).await?;
        manager.drop_table(Table::drop().table("key_check").to_owned()).await
    }
}
