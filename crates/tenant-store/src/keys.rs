//! Does the database belong to the configured keys? Answered when the server starts, not when the first secret is needed.
//!
//! For each key there is a check value: a known text, sealed with it. A new key joins as long as a key that the database knows
//! is configured beside it, so keys can be replaced one after the other; a wrong one stands alone and is refused.

use std::collections::BTreeSet;

use crypto::{KeyId, KeyRing, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, IdenStatic as _, QueryFilter as _, QuerySelect as _,
};

use crate::entity::{credential, key_check};
use crate::error::StoreError;
use crate::store::row;

/// What a check value holds.
const CHECK_TEXT: &[u8] = b"mcp-mux key check";

/// Checks that every key which is in use is configured, and that the check values open. Adds that of a new primary key and
/// drops those of keys that nothing is sealed with any more.
pub(crate) async fn check(db: &DatabaseTransaction, keys: &KeyRing) -> Result<(), StoreError> {
    let known =
        row::models(db, key_check::Entity::find(), |row| Ok((row.key_id.parse::<KeyId>()?, row.sealed))).await?;
    let used = used(db).await?;

    let is_stranger = !known.is_empty() && !known.iter().any(|(key, _)| keys.contains(*key));
    let stranger_to = known.first().filter(|_| is_stranger).map(|(key, _)| *key);
    let needed = used.into_iter().find(|key| !keys.contains(*key));
    if let Some(needed) = needed.or(stranger_to) {
        return Err(StoreError::KeyMissing { needed, configured: keys.ids().collect() });
    }
    for (key, sealed) in &known {
        if keys.contains(*key) {
            let opened = crypto::open(keys, &place(&key.to_string()), sealed);
            opened.map_err(|source| StoreError::KeyCheck { key: *key, source })?;
        } else {
            forget(db, *key).await?;
        }
    }
    if known.iter().any(|(key, _)| *key == keys.primary()) { Ok(()) } else { add(db, keys).await }
}

/// The keys that credentials are sealed with.
async fn used(db: &DatabaseTransaction) -> Result<BTreeSet<KeyId>, StoreError> {
    use credential::Column::{KeyId as Key, Name, TenantId, UpstreamId};

    let select = credential::Entity::find().select_only().columns([TenantId, UpstreamId, Name, Key]);
    let ids = row::rows(db, select, |row| Ok(row.try_get::<String>("", Key.as_str())?.parse::<KeyId>()?)).await?;
    Ok(ids.into_iter().collect())
}

async fn add(db: &DatabaseTransaction, keys: &KeyRing) -> Result<(), StoreError> {
    let key_id = keys.primary().to_string();
    let sealed = crypto::seal(keys, &place(&key_id), CHECK_TEXT).map_err(StoreError::KeyCheckSeal)?;
    let row = key_check::ActiveModel { key_id: Set(key_id), sealed: Set(sealed) };
    key_check::Entity::insert(row).exec_without_returning(db).await.map_err(StoreError::write("key_check"))?;
    Ok(())
}

async fn forget(db: &DatabaseTransaction, key: KeyId) -> Result<(), StoreError> {
    let delete = key_check::Entity::delete_many().filter(key_check::Column::KeyId.eq(key.to_string()));
    delete.exec(db).await.map_err(StoreError::write("key_check"))?;
    Ok(())
}

/// Check values belong to no tenant, and no tenant's id is empty.
fn place(key_id: &str) -> Place<'_> {
    Place { tenant: "", table: "key_check", column: "sealed", row: key_id, version: 1 }
}
