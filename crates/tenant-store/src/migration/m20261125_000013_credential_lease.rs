//! Adds when a credential was stored, and until when whoever renews it has it to itself. Nobody has where there is zero.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["stored_at_ms", "leased_until_ms"] {
            let mut column = big_integer(column);
            let table = Table::alter().table("credential").add_column(column.default(0)).to_owned();
            manager.alter_table(table).await?;
        }
        Ok(())
    }
}
