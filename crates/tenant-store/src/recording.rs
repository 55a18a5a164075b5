//! What a tenant's recorded arguments and results are sealed with: a key of its own, which lies sealed under the tenant's data key. Lines of
//! the audit record never change, so they cannot be sealed anew when data keys are turned over: this key is. With the data keys of a shredded
//! tenant it is gone, and with it all that it sealed.

use std::fmt;
use std::sync::Arc;

use crypto::{Key, KeyId, KeyRing, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, PaginatorTrait as _, QueryFilter as _,
    QueryResult, QuerySelect as _, Select,
};

use crate::data_keys::{self, WrappedKey};
use crate::entity::{recording_key, tenant_key};
use crate::error::StoreError;
use crate::id::TenantId;
use crate::name::KekId;
use crate::scope::TenantStore;
use crate::store::row;

/// How often the key is sealed again because its data key was turned over meanwhile.
const SEAL_ATTEMPTS_MAX: usize = 5;
/// The columns of another table where it is read.
const KEK: &str = "key_kek_id";
const WRAPPED: &str = "key_wrapped";

/// A tenant's recording key as the database holds it, with its wrapped data key.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRecordingKey {
    tenant: TenantId,
    id: KeyId,
    key: Arc<WrappedKey>,
    sealed: Vec<u8>,
}

impl fmt::Debug for SealedRecordingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedRecordingKey").field("tenant", &self.tenant).field("id", &self.id).finish_non_exhaustive()
    }
}

impl TenantStore {
    /// Makes the tenant's recording key; `false` if it has one.
    pub async fn make_recording_key(&self) -> Result<bool, StoreError> {
        let made = Key::generate().map_err(StoreError::KeyMade)?;
        for _ in 0..SEAL_ATTEMPTS_MAX {
            if let Some(key) = self.recording_key().await? {
                // One that does not open is not replaced by itself: what it sealed would be gone for good.
                self.open_recording_key(&key).await?;
                return Ok(false);
            }
            let present = self.sealing_key().await?;
            let new = SealedRecordingKey {
                tenant: self.id(),
                id: made.id(),
                sealed: sealed(self.id(), (&made, &self.data_key(&present).await?))?,
                key: Arc::new(present),
            };
            if let Some(is_made) = self.insert_recording_key(&new).await? {
                return Ok(is_made);
            }
        }
        Err(StoreError::Busy)
    }

    /// `false` if there is one by now; nothing, if the data key does not seal any more.
    async fn insert_recording_key(&self, new: &SealedRecordingKey) -> Result<Option<bool>, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        crate::tenants::require_unshredded(db, self.id()).await?;
        if !data_keys::count_seal(db, &new.key).await? {
            return Ok(None);
        }
        let model = recording_key::ActiveModel {
            tenant_id: Set(new.tenant),
            id: Set(new.id.to_string()),
            key_id: Set(new.key.id.to_string()),
            sealed: Set(new.sealed.clone()),
            created_ms: Set(self.store().now().as_millis()),
        };
        let insert = recording_key::Entity::insert(model).on_conflict(OnConflict::new().do_nothing().to_owned());
        let inserted = insert.exec_without_returning(db).await.map_err(StoreError::write("recording_key"))? > 0;
        writing.finish(inserted).await?;
        Ok(Some(inserted))
    }

    /// The tenant's recording key, sealed, if it has one.
    pub async fn recording_key(&self) -> Result<Option<SealedRecordingKey>, StoreError> {
        let select = of_all().filter(recording_key::Column::TenantId.eq(self.id()));
        Ok(row::rows(&self.reading().await?.executor(), select, parse).await?.pop())
    }

    /// Opens it, without touching the database.
    pub async fn open_recording_key(&self, key: &SealedRecordingKey) -> Result<Key, StoreError> {
        if key.tenant != self.id() || key.key.tenant != self.id() {
            return Err(StoreError::NotFound { what: "recording key", name: key.id.to_string() });
        }
        let ring = self.data_key(&key.key).await?;
        opened(key, &ring)
    }

    /// Seals it anew with `present`, if it is sealed with another one. Says whether it did, and whether it is left.
    pub(crate) async fn reseal_recording_key(&self, present: &WrappedKey) -> Result<(bool, bool), StoreError> {
        let Some(old) = self.recording_key().await?.filter(|old| old.key.id != present.id) else {
            return Ok((false, false));
        };
        let key = opened(&old, &self.data_key(&old.key).await?)?;
        let sealed = sealed(self.id(), (&key, &self.data_key(present).await?))?;
        let writing = self.writing().await?;
        let db = writing.executor();
        if !data_keys::count_seal(db, present).await? {
            return Ok((false, true));
        }
        let columns = recording_key::ActiveModel {
            key_id: Set(present.id.to_string()),
            sealed: Set(sealed),
            ..Default::default()
        };
        let update = recording_key::Entity::update_many()
            .set(columns)
            .filter(recording_key::Column::TenantId.eq(self.id()))
            .filter(recording_key::Column::Sealed.eq(old.sealed));
        let updated = update.exec(db).await.map_err(StoreError::write("recording_key"))?.rows_affected > 0;
        // Replicas take over what was sealed anew, so that the old key can go.
        writing.finish(updated).await?;
        Ok((updated, !updated))
    }
}

