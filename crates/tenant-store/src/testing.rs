//! A throw-away database for tests: the real store in a file of its own, with a key of its own and a clock that stands still.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::{Key, KeyRing};
use sea_orm::{ConnectionTrait as _, Database, DbErr};
use secrecy::SecretString;
use tempfile::TempDir;

use crate::clock::{ManualClock, Timestamp};
use crate::error::StoreError;
use crate::kek::{KeyEncryption, LocalKeys};
use crate::store::Store;

/// A store that is deleted when it is dropped.
#[derive(Debug)]
pub struct ThrowAway {
    /// The store, migrated.
    pub store: Store,
    /// Its clock, which shows some moment in 2026.
    pub clock: Arc<ManualClock>,
    /// Its keys.
    pub keys: KeyRing,
    directory: TempDir,
}

impl ThrowAway {
    /// A new and empty one. Panics where there is no room for it.
    pub async fn new() -> Self {
        let key = Key::generate().expect("tests run where there is randomness");
        let keys = KeyRing::new(key, Vec::new());
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_780_000_000_000)));
        let directory = TempDir::new().expect("tests run where there is a temporary directory");
        let url = url_of(&directory);
        let store = Store::open(&url, Arc::new(LocalKeys::new(keys.clone())), Arc::clone(&clock) as _)
            .await
            .expect("a new file opens");
        store.migrate().await.expect("an empty database is migrated");
        Self { store, clock, keys, directory }
    }

    /// The same database with the same keys, as another process has it: nothing is held in memory yet.
    pub async fn again(&self) -> Result<Store, StoreError> {
        self.with_keys(Arc::new(LocalKeys::new(self.keys.clone()))).await
    }

    /// The same database with other keys.
    pub async fn with_keys(&self, kek: Arc<dyn KeyEncryption>) -> Result<Store, StoreError> {
        Store::open(&self.url(), kek, Arc::clone(&self.clock) as _).await
    }

    /// The URL, for a second look at the same database.
    pub fn url(&self) -> SecretString {
        url_of(&self.directory)
    }

    /// The file; those with its latest changes lie beside it.
    pub fn path(&self) -> PathBuf {
        path_in(&self.directory)
    }
}

fn path_in(directory: &TempDir) -> PathBuf {
    directory.path().join("store.db")
}

fn url_of(directory: &TempDir) -> SecretString {
    SecretString::from(format!("sqlite://{}?mode=rwc", path_in(directory).display()))
}

/// Alters rows as somebody with a database tool would; answers how many.
pub async fn alter(path: &Path, sql: &str) -> Result<u64, DbErr> {
    let other = Database::connect(format!("sqlite://{}", path.display())).await?;
    let altered = other.execute_unprepared(sql).await?.rows_affected();
    other.close().await?;
    Ok(altered)
}
