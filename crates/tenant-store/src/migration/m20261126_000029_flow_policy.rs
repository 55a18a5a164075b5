//! Adds what becomes of a tenant's text in arguments to another. It is written down where it happens, unless the operator says otherwise.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string;

use super::m20261126_000020_row_security::sorting_bytes;

/// The columns of a tenant's own row that say something.
const SAID: &str = "slug, display_name, state, egress_hosts, flow_policy";

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = string("flow_policy");
        manager.alter_table(Table::alter().table("tenant").add_column(column.default("log")).to_owned()).await?;
        let statements = match manager.get_database_backend() {
            DbBackend::Postgres => vec![
                "DROP TRIGGER tenant_changed ON tenant".to_owned(),
                // No column of a trigger can be altered.
                sorting_bytes("tenant"),
                format!(
                    "CREATE TRIGGER tenant_changed AFTER INSERT OR UPDATE OF {SAID} ON tenant \
                     FOR EACH ROW EXECUTE FUNCTION mark_tenant_itself()"
                ),
            ],
            _ => vec![
                "DROP TRIGGER tenant_changed_by_update".to_owned(),
                format!(
                    "CREATE TRIGGER tenant_changed_by_update AFTER UPDATE OF {SAID} ON tenant BEGIN \
                     UPDATE tenant SET revision = (SELECT value + 1 FROM revision WHERE id = 1) \
                     WHERE id = NEW.id AND revision <= (SELECT value FROM revision WHERE id = 1); END"
                ),
            ],
        };
        for sql in statements {
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