/// How many recording keys lie under that data key.
pub(crate) async fn count_under<C: ConnectionTrait>(
    db: &C,
    tenant: TenantId,
    key: Option<&KeyId>,
) -> Result<u64, StoreError> {
    let mut select = recording_key::Entity::find().filter(recording_key::Column::TenantId.eq(tenant));
    if let Some(key) = key {
        select = select.filter(recording_key::Column::KeyId.eq(key.to_string()));
    }
    select.count(db).await.map_err(StoreError::read("recording_key"))
}

/// Those of all tenants.
pub(crate) fn of_all() -> Select<recording_key::Entity> {
    recording_key::Entity::find()
        .inner_join(tenant_key::Entity)
        .column_as(tenant_key::Column::KekId, KEK)
        .column_as(tenant_key::Column::Wrapped, WRAPPED)
}

pub(crate) fn parse(row: &QueryResult) -> Result<SealedRecordingKey, row::BoxError> {
    let model = recording_key::Model::from_query_result(row, "")?;
    let key = WrappedKey {
        tenant: model.tenant_id,
        id: model.key_id.parse()?,
        kek: row.try_get::<KekId>("", KEK)?,
        wrapped: row.try_get("", WRAPPED)?,
    };
    Ok(SealedRecordingKey { tenant: model.tenant_id, id: model.id.parse()?, key: Arc::new(key), sealed: model.sealed })
}

fn sealed(tenant: TenantId, (key, under): (&Key, &KeyRing)) -> Result<Vec<u8>, StoreError> {
    in_place(tenant, key.id(), |place| crypto::seal(under, place, key.bytes())).map_err(StoreError::RecordingKeySeal)
}

fn opened(key: &SealedRecordingKey, under: &KeyRing) -> Result<Key, StoreError> {
    let opened = in_place(key.tenant, key.id, |place| crypto::open(under, place, &key.sealed));
    let opened = opened.map_err(StoreError::RecordingKey)?;
    let bytes = opened.as_slice().try_into().map_err(|_| StoreError::RecordingKey(crypto::OpenError::Malformed))?;
    Ok(Key::from_bytes(bytes))
}

fn in_place<R>(tenant: TenantId, id: KeyId, act: impl FnOnce(&Place<'_>) -> R) -> R {
    let (tenant, row) = (tenant.to_string(), id.to_string());
    act(&Place {
        tenant: &tenant,
        table: "recording_key",
        column: "sealed",
        row: &row,
        kind: "recording key",
        version: 1,
    })
}
