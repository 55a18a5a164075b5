//! Creates the table of how upstreams fared when they were asked last. It is no configuration: writing it marks no tenant.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, string, text_null};

use super::m20261126_000020_row_security::{security, sorting_bytes};

const TABLE: &str = "upstream_health";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut upstream = ForeignKey::create();
        upstream
            .from(TABLE, ("tenant_id", "upstream_id"))
            .to("upstream", ("tenant_id", "id"))
            .on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table(TABLE)
            .col(string("tenant_id"))
            .col(string("upstream_id"))
            .col(big_integer("asked_ms"))
            .col(big_integer_null("listed_ms"))
            .col(big_integer_null("failing_since_ms"))
            .col(text_null("error"))
            .primary_key(Index::create().col("tenant_id").col("upstream_id"))
            .foreign_key(&mut upstream)
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
