//! How the database is opened: with which settings, and with how many connections.

mod postgres;
mod sqlite;

use std::time::Duration;

use sea_orm::{DatabaseConnection, DbBackend};

use crate::error::StoreError;

pub(crate) use postgres::{admit, check_role, unhurried};

/// How long a method waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens what `url` names. No error repeats the URL, for it may hold a password.
pub(super) async fn open(url: &str) -> Result<DatabaseConnection, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", _)) => sqlite::open(url).await,
        Some(("postgres" | "postgresql", _)) => postgres::open(url).await,
        _ => Err(StoreError::UnknownDatabase),
    }
}

/// Makes the database forget what was deleted; `false` if somebody stands in the way. PostgreSQL does it in its own time: what was deleted
/// stays in its files until they are vacuumed, and in its log until that is recycled.
pub(crate) async fn forget_deleted(database: &DatabaseConnection) -> Result<bool, StoreError> {
    match database.get_database_backend() {
        DbBackend::Sqlite => sqlite::forget_deleted(database).await,
        _ => Ok(true),
    }
}
