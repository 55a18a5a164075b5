//! The platform's own data key: seals what belongs to no tenant, such as session ids, and is the canary by which a wrong
//! key-encryption key is noticed when the server starts and not when the first secret is needed.

use crypto::{Key, KeyId, KeyRing};
use sea_orm::ActiveValue::Set;
use sea_orm::{EntityTrait as _, QueryOrder as _};

use crate::entity::platform_key;
use crate::error::StoreError;
use crate::kek::{KekError, KeyPlace};
use crate::store::transaction::Writing;
use crate::store::{Store, row};

impl Store {
    /// Proves that the configured key-encryption keys are those of this database, all that it needs, and answers the platform's
    /// own keys. The first call on a new database makes one.
    pub async fn platform_keys(&self) -> Result<KeyRing, StoreError> {
        if rows(self).await?.is_empty() {
            self.make_platform_key().await?;
        }
        let needed = self.kek_uses().await?.into_iter().find(|used| !self.kek().knows(&used.kek));
        if let Some(needed) = needed {
            return Err(StoreError::KekMissing { needed: needed.kek, configured: self.kek().describe() });
        }
        let mut keys = Vec::new();
        for (id, model) in rows(self).await? {
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

    async fn make_platform_key(&self) -> Result<(), StoreError> {
        let key = Key::generate().map_err(StoreError::KeyMade)?;
        let place = KeyPlace { owner: String::new(), key: key.id() };
        let (kek_id, wrapped) = self.kek().wrap(place, &key).await.map_err(StoreError::KekUnavailable)?;
        let writing = Writing::of_its_own(self).await?;
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
