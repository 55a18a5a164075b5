//! Hearing of changes: PostgreSQL tells whoever listens that the revision was raised. What is told may be lost, and SQLite tells nothing, so
//! it is looked now and then besides.

use std::time::Duration;

use sea_orm::SqlxError;
use sea_orm::sqlx::postgres::PgListener;
use tokio::time::{sleep, timeout};

use super::Store;
use crate::error::StoreError;
use crate::revision::Revision;

/// Where the migration has it told.
const CHANNEL: &str = "mcp_mux_revision";
/// After how long it is looked where nobody tells of changes, and where they are told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_LISTENING: Duration = Duration::from_secs(5);
/// How long it may take to begin listening. Nobody looks meanwhile.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Hears of each new revision, over a connection of its own.
#[derive(Debug)]
pub struct Raised(PgListener);

/// Says when it is time to look at the revision.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    raised: Option<Raised>,
}

impl Store {
    /// Listens to new revisions; none, where the database does not tell of them.
    pub async fn raised(&self) -> Result<Option<Raised>, StoreError> {
        if !self.has_roles() {
            return Ok(None);
        }
        let listening = async {
            let mut listener = PgListener::connect_with(self.database().get_postgres_connection_pool()).await?;
            // Whoever listens must know that the connection was lost.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        let late = || Err(SqlxError::PoolTimedOut);
        let listener = timeout(LISTEN_TIMEOUT, listening).await.unwrap_or_else(|_| late());
        Ok(Some(Raised(listener.map_err(StoreError::Listen)?)))
    }

    /// Follows the revision.
    pub fn follow(&self) -> Follower {
        Follower { store: self.clone(), raised: None }
    }
}

impl Raised {
    /// The next new revision; none, when the connection was lost and something may have been missed. Then listen anew.
    pub async fn next(&mut self) -> Option<Revision> {
        let told = self.0.try_recv().await.ok().flatten()?;
        Some(Revision(told.payload().parse().unwrap_or_default()))
    }
}

impl Follower {
    /// Waits until it is time to look: there is a new revision, or there may be one of which nobody heard. Fails, after the same wait, where
    /// the database cannot be listened to.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        if let Some(raised) = &mut self.raised {
            let is_lost = matches!(timeout(LOOK_EVERY_LISTENING, raised.next()).await, Ok(None));
            if self.raised.take_if(|_| is_lost).is_some() {
                // However often a server hangs up.
                sleep(LOOK_EVERY).await;
            }
            return Ok(());
        }
        let raised = self.store.raised().await;
        if !matches!(raised, Ok(Some(_))) {
            sleep(LOOK_EVERY).await;
        }
        self.raised = raised?;
        Ok(())
    }
}
