//! A change of configuration: one transaction, one revision, all or nothing.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::Store;
use super::transaction::{OpenTransaction, Reading, SharedTransaction, Whose, Writing};
use crate::error::StoreError;
use crate::revision::{self, Revision};
use crate::scope::{TenantScope, TenantStore};

/// A change of configuration. Nothing of it lasts, and nobody else sees it, until it is committed; dropping it undoes it.
///
/// While it is open nobody else can write, so it should hold nothing but work on the database.
#[derive(Debug)]
#[must_use = "a change that is dropped is undone"]
pub struct Change {
    store: Store,
    shared: Arc<SharedTransaction>,
}

/// The database as it is at one moment, whatever others write while it is read.
#[derive(Debug)]
pub struct Still {
    store: Store,
    shared: Arc<SharedTransaction>,
}

/// What became of a thing that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It did not exist.
    Created,
    /// It was different.
    Changed,
    /// It was the same.
    Unchanged,
}

impl Store {
    /// Begins a change of configuration, as soon as no other one is open.
    pub async fn begin(&self) -> Result<Change, StoreError> {
        let transaction = OpenTransaction::begin(self).await?;
        Ok(Change { store: self.clone(), shared: Arc::new(Mutex::new(Some(transaction))) })
    }
}

impl Store {
    /// Begins to read the database as it is at one moment. Keep it for no longer than that takes.
    pub async fn still(&self) -> Result<Still, StoreError> {
        let transaction = OpenTransaction::begin_reading(self).await?;
        Ok(Still { store: self.clone(), shared: Arc::new(Mutex::new(Some(transaction))) })
    }
}

impl Still {
    /// One tenant's rows at that moment. Methods that write fail.
    pub fn tenant(&self, scope: TenantScope) -> TenantStore {
        TenantStore::new(self.store.clone(), scope, Some(Arc::downgrade(&self.shared)))
    }

    /// The state of the configuration at that moment.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        revision::current(&self.reading().await?.executor()).await
    }

    pub(crate) async fn reading(&self) -> Result<Reading, StoreError> {
        self.reading_of(Whose::All).await
    }

    pub(crate) async fn reading_of(&self, whose: Whose) -> Result<Reading, StoreError> {
        Reading::of_change(&Arc::downgrade(&self.shared), whose).await
    }
}

impl Change {
    /// One tenant's rows inside this change.
    pub fn tenant(&self, scope: TenantScope) -> TenantStore {
        TenantStore::new(self.store.clone(), scope, Some(Arc::downgrade(&self.shared)))
    }

    /// The database as this change has it so far, for whoever only reads.
    pub fn so_far(&self) -> Still {
        Still { store: self.store.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Makes the change last. The revision is another one only if something changed.
    pub async fn commit(self) -> Result<Revision, StoreError> {
        let transaction = self.shared.lock().await.take().ok_or(StoreError::ChangeOver)?;
        transaction.commit().await
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) async fn reading(&self) -> Result<Reading, StoreError> {
        Reading::of_change(&Arc::downgrade(&self.shared), Whose::All).await
    }

    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        Writing::of_change(&Arc::downgrade(&self.shared), Whose::All).await
    }
}
