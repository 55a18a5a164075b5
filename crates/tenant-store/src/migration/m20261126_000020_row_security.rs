//! On PostgreSQL: sorts texts as SQLite does, marks tenants that changed, lets a transaction see the rows of that tenant only which it
//! names, and tells whoever listens when the revision was raised.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use crate::store::transaction::WRITER_LOCK;

use super::m20261126_000019_tenant_revision::{SAID, TABLES as MARKING};

/// The tables with rows of tenants, and the column that says whose they are.
const TABLES: [(&str, &str); 8] = [
    ("tenant", "id"),
    ("upstream", "tenant_id"),
    ("credential", "tenant_id"),
    ("tenant_grant", "tenant_id"),
    ("tool", "tenant_id"),
    ("offer", "tenant_id"),
    ("tenant_key", "tenant_id"),
    ("erasure", "tenant_id"),
];

/// Texts are compared byte by byte, whatever the language of the server.
const COLLATE: &str = r#"
DO $$
DECLARE found record;
BEGIN
    FOR found IN SELECT table_name, column_name, data_type FROM information_schema.columns
        WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')
        -- One that sorts so already may be one that a policy names, which cannot be altered.
        AND collation_name IS DISTINCT FROM 'C'
        -- Which is being written.
        AND table_name <> 'seaql_migrations'
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE %s COLLATE "C"',
            found.table_name, found.column_name, found.data_type);
    END LOOP;
END $$"#;

const NOTIFY: [&str; 2] = [
    r"CREATE FUNCTION tell_revision() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_notify('mcp_mux_revision', NEW.value::text); RETURN NULL; END $$",
    "CREATE TRIGGER revision_told AFTER UPDATE ON revision FOR EACH ROW EXECUTE FUNCTION tell_revision()",
];

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let db = manager.get_connection();
        db.execute_unprepared(COLLATE).await?;
        for sql in marking() {
            db.execute_unprepared(&sql).await?;
        }
        for (table, column) in TABLES {
            for sql in security(table, column) {
                db.execute_unprepared(&sql).await?;
            }
        }
        for sql in NOTIFY {
            db.execute_unprepared(sql).await?;
        }
        Ok(())
    }
}

/// Who names no tenant sees nothing. The platform's own work names all of them.
pub(super) fn security(table: &str, column: &str) -> [String; 3] {
    let whose = "current_setting('mcp_mux.tenant', true)";
    [
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"),
        format!("CREATE POLICY of_tenant ON {table} USING ({column} = {whose} OR {whose} = '*')"),
    ]
}

/// What marks tenants, as the triggers of the migration before do on SQLite.
fn marking() -> Vec<String> {
    let function = |name: &str, tenants: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             UPDATE tenant SET revision = now.value + 1 FROM revision AS now \
             WHERE now.id = 1 AND tenant.revision <= now.value AND tenant.id IN ({tenants}); \
             RETURN NULL; END $$"
        )
    };
    // What a row was before it was inserted, or is after it was deleted, is null.
    let mut statements = vec![
        // Whoever writes by hand takes a turn as we do, before the first row is locked: a revision must not be raised past a mark that
        // is not committed, and a mark must not be made by a revision that is not the last.
        format!(
            "CREATE FUNCTION take_turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF current_setting('transaction_isolation') <> 'read committed' THEN \
             RAISE EXCEPTION 'rows of tenants are written in transactions that are read committed'; END IF; \
             PERFORM pg_advisory_xact_lock({WRITER_LOCK}); RETURN NULL; END $$"
        ),
        function("mark_tenant", "OLD.tenant_id, NEW.tenant_id"),
        function("mark_tenant_itself", "NEW.id"),
        format!(
            "CREATE TRIGGER tenant_changed AFTER INSERT OR UPDATE OF {SAID} ON tenant \
             FOR EACH ROW EXECUTE FUNCTION mark_tenant_itself()"
        ),
    ];
    statements.extend(MARKING.into_iter().chain(["tenant"]).map(taking_turns));
    statements.extend(MARKING.map(marking_after));
    statements
}

/// Whoever writes to it waits for a turn.
pub(super) fn taking_turns(table: &str) -> String {
    format!(
        "CREATE TRIGGER {table}_taking_turns BEFORE INSERT OR UPDATE OR DELETE ON {table} \
         FOR EACH STATEMENT EXECUTE FUNCTION take_turn()"
    )
}

/// Whoever writes a row to it marks the row's tenant.
pub(super) fn marking_after(table: &str) -> String {
    format!(
        "CREATE TRIGGER {table}_changed AFTER INSERT OR UPDATE OR DELETE ON {table} \
         FOR EACH ROW EXECUTE FUNCTION mark_tenant()"
    )
}

/// Texts of a table made later are compared byte by byte, too.
pub(super) fn sorting_bytes(table: &str) -> String {
    COLLATE.replace(
        "table_schema = current_schema()",
        &format!("table_schema = current_schema() AND table_name = '{table}'"),
    )
}
