//! API keys: what scripts and services prove themselves with. A key speaks for one principal; what that may do, grants say.
//!
//! The key itself is never stored: 256 random bits need no slow hash, so its SHA-256 is what is kept and compared.

use std::fmt;

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::clock::Timestamp;
use crate::entity::api_key;
use crate::error::StoreError;
use crate::id::{ApiKeyId, TenantId};
use crate::name::{ApiKeyName, IssuerName, Subject};
use crate::store::{Store, row};
use crate::tenants;

/// The SHA-256 of a key.
#[derive(Clone, Copy)]
pub struct ApiKeyDigest([u8; 32]);

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// What the operator calls it.
    pub name: ApiKeyName,
    /// The namespace of the principal that it speaks for.
    pub issuer: IssuerName,
    /// The principal that it speaks for.
    pub subject: Subject,
    /// What a key that is shown is compared with.
    pub digest: ApiKeyDigest,
    /// In which tenants it is good at most; all, if nothing. A tenant that is gone is not replaced by any other.
    pub tenants: Option<Vec<TenantId>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A key that is to be stored.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// What the operator calls it.
    pub name: ApiKeyName,
    /// The namespace of the principal that it speaks for.
    pub issuer: IssuerName,
    /// The principal that it speaks for.
    pub subject: Subject,
    /// Of the key.
    pub digest: ApiKeyDigest,
    /// In which tenants it is good at most; all, if nothing.
    pub tenants: Option<Vec<TenantId>>,
    /// When it ends, if ever.
    pub expires_at: Option<Timestamp>,
}

impl ApiKeyDigest {
    /// The digest of a key.
    pub fn of(key: &SecretString) -> Self {
        Self(Sha256::digest(key.expose_secret()).into())
    }

    /// The digest as bytes, to find a key by.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for ApiKeyDigest {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ApiKeyDigest {}

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

impl ApiKey {
    /// Whether it is good at that moment.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Store {
    /// Stores a key. Every tenant that it names must exist.
    pub async fn add_api_key(&self, new: &NewApiKey) -> Result<ApiKey, StoreError> {
        let now = self.now();
        let key = ApiKey {
            id: ApiKeyId::new(now),
            name: new.name.clone(),
            issuer: new.issuer.clone(),
            subject: new.subject.clone(),
            digest: new.digest,
            tenants: new.tenants.clone(),
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
        };
        let change = self.begin().await?;
        let writing = change.writing().await?;
        for tenant in key.tenants.iter().flatten() {
            tenants::require(writing.executor(), *tenant).await?;
        }
        let model = model(&key)?;
        let insert = api_key::Entity::insert(model).exec_without_returning(writing.executor());
        insert.await.map_err(StoreError::write("api_key"))?;
        writing.finish(true).await?;
        change.commit().await?;
        Ok(key)
    }

    /// All keys, older ones first, also those that ended or were taken back. One whose row does not parse costs only itself.
    pub async fn api_keys(&self) -> Result<Vec<Result<ApiKey, StoreError>>, StoreError> {
        let select = api_key::Entity::find().order_by_asc(api_key::Column::Id);
        row::each(self.database(), select, |row| parse(api_key::Model::from_query_result(row, "")?)).await
    }

    /// Takes a key back; `false` if there is none, or it was taken back before.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<bool, StoreError> {
        let change = self.begin().await?;
        let writing = change.writing().await?;
        let update = api_key::Entity::update_many()
            .set(api_key::ActiveModel { revoked_at: Set(Some(self.now().as_millis())), ..Default::default() })
            .filter(api_key::Column::Id.eq(id))
            .filter(api_key::Column::RevokedAt.is_null());
        let updated = update.exec(writing.executor()).await.map_err(StoreError::write("api_key"))?;
        let revoked = updated.rows_affected > 0;
        writing.finish(revoked).await?;
        change.commit().await?;
        Ok(revoked)
    }
}

fn model(key: &ApiKey) -> Result<api_key::ActiveModel, StoreError> {
    let tenants = key.tenants.as_ref().map(|tenants| row::json("api_key", tenants)).transpose()?;
    Ok(api_key::ActiveModel {
        id: Set(key.id),
        name: Set(key.name.clone()),
        issuer: Set(key.issuer.clone()),
        subject: Set(key.subject.clone()),
        digest: Set(key.digest.0.to_vec()),
        tenants: Set(tenants),
        created_at: Set(key.created_at.as_millis()),
        expires_at: Set(key.expires_at.map(Timestamp::as_millis)),
        revoked_at: Set(key.revoked_at.map(Timestamp::as_millis)),
    })
}

fn parse(model: api_key::Model) -> Result<ApiKey, row::BoxError> {
    let digest = <[u8; 32]>::try_from(model.digest.as_slice())?;
    Ok(ApiKey {
        id: model.id,
        name: model.name,
        issuer: model.issuer,
        subject: model.subject,
        digest: ApiKeyDigest(digest),
        tenants: model.tenants.map(|tenants| serde_json::from_str(&tenants)).transpose()?,
        created_at: Timestamp::from_millis(model.created_at),
        expires_at: model.expires_at.map(Timestamp::from_millis),
        revoked_at: model.revoked_at.map(Timestamp::from_millis),
    })
}
