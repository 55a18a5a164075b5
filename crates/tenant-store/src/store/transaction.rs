//! Transactions: who may write, and what a method reads or writes through.
//!
//! There is one writer at a time. Writers of this process take turns at a lock that is fair; a writer in another process is
//! waited for by SQLite, or at an advisory lock of PostgreSQL. A transaction asks for the right to write when it begins, so it never has
//! to give up in the middle because somebody else wrote first. Who only reads needs no turn. Dropping any of these types undoes what was
//! not finished.
//!
//! On PostgreSQL every transaction says whose rows it is about, and row-level security lets it see no others: the filters of the
//! statements say the same a second time.

use std::sync::Weak;
use std::time::Duration;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};
use tokio::time::timeout;

use super::Store;
use super::patience::answered;
use crate::error::StoreError;
use crate::id::TenantId;
use crate::revision::{self, Revision};

/// How long a change waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The advisory lock of whoever writes, on PostgreSQL: a number that nobody else is likely to use.
pub(crate) const WRITER_LOCK: i64 = 0x6d63_702d_6d75_7801;
/// Whose rows a transaction may see, as the policies of row-level security read it.
const WHOSE: &str = "mcp_mux.tenant";
const WHOSE_ALL: &str = "*";

/// Whose rows a method is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The platform's, and those of all tenants.
    All,
    /// One tenant's.
    Tenant(TenantId),
}

/// A transaction that several methods share; empty once it is over.
pub(crate) type SharedTransaction = Mutex<Option<OpenTransaction>>;

type Shared = OwnedMappedMutexGuard<Option<OpenTransaction>, OpenTransaction>;

/// A transaction that holds the writer's turn. The turn is declared last, so that it is passed on last.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    transaction: DatabaseTransaction,
    /// Whether it may write.
    writes: bool,
    changed: bool,
    /// Whether no part of it was given up while it began or ended. Then it is open what the database did: undoing the part can
    /// undo the whole, without anybody hearing of it.
    is_sound: bool,
    /// Held by those that write.
    turn: Option<OwnedMutexGuard<()>>,
}

/// What a method that only reads works on.
#[derive(Debug)]
pub(crate) enum Reading {
    Pool(DatabaseConnection),
    Own(DatabaseTransaction),
    Change(Shared),
}

/// What a method that writes works on: a transaction of its own, or a part of a shared one that can be undone alone. Nothing
/// of it remains unless it is finished.
#[derive(Debug)]
pub(crate) struct Writing {
    transaction: DatabaseTransaction,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Own { turn: Option<OwnedMutexGuard<()>> },
    Change(Shared),
}

impl OpenTransaction {
    pub(super) async fn begin(store: &Store) -> Result<Self, StoreError> {
        let turn = timeout(TURN_TIMEOUT, store.writer().lock_owned()).await.map_err(|_| StoreError::Busy)?;
        let transaction = begin_writing(store).await?;
        Ok(Self { transaction, writes: true, changed: false, is_sound: true, turn: Some(turn) })
    }

    /// Begins one that adds to what is no configuration. Where the database can do with several writers, nobody's turn is waited for.
    async fn begin_beside(store: &Store) -> Result<Self, StoreError> {
        if !store.has_roles() {
            return Self::begin(store).await;
        }
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        let options = TransactionOptions { isolation_level, ..TransactionOptions::default() };
        let transaction = begin(store, options).await?;
        Ok(Self { transaction, writes: true, changed: false, is_sound: true, turn: None })
    }

    /// Begins one that only reads, and sees the database as it is at its first statement, whatever others write meanwhile.
    pub(super) async fn begin_reading(store: &Store) -> Result<Self, StoreError> {
        let transaction = begin_reading(store).await?;
        Ok(Self { transaction, writes: false, changed: false, is_sound: true, turn: None })
    }

    /// Makes it last, and raises the revision if anything changed.
    pub(super) async fn commit(self) -> Result<Revision, StoreError> {
        if !self.is_sound {
            return Err(StoreError::ChangeBroken);
        }
        if self.changed {
            revision::raise(&self.transaction).await?;
        }
        let revision = revision::current(&self.transaction).await?;
        answered(self.transaction.commit()).await.map_err(StoreError::Transaction)?;
        drop(self.turn);
        Ok(revision)
    }
}

/// Begins one that writes, as soon as nobody else does. What was committed while it waited for its turn is seen, whatever the server's
/// default is.
async fn begin_writing(store: &Store) -> Result<DatabaseTransaction, StoreError> {
    let transaction = if store.has_roles() {
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        begin(store, TransactionOptions { isolation_level, ..TransactionOptions::default() }).await?
    } else {
        let mode = Some(SqliteTransactionMode::Immediate);
        begin(store, TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() }).await?
    };
    if store.has_roles() {
        let sql = "SELECT pg_advisory_xact_lock($1)";
        let lock = Statement::from_sql_and_values(DbBackend::Postgres, sql, [WRITER_LOCK.into()]);
        let failed = |error| if is_late(&error) { StoreError::Busy } else { StoreError::Transaction(error) };
        answered(transaction.query_one_raw(lock)).await.map_err(failed)?;
    }
    Ok(transaction)
}

