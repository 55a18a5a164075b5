//! The migrations: forward only, each in a file of its own. From the first release on, each must be able to run while the
//! previous release still serves.

#![expect(elided_lifetimes_in_paths, reason = "the trait's own methods leave the lifetime of `SchemaManager` out")]

mod m20261124_000001_tenant;
mod m20261124_000002_upstream;
mod m20261124_000003_credential;
mod m20261124_000004_tenant_grant;
mod m20261124_000005_tool;
mod m20261124_000006_revision;
mod m20261124_000007_key_check;
mod m20261124_000008_api_key;
mod m20261125_000009_tenant_key;
mod m20261125_000010_credential;
mod m20261125_000011_erasure;
mod m20261125_000012_tenant_egress;
mod m20261125_000013_credential_lease;
mod m20261125_000014_tenant_key_history;
mod m20261125_000015_credential_owner;
mod m20261125_000016_offer;
mod m20261125_000017_upstream_protocol;
mod m20261126_000018_offer_vanished;
mod m20261126_000019_tenant_revision;
mod m20261126_000020_row_security;
mod m20261126_000021_replica;
mod m20261126_000022_access_test;
mod m20261126_000023_revocation;
mod m20261126_000024_directory;
mod m20261126_000025_upstream_health;
mod m20261126_000026_audit;
mod m20261126_000027_usage;
mod m20261126_000028_tool_review;
mod m20261126_000029_flow_policy;
mod m20261127_000031_upstream_resets;
mod m20261127_000032_audit_pruned;
mod m20261127_000033_audit_content;
mod m20261127_000034_quota_use;
mod m20261127_000035_audit_checkpoint_at;

use std::collections::HashSet;

use sea_orm::{DatabaseTransaction, EntityTrait as _, IntoDatabaseExecutor};
use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager, seaql_migrations};

use crate::error::StoreError;

/// Where the names of the applied migrations are kept.
const TABLE: &str = "seaql_migrations";

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_tenant::Migration),
            Box::new(m20261124_000002_upstream::Migration),
            Box::new(m20261124_000003_credential::Migration),
            Box::new(m20261124_000004_tenant_grant::Migration),
            Box::new(m20261124_000005_tool::Migration),
            Box::new(m20261124_000006_revision::Migration),
            Box::new(m20261124_000007_key_check::Migration),
            Box::new(m20261124_000008_api_key::Migration),
            Box::new(m20261125_000009_tenant_key::Migration),
            Box::new(m20261125_000010_credential::Migration),
            Box::new(m20261125_000011_erasure::Migration),
            Box::new(m20261125_000012_tenant_egress::Migration),
            Box::new(m20261125_000013_credential_lease::Migration),
            Box::new(m20261125_000014_tenant_key_history::Migration),
            Box::new(m20261125_000015_credential_owner::Migration),
            Box::new(m20261125_000016_offer::Migration),
            Box::new(m20261125_000017_upstream_protocol::Migration),
            Box::new(m20261126_000018_offer_vanished::Migration),
            Box::new(m20261126_000019_tenant_revision::Migration),
            Box::new(m20261126_000020_row_security::Migration),
            Box::new(m20261126_000021_replica::Migration),
            Box::new(m20261126_000022_access_test::Migration),
            Box::new(m20261126_000023_revocation::Migration),
            Box::new(m20261126_000024_directory::Migration),
            Box::new(m20261126_000025_upstream_health::Migration),
            Box::new(m20261126_000026_audit::Migration),
            Box::new(m20261126_000027_usage::Migration),
            Box::new(m20261126_000028_tool_review::Migration),
            Box::new(m20261126_000029_flow_policy::Migration),
            Box::new(m20261127_000031_upstream_resets::Migration),
            Box::new(m20261127_000032_audit_pruned::Migration),
            Box::new(m20261127_000033_audit_content::Migration),
            Box::new(m20261127_000034_quota_use::Migration),
            Box::new(m20261127_000035_audit_checkpoint_at::Migration),
        ]
    }
}

/// Applies what is missing, and says how many those were. The transaction makes it all or nothing, and keeps others out.
pub(crate) async fn apply(transaction: &DatabaseTransaction) -> Result<u32, StoreError> {
    // A database that a newer release has migrated besides is none of our business, as long as it lacks nothing.
    let pending = pending(transaction).await?;
    if pending.is_empty() {
        return Ok(0);
    }
    Migrator::up(transaction, None).await.map_err(StoreError::Migration)?;
    Ok(u32::try_from(pending.len()).unwrap_or(u32::MAX))
}

/// What is missing, oldest first. Writes nothing, and does not mind migrations of a newer release.
pub(crate) async fn pending<'c>(database: impl IntoDatabaseExecutor<'c>) -> Result<Vec<String>, StoreError> {
    let manager = SchemaManager::new(database);
    let is_new = !manager.has_table(TABLE).await.map_err(StoreError::read(TABLE))?;
    let applied: HashSet<String> = if is_new {
        HashSet::new()
    } else {
        let rows =
            seaql_migrations::Entity::find().all(manager.get_connection()).await.map_err(StoreError::read(TABLE))?;
        rows.into_iter().map(|row| row.version).collect()
    };
    let names = Migrator::migrations().into_iter().map(|migration| migration.name().to_owned());
    Ok(names.filter(|name| !applied.contains(name)).collect())
}
