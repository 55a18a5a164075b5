//! Credentials: what we show an upstream. They are sealed before they reach the database, with a data key of their tenant, and
//! bound to the place they are kept in: the tenant, the upstream, its address, the owner, the name, the kind and the version.

mod lease;
mod owner;
mod reseal;

use std::fmt;
use std::sync::Arc;

use crypto::{KeyRing, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, Select,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::choice::CredentialKind;
use crate::clock::Timestamp;
use crate::data_keys::{self, WrappedKey};
use crate::entity::{credential, tenant_key, upstream};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::{KekId, SecretName};
use crate::scope::TenantStore;
use crate::store::row;
use crate::upstream_auth::destination_of;
use crate::upstreams::{self, Upstream};

pub use lease::{Account, AccountHeld};
pub use owner::CredentialOwner;
pub(crate) use reseal::{reseal, sealed_with_others};

/// Length of the longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;
/// How often a secret is sealed again because its data key was turned over meanwhile.
const SEAL_ATTEMPTS_MAX: usize = 5;
/// The columns of other tables where credentials are read.
const URL: &str = "upstream_url";
const AUTH: &str = "upstream_auth";
const KEK: &str = "key_kek_id";
const WRAPPED: &str = "key_wrapped";

/// A secret as the database holds it, together with its wrapped data key. It opens only as what it was stored as: of that tenant,
/// for that upstream at that address, of that owner, under that name, kind and version.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCredential {
    tenant: TenantId,
    upstream: UpstreamId,
    destination: String,
    owner: CredentialOwner,
    name: SecretName,
    kind: CredentialKind,
    version: u32,
    key: Arc<WrappedKey>,
    sealed: Vec<u8>,
    stored_at: Timestamp,
}

/// Which credential of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct CredentialSlot<'s> {
    /// For which upstream.
    pub upstream: UpstreamId,
    /// Whose.
    pub owner: &'s CredentialOwner,
    /// Its name.
    pub name: &'s SecretName,
    /// What it holds.
    pub kind: CredentialKind,
}

/// What is to be sealed, and for which addresses if that was said.
struct Sealing<'s> {
    slot: CredentialSlot<'s>,
    destination: Option<&'s str>,
    plaintext: &'s [u8],
}

impl SealedCredential {
    /// Whose tenant's.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// For which upstream.
    pub fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    /// For which addresses (scheme, host and port): those that the upstream, and the issuer of its access tokens if it has one,
    /// had when this was read.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Whose it is within the tenant.
    pub fn owner(&self) -> &CredentialOwner {
        &self.owner
    }

    /// Its name.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// What it holds.
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// Its version. No two credentials that an upstream ever had are of the same one.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Since when there is one of that name. It does not change where one is renewed.
    pub fn stored_at(&self) -> Timestamp {
        self.stored_at
    }

    /// Whether it may be used for `upstream` at the addresses which that has. The two may have been read at different moments.
    pub fn is_for(&self, upstream: &Upstream) -> bool {
        (self.tenant, self.upstream) == (upstream.tenant, upstream.id) && self.destination == upstream.destination()
    }

    /// The row that it is bound to, each part behind its length.
    fn row(&self) -> String {
        let (owner, name) = (self.owner.to_string(), self.name.as_str());
        format!("{}/{}:{owner}/{}:{name}@{}", self.upstream, owner.len(), name.len(), self.destination)
    }
}