/// Begins one that sees the database as it is at its first statement, whatever others write meanwhile.
async fn begin_reading(store: &Store) -> Result<DatabaseTransaction, StoreError> {
    let options = if store.has_roles() {
        let (isolation_level, access_mode) = (Some(IsolationLevel::RepeatableRead), Some(AccessMode::ReadOnly));
        TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() }
    } else {
        let mode = Some(SqliteTransactionMode::Deferred);
        TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() }
    };
    begin(store, options).await
}

async fn begin(store: &Store, options: TransactionOptions) -> Result<DatabaseTransaction, StoreError> {
    answered(store.database().begin_with_options(options)).await.map_err(StoreError::Transaction)
}

/// Whether somebody else had the lock for too long.
fn is_late(error: &DbErr) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let (DbErr::Query(RuntimeErr::SqlxError(error)) | DbErr::Exec(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

/// From here on a transaction sees those rows only, where the database can hide others.
async fn narrow(transaction: &DatabaseTransaction, whose: Whose) -> Result<(), StoreError> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let whose = match whose {
        Whose::All => WHOSE_ALL.to_owned(),
        Whose::Tenant(tenant) => tenant.to_string(),
    };
    let sql = "SELECT set_config($1, $2, true)";
    let set = Statement::from_sql_and_values(DbBackend::Postgres, sql, [WHOSE.into(), whose.into()]);
    answered(transaction.query_one_raw(set)).await.map_err(StoreError::Transaction)?;
    Ok(())
}

impl Reading {
    pub(crate) async fn of_its_own(store: &Store, whose: Whose) -> Result<Self, StoreError> {
        if !store.has_roles() {
            return Ok(Self::Pool(store.database().clone()));
        }
        let transaction = begin_reading(store).await?;
        narrow(&transaction, whose).await?;
        Ok(Self::Own(transaction))
    }

    pub(crate) async fn of_change(change: &Weak<SharedTransaction>, whose: Whose) -> Result<Self, StoreError> {
        let shared = lock(change).await?;
        narrow(&shared.transaction, whose).await?;
        Ok(Self::Change(shared))
    }

    pub(crate) fn executor(&self) -> DatabaseExecutor<'_> {
        match self {
            Self::Pool(database) => DatabaseExecutor::Connection(database),
            Self::Own(transaction) => DatabaseExecutor::Transaction(transaction),
            Self::Change(shared) => DatabaseExecutor::Transaction(&shared.transaction),
        }
    }
}

impl Writing {
    pub(crate) async fn of_its_own(store: &Store, whose: Whose) -> Result<Self, StoreError> {
        let OpenTransaction { transaction, turn, .. } = OpenTransaction::begin(store).await?;
        narrow(&transaction, whose).await?;
        Ok(Self { transaction, place: Place::Own { turn } })
    }

    /// What adds to what is no configuration. It sees no rows before it says whose.
    pub(crate) async fn beside(store: &Store) -> Result<Self, StoreError> {
        let OpenTransaction { transaction, turn, .. } = OpenTransaction::begin_beside(store).await?;
        Ok(Self { transaction, place: Place::Own { turn } })
    }

    /// From here on it is about those rows.
    pub(crate) async fn about(&self, whose: Whose) -> Result<(), StoreError> {
        narrow(&self.transaction, whose).await
    }

    pub(crate) async fn of_change(change: &Weak<SharedTransaction>, whose: Whose) -> Result<Self, StoreError> {
        let mut shared = lock(change).await?;
        if !shared.writes {
            return Err(StoreError::ReadOnly);
        }
        shared.is_sound = false;
        let transaction = shared.transaction.begin().await.map_err(StoreError::Transaction)?;
        narrow(&transaction, whose).await?;
        shared.is_sound = true;
        Ok(Self { transaction, place: Place::Change(shared) })
    }

    pub(crate) fn executor(&self) -> &DatabaseTransaction {
        &self.transaction
    }

    /// Makes it last. If anything `changed`, the revision is raised: now, or with the change that this is a part of.
    pub(crate) async fn finish(self, changed: bool) -> Result<(), StoreError> {
        // Locals are dropped last to first: should anything fail here, the transaction ends before the turn is passed on.
        let Self { place, transaction } = self;
        match place {
            Place::Own { turn } => {
                if changed {
                    revision::raise(&transaction).await?;
                }
                answered(transaction.commit()).await.map_err(StoreError::Transaction)?;
                drop(turn);
            }
            Place::Change(mut shared) => {
                shared.is_sound = false;
                transaction.commit().await.map_err(StoreError::Transaction)?;
                shared.is_sound = true;
                shared.changed |= changed;
            }
        }
        Ok(())
    }
}

async fn lock(change: &Weak<SharedTransaction>) -> Result<Shared, StoreError> {
    let shared = change.upgrade().ok_or(StoreError::ChangeOver)?;
    let shared =
        OwnedMutexGuard::try_map(shared.lock_owned().await, Option::as_mut).map_err(|_| StoreError::ChangeOver)?;
    if shared.is_sound { Ok(shared) } else { Err(StoreError::ChangeBroken) }
}
