//! Creates the table of what was deleted of the audit record because its time was over, and lets that be deleted: lines and signatures up to
//! where the table says, and nothing of the last 30 days. It touches the tables of the record by their triggers alone.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, string};

use super::m20261126_000020_row_security::sorting_bytes;

const TABLE: &str = "audit_pruned";
const CHAINS: [&str; 2] = ["audit_event", "audit_checkpoint"];
/// What is younger stays, whoever asks, in milliseconds: 30 days.
const KEPT_MS: i64 = 2_592_000_000;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(string("chain"))
            .col(string("writer"))
            .col(big_integer("seq"))
            .col(big_integer("at_ms"))
            .col(string("hash"))
            .col(string("key_id"))
            .col(binary("signature"))
            .primary_key(Index::create().col("chain").col("writer"))
            .to_owned();
        manager.create_table(table).await?;
        let statements: Vec<String> = match manager.get_database_backend() {
            DbBackend::Postgres => on_postgres(),
            _ => CHAINS.into_iter().flat_map(on_sqlite).chain(FORWARD_ON_SQLITE.map(str::to_owned)).collect(),
        };
        for sql in statements {
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}

fn on_postgres() -> Vec<String> {
    let whose = "current_setting('mcp_mux.tenant', true)";
    let mut all = vec![
        // Whoever writes holds them one after the other.
        "LOCK TABLE audit_event, audit_checkpoint IN ACCESS EXCLUSIVE MODE".to_owned(),
        sorting_bytes(TABLE),
        format!("ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY"),
        format!(
            "CREATE POLICY of_chain ON {TABLE} USING (chain = CASE {whose} WHEN '*' THEN 'platform' ELSE {whose} END)"
        ),
        format!(
            "CREATE FUNCTION audit_is_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF OLD.at_ms > extract(epoch FROM now()) * 1000 - {KEPT_MS} OR NOT EXISTS (SELECT 1 FROM {TABLE} p \
             WHERE p.chain = OLD.chain AND p.writer = OLD.writer AND p.seq >= OLD.seq) THEN \
             RAISE EXCEPTION 'the audit record is added to and never changed'; END IF; RETURN OLD; END $$"
        ),
        format!(
            "CREATE FUNCTION audit_is_new() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF EXISTS (SELECT 1 FROM {TABLE} p WHERE p.chain = NEW.chain AND p.writer = NEW.writer AND p.seq >= NEW.seq) \
             THEN IF NEW.at_ms > extract(epoch FROM now()) * 1000 - {KEPT_MS} THEN \
             RAISE EXCEPTION 'the audit record is added to and never changed'; END IF; \
             RETURN NULL; END IF; RETURN NEW; END $$"
        ),
        "CREATE FUNCTION audit_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.chain <> OLD.chain OR NEW.writer <> OLD.writer OR NEW.seq <= OLD.seq THEN \
         RAISE EXCEPTION 'the audit record is added to and never changed'; END IF; RETURN NEW; END $$"
            .to_owned(),
        format!(
            "CREATE TRIGGER {TABLE}_forward BEFORE UPDATE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION audit_goes_forward()"
        ),
        format!(
            "CREATE TRIGGER {TABLE}_kept BEFORE DELETE OR TRUNCATE ON {TABLE} \
             FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()"
        ),
    ];
    for table in CHAINS {
        all.push(format!("DROP TRIGGER {table}_kept ON {table}"));
        all.push(format!(
            "CREATE TRIGGER {table}_kept BEFORE UPDATE OR TRUNCATE ON {table} \
             FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()"
        ));
        all.push(format!(
            "CREATE TRIGGER {table}_over BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION audit_is_over()"
        ));
        // What waited on disk for longer than it is kept, and had been added already, is not added again. But nobody makes new events
        // pass unseen by saying beforehand that they were deleted.
        all.push(format!(
            "CREATE TRIGGER {table}_new BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION audit_is_new()"
        ));
    }
    all
}

const FORWARD_ON_SQLITE: [&str; 2] = [
    "CREATE TRIGGER audit_pruned_forward BEFORE UPDATE ON audit_pruned \
     WHEN NEW.chain <> OLD.chain OR NEW.writer <> OLD.writer OR NEW.seq <= OLD.seq BEGIN \
     SELECT RAISE(ABORT, 'the audit record is added to and never changed'); END",
    "CREATE TRIGGER audit_pruned_kept_on_delete BEFORE DELETE ON audit_pruned BEGIN \
     SELECT RAISE(ABORT, 'the audit record is added to and never changed'); END",
];

fn on_sqlite(table: &str) -> [String; 5] {
    let young = |row: &str| format!("{row}.at_ms > CAST(strftime('%s', 'now') AS INTEGER) * 1000 - {KEPT_MS}");
    let pruned = |row: &str| {
        format!(
            "EXISTS (SELECT 1 FROM {TABLE} p WHERE p.chain = {row}.chain AND p.writer = {row}.writer AND p.seq >= {row}.seq)"
        )
    };
    [
        format!("DROP TRIGGER {table}_kept_on_delete"),
        format!(
            "CREATE TRIGGER {table}_kept_on_delete BEFORE DELETE ON {table} \
             WHEN {} OR NOT {} BEGIN SELECT RAISE(ABORT, 'the audit record is added to and never changed'); END",
            young("OLD"),
            pruned("OLD")
        ),
        format!("DROP TRIGGER {table}_kept_on_insert"),
        format!(
            "CREATE TRIGGER {table}_kept_on_insert BEFORE INSERT ON {table} WHEN EXISTS \
             (SELECT 1 FROM {table} WHERE chain = NEW.chain AND writer = NEW.writer AND seq = NEW.seq) \
             OR NOT {} AND {} BEGIN SELECT RAISE(IGNORE); END",
            young("NEW"),
            pruned("NEW")
        ),
        // Nobody makes new events pass unseen by saying beforehand that they were deleted.
        format!(
            "CREATE TRIGGER {table}_new_on_insert BEFORE INSERT ON {table} WHEN {} AND {} BEGIN \
             SELECT RAISE(ABORT, 'the audit record is added to and never changed'); END",
            young("NEW"),
            pruned("NEW")
        ),
    ]
}
