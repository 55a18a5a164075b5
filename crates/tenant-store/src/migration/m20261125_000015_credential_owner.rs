//! Adds an index, by which the accounts of one principal are found in all tenants.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let owners = Index::create().name("credential_owner").table("credential").col("owner").col("kind").to_owned();
        manager.create_index(owners).await
    }
}
