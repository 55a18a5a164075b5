//! Creates the table of how many calls were made in a day or a month of those that quotas are about: one row for each tenant, period and
//! what is counted there. It is no configuration: writing it marks no tenant and takes no turn. It touches no other table, so that it does
//! not matter which later migrations a database has already.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string};

use super::m20261126_000020_row_security::{security, sorting_bytes};

const TABLE: &str = "quota_use";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(string("tenant_id"))
            .col(string("period"))
            .col(string("counted"))
            .col(big_integer("calls"))
            .primary_key(Index::create().col("tenant_id").col("period").col("counted"))
            .to_owned();
        manager.create_table(table).await?;
        // By which old ones are found.
        let by_period = Index::create().name("quota_use_by_period").table(TABLE).col("period").to_owned();
        if manager.get_database_backend() != DbBackend::Postgres {
            return manager.create_index(by_period).await;
        }
        let db = manager.get_connection();
        db.execute_unprepared(&sorting_bytes(TABLE)).await?;
        for sql in security(TABLE, "tenant_id") {
            db.execute_unprepared(&sql).await?;
        }
        manager.create_index(by_period).await
    }
}
