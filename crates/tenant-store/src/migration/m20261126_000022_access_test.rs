//! Creates the table of access tests, and the one that says by whom objects are managed.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, text};

use super::m20261126_000020_row_security::{security, sorting_bytes, taking_turns};

const TABLES: [&str; 2] = ["access_test", "managed"];

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tests = table("access_test");
        tests.col(text("spec")).primary_key(Index::create().col("tenant_id").col("name"));
        manager.create_table(tests).await?;
        let mut managed = table("managed");
        managed.col(string("kind")).col(string("manager"));
        managed.primary_key(Index::create().col("tenant_id").col("kind").col("name"));
        manager.create_table(managed).await?;
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let db = manager.get_connection();
        for table in TABLES {
            db.execute_unprepared(&sorting_bytes(table)).await?;
            for sql in security(table, "tenant_id").into_iter().chain([taking_turns(table)]) {
                db.execute_unprepared(&sql).await?;
            }
        }
        Ok(())
    }
}

/// A table of named things of tenants, which go with their tenant.
fn table(name: &'static str) -> TableCreateStatement {
    let mut tenant = ForeignKey::create();
    tenant.from(name, "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
    Table::create().table(name).col(string("tenant_id")).col(string("name")).foreign_key(&mut tenant).to_owned()
}
