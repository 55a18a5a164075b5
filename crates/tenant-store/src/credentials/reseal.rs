//! Sealing a credential anew under another data key: the same place, the same version, and only as it was read.

use std::sync::Arc;

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};

use super::{SealedCredential, in_place, parse, select};
use crate::data_keys::{self, WrappedKey};
use crate::entity::credential;
use crate::error::StoreError;
use crate::scope::TenantStore;
use crate::store::row;

/// Up to `limit` credentials of any owner that are sealed with another key than `present`.
pub(crate) async fn sealed_with_others(
    rows: &TenantStore,
    present: &WrappedKey,
    limit: u64,
) -> Result<Vec<SealedCredential>, StoreError> {
    let select = select(rows.id()).filter(credential::Column::KeyId.ne(present.id.to_string())).limit(limit);
    row::rows(&rows.reading().await?.executor(), select, parse).await
}

/// Seals one anew with `present`; `false` if it was changed meanwhile, and so is not what was read.
pub(crate) async fn reseal(
    rows: &TenantStore,
    old: &SealedCredential,
    present: &WrappedKey,
) -> Result<bool, StoreError> {
    let (from, to) = (rows.data_key(&old.key).await?, rows.data_key(present).await?);
    let unopened = |source| StoreError::Unopened { upstream: old.upstream, name: old.name.clone(), source };
    let plaintext = in_place(old, |place| crypto::open(&from, place, &old.sealed)).map_err(unopened)?;
    let new = SealedCredential { key: Arc::new(present.clone()), ..old.clone() };
    let sealed = in_place(&new, |place| crypto::seal(&to, place, &plaintext));
    let sealed = sealed.map_err(|source| StoreError::Seal { name: old.name.clone(), source })?;

    let writing = rows.writing().await?;
    let db = writing.executor();
    if !data_keys::count_seal(db, present).await? {
        return Ok(false);
    }
    let update = credential::Entity::update_many()
        .set(credential::ActiveModel { key_id: Set(present.id.to_string()), sealed: Set(sealed), ..Default::default() })
        .filter(credential::Column::TenantId.eq(old.tenant))
        .filter(credential::Column::UpstreamId.eq(old.upstream))
        .filter(credential::Column::Owner.eq(old.owner.clone()))
        .filter(credential::Column::Name.eq(old.name.clone()))
        .filter(credential::Column::Version.eq(i64::from(old.version)))
        .filter(credential::Column::Sealed.eq(old.sealed.clone()));
    let updated = update.exec(db).await.map_err(StoreError::write("credential"))?;
    // Replicas take over what was sealed anew, so that the old key can go.
    writing.finish(updated.rows_affected > 0).await?;
    Ok(updated.rows_affected > 0)
}
