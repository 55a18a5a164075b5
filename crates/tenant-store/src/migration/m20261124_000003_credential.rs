//! Creates the table of credentials, which go with their upstream.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, string};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut upstream = ForeignKey::create();
        upstream
            .from("credential", ("tenant_id", "upstream_id"))
            .to("upstream", ("tenant_id", "id"))
            .on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table("credential")
            .col(string("tenant_id"))
            .col(string("upstream_id"))
            .col(string("name"))
            .col(big_integer("version"))
            .col(string("key_id"))
            .col(blob("sealed"))
            .primary_key(Index::create().col("tenant_id").col("upstream_id").col("name"))
            .foreign_key(&mut upstream)
            .to_owned();
        manager.create_table(table).await
    }
}
