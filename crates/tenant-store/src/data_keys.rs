//! Data keys: what seals a tenant's secrets. Each tenant has its own, wrapped under a key-encryption key, so that a tenant's secrets
//! become unreadable with one row, and turning over the outer key touches no secret.

mod held;
mod rotate;

use crypto::{Key, KeyId};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QueryOrder as _,
};

use crate::choice::DataKeyState;
use crate::clock::Timestamp;
use crate::entity::{credential, tenant_key};
use crate::error::StoreError;
use crate::id::TenantId;
use crate::kek::KeyPlace;
use crate::name::KekId;
use crate::scope::TenantStore;
use crate::store::row;

pub(crate) use held::HeldKeys;
pub use rotate::{KekUse, Progress, Stuck};

/// How often one key may seal: random nonces are safe for 2^32 (NIST SP 800-38D §8.3), and long before that it is turned over.
const SEALS_MAX: i64 = 1 << 31;
/// The list of earlier wrappings of a new key.
const NEVER_WRAPPED: &str = "[]";

/// A data key as the database holds it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub(crate) tenant: TenantId,
    pub(crate) id: KeyId,
    pub(crate) kek: KekId,
    pub(crate) wrapped: Vec<u8>,
}

/// What is known of a data key without having it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Which.
    pub id: KeyId,
    /// Under which key-encryption key it is, or was, wrapped.
    pub kek: KekId,
    /// What it is good for.
    pub state: DataKeyState,
    /// Since when.
    pub created_at: Timestamp,
    /// How often it sealed.
    pub seals: u64,
    /// How many credentials are sealed with it now.
    pub credentials: u64,
}

impl WrappedKey {
    pub(crate) fn place(&self) -> KeyPlace {
        KeyPlace { owner: self.tenant.to_string(), key: self.id }
    }
}

impl TenantStore {
    /// The tenant's data keys, also those that are gone, older ones first.
    pub async fn data_keys(&self) -> Result<Vec<DataKey>, StoreError> {
        let reading = self.reading().await?;
        let db = reading.executor();
        let select = of_tenant(self.id()).order_by_asc(tenant_key::Column::CreatedMs);
        let mut keys = row::models(&db, select, parse).await?;
        let sealed = credential::Entity::find().filter(credential::Column::TenantId.eq(self.id()));
        for used in row::models(&db, sealed, |row| Ok(row.key_id.parse::<KeyId>()?)).await? {
            keys.iter_mut().filter(|key| key.id == used).for_each(|key| key.credentials += 1);
        }
        Ok(keys)
    }

    /// The key that seals now, as the database holds it; a new one, if the tenant has none. A shredded tenant gets none.
    pub(crate) async fn sealing_key(&self) -> Result<WrappedKey, StoreError> {
        if let Some(key) = active(&self.reading().await?.executor(), self.id()).await? {
            return Ok(key);
        }
        // Made and wrapped before the writers' turn is taken: the provider may be slow.
        let made = self.make_key().await?;
        let writing = self.writing().await?;
        let db = writing.executor();
        crate::tenants::require_unshredded(db, self.id()).await?;
        let key = match active(db, self.id()).await? {
            Some(key) => key,
            None => insert(db, made, self.store().now()).await?,
        };
        writing.finish(true).await?;
        Ok(key)
    }

    /// A new key, wrapped, and kept in memory as if it had been unwrapped.
    pub(crate) async fn make_key(&self) -> Result<WrappedKey, StoreError> {
        let key = Key::generate().map_err(StoreError::KeyMade)?;
        let place = KeyPlace { owner: self.id().to_string(), key: key.id() };
        let failed = |source| StoreError::KeyWrap { tenant: self.id(), source };
        let (kek, wrapped) = self.store().kek().wrap(place, &key).await.map_err(failed)?;
        let wrapped = WrappedKey { tenant: self.id(), id: key.id(), kek, wrapped };
        self.store().held().put(&wrapped, key).await;
        Ok(wrapped)
    }
}

/// Notes that the key seals once more; `false` if it does not seal any more.
pub(crate) async fn count_seal(db: &DatabaseTransaction, key: &WrappedKey) -> Result<bool, StoreError> {
    let seals = tenant_key::Column::Seals;
    let update = tenant_key::Entity::update_many()
        .col_expr(seals, Expr::col(seals).add(1))
        .filter(tenant_key::Column::TenantId.eq(key.tenant))
        .filter(tenant_key::Column::Id.eq(key.id.to_string()))
        .filter(tenant_key::Column::State.eq(DataKeyState::Active))
        .filter(seals.lt(SEALS_MAX));
    let updated = update.exec(db).await.map_err(StoreError::write("tenant_key"))?;
    Ok(updated.rows_affected > 0)
}

/// The key that seals now.
pub(crate) async fn active<C: ConnectionTrait>(db: &C, tenant: TenantId) -> Result<Option<WrappedKey>, StoreError> {
    let select = of_tenant(tenant).filter(tenant_key::Column::State.eq(DataKeyState::Active));
    Ok(row::models(db, select, wrapped).await?.pop())
}

pub(crate) async fn insert(
    db: &DatabaseTransaction,
    key: WrappedKey,
    now: Timestamp,
) -> Result<WrappedKey, StoreError> {
    let model = tenant_key::ActiveModel {
        tenant_id: Set(key.tenant),
        id: Set(key.id.to_string()),
        kek_id: Set(key.kek.clone()),
        wrapped_before: Set(NEVER_WRAPPED.to_owned()),
        wrapped: Set(key.wrapped.clone()),
        state: Set(DataKeyState::Active),
        created_ms: Set(now.as_millis()),
        seals: Set(0),
    };
    tenant_key::Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write("tenant_key"))?;
    Ok(key)
}

pub(crate) fn of_tenant(tenant: TenantId) -> sea_orm::Select<tenant_key::Entity> {
    tenant_key::Entity::find().filter(tenant_key::Column::TenantId.eq(tenant))
}

pub(crate) fn wrapped(model: tenant_key::Model) -> Result<WrappedKey, row::BoxError> {
    Ok(WrappedKey { tenant: model.tenant_id, id: model.id.parse()?, kek: model.kek_id, wrapped: model.wrapped })
}

/// The same, with the keys that wrapped it before.
pub(crate) fn wrapped_since(model: tenant_key::Model) -> Result<(WrappedKey, Vec<KekId>), row::BoxError> {
    let before = serde_json::from_str(&model.wrapped_before)?;
    Ok((wrapped(model)?, before))
}

fn parse(model: tenant_key::Model) -> Result<DataKey, row::BoxError> {
    Ok(DataKey {
        id: model.id.parse()?,
        kek: model.kek_id,
        state: model.state,
        created_at: Timestamp::from_millis(model.created_ms),
        seals: model.seals.try_into()?,
        credentials: 0,
    })
}

impl std::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrappedKey").field("id", &self.id).field("kek", &self.kek).finish_non_exhaustive()
    }
}
