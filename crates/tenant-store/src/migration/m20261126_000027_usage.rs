//! Creates the table of what tenants use: one row for each day and tool. It is no configuration: writing it marks no tenant and takes no
//! turn. What was used stays when its upstream is gone, so there is no foreign key. It touches no other table, so that it does not matter
//! which later migrations a database has already.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, text};

use super::m20261126_000020_row_security::{security, sorting_bytes};

const TABLE: &str = "usage_day";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(string("tenant_id"))
            .col(string("day"))
            .col(string("upstream"))
            .col(text("tool"))
            .col(big_integer("calls"))
            .col(big_integer("errors"))
            .col(big_integer("duration_ms"))
            .primary_key(Index::create().col("tenant_id").col("day").col("upstream").col("tool"))
            .to_owned();
        manager.create_table(table).await?;
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let db = manager.get_connection();
        db.execute_unprepared(&sorting_bytes(TABLE)).await?;
        for sql in security(TABLE, "tenant_id") {
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
