//! Adds whether a tenant's record holds what calls bring, and the table of keys that this is sealed with. They lie under the tenant's data keys,
//! and go with them: there is nothing to be read without.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, string};

use super::m20261126_000019_tenant_revision::marking;
use super::m20261126_000020_row_security::{marking_after, security, sorting_bytes, taking_turns};

const TABLE: &str = "recording_key";
/// The columns of a tenant's own row that say something.
const SAID: &str = "slug, display_name, state, egress_hosts, flow_policy, audit_content";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = string("audit_content");
        manager.alter_table(Table::alter().table("tenant").add_column(column.default("none")).to_owned()).await?;
        let mut key = ForeignKey::create();
        key.from(TABLE, ("tenant_id", "key_id")).to("tenant_key", ("tenant_id", "id"));
        let mut tenant = ForeignKey::create();
        tenant.from(TABLE, "tenant_id").to("tenant", "id").on_delete(ForeignKeyAction::Cascade);
        let table = Table::create()
            .table(TABLE)
            .col(string("tenant_id").primary_key())
            .col(string("id"))
            .col(string("key_id"))
            .col(binary("sealed"))
            .col(big_integer("created_ms"))
            .foreign_key(&mut key)
            .foreign_key(&mut tenant)
            .to_owned();
        manager.create_table(table).await?;
        let statements = match manager.get_database_backend() {
            DbBackend::Postgres => on_postgres(),
            _ => on_sqlite(),
        };
        for sql in statements {
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}

fn on_postgres() -> Vec<String> {
    let mut all = vec![
        "DROP TRIGGER tenant_changed ON tenant".to_owned(),
        // No column of a trigger can be altered.
        sorting_bytes("tenant"),
        format!(
            "CREATE TRIGGER tenant_changed AFTER INSERT OR UPDATE OF {SAID} ON tenant \
             FOR EACH ROW EXECUTE FUNCTION mark_tenant_itself()"
        ),
        sorting_bytes(TABLE),
    ];
    all.extend(security(TABLE, "tenant_id"));
    all.extend([taking_turns(TABLE), marking_after(TABLE)]);
    all
}

fn on_sqlite() -> Vec<String> {
    let mut all = vec![
        "DROP TRIGGER tenant_changed_by_update".to_owned(),
        format!(
            "CREATE TRIGGER tenant_changed_by_update AFTER UPDATE OF {SAID} ON tenant BEGIN \
             UPDATE tenant SET revision = (SELECT value + 1 FROM revision WHERE id = 1) \
             WHERE id = NEW.id AND revision <= (SELECT value FROM revision WHERE id = 1); END"
        ),
    ];
    all.extend(marking(TABLE));
    all
}
