//! The platform's own data key: seals what belongs to no tenant, such as session ids, and is the canary by which a wrong
//! key-encryption key is noticed when the server starts and not when the first secret is needed.

use crypto::{Key, KeyId, KeyRing};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use crate::choice::DataKeyState;
use crate::entity::{platform_key, tenant_key};
use crate::error::StoreError;
use crate::id::TenantId;
use crate::kek::{KekError, KeyPlace};
use crate::name::KekId;
use crate::store::{Store, row};

impl Store {
    /// Proves that the configured key-encryption keys are those of this database, and answers the platform's own keys. The first
    /// call on a new database makes one. A tenant whose key is under another one is not served, and costs nobody else anything.
    pub async fn platform_keys(&self) -> Result<KeyRing, StoreError> {
        if rows(self).await?.is_empty() {
            self.make_platform_key().await?;
        }
        let mut keys = Vec::new();
        for (id, model) in rows(self).await? {
            if !self.kek().knows(&model.kek_id) {
                return Err(StoreError::KekMissing { needed: model.kek_id, configured: self.kek().describe() });
            }
            let place = KeyPlace { owner: String::new(), key: id };
            let key = self.kek().unwrap(place, &model.kek_id, &model.wrapped).await.map_err(|source| match source {
                KekError::Unreachable => StoreError::KekUnavailable(source),
                source => StoreError::KekWrong { kek: model.kek_id.clone(), source },
            })?;
            keys.push(key);
        }
        let newest = keys.pop().ok_or(StoreError::PlatformKey)?;
        Ok(KeyRing::new(newest, keys))
    }

    /// The tenants whose data keys are wrapped under a key-encryption key that is not configured, and that key.
    pub async fn locked_tenants(&self) -> Result<Vec<(TenantId, KekId)>, StoreError> {
        let living = tenant_key::Entity::find().filter(tenant_key::Column::State.ne(DataKeyState::Destroyed));
        let keys =
            row::models(&self.reading().await?.executor(), living, |row| Ok((row.tenant_id, row.kek_id))).await?;
        Ok(keys.into_iter().filter(|(_, kek)| !self.kek().knows(kek)).collect())
    }

    async fn make_platform_key(&self) -> Result<(), StoreError> {
        let key = Key::generate().map_err(StoreError::KeyMade)?;
        let place = KeyPlace { owner: String::new(), key: key.id() };
        let (kek_id, wrapped) = self.kek().wrap(place, &key).await.map_err(StoreError::KekUnavailable)?;
        let writing = self.writing().await?;
        let db = writing.executor();
        // Another process may have been faster.
        if row::models(db, platform_key::Entity::find(), Ok).await?.is_empty() {
            let created_ms = self.now().as_millis();
            let model = platform_key::ActiveModel {
                id: Set(key.id().to_string()),
                kek_id: Set(kek_id),
                wrapped: Set(wrapped),
                created_ms: Set(created_ms),
            };
            let insert = platform_key::Entity::insert(model).exec_without_returning(db);
            insert.await.map_err(StoreError::write("platform_key"))?;
        }
        writing.finish(false).await
    }
}

async fn rows(store: &Store) -> Result<Vec<(KeyId, platform_key::Model)>, StoreError> {
    let select = platform_key::Entity::find().order_by_asc(platform_key::Column::CreatedMs);
    row::models(store.database(), select, |model| Ok((model.id.parse()?, model))).await
}
