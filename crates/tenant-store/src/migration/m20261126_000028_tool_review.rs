//! Adds what reviewing tools needs: the definition that was approved where another one took its place, the one that was rejected, and
//! what upstreams' new tools and their arguments get. What is there keeps its rules; a release that does not know them writes none.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, string_null, text_null};

use super::m20261126_000020_row_security::sorting_bytes;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns in a statement.
        for (table, column) in [
            ("tool", text_null("approved_definition")),
            ("tool", string_null("rejected")),
            ("upstream", string("on_new_tool").default("accept").take()),
            ("upstream", string("on_arguments").default("check").take()),
        ] {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            for table in ["tool", "upstream"] {
                manager.get_connection().execute_unprepared(&sorting_bytes(table)).await?;
            }
        }
        Ok(())
    }
}
