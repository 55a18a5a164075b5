//! Adds the hosts that a tenant's upstreams are narrowed to. Nothing is narrowed where there is nothing.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("tenant").add_column(text_null("egress_hosts")).to_owned()).await
    }
}