impl fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedCredential")
            .field("tenant", &self.tenant)
            .field("row", &self.row())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl TenantStore {
    /// Stores a secret of the tenant for an upstream at its present addresses, in place of an earlier one of that name. Answers the
    /// version.
    pub async fn put_credential(
        &self,
        upstream: UpstreamId,
        name: &SecretName,
        value: &SecretString,
    ) -> Result<u32, StoreError> {
        let owner = &CredentialOwner::Tenant;
        self.put_credential_in(CredentialSlot { upstream, owner, name, kind: CredentialKind::Secret }, value).await
    }

    /// The same for an upstream as it was seen: refused where it is at other addresses by now, so that a secret never goes where
    /// nobody meant it to go.
    pub async fn put_credential_for(
        &self,
        upstream: &Upstream,
        name: &SecretName,
        value: &SecretString,
    ) -> Result<u32, StoreError> {
        let owner = &CredentialOwner::Tenant;
        let slot = CredentialSlot { upstream: upstream.id, owner, name, kind: CredentialKind::Secret };
        self.put(slot, value, Some(&upstream.destination())).await
    }

    /// Stores a credential of any owner and kind for an upstream as it was seen. Only the tenant's own secrets raise the revision: the
    /// rest is read when it is needed.
    pub async fn put_credential_in_for(
        &self,
        upstream: &Upstream,
        slot: CredentialSlot<'_>,
        value: &SecretString,
    ) -> Result<u32, StoreError> {
        self.put(slot, value, Some(&upstream.destination())).await
    }

    /// The same wherever the upstream is.
    pub async fn put_credential_in(&self, slot: CredentialSlot<'_>, value: &SecretString) -> Result<u32, StoreError> {
        self.put(slot, value, None).await
    }

    async fn put(
        &self,
        slot: CredentialSlot<'_>,
        value: &SecretString,
        destination: Option<&str>,
    ) -> Result<u32, StoreError> {
        let plaintext = value.expose_secret().as_bytes();
        if plaintext.is_empty() || plaintext.len() > SECRET_BYTES_MAX {
            return Err(StoreError::SecretLength { bytes_max: SECRET_BYTES_MAX });
        }
        let mut last = None;
        for _ in 0..SEAL_ATTEMPTS_MAX {
            let key = self.sealing_key().await?;
            if last.replace(key.id) == Some(key.id) {
                return Err(StoreError::KeyWornOut { tenant: self.id() });
            }
            let ring = self.data_key(&key).await?;
            let credential = Sealing { slot, destination, plaintext };
            if let Some(version) = self.seal_into(&credential, (&key, &ring)).await? {
                return Ok(version);
            }
        }
        Err(StoreError::Busy)
    }

    /// Nothing, if the key does not seal any more.
    async fn seal_into(
        &self,
        Sealing { slot, destination, plaintext }: &Sealing<'_>,
        (key, ring): (&WrappedKey, &KeyRing),
    ) -> Result<Option<u32>, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let upstream = upstreams::require(db, self.id(), slot.upstream).await?;
        if destination.is_some_and(|expected| upstream.destination() != expected) {
            return Err(StoreError::Moved);
        }
        if !data_keys::count_seal(db, key).await? {
            return Ok(None);
        }
        let mut credential = SealedCredential {
            tenant: upstream.tenant,
            upstream: upstream.id,
            destination: upstream.destination(),
            owner: slot.owner.clone(),
            name: slot.name.clone(),
            kind: slot.kind,
            version: upstreams::next_credential_version(db, &upstream).await?,
            key: Arc::new(key.clone()),
            sealed: Vec::new(),
            stored_at: self.store().now(),
        };
        let sealed = in_place(&credential, |place| crypto::seal(ring, place, plaintext));
        credential.sealed = sealed.map_err(|source| StoreError::Seal { name: slot.name.clone(), source })?;
        write(db, &credential).await?;
        let is_in_snapshots = *slot.owner == CredentialOwner::Tenant && slot.kind == CredentialKind::Secret;
        writing.finish(is_in_snapshots).await?;
        Ok(Some(credential.version))
    }

    /// The tenant's own secrets, sealed, ordered by upstream and name. Each comes with its wrapped data key, read in the same
    /// statement, so that whoever holds one can open it while keys are turned over.
    pub async fn sealed_credentials(&self) -> Result<Vec<SealedCredential>, StoreError> {
        let select = of_tenants_themselves().filter(credential::Column::TenantId.eq(self.id()));
        row::rows(&self.reading().await?.executor(), select, parse).await
    }

    /// One credential, sealed.
    pub async fn find_credential(&self, slot: CredentialSlot<'_>) -> Result<Option<SealedCredential>, StoreError> {
        let select = select(self.id())
            .filter(credential::Column::UpstreamId.eq(slot.upstream))
            .filter(credential::Column::Owner.eq(slot.owner.clone()))
            .filter(credential::Column::Name.eq(slot.name.clone()))
            .filter(credential::Column::Kind.eq(slot.kind));
        Ok(row::rows(&self.reading().await?.executor(), select, parse).await?.pop())
    }

    /// Opens a credential of this tenant, without touching the database. The key provider is asked only where the data key was
    /// not needed for a while.
    pub async fn open_credential(&self, sealed: &SealedCredential) -> Result<SecretString, StoreError> {
        if sealed.tenant != self.id() || sealed.key.tenant != self.id() {
            return Err(missing(sealed));
        }
        let ring = self.data_key(&sealed.key).await?;
        let unopened = |source| StoreError::Unopened { upstream: sealed.upstream, name: sealed.name.clone(), source };
        let plaintext = in_place(sealed, |place| crypto::open(&ring, place, &sealed.sealed)).map_err(unopened)?;
        // Only text is ever sealed, so anything else was sealed by somebody else.
        let text = std::str::from_utf8(&plaintext).map_err(|_| unopened(crypto::OpenError::Refused))?;
        Ok(SecretString::from(text))
    }

    /// Deletes a credential of the tenant; `false` if there is none.
    pub async fn remove_credential(&self, upstream: UpstreamId, name: &SecretName) -> Result<bool, StoreError> {
        self.remove_credential_of(upstream, &CredentialOwner::Tenant, name).await
    }

    /// Deletes a credential of any owner; `false` if there is none.
    pub async fn remove_credential_of(
        &self,
        upstream: UpstreamId,
        owner: &CredentialOwner,
        name: &SecretName,
    ) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let delete = credential::Entity::delete_many()
            .filter(credential::Column::TenantId.eq(self.id()))
            .filter(credential::Column::UpstreamId.eq(upstream))
            .filter(credential::Column::Owner.eq(owner.clone()))
            .filter(credential::Column::Name.eq(name.clone()));
        let deleted = delete.exec(writing.executor()).await.map_err(StoreError::write("credential"))?;
        let deleted = deleted.rows_affected > 0;
        writing.finish(deleted && *owner == CredentialOwner::Tenant).await?;
        Ok(deleted)
    }

    pub(crate) async fn data_key(&self, key: &WrappedKey) -> Result<KeyRing, StoreError> {
        let failed = |source| StoreError::DataKey { tenant: self.id(), source };
        self.store().held().get(key).await.map_err(failed)
    }
}

