//! Creates the table of erasure certificates, which outlive what they are about.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("erasure")
            .col(string("tenant_id").primary_key())
            .col(big_integer("at_ms"))
            .col(text("certificate"))
            .to_owned();
        manager.create_table(table).await
    }
}
