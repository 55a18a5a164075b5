//! Transactions: who may write, and what a method reads or writes through.
//!
//! There is one writer at a time. Writers of this process take turns at a lock that is fair; a writer in another process is
//! waited for by SQLite. A transaction asks for the right to write when it begins, so it never has to give up in the middle
//! because somebody else wrote first. Who only reads needs no turn. Dropping any of these types undoes what was not finished.

use std::sync::Weak;
use std::time::Duration;

use sea_orm::{
    DatabaseConnection, DatabaseExecutor, DatabaseTransaction, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};
use tokio::time::timeout;

use super::Store;
use crate::error::StoreError;
use crate::revision::{self, Revision};

/// How long a change waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

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
        let transaction = begin(store, SqliteTransactionMode::Immediate).await?;
        Ok(Self { transaction, writes: true, changed: false, is_sound: true, turn: Some(turn) })
    }

    /// Begins one that only reads, and sees the database as it is at its first statement, whatever others write meanwhile.
    pub(super) async fn begin_reading(store: &Store) -> Result<Self, StoreError> {
        let transaction = begin(store, SqliteTransactionMode::Deferred).await?;
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
        self.transaction.commit().await.map_err(StoreError::Transaction)?;
        drop(self.turn);
        Ok(revision)
    }
}

async fn begin(store: &Store, mode: SqliteTransactionMode) -> Result<DatabaseTransaction, StoreError> {
    let options = TransactionOptions { sqlite_transaction_mode: Some(mode), ..TransactionOptions::default() };
    store.database().begin_with_options(options).await.map_err(StoreError::Transaction)
}

impl Reading {
    pub(crate) fn of_pool(store: &Store) -> Self {
        Self::Pool(store.database().clone())
    }

    pub(crate) async fn of_change(change: &Weak<SharedTransaction>) -> Result<Self, StoreError> {
        Ok(Self::Change(lock(change).await?))
    }

    pub(crate) fn executor(&self) -> DatabaseExecutor<'_> {
        match self {
            Self::Pool(database) => DatabaseExecutor::Connection(database),
            Self::Change(shared) => DatabaseExecutor::Transaction(&shared.transaction),
        }
    }
}

impl Writing {
    pub(crate) async fn of_its_own(store: &Store) -> Result<Self, StoreError> {
        let OpenTransaction { transaction, turn, .. } = OpenTransaction::begin(store).await?;
        Ok(Self { transaction, place: Place::Own { turn } })
    }

    pub(crate) async fn of_change(change: &Weak<SharedTransaction>) -> Result<Self, StoreError> {
        let mut shared = lock(change).await?;
        if !shared.writes {
            return Err(StoreError::ReadOnly);
        }
        shared.is_sound = false;
        let transaction = shared.transaction.begin().await.map_err(StoreError::Transaction)?;
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
                transaction.commit().await.map_err(StoreError::Transaction)?;
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
