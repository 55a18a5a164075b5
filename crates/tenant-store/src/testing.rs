//! A throw-away database for tests: the real store, with a key of its own and a clock that stands still. It is a file of its own or, where
//! `MCP_MUX_TEST_POSTGRES` names a server (`tests/with-postgres.sh` starts one), a database of its own there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use crypto::{Key, KeyRing};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, Statement};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::runtime::Builder;
use uuid::Uuid;

use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::kek::{KeyEncryption, LocalKeys};
use crate::store::Store;

/// Names the folder of a PostgreSQL server's socket, at which these roles may sign in.
const POSTGRES: &str = "MCP_MUX_TEST_POSTGRES";
/// Who may do anything, as somebody with a database tool.
const ADMINISTRATOR: &str = "postgres";
/// Who may make databases, and owns the tables in them.
const OWNER: &str = "mux_owner";
/// Who serves.
const SERVING: &str = "mux";
/// The database from which others are copied: the one in which everything is migrated.
const TEMPLATE: &str = "mux_template";
/// The advisory lock of whoever makes that.
const TEMPLATE_LOCK: i64 = 1;

/// A database that is deleted when this is dropped. It is migrated on PostgreSQL, and empty on SQLite.
#[derive(Debug)]
pub struct TestDatabase {
    /// What a server is told.
    pub url: SecretString,
    /// Whoever owns the tables; none on SQLite.
    pub owner_url: Option<SecretString>,
    place: Place,
    /// Where a dump is left, if it is asked for.
    dump: Option<PathBuf>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Postgres { socket: String, name: String },
}

/// A store that is deleted when it is dropped.
#[derive(Debug)]
pub struct ThrowAway {
    /// The store, migrated.
    pub store: Store,
    /// Its clock, which shows some moment in 2026.
    pub clock: Arc<ManualClock>,
    /// Its keys.
    pub keys: KeyRing,
    database: TestDatabase,
    _directory: TempDir,
}

/// Whether tests use PostgreSQL.
pub fn is_on_postgres() -> bool {
    socket().is_some()
}

#[expect(clippy::disallowed_methods, reason = "tests are told by whoever runs them, and not by a configuration")]
fn socket() -> Option<String> {
    std::env::var(POSTGRES).ok().filter(|socket| !socket.is_empty())
}

impl TestDatabase {
    /// A new one; on SQLite it is the file `path`. Panics where there is no room for it.
    pub async fn new(path: &Path) -> Self {
        let Some(socket) = socket() else {
            let url = format!("sqlite://{}?mode=rwc", path.display());
            return Self { url: url.into(), owner_url: None, place: Place::File(path.to_owned()), dump: None };
        };
        make_template(&socket).await.expect("an empty database is migrated");
        Self::made(&socket, TEMPLATE).await.expect("there is room for a database")
    }

    /// The same, which leaves all that it held in `path` when it is dropped.
    pub async fn to_be_looked_at(path: &Path) -> Self {
        let mut database = Self::new(path).await;
        database.dump = Some(path.to_owned());
        database
    }

    /// A connection of somebody with a database tool, to whom all rows are open.
    pub async fn other(&self) -> Result<DatabaseConnection, DbErr> {
        match &self.place {
            Place::File(path) => connect(&format!("sqlite://{}", path.display())).await,
            Place::Postgres { socket, name } => connect(&url_at(socket, ADMINISTRATOR, name)).await,
        }
    }

    /// Alters rows as somebody with a database tool would; answers how many.
    pub async fn alter(&self, sql: &str) -> Result<u64, DbErr> {
        let other = self.other().await?;
        let altered = other.execute_unprepared(sql).await?.rows_affected();
        other.close().await?;
        Ok(altered)
    }

    /// All that somebody finds who has the files of SQLite, or a dump of PostgreSQL, where bytes are written in hexadecimal digits.
    pub fn stolen(&self) -> std::io::Result<Vec<u8>> {
        match &self.place {
            Place::File(path) => {
                let files =
                    ["", "-wal"].map(|end| std::fs::read(format!("{}{end}", path.display())).unwrap_or_default());
                Ok(files.concat())
            }
            Place::Postgres { socket, name } => {
                let dumped = Command::new("pg_dump").args(["-h", socket, "-U", ADMINISTRATOR, name]).output()?;
                if dumped.status.success() { Ok(dumped.stdout) } else { Err(std::io::Error::other("pg_dump failed")) }
            }
        }
    }

