//! Creates the table of credentials anew: each has an owner and a kind, and is sealed with a data key of its tenant. What was sealed
//! with the key-encryption key itself, before the first release, must be set again.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, string};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("credential").to_owned()).await?;
        let mut upstream = ForeignKey::create();
        upstream
            .from("credential", ("tenant_id", "upstream_id"))
            .to("upstream", ("tenant_id", "id"))
            .on_delete(ForeignKeyAction::Cascade);
        let mut key = ForeignKey::create();
        key.from("credential", ("tenant_id", "key_id")).to("tenant_key", ("tenant_id", "id"));
        let table = Table::create()
            .table("credential")
            .col(string("tenant_id"))
            .col(string("upstream_id"))
            .col(string("owner"))
            .col(string("name"))
            .col(string("kind"))
            .col(big_integer("version"))
            .col(string("key_id"))
            .col(blob("sealed"))
            .primary_key(Index::create().col("tenant_id").col("upstream_id").col("owner").col("name"))
            .foreign_key(&mut upstream)
            .foreign_key(&mut key)
            .to_owned();
        manager.create_table(table).await?;
        let keys = Index::create().name("credential_key").table("credential").col("tenant_id").col("key_id").to_owned();
        manager.create_index(keys).await
    }
}
