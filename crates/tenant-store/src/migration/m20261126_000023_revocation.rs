//! Creates the table of what was revoked: people, groups, tenants, upstreams and tools.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, string_null, text};

use super::m20261126_000019_tenant_revision::marking as marking_on_sqlite;
use super::m20261126_000020_row_security::{marking_after, security, sorting_bytes, taking_turns};

const TABLE: &str = "revocation";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenant = ForeignKey::create();
        tenant.from(TABLE, "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table(TABLE)
            .col(string("key").primary_key())
            .col(string_null("tenant_id"))
            .col(text("what"))
            .col(text("reason"))
            .col(big_integer("at_ms"))
            .foreign_key(&mut tenant)
            .to_owned();
        manager.create_table(table).await?;
        let db = manager.get_connection();
        if manager.get_database_backend() != DbBackend::Postgres {
            for sql in marking_on_sqlite(TABLE) {
                db.execute_unprepared(&sql).await?;
            }
            return Ok(());
        }
        // Before a policy names a column of it.
        db.execute_unprepared(&sorting_bytes(TABLE)).await?;
        let others = [taking_turns(TABLE), marking_after(TABLE)];
        for sql in security(TABLE, "tenant_id").into_iter().chain(others) {
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
