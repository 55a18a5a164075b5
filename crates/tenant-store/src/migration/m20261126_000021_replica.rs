//! Creates the table of the replicas that serve. It is the platform's: no row of it is about a tenant.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("replica")
            .col(string("id").primary_key())
            .col(string("version"))
            .col(big_integer("started_ms"))
            .col(big_integer("seen_ms"))
            .col(big_integer("revision"))
            .to_owned();
        manager.create_table(table).await?;
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        // As all texts are: byte by byte.
        let collate = "ALTER TABLE replica ALTER COLUMN id TYPE varchar COLLATE \"C\", ALTER COLUMN version TYPE varchar COLLATE \"C\"";
        manager.get_connection().execute_unprepared(collate).await?;
        Ok(())
    }
}
