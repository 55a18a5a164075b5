//! Crypto-shredding: a tenant's data keys are destroyed, and with them everything that was ever sealed with them, wherever it lies.

use std::collections::{BTreeSet, HashSet};

use crypto::KeyId;
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryResult, QuerySelect as _,
    QueryTrait as _,
};
use serde::{Deserialize, Serialize};

use crate::choice::{DataKeyState, TenantState};
use crate::data_keys::{WrappedKey, of_tenant, wrapped_since};
use crate::entity::{credential, erasure, recording_key, tenant, tenant_key};
use crate::error::StoreError;
use crate::id::TenantId;
use crate::name::{KekId, TenantSlug};
use crate::recording;
use crate::revision::{self, Revision};
use crate::store::transaction::Writing;
use crate::store::{Store, row};
use crate::tenants;

/// What was destroyed, for the tenant's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasureCertificate {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Its short name, which is not given away again.
    pub tenant: TenantSlug,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who did it, as they are known where it was done.
    pub by: String,
    /// The data keys that were destroyed, now or before.
    pub key_ids: Vec<String>,
    /// How many ciphertexts lay under them and were deleted too.
    pub ciphertexts: u64,
    /// Every key-encryption key under which the destroyed keys were ever wrapped: copies may lie in backups. Once all of these are
    /// destroyed as well, the backups hold nothing that opens.
    pub wrapped_under: Vec<KekId>,
    /// The state of the configuration that this made.
    pub revision: u64,
    /// The head of the audit chain; none before there is one.
    pub audit_head: Option<String>,
}

impl Store {
    /// Destroys a tenant's data keys and what lies under them, and says what that was. Once, and for good. The certificate is kept.
    pub async fn shred(&self, slug: &TenantSlug, by: &str) -> Result<ErasureCertificate, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let missing = || StoreError::NotFound { what: "tenant", name: slug.to_string() };
        let found = tenants::find(db, slug).await?.ok_or_else(missing)?;
        if found.state == TenantState::Shredded {
            return Err(StoreError::Shredded { tenant: found.slug });
        }
        let keys = row::models(db, of_tenant(found.id), wrapped_since).await?;
        let sealed = credential::Entity::find().filter(credential::Column::TenantId.eq(found.id));
        let ciphertexts = sealed.count(db).await.map_err(StoreError::read("credential"))?;
        let ciphertexts = ciphertexts + recording::count_under(db, found.id, None).await?;
        let Revision(before) = revision::current(db).await?;
        let certificate = ErasureCertificate {
            tenant_id: found.id,
            tenant: found.slug,
            at_ms: self.now().as_millis(),
            by: by.to_owned(),
            key_ids: keys.iter().map(|(key, _)| key.id.to_string()).collect(),
            ciphertexts,
            wrapped_under: wrapped_under(keys),
            revision: before + 1,
            audit_head: None,
        };
        destroy(&writing, &certificate).await?;
        writing.finish(true).await?;
        self.held().shredded([found.id]).await;
        Ok(certificate)
    }

    /// Makes the files of the database forget what was deleted; `false` if somebody still reads what was there before, and it must
    /// be tried again.
    pub async fn forget_deleted(&self) -> Result<bool, StoreError> {
        crate::store::connection::forget_deleted(self.database()).await
    }

    /// The certificate of a tenant that was shredded.
    pub async fn erasure(&self, tenant: TenantId) -> Result<Option<ErasureCertificate>, StoreError> {
        let select = erasure::Entity::find().filter(erasure::Column::TenantId.eq(tenant));
        let reading = self.reading().await?;
        let certificate = |row: erasure::Model| Ok(serde_json::from_str(&row.certificate)?);
        Ok(row::models(&reading.executor(), select, certificate).await?.pop())
    }

    /// Drops from memory the data keys that went out of the database after that revision. Those of shredded tenants are not taken
    /// back, though somebody may still hold them wrapped.
    pub async fn drop_dead_keys(&self, since: Revision) -> Result<(), StoreError> {
        // One that does not parse must not keep the dead keys of the others alive.
        let state = |row: &QueryResult| Ok((row.try_get("", "id")?, row.try_get("", "state")?));
        let states = row::each(&self.reading().await?.executor(), tenants::since(since), state).await?;
        let states: Vec<(TenantId, TenantState)> = states.into_iter().flatten().collect();
        let is_shredded = |(id, state): &(TenantId, TenantState)| (*state == TenantState::Shredded).then_some(*id);
        self.held().shredded(states.iter().filter_map(is_shredded)).await;
        let changed = states.into_iter().map(|(id, _)| id).collect();
        self.held().retain(&changed, &self.living_keys(since).await?).await;
        Ok(())
    }

    /// Wipes from memory the data keys that nobody used for a while.
    pub async fn drop_idle_keys(&self) {
        self.held().tidy().await;
    }

    async fn living_keys(&self, since: Revision) -> Result<HashSet<(TenantId, KeyId)>, StoreError> {
        let changed = tenants::since(since).select_only().column(tenant::Column::Id).into_query();
        let living = tenant_key::Entity::find()
            .filter(tenant_key::Column::State.ne(DataKeyState::Destroyed))
            .filter(tenant_key::Column::TenantId.in_subquery(changed));
        // An id that does not parse belongs to no key that is held; it must not keep the dead ones alive.
        let key = |row: &QueryResult| Ok((row.try_get("", "tenant_id")?, row.try_get::<String>("", "id")?.parse()?));
        let keys = row::each(&self.reading().await?.executor(), living, key).await?;
        Ok(keys.into_iter().flatten().collect())
    }
}

fn wrapped_under(keys: Vec<(WrappedKey, Vec<KekId>)>) -> Vec<KekId> {
    let all: BTreeSet<KekId> = keys.into_iter().flat_map(|(key, before)| before.into_iter().chain([key.kek])).collect();
    all.into_iter().collect()
}

async fn destroy(writing: &Writing, certificate: &ErasureCertificate) -> Result<(), StoreError> {
    let db = writing.executor();
    let id = certificate.tenant_id;
    let delete = credential::Entity::delete_many().filter(credential::Column::TenantId.eq(id));
    delete.exec(db).await.map_err(StoreError::write("credential"))?;
    let delete = recording_key::Entity::delete_many().filter(recording_key::Column::TenantId.eq(id));
    delete.exec(db).await.map_err(StoreError::write("recording_key"))?;
    let gone =
        tenant_key::ActiveModel { wrapped: Set(Vec::new()), state: Set(DataKeyState::Destroyed), ..Default::default() };
    let update = tenant_key::Entity::update_many().set(gone).filter(tenant_key::Column::TenantId.eq(id));
    update.exec(db).await.map_err(StoreError::write("tenant_key"))?;
    let update = tenant::Entity::update_many()
        .set(tenant::ActiveModel { state: Set(TenantState::Shredded), ..Default::default() })
        .filter(tenant::Column::Id.eq(id));
    update.exec(db).await.map_err(StoreError::write("tenant"))?;
    let row = erasure::ActiveModel {
        tenant_id: Set(id),
        at_ms: Set(certificate.at_ms),
        certificate: Set(row::json("erasure", certificate)?),
    };
    erasure::Entity::insert(row).exec_without_returning(db).await.map_err(StoreError::write("erasure"))?;
    Ok(())
}