    /// A copy as it is now; on SQLite in the file `path`.
    pub async fn copy(&self, path: &Path) -> Result<Self, DbErr> {
        match &self.place {
            Place::File(_) => {
                self.alter(&format!("VACUUM INTO '{}'", path.display())).await?;
                let url = format!("sqlite://{}", path.display()).into();
                Ok(Self { url, owner_url: None, place: Place::File(path.to_owned()), dump: None })
            }
            Place::Postgres { socket, name } => {
                let copy = Self::made(socket, "template0").await?;
                let Place::Postgres { name: new, .. } = &copy.place else { return Ok(copy) };
                let copying = format!(
                    "set -e; pg_dump -h {socket} -U {ADMINISTRATOR} -f {new}.sql {name}; \
                     psql -q -v ON_ERROR_STOP=1 -h {socket} -U {ADMINISTRATOR} -f {new}.sql {new}; rm {new}.sql"
                );
                let beside = path.parent().unwrap_or_else(|| Path::new("."));
                let copied =
                    Command::new("sh").args(["-c", &copying]).current_dir(beside).stdout(Stdio::null()).status();
                let copied = copied.map_err(|error| DbErr::Custom(error.to_string()))?;
                if copied.success() { Ok(copy) } else { Err(DbErr::Custom("pg_dump or psql failed".to_owned())) }
            }
        }
    }

    /// A new database of a server, like `template`.
    async fn made(socket: &str, template: &str) -> Result<Self, DbErr> {
        let name = format!("mux_{}", Uuid::new_v4().simple());
        let server = connect(&url_at(socket, OWNER, "postgres")).await?;
        server.execute_unprepared(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        server.close().await?;
        Ok(Self {
            url: url_at(socket, SERVING, &name).into(),
            owner_url: Some(url_at(socket, OWNER, &name).into()),
            place: Place::Postgres { socket: socket.to_owned(), name },
            dump: None,
        })
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Place::Postgres { socket, name } = &self.place else { return };
        if let (Some(path), Ok(stolen)) = (&self.dump, self.stolen()) {
            drop(std::fs::write(path, stolen));
        }
        let url = url_at(socket, ADMINISTRATOR, "postgres");
        let drop_it = || {
            // A runtime of its own, for this one may be ending.
            let runtime = Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let server = connect(&url).await.ok()?;
                server.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.ok()
            })
        };
        drop(thread::scope(|scope| scope.spawn(drop_it).join()));
    }
}

impl ThrowAway {
    /// A new and empty one. Panics where there is no room for it.
    pub async fn new() -> Self {
        let key = Key::generate().expect("tests run where there is randomness");
        let keys = KeyRing::new(key, Vec::new());
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_780_000_000_000)));
        let directory = TempDir::new().expect("tests run where there is a temporary directory");
        let database = TestDatabase::new(&directory.path().join("store.db")).await;
        let store = Store::open(&database.url, Arc::new(LocalKeys::new(keys.clone())), Arc::clone(&clock) as _)
            .await
            .expect("a new database opens");
        if database.owner_url.is_none() {
            store.migrate().await.expect("an empty database is migrated");
        }
        Self { store, clock, keys, database, _directory: directory }
    }

    /// The same database with the same keys, as another process has it: nothing is held in memory yet.
    pub async fn again(&self) -> Result<Store, StoreError> {
        self.with_keys(Arc::new(LocalKeys::new(self.keys.clone()))).await
    }

    /// The same database with other keys.
    pub async fn with_keys(&self, kek: Arc<dyn KeyEncryption>) -> Result<Store, StoreError> {
        Store::open(&self.database.url, kek, Arc::clone(&self.clock) as _).await
    }

    /// Where it is.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }
}

fn url_at(socket: &str, role: &str, database: &str) -> String {
    format!("postgres://{role}@localhost/{database}?host={socket}")
}

/// One connection.
async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await
}

/// Migrates a database for others to be copied from, unless somebody has done it.
async fn make_template(socket: &str) -> Result<(), StoreError> {
    let sql = |sql: &str| Statement::from_string(DbBackend::Postgres, sql);
    let failed = StoreError::Transaction;
    let server = connect(&url_at(socket, OWNER, "postgres")).await.map_err(failed)?;
    let lock = format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})");
    server.query_one_raw(sql(&lock)).await.map_err(failed)?;
    let known = format!("SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'");
    if server.query_one_raw(sql(&known)).await.map_err(failed)?.is_none() {
        let making = format!("{TEMPLATE}_{}", Uuid::new_v4().simple());
        server.execute_unprepared(&format!("CREATE DATABASE {making}")).await.map_err(failed)?;
        migrate(&url_at(socket, OWNER, &making).into(), &url_at(socket, SERVING, &making).into()).await?;
        // It has its name once it is whole.
        server.execute_unprepared(&format!("ALTER DATABASE {making} RENAME TO {TEMPLATE}")).await.map_err(failed)?;
    }
    // The lock ends with the connection.
    server.close().await.map_err(failed)
}

async fn migrate(owner: &SecretString, serving: &SecretString) -> Result<(), StoreError> {
    let keys = KeyRing::new(Key::generate().map_err(StoreError::KeyMade)?, Vec::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::open(owner, Arc::new(LocalKeys::new(keys)), clock).await?;
    store.migrate_for(Some(serving)).await?;
    store.database().clone().close().await.map_err(StoreError::Transaction)
}
