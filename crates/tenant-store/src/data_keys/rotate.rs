//! Turning keys over while everything goes on: the outer key by wrapping each data key anew, a tenant's data key by sealing each of
//! its secrets anew. Each step changes one row and only as it was read, so any number of these may run, and stop anywhere.

use std::collections::BTreeMap;

use crypto::KeyId;
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::{WrappedKey, active, insert, of_tenant, wrapped, wrapped_since};
use crate::choice::DataKeyState;
use crate::credentials;
use crate::entity::{credential, platform_key, tenant_key};
use crate::error::StoreError;
use crate::kek::{KekError, KeyPlace};
use crate::name::KekId;
use crate::recording;
use crate::scope::TenantStore;
use crate::store::{Store, row};

/// How many rows one step turns over.
const STEP_ROWS: u64 = 50;

/// How far a turn-over has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What this step did.
    pub done: u64,
    /// What is left, what is stuck included.
    pub left: u64,
}

/// What could not be turned over, and why. It is left out of further steps, so that one row that was damaged stops no other.
#[derive(Debug, Default)]
pub struct Stuck(Vec<(String, StoreError)>);

impl Stuck {
    /// What each is called, and its error.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StoreError)> {
        self.0.iter().map(|(what, error)| (what.as_str(), error))
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The same of what each step tries.
    fn note_once(&mut self, what: String, error: StoreError) -> Result<(), StoreError> {
        if self.0.iter().any(|(known, _)| *known == what) { Ok(()) } else { self.note(what, error) }
    }

    /// Notes an error of one row. One of the provider or of the database concerns every row.
    fn note(&mut self, what: String, error: StoreError) -> Result<(), StoreError> {
        use KekError::{Malformed, Refused, Unknown};

        let is_of_the_row = matches!(
            &error,
            StoreError::Rewrap { source: Refused | Unknown(_) | Malformed, .. }
                | StoreError::DataKey { source: Refused | Unknown(_) | Malformed, .. }
                | StoreError::Unopened { .. }
                | StoreError::RecordingKey(_)
        );
        if !is_of_the_row {
            return Err(error);
        }
        self.0.push((what, error));
        Ok(())
    }
}

/// What lies under one key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekUse {
    /// The key.
    pub kek: KekId,
    /// How many data keys of tenants.
    pub tenant_keys: u64,
    /// How many of the platform's own.
    pub platform_keys: u64,
}

impl Store {
    /// What lies under each key-encryption key that is still needed.
    pub async fn kek_uses(&self) -> Result<Vec<KekUse>, StoreError> {
        let mut uses = BTreeMap::<KekId, (u64, u64)>::new();
        let living = tenant_key::Entity::find().filter(tenant_key::Column::State.ne(DataKeyState::Destroyed));
        let keks = row::models(&self.reading().await?.executor(), living, |row| Ok(row.kek_id)).await?;
        for kek in keks {
            uses.entry(kek).or_default().0 += 1;
        }
        for kek in row::models(self.database(), platform_key::Entity::find(), |row| Ok(row.kek_id)).await? {
            uses.entry(kek).or_default().1 += 1;
        }
        Ok(uses
            .into_iter()
            .map(|(kek, (tenant_keys, platform_keys))| KekUse { kek, tenant_keys, platform_keys })
            .collect())
    }

