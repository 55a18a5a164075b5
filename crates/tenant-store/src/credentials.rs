//! Credentials: what we show an upstream. They are sealed before they reach the database, and bound to the place they are kept
//! in: the tenant, the upstream, the upstream's address, the name and the version.

use std::fmt;

use crypto::Place;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::entity::{credential, upstream};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::SecretName;
use crate::scope::TenantStore;
use crate::store::row;
use crate::upstreams::{self, Upstream, origin_of};

/// Length of the longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 16 * 1024;
/// The column with an upstream's URL where credentials are read.
const URL: &str = "upstream_url";

/// A secret as the database holds it. It opens only as what it was stored as: of that tenant, for that upstream at that
/// address, under that name and version.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCredential {
    tenant: TenantId,
    upstream: UpstreamId,
    origin: String,
    name: SecretName,
    version: u32,
    sealed: Vec<u8>,
}

impl SealedCredential {
    /// Whose.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// For which upstream.
    pub fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    /// For which address (scheme, host and port): the one that the upstream had when this was read.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Its name.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// Its version. No two credentials that an upstream ever had are of the same one.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether it may be shown to `upstream` at the address which that has. The two may have been read at different moments.
    pub fn is_for(&self, upstream: &Upstream) -> bool {
        (self.tenant, self.upstream) == (upstream.tenant, upstream.id) && self.origin == upstream.origin()
    }

    /// The row that it is bound to.
    fn row(&self) -> String {
        format!("{}/{}@{}", self.upstream, self.name, self.origin)
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
    /// Stores a secret for an upstream at its present address, in place of an earlier one of that name. Answers the version.
    pub async fn put_credential(
        &self,
        upstream: UpstreamId,
        name: &SecretName,
        value: &SecretString,
    ) -> Result<u32, StoreError> {
        let plaintext = value.expose_secret().as_bytes();
        if plaintext.is_empty() || plaintext.len() > SECRET_BYTES_MAX {
            return Err(StoreError::SecretLength { bytes_max: SECRET_BYTES_MAX });
        }
        let writing = self.writing().await?;
        let db = writing.executor();
        let upstream = upstreams::require(db, self.id(), upstream).await?;
        let mut credential = SealedCredential {
            tenant: upstream.tenant,
            upstream: upstream.id,
            origin: upstream.origin(),
            name: name.clone(),
            version: upstreams::next_credential_version(db, &upstream).await?,
            sealed: Vec::new(),
        };
        let sealed = in_place(&credential, |place| crypto::seal(self.store().keys(), place, plaintext));
        credential.sealed = sealed.map_err(|source| StoreError::Seal { name: name.clone(), source })?;
        write(db, &credential, self.store().keys().primary().to_string()).await?;
        writing.finish(true).await?;
        Ok(credential.version)
    }

    /// The credentials, sealed, ordered by upstream and name.
    pub async fn sealed_credentials(&self) -> Result<Vec<SealedCredential>, StoreError> {
        let select = credential::Entity::find()
            .filter(credential::Column::TenantId.eq(self.id()))
            .inner_join(upstream::Entity)
            .column_as(upstream::Column::Url, URL)
            .order_by_asc(credential::Column::UpstreamId)
            .order_by_asc(credential::Column::Name);
        row::rows(&self.reading().await?.executor(), select, parse).await
    }

    /// Opens a credential of this tenant, without touching the database.
    pub fn open_credential(&self, sealed: &SealedCredential) -> Result<SecretString, StoreError> {
        if sealed.tenant != self.id() {
            return Err(missing(sealed));
        }
        let unopened = |source| StoreError::Unopened { upstream: sealed.upstream, name: sealed.name.clone(), source };
        let plaintext = in_place(sealed, |place| crypto::open(self.store().keys(), place, &sealed.sealed));
        let plaintext = plaintext.map_err(unopened)?;
        // Only text is ever sealed, so anything else was sealed by somebody else.
        let text = std::str::from_utf8(&plaintext).map_err(|_| unopened(crypto::OpenError::Refused))?;
        Ok(SecretString::from(text))
    }

    /// Deletes a credential; `false` if there is none.
    pub async fn remove_credential(&self, upstream: UpstreamId, name: &SecretName) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let delete = credential::Entity::delete_many()
            .filter(credential::Column::TenantId.eq(self.id()))
            .filter(credential::Column::UpstreamId.eq(upstream))
            .filter(credential::Column::Name.eq(name.clone()));
        let deleted = delete.exec(writing.executor()).await.map_err(StoreError::write("credential"))?;
        writing.finish(deleted.rows_affected > 0).await?;
        Ok(deleted.rows_affected > 0)
    }
}

/// Calls `act` with the place that binds a credential to all that it is stored as.
fn in_place<R>(credential: &SealedCredential, act: impl FnOnce(&Place<'_>) -> R) -> R {
    act(&Place {
        tenant: &credential.tenant.to_string(),
        table: "credential",
        column: "sealed",
        row: &credential.row(),
        version: credential.version.into(),
    })
}

async fn write(db: &DatabaseTransaction, credential: &SealedCredential, key_id: String) -> Result<(), StoreError> {
    use credential::Column::{KeyId, Name, Sealed, TenantId, UpstreamId, Version};

    let row = credential::ActiveModel {
        tenant_id: Set(credential.tenant),
        upstream_id: Set(credential.upstream),
        name: Set(credential.name.clone()),
        version: Set(credential.version.into()),
        key_id: Set(key_id),
        sealed: Set(credential.sealed.clone()),
    };
    let same_place =
        OnConflict::columns([TenantId, UpstreamId, Name]).update_columns([Version, KeyId, Sealed]).to_owned();
    let insert = credential::Entity::insert(row).on_conflict(same_place).exec_without_returning(db);
    insert.await.map_err(StoreError::write("credential"))?;
    Ok(())
}

fn parse(row: &QueryResult) -> Result<SealedCredential, row::BoxError> {
    let model = credential::Model::from_query_result(row, "")?;
    Ok(SealedCredential {
        tenant: model.tenant_id,
        upstream: model.upstream_id,
        // What the upstream's address is, not what it was: a secret does not follow an address that was altered.
        origin: origin_of(&row.try_get::<String>("", URL)?.parse()?),
        name: model.name,
        version: model.version.try_into()?,
        sealed: model.sealed,
    })
}

fn missing(sealed: &SealedCredential) -> StoreError {
    StoreError::NotFound { what: "secret", name: sealed.name.to_string() }
}
