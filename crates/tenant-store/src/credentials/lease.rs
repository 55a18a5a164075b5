//! Credentials that are renewed: each version is renewed once, by one replica, and only while it is the present one.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, UpdateMany};
use secrecy::{ExposeSecret as _, SecretString};

use super::{CredentialOwner, SEAL_ATTEMPTS_MAX, SECRET_BYTES_MAX, SealedCredential, in_place};
use crate::choice::CredentialKind;
use crate::clock::Timestamp;
use crate::data_keys;
use crate::entity::credential;
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::{IssuerName, Subject};
use crate::scope::TenantStore;
use crate::store::{Store, row};
use crate::upstreams;

/// An account of one principal at one upstream, without what is sealed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where.
    pub upstream: UpstreamId,
    /// Whose.
    pub owner: CredentialOwner,
    /// Since when.
    pub connected_at: Timestamp,
}

/// That a principal has an account somewhere: it is read from the account's own row, and made nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountHeld {
    tenant: TenantId,
    upstream: UpstreamId,
}

impl AccountHeld {
    /// In which tenant.
    pub fn tenant(self) -> TenantId {
        self.tenant
    }

    /// At which upstream.
    pub fn upstream(self) -> UpstreamId {
        self.upstream
    }
}

/// What became of an attempt to seal a new value.
enum Renewal {
    Done(Box<SealedCredential>),
    /// It is not the present one any more.
    Outdated,
    /// The data key was turned over meanwhile.
    KeyTurned,
}

impl TenantStore {
    /// Takes this version of a credential for oneself, for at most `life`; `false` if another has it, or it is not the present one.
    pub async fn lease_credential(&self, sealed: &SealedCredential, life: Duration) -> Result<bool, StoreError> {
        let now = self.store().now();
        let lease = this(sealed).filter(credential::Column::LeasedUntilMs.lte(now.as_millis()));
        self.set_lease(lease, now.plus(life).as_millis()).await
    }

    /// Gives it back as it was.
    pub async fn release_credential(&self, sealed: &SealedCredential) -> Result<(), StoreError> {
        self.set_lease(this(sealed), 0).await.map(drop)
    }

    async fn set_lease(&self, update: UpdateMany<credential::Entity>, until: i64) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let set = credential::ActiveModel { leased_until_ms: Set(until), ..Default::default() };
        let update = update.set(set).filter(credential::Column::TenantId.eq(self.id()));
        let updated = update.exec(writing.executor()).await.map_err(StoreError::write("credential"))?;
        writing.finish(false).await?;
        Ok(updated.rows_affected > 0)
    }

    /// Stores a new value in place of this version, and answers it sealed, with a version of its own; nothing if this is not the
    /// present one any more.
    pub async fn renew_credential(
        &self,
        old: &SealedCredential,
        value: &SecretString,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let plaintext = value.expose_secret().as_bytes();
        if plaintext.is_empty() || plaintext.len() > SECRET_BYTES_MAX {
            return Err(StoreError::SecretLength { bytes_max: SECRET_BYTES_MAX });
        }
        for _ in 0..SEAL_ATTEMPTS_MAX {
            match self.renew(old, plaintext).await? {
                Renewal::Done(sealed) => return Ok(Some(*sealed)),
                Renewal::Outdated => return Ok(None),
                Renewal::KeyTurned => {}
            }
        }
        Err(StoreError::Busy)
    }

    async fn renew(&self, old: &SealedCredential, plaintext: &[u8]) -> Result<Renewal, StoreError> {
        let key = self.sealing_key().await?;
        let ring = self.data_key(&key).await?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let upstream = upstreams::require(db, self.id(), old.upstream).await?;
        if !data_keys::count_seal(db, &key).await? {
            return Ok(Renewal::KeyTurned);
        }
        let version = upstreams::next_credential_version(db, &upstream).await?;
        let mut new = SealedCredential { version, key: Arc::new(key), sealed: Vec::new(), ..old.clone() };
        let sealed = in_place(&new, |place| crypto::seal(&ring, place, plaintext));
        new.sealed = sealed.map_err(|source| StoreError::Seal { name: old.name.clone(), source })?;
        let set = credential::ActiveModel {
            version: Set(version.into()),
            key_id: Set(new.key.id.to_string()),
            sealed: Set(new.sealed.clone()),
            leased_until_ms: Set(0),
            ..Default::default()
        };
        let update = this(old).set(set).filter(credential::Column::TenantId.eq(self.id()));
        let updated = update.exec(db).await.map_err(StoreError::write("credential"))?;
        if updated.rows_affected == 0 {
            return Ok(Renewal::Outdated);
        }
        writing.finish(false).await?;
        Ok(Renewal::Done(Box::new(new)))
    }

    /// Deletes this version of a credential of a principal; `false` if it is not the present one.
    pub async fn remove_credential_version(&self, sealed: &SealedCredential) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let delete = credential::Entity::delete_many()
            .filter(credential::Column::TenantId.eq(self.id()))
            .filter(credential::Column::UpstreamId.eq(sealed.upstream))
            .filter(credential::Column::Owner.eq(sealed.owner.clone()))
            .filter(credential::Column::Name.eq(sealed.name.clone()))
            .filter(credential::Column::Version.eq(i64::from(sealed.version)));
        let deleted = delete.exec(writing.executor()).await.map_err(StoreError::write("credential"))?;
        writing.finish(false).await?;
        Ok(deleted.rows_affected > 0)
    }

    /// Makes sure that something can be sealed now, before what cannot be had twice is spent for it.
    pub async fn ready_to_seal(&self) -> Result<(), StoreError> {
        let key = self.sealing_key().await?;
        self.data_key(&key).await.map(drop)
    }

    /// The accounts of principals at the tenant's upstreams, ordered by upstream and owner.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let select = credential::Entity::find()
            .filter(credential::Column::TenantId.eq(self.id()))
            .filter(credential::Column::Kind.eq(CredentialKind::Tokens))
            .order_by_asc(credential::Column::UpstreamId)
            .order_by_asc(credential::Column::Owner);
        row::models(&self.reading().await?.executor(), select, |row| {
            let connected_at = Timestamp::from_millis(row.stored_at_ms);
            Ok(Account { upstream: row.upstream_id, owner: row.owner, connected_at })
        })
        .await
    }
}

impl Store {
    /// Where one principal has accounts, in whatever tenant, in no particular order.
    pub async fn accounts_held(&self, issuer: &IssuerName, subject: &Subject) -> Result<Vec<AccountHeld>, StoreError> {
        let owner = CredentialOwner::Principal { issuer: issuer.clone(), subject: subject.clone() };
        let select = credential::Entity::find()
            .filter(credential::Column::Owner.eq(owner))
            .filter(credential::Column::Kind.eq(CredentialKind::Tokens));
        let held = |row: credential::Model| Ok(AccountHeld { tenant: row.tenant_id, upstream: row.upstream_id });
        row::models(&self.reading().await?.executor(), select, held).await
    }
}

/// This version of a credential, and no other.
fn this(sealed: &SealedCredential) -> UpdateMany<credential::Entity> {
    credential::Entity::update_many()
        .filter(credential::Column::UpstreamId.eq(sealed.upstream))
        .filter(credential::Column::Owner.eq(sealed.owner.clone()))
        .filter(credential::Column::Name.eq(sealed.name.clone()))
        .filter(credential::Column::Kind.eq(sealed.kind))
        .filter(credential::Column::Version.eq(i64::from(sealed.version)))
}
