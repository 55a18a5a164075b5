//! Creates the counter of revisions, with its one row.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table =
            Table::create().table("revision").col(big_integer("id").primary_key()).col(big_integer("value")).to_owned();
        manager.create_table(table).await?;
        let row = Query::insert()
            .into_table("revision")
            .columns(["id", "value"])
            .values_panic([1.into(), 0.into()])
            .to_owned();
        manager.execute(row).await
    }
}