    /// Wraps some data keys under the present key-encryption key which are under another one, the platform's own first. Again and
    /// again, until nothing is left but what is stuck.
    pub async fn rewrap_some(&self, stuck: &mut Stuck) -> Result<Progress, StoreError> {
        let primary = self.kek().primary().await.map_err(StoreError::KekUnavailable)?;
        let mut done = self.rewrap_platform(&primary).await?;
        let select = tenant_key::Entity::find()
            .filter(tenant_key::Column::State.ne(DataKeyState::Destroyed))
            .filter(tenant_key::Column::KekId.ne(primary.clone()));
        let known: Vec<&str> = stuck.0.iter().map(|(id, _)| id.as_str()).collect();
        let step = select.clone().filter(tenant_key::Column::Id.is_not_in(known)).limit(STEP_ROWS);
        // Read before, so that no transaction is open while the key provider is asked.
        let keys = row::models(&self.reading().await?.executor(), step, wrapped_since).await?;
        for (key, before) in keys {
            match self.rewrap_one(&key, before).await {
                Ok(is_done) => done += u64::from(is_done),
                Err(error) => stuck.note(key.id.to_string(), error)?,
            }
        }
        let left = select.count(&self.reading().await?.executor()).await.map_err(StoreError::read("tenant_key"))?;
        Ok(Progress { done, left })
    }

    /// `false` if somebody else was faster.
    async fn rewrap_one(&self, key: &WrappedKey, mut before: Vec<KekId>) -> Result<bool, StoreError> {
        let (kek, bytes) = self.rewrapped(key.place(), &key.kek, &key.wrapped).await?;
        before.retain(|known| *known != kek && *known != key.kek);
        before.push(key.kek.clone());
        let columns = tenant_key::ActiveModel {
            kek_id: Set(kek),
            wrapped_before: Set(row::json("tenant_key", &before)?),
            wrapped: Set(bytes),
            ..Default::default()
        };
        let writing = self.writing().await?;
        let update = tenant_key::Entity::update_many()
            .set(columns)
            .filter(tenant_key::Column::TenantId.eq(key.tenant))
            .filter(tenant_key::Column::Id.eq(key.id.to_string()))
            .filter(tenant_key::Column::Wrapped.eq(key.wrapped.clone()));
        let updated = update.exec(writing.executor()).await.map_err(StoreError::write("tenant_key"))?;
        // Replicas take over the new wrapping, so that they can do without the old key.
        writing.finish(updated.rows_affected > 0).await?;
        Ok(updated.rows_affected > 0)
    }

    async fn rewrap_platform(&self, primary: &KekId) -> Result<u64, StoreError> {
        let select = platform_key::Entity::find().filter(platform_key::Column::KekId.ne(primary.clone()));
        let mut done = 0;
        for key in row::models(self.database(), select, Ok).await? {
            let id: KeyId = key.id.parse().map_err(|_| StoreError::PlatformKey)?;
            let place = KeyPlace { owner: String::new(), key: id };
            let (kek, bytes) = self.rewrapped(place, &key.kek_id, &key.wrapped).await?;
            let writing = self.writing().await?;
            let update = platform_key::Entity::update_many()
                .set(platform_key::ActiveModel { kek_id: Set(kek), wrapped: Set(bytes), ..Default::default() })
                .filter(platform_key::Column::Id.eq(key.id))
                .filter(platform_key::Column::Wrapped.eq(key.wrapped));
            let updated = update.exec(writing.executor()).await.map_err(StoreError::write("platform_key"))?;
            writing.finish(false).await?;
            done += updated.rows_affected;
        }
        Ok(done)
    }

    async fn rewrapped(&self, place: KeyPlace, kek: &KekId, bytes: &[u8]) -> Result<(KekId, Vec<u8>), StoreError> {
        let failed = |source| StoreError::Rewrap { key: place.key, source };
        let key = self.kek().unwrap(place.clone(), kek, bytes).await.map_err(failed)?;
        self.kek().wrap(place.clone(), &key).await.map_err(failed)
    }
}

impl TenantStore {
    /// Gives the tenant a new data key, with which all is sealed from now on. What the old one sealed stays readable until
    /// [`TenantStore::reseal_some`] has sealed it anew.
    pub async fn begin_rotation(&self) -> Result<KeyId, StoreError> {
        let made = self.make_key().await?;
        let id = made.id;
        let writing = self.writing().await?;
        let db = writing.executor();
        crate::tenants::require_unshredded(db, self.id()).await?;
        if let Some(old) = active(db, self.id()).await? {
            self.set_state(db, old.id, DataKeyState::Active, DataKeyState::DecryptOnly).await?;
        }
        insert(db, made, self.store().now()).await?;
        writing.finish(true).await?;
        Ok(id)
    }

