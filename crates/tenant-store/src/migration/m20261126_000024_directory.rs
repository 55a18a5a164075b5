//! Creates the tables of directories: the users and groups that identity providers push, and who is in which group. They are the
//! platform's: no row of them is about a tenant, and whoever is about one tenant sees none.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, string_null};

use super::m20261126_000020_row_security::{sorting_bytes, taking_turns};

const TABLES: [&str; 3] = ["directory_user", "directory_group", "directory_member"];

/// What is looked for by. The last one holds nobody but those who are not let in, whom every snapshot reads.
const INDEXES: [&str; 9] = [
    "CREATE UNIQUE INDEX directory_user_subject ON directory_user (issuer, subject)",
    "CREATE INDEX directory_user_name ON directory_user (issuer, user_name_key)",
    "CREATE INDEX directory_user_external ON directory_user (issuer, external_id)",
    "CREATE INDEX directory_user_display ON directory_user (issuer, display_key)",
    "CREATE INDEX directory_group_name ON directory_group (issuer, name)",
    "CREATE INDEX directory_group_external ON directory_group (issuer, external_id)",
    "CREATE INDEX directory_group_display ON directory_group (issuer, display_key)",
    "CREATE INDEX directory_member_user ON directory_member (user_id)",
    "CREATE INDEX directory_user_away ON directory_user (since_ms) WHERE state <> 'active'",
];

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [users(), groups(), members()] {
            manager.create_table(table).await?;
        }
        let db = manager.get_connection();
        for sql in INDEXES {
            db.execute_unprepared(sql).await?;
        }
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        for table in TABLES {
            db.execute_unprepared(&sorting_bytes(table)).await?;
            for sql in of_platform(table).into_iter().chain([taking_turns(table)]) {
                db.execute_unprepared(&sql).await?;
            }
        }
        Ok(())
    }
}

fn users() -> TableCreateStatement {
    Table::create()
        .table("directory_user")
        .col(string("id").primary_key())
        .col(string("issuer"))
        .col(string("subject"))
        .col(string_null("external_id"))
        .col(string("user_name"))
        .col(string("user_name_key"))
        .col(string_null("display_name"))
        .col(string_null("display_key"))
        .col(string("state"))
        .col(big_integer("since_ms"))
        .col(big_integer("created_ms"))
        .col(big_integer("modified_ms"))
        .to_owned()
}

fn groups() -> TableCreateStatement {
    Table::create()
        .table("directory_group")
        .col(string("id").primary_key())
        .col(string("issuer"))
        .col(string("name"))
        .col(string_null("external_id"))
        .col(string("display_name"))
        .col(string("display_key"))
        .col(big_integer("created_ms"))
        .col(big_integer("modified_ms"))
        .to_owned()
}

fn members() -> TableCreateStatement {
    let with = |column: &'static str, table: &'static str| {
        let mut key = ForeignKey::create();
        key.from("directory_member", column).to(table, "id").on_delete(ForeignKeyAction::Cascade);
        key
    };
    Table::create()
        .table("directory_member")
        .col(string("group_id"))
        .col(string("user_id"))
        .primary_key(Index::create().col("group_id").col("user_id"))
        .foreign_key(&mut with("group_id", "directory_group"))
        .foreign_key(&mut with("user_id", "directory_user"))
        .to_owned()
}

/// Only the platform's own work sees it.
pub(super) fn of_platform(table: &str) -> [String; 3] {
    [
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"),
        format!("CREATE POLICY of_platform ON {table} USING (current_setting('mcp_mux.tenant', true) = '*')"),
    ]
}
