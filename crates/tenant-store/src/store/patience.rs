//! An end to waiting for a database that does not answer: a connection whose other side is gone can stay silent for a quarter of an hour.

use std::time::Duration;

use sea_orm::DbErr;
use tokio::time::timeout;

/// How long it may take to be answered, which is longer than PostgreSQL lets a statement run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// What the database answers, if it does.
pub(crate) async fn answered<T>(answer: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let late = || Err(DbErr::Custom("the database does not answer".to_owned()));
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| late())
}
