//! Lets the last signatures of the audit record be found by their time: whoever starts to write names them.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("CREATE INDEX audit_checkpoint_at ON audit_checkpoint (chain, at_ms)").await?;
        Ok(())
    }
}