/// Calls `act` with the place that binds a credential to all that it is stored as. The data key binds itself.
fn in_place<R>(credential: &SealedCredential, act: impl FnOnce(&Place<'_>) -> R) -> R {
    act(&Place {
        tenant: &credential.tenant.to_string(),
        table: "credential",
        column: "sealed",
        row: &credential.row(),
        kind: credential.kind.as_str(),
        version: credential.version.into(),
    })
}

async fn write(db: &DatabaseTransaction, credential: &SealedCredential) -> Result<(), StoreError> {
    use credential::Column::{
        KeyId, Kind, LeasedUntilMs, Name, Owner, Sealed, StoredAtMs, TenantId, UpstreamId, Version,
    };

    let row = credential::ActiveModel {
        tenant_id: Set(credential.tenant),
        upstream_id: Set(credential.upstream),
        owner: Set(credential.owner.clone()),
        name: Set(credential.name.clone()),
        kind: Set(credential.kind),
        version: Set(credential.version.into()),
        key_id: Set(credential.key.id.to_string()),
        sealed: Set(credential.sealed.clone()),
        stored_at_ms: Set(credential.stored_at.as_millis()),
        leased_until_ms: Set(0),
    };
    let same_place = OnConflict::columns([TenantId, UpstreamId, Owner, Name])
        .update_columns([Kind, Version, KeyId, Sealed, StoredAtMs, LeasedUntilMs])
        .to_owned();
    let insert = credential::Entity::insert(row).on_conflict(same_place).exec_without_returning(db);
    insert.await.map_err(StoreError::write("credential"))?;
    Ok(())
}

/// The secrets that all tenants have themselves; within one, ordered by upstream and name.
pub(crate) fn of_tenants_themselves() -> Select<credential::Entity> {
    of_all()
        .filter(credential::Column::Owner.eq(CredentialOwner::Tenant))
        .filter(credential::Column::Kind.eq(CredentialKind::Secret))
}

fn select(tenant: TenantId) -> Select<credential::Entity> {
    of_all().filter(credential::Column::TenantId.eq(tenant))
}

fn of_all() -> Select<credential::Entity> {
    credential::Entity::find()
        .inner_join(upstream::Entity)
        .inner_join(tenant_key::Entity)
        .column_as(upstream::Column::Url, URL)
        .column_as(upstream::Column::Auth, AUTH)
        .column_as(tenant_key::Column::KekId, KEK)
        .column_as(tenant_key::Column::Wrapped, WRAPPED)
        .order_by_asc(credential::Column::UpstreamId)
        .order_by_asc(credential::Column::Name)
}

pub(crate) fn parse(row: &QueryResult) -> Result<SealedCredential, row::BoxError> {
    let model = credential::Model::from_query_result(row, "")?;
    let key = WrappedKey {
        tenant: model.tenant_id,
        id: model.key_id.parse()?,
        kek: row.try_get::<KekId>("", KEK)?,
        wrapped: row.try_get("", WRAPPED)?,
    };
    let auth = serde_json::from_str(&row.try_get::<String>("", AUTH)?)?;
    Ok(SealedCredential {
        tenant: model.tenant_id,
        upstream: model.upstream_id,
        // What the upstream's addresses are, not what they were: a secret does not follow an address that was altered.
        destination: destination_of(&row.try_get::<String>("", URL)?.parse()?, &auth),
        owner: model.owner,
        name: model.name,
        kind: model.kind,
        version: model.version.try_into()?,
        key: Arc::new(key),
        sealed: model.sealed,
        stored_at: Timestamp::from_millis(model.stored_at_ms),
    })
}

fn missing(sealed: &SealedCredential) -> StoreError {
    StoreError::NotFound { what: "secret", name: sealed.name.to_string() }
}
