//! The platform's view: the database as a whole, its migrations, its revision, and the doors to the tenants.

mod change;
pub(crate) mod connection;
mod lead;
mod listen;
pub(crate) mod patience;
pub(crate) mod row;
pub(crate) mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbBackend};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::data_keys::HeldKeys;
use crate::error::StoreError;
use crate::kek::KeyEncryption;
use crate::migration;
use crate::revision::{self, Revision};
use crate::scope::{TenantScope, TenantStore};
use transaction::{Reading, Whose, Writing};

pub use change::{Change, Put, Still};
pub use lead::Lead;
pub use listen::{Follower, Raised};

/// How long one waits for another process to migrate.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(5);

/// The platform: everything above tenants. Clones share one pool of connections.
#[derive(Clone)]
pub struct Store(Arc<Parts>);

struct Parts {
    database: DatabaseConnection,
    /// Who holds this may write. Writers of this process wait here in the order in which they came, instead of asking SQLite
    /// again and again until its time-out.
    writer: Arc<Mutex<()>>,
    kek: Arc<dyn KeyEncryption>,
    held: HeldKeys,
    clock: Arc<dyn Clock>,
}

impl Store {
    /// Opens the database at `url`: `postgres://role:password@host/database`, `sqlite://path`, `sqlite://path?mode=rwc` to create it, or
    /// `sqlite::memory:`. Neither migrates it nor checks the keys. What seals secrets is wrapped under `kek`.
    ///
    /// A database in memory has a single connection, so everything else waits while a [`Change`] of it is open.
    pub async fn open(
        url: &SecretString,
        kek: Arc<dyn KeyEncryption>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let database = connection::open(url.expose_secret()).await?;
        let held = HeldKeys::new(Arc::clone(&kek));
        Ok(Self(Arc::new(Parts { database, writer: Arc::default(), kek, held, clock })))
    }

    /// Applies the migrations that are missing, all or none, and says how many those were.
    pub async fn migrate(&self) -> Result<u32, StoreError> {
        self.migrate_for(None).await
    }

    /// The same as the owner of the tables, where there are roles, and lets the role in `serving` read and write them.
    pub async fn migrate_for(&self, serving: Option<&SecretString>) -> Result<u32, StoreError> {
        let writing = self.turn_to_migrate().await?;
        if self.has_roles() {
            connection::unhurried(writing.executor()).await?;
        }
        let applied = migration::apply(writing.executor()).await?;
        if let Some(serving) = serving.filter(|_| self.has_roles()) {
            connection::admit(writing.executor(), serving.expose_secret()).await?;
        }
        writing.finish(false).await?;
        Ok(applied)
    }

    /// The writer's turn, which another process that migrates may have for minutes.
    async fn turn_to_migrate(&self) -> Result<Writing, StoreError> {
        let deadline = Instant::now() + MIGRATION_TIMEOUT;
        loop {
            match self.writing().await {
                Err(StoreError::Busy) if Instant::now() < deadline => {}
                turn => return turn,
            }
        }
    }

    /// The migrations that are missing, oldest first. Those that a newer release has applied are no concern of this one.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        migration::pending(self.database()).await
    }

    /// The state of the configuration. It is another one after every change, and the same as long as nothing changed.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        revision::current(self.database()).await
    }

    /// One tenant's rows. Each writing method is a transaction of its own.
    pub fn tenant(&self, scope: TenantScope) -> TenantStore {
        TenantStore::new(self.clone(), scope, None)
    }

    /// What wraps the data keys.
    pub fn key_encryption(&self) -> Arc<dyn KeyEncryption> {
        Arc::clone(&self.0.kek)
    }

    /// Fails if a migration is missing.
    pub async fn require_migrations(&self) -> Result<(), StoreError> {
        let pending = self.pending_migrations().await?;
        if pending.is_empty() { Ok(()) } else { Err(StoreError::Unmigrated(pending)) }
    }

    /// Whether there are roles, of which one owns the tables and another one serves.
    pub fn has_roles(&self) -> bool {
        self.database().get_database_backend() == DbBackend::Postgres
    }

    /// Fails if the role that the URL names could read more than it should; only PostgreSQL has roles.
    pub async fn check_role(&self) -> Result<(), StoreError> {
        if self.has_roles() { connection::check_role(self.database()).await } else { Ok(()) }
    }

    /// What a method of the platform that only reads works on.
    pub(crate) async fn reading(&self) -> Result<Reading, StoreError> {
        Reading::of_its_own(self, Whose::All).await
    }

    /// What a method of the platform that writes works on.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        Writing::of_its_own(self, Whose::All).await
    }

    pub(crate) fn database(&self) -> &DatabaseConnection {
        &self.0.database
    }

    pub(crate) fn kek(&self) -> &Arc<dyn KeyEncryption> {
        &self.0.kek
    }

    pub(crate) fn held(&self) -> &HeldKeys {
        &self.0.held
    }

    /// The present moment by the clock that the store was given.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn writer(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.0.writer)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("clock", &self.0.clock).finish_non_exhaustive()
    }
}
