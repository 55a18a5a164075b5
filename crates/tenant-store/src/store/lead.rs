//! Leadership: what one replica is enough for is done by the one that holds a lock. The lock belongs to a connection of its own, so that whoever
//! ends, however, loses it with that. SQLite serves one process, which always leads.

use std::time::Duration;

use sea_orm::SqlxError;
use sea_orm::sqlx::{Connection as _, PgConnection, query_scalar, raw_sql};
use tokio::time::{sleep, timeout};

use super::Store;

/// The advisory lock of whoever leads: a number that nobody else is likely to use.
const LEADER_LOCK: i64 = 0x6d63_702d_6d75_7802;
/// How often a leader looks whether it still is one, and the others whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the database may take to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After how many seconds the database lets a connection go whose other side has vanished, which otherwise takes hours, or says nothing
/// any more, because its process stands still while its machine answers.
const VANISHED: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
                        SET idle_session_timeout = '15s'";

/// The right to do what one replica is enough for, until it is dropped or [`Lead::lost`].
#[derive(Debug)]
pub struct Lead(Option<PgConnection>);

impl Store {
    /// Waits until nobody else leads. Whoever cannot ask goes on asking.
    pub async fn lead(&self) -> Lead {
        if !self.has_roles() {
            return Lead(None);
        }
        loop {
            // That the database is away is said by those who read it.
            if let Ok(Ok(connection)) = timeout(ANSWER_TIMEOUT, self.connection_of_its_own()).await
                && let Some(lead) = take_the_lead(connection).await
            {
                return lead;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn connection_of_its_own(&self) -> Result<PgConnection, SqlxError> {
        let mut connection = self.database().get_postgres_connection_pool().acquire().await?.detach();
        raw_sql(VANISHED).execute(&mut connection).await?;
        Ok(connection)
    }
}

/// Waits until nobody else leads; none, if the connection is lost before.
async fn take_the_lead(mut connection: PgConnection) -> Option<Lead> {
    loop {
        let leads = query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(&mut connection);
        if timeout(ANSWER_TIMEOUT, leads).await.ok()?.ok()? {
            return Some(Lead(Some(connection)));
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Lead {
    /// Waits until the lock is lost, because its connection is.
    pub async fn lost(&mut self) {
        let Some(connection) = &mut self.0 else { return std::future::pending().await };
        loop {
            sleep(LOOK_EVERY).await;
            if !matches!(timeout(ANSWER_TIMEOUT, connection.ping()).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}