    /// Seals some credentials with the present data key which are sealed with another one, and destroys old keys that nothing is
    /// left under. Again and again, until nothing is left but what is stuck.
    pub async fn reseal_some(&self, stuck: &mut Stuck) -> Result<Progress, StoreError> {
        let present = self.sealing_key().await?;
        let old = credential::Entity::find()
            .filter(credential::Column::TenantId.eq(self.id()))
            .filter(credential::Column::KeyId.ne(present.id.to_string()));
        let mut done = 0;
        // What is stuck stays in front, so there must be room behind it.
        for sealed in credentials::sealed_with_others(self, &present, STEP_ROWS + stuck.count()).await? {
            let what = format!("{}/{}/{}", sealed.upstream(), sealed.owner(), sealed.name());
            if stuck.iter().any(|(known, _)| known == what) {
                continue;
            }
            match credentials::reseal(self, &sealed, &present).await {
                Ok(is_done) => done += u64::from(is_done),
                Err(error) => stuck.note(what, error)?,
            }
        }
        let is_left = match self.reseal_recording_key(&present).await {
            Ok((is_done, is_left)) => {
                done += u64::from(is_done);
                is_left
            }
            Err(error) => {
                stuck.note_once("recording key".to_owned(), error)?;
                true
            }
        };
        let reading = self.reading().await?;
        let left = u64::from(is_left) + old.count(&reading.executor()).await.map_err(StoreError::read("credential"))?;
        drop(reading);
        if left == 0 {
            self.retire_keys().await?;
        }
        Ok(Progress { done, left })
    }

    /// Whether a rotation was begun and is not finished.
    pub async fn is_rotating(&self) -> Result<bool, StoreError> {
        let select = of_tenant(self.id()).filter(tenant_key::Column::State.eq(DataKeyState::DecryptOnly));
        Ok(!row::models(&self.reading().await?.executor(), select, Ok).await?.is_empty())
    }

    /// Destroys the keys that only open, once the count proves, in the same transaction, that nothing is sealed with them.
    async fn retire_keys(&self) -> Result<(), StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let select = of_tenant(self.id()).filter(tenant_key::Column::State.eq(DataKeyState::DecryptOnly));
        let mut changed = false;
        for key in row::models(db, select.order_by_asc(tenant_key::Column::Id), wrapped).await? {
            let under = credential::Entity::find()
                .filter(credential::Column::TenantId.eq(self.id()))
                .filter(credential::Column::KeyId.eq(key.id.to_string()));
            let credentials = under.count(db).await.map_err(StoreError::read("credential"))?;
            if credentials + recording::count_under(db, self.id(), Some(&key.id)).await? == 0 {
                self.set_state(db, key.id, DataKeyState::DecryptOnly, DataKeyState::Destroyed).await?;
                changed = true;
            }
        }
        writing.finish(changed).await
    }

    async fn set_state(
        &self,
        db: &DatabaseTransaction,
        key: KeyId,
        from: DataKeyState,
        to: DataKeyState,
    ) -> Result<(), StoreError> {
        let mut columns = tenant_key::ActiveModel { state: Set(to), ..Default::default() };
        if to == DataKeyState::Destroyed {
            columns.wrapped = Set(Vec::new());
        }
        let update = tenant_key::Entity::update_many()
            .set(columns)
            .filter(tenant_key::Column::TenantId.eq(self.id()))
            .filter(tenant_key::Column::Id.eq(key.to_string()))
            .filter(tenant_key::Column::State.eq(from));
        update.exec(db).await.map_err(StoreError::write("tenant_key"))?;
        Ok(())
    }
}
