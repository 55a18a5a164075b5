//! Creates the table of API keys.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, string, string_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("api_key")
            .col(string("id").primary_key())
            .col(string("name"))
            .col(string("issuer"))
            .col(string("subject"))
            .col(blob("digest"))
            .col(string_null("tenants"))
            .col(big_integer("created_at"))
            .col(big_integer_null("expires_at"))
            .col(big_integer_null("revoked_at"))
            .to_owned();
        manager.create_table(table).await?;
        let digests = Index::create().name("api_key_digest").table("api_key").col("digest").unique().to_owned();
        manager.create_index(digests).await
    }
}
