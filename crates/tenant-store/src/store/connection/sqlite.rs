//! SQLite: one file, one writer, any number of readers.

use std::str::FromStr as _;
use std::time::Duration;

use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, query};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxError, SqlxSqliteConnector, Statement};
use tokio::time::{Instant, sleep};

use super::ACQUIRE_TIMEOUT;
use crate::error::StoreError;

/// Connections to a database file: one for the writer, the others for readers.
const CONNECTIONS_MAX: u32 = 8;
/// How long a statement waits for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait between two attempts where SQLite does not wait by itself.
const BUSY_RETRY: Duration = Duration::from_millis(20);
/// SQLite's code for a file that somebody else has locked.
const SQLITE_BUSY: i32 = 5;

pub(super) async fn open(url: &str) -> Result<DatabaseConnection, StoreError> {
    let options = SqliteConnectOptions::from_str(url).map_err(StoreError::Url)?;
    let path = options.get_filename().to_owned();
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let options = options
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Normal)
        // What is deleted is overwritten, so that a destroyed key is not found in the file.
        .pragma("secure_delete", "ON")
        // Statements would be logged with their text; errors name what failed.
        .disable_statement_logging();
    // The connection *is* a database in memory: there is one, and it is never let go.
    let pool = PoolOptions::new()
        .max_connections(if in_memory { 1 } else { CONNECTIONS_MAX })
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None);
    let failed = |source| StoreError::Open { path, source };
    let pool = match pool.connect_with(options).await {
        Ok(pool) if in_memory => Ok(pool),
        Ok(pool) => switch_to_wal(&pool).await.map(|()| pool),
        Err(error) => Err(error),
    };
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.map_err(failed)?))
}

/// Makes the files forget what was deleted: the write-ahead log still holds pages as they were before. `false` if somebody who
/// reads stands in the way for as long as a statement waits.
pub(super) async fn forget_deleted(database: &DatabaseConnection) -> Result<bool, StoreError> {
    let checkpoint = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
    let row = database.query_one_raw(checkpoint).await.map_err(StoreError::Transaction)?;
    let is_busy = row.map(|row| row.try_get::<i32>("", "busy")).transpose().map_err(StoreError::Transaction)?;
    Ok(is_busy.is_none_or(|busy| busy == 0))
}

/// Makes the file one that can be read while it is written, which it then stays. SQLite does not wait for others here, so
/// processes that meet at a new file have to.
async fn switch_to_wal(pool: &SqlitePool) -> Result<(), SqlxError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match query("PRAGMA journal_mode = WAL").execute(pool).await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => sleep(BUSY_RETRY).await,
            outcome => return outcome.map(|_| ()),
        }
    }
}

fn is_busy(error: &SqlxError) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The low byte of a code is its kind.
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}
