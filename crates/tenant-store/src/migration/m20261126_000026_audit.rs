//! Creates the tables of the audit record: events, signed checkpoints, and the key that signs. Rows are added and never changed: triggers
//! refuse everything else, whoever asks. They are no configuration: writing them marks no tenant and takes no turn.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, string, text};

use super::m20261126_000020_row_security::sorting_bytes;
use super::m20261126_000024_directory::of_platform;

const CHAINS: [&str; 2] = ["audit_event", "audit_checkpoint"];
const KEY: &str = "audit_key";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(of_chains("audit_event").col(text("line")).to_owned()).await?;
        let mut checkpoint = of_chains("audit_checkpoint");
        checkpoint.col(string("hash")).col(string("key_id")).col(binary("signature"));
        manager.create_table(checkpoint).await?;
        let key = Table::create()
            .table(KEY)
            .col(string("id").primary_key())
            .col(binary("sealed"))
            .col(big_integer("created_ms"))
            .to_owned();
        manager.create_table(key).await?;
        let db = manager.get_connection();
        db.execute_unprepared("CREATE INDEX audit_event_at ON audit_event (chain, at_ms)").await?;
        if manager.get_database_backend() != DbBackend::Postgres {
            for sql in CHAINS.into_iter().flat_map(kept_on_sqlite) {
                db.execute_unprepared(&sql).await?;
            }
            return Ok(());
        }
        for table in CHAINS.into_iter().chain([KEY]) {
            db.execute_unprepared(&sorting_bytes(table)).await?;
        }
        for sql in of_platform(KEY).into_iter().chain([KEEPING.to_owned()]) {
            db.execute_unprepared(&sql).await?;
        }
        for sql in CHAINS.into_iter().flat_map(kept_on_postgres) {
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}

/// A table whose rows belong to chains. No tenant's row goes with its tenant, so there is no foreign key.
fn of_chains(table: &'static str) -> TableCreateStatement {
    let mut create = Table::create();
    create
        .table(table)
        .col(string("chain"))
        .col(string("writer"))
        .col(big_integer("seq"))
        .col(big_integer("at_ms"))
        .primary_key(Index::create().col("chain").col("writer").col("seq"));
    create
}

const KEEPING: &str = "CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN RAISE EXCEPTION 'the audit record is added to and never changed'; END $$";

/// Here the platform's own work sees the platform's chain and no tenant's: who asks for a tenant's names that tenant.
fn kept_on_postgres(table: &str) -> [String; 4] {
    let whose = "current_setting('mcp_mux.tenant', true)";
    [
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"),
        format!(
            "CREATE POLICY of_chain ON {table} USING (chain = CASE {whose} WHEN '*' THEN 'platform' ELSE {whose} END)"
        ),
        format!(
            "CREATE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} \
             FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()"
        ),
    ]
}

/// What replaces a row deletes it without a word to the trigger on deleting. So a row whose place is taken is passed over, whatever the
/// statement says of conflicts: adding one again does nothing, as before.
fn kept_on_sqlite(table: &str) -> [String; 3] {
    let kept = |event: &str| {
        format!(
            "CREATE TRIGGER {table}_kept_on_{name} BEFORE {event} ON {table} BEGIN \
             SELECT RAISE(ABORT, 'the audit record is added to and never changed'); END",
            name = event.to_lowercase(),
        )
    };
    let not_replaced = format!(
        "CREATE TRIGGER {table}_kept_on_insert BEFORE INSERT ON {table} WHEN EXISTS \
         (SELECT 1 FROM {table} WHERE chain = NEW.chain AND writer = NEW.writer AND seq = NEW.seq) BEGIN SELECT RAISE(IGNORE); END"
    );
    [kept("UPDATE"), kept("DELETE"), not_replaced]
}
