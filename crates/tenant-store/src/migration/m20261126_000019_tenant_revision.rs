//! Adds at which revision a tenant changed last, noted by triggers: whoever writes a row of a tenant, the tenant is marked.
//!
//! A mark that is noted without the revision being raised lies one ahead of it, and counts as soon as it is raised by anybody.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

/// The tables with rows of tenants, which have a column `tenant_id`.
pub(super) const TABLES: [&str; 6] = ["upstream", "credential", "tenant_grant", "tool", "offer", "tenant_key"];

/// The columns of a tenant's own row that say something.
pub(super) const SAID: &str = "slug, display_name, state, egress_hosts";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = big_integer("revision");
        manager.alter_table(Table::alter().table("tenant").add_column(column.default(0)).to_owned()).await?;
        let revisions = Index::create().name("tenant_revision").table("tenant").col("revision").to_owned();
        manager.create_index(revisions).await?;
        let db = manager.get_connection();
        // PostgreSQL gets its triggers with the next migration, after its columns were altered.
        if manager.get_database_backend() != DbBackend::Sqlite {
            return Ok(());
        }
        for sql in TABLES.into_iter().flat_map(marking) {
            db.execute_unprepared(&sql).await?;
        }
        db.execute_unprepared(&trigger("tenant", "INSERT", "INSERT", "NEW.id")).await?;
        db.execute_unprepared(&trigger("tenant", "UPDATE", &format!("UPDATE OF {SAID}"), "NEW.id")).await?;
        Ok(())
    }
}

/// Marks the tenants of rows of `table`, on SQLite.
pub(super) fn marking(table: &str) -> [String; 3] {
    [("INSERT", "NEW.tenant_id"), ("UPDATE", "OLD.tenant_id, NEW.tenant_id"), ("DELETE", "OLD.tenant_id")]
        .map(|(event, tenants)| trigger(table, event, event, tenants))
}

/// Marks `tenants` after `event` on a row of `table`, unless they are marked already.
fn trigger(table: &str, name: &str, event: &str, tenants: &str) -> String {
    format!(
        "CREATE TRIGGER {table}_changed_by_{name} AFTER {event} ON {table} BEGIN \
         UPDATE tenant SET revision = (SELECT value + 1 FROM revision WHERE id = 1) \
         WHERE id IN ({tenants}) AND revision <= (SELECT value FROM revision WHERE id = 1); END",
        name = name.to_lowercase(),
    )
}
