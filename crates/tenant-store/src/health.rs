//! How upstreams fared when they were asked for their lists, for operators who want to know. No request is decided by it, so writing it
//! raises no revision.

use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _};

use crate::clock::Timestamp;
use crate::entity::upstream;
use crate::entity::upstream_health::{self, Column};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::scope::TenantStore;
use crate::store::row;

/// Length of the longest error that is remembered, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// How old what is written may be while nothing changes.
const WRITTEN_EVERY: Duration = Duration::from_mins(10);

/// How an upstream fared when it was asked last, or not long before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHealth {
    /// Which.
    pub upstream: UpstreamId,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it answered with all its lists, if it ever did.
    pub listed_at: Option<Timestamp>,
    /// What was wrong, if it did not answer well.
    pub failure: Option<UpstreamFailure>,
}

/// What is wrong with an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// Since when it fails.
    pub since: Timestamp,
    /// How it failed last.
    pub error: String,
}

impl TenantStore {
    /// Remembers how an upstream fared just now, if it is there still: well, or with that error. What is known already is written only
    /// now and then, so that a listing that brings nothing new takes no writer's turn.
    pub async fn note_health(&self, upstream: UpstreamId, error: Option<&str>) -> Result<(), StoreError> {
        let error: Option<String> = error.map(|error| error.chars().take(ERROR_CHARS_MAX).collect());
        let now = self.store().now();
        let this = || upstream_health::Entity::find_by_id((self.id(), upstream));
        let written = row::models(&self.reading().await?.executor(), this(), |model| Ok(parse(model))).await?.pop();
        let is_known = |health: UpstreamHealth| {
            let said = health.failure.map(|failure| failure.error);
            said == error && now.since(health.asked_at) < WRITTEN_EVERY
        };
        if written.is_some_and(is_known) {
            return Ok(());
        }
        let writing = self.writing().await?;
        let db = writing.executor();
        let is_there = upstream::Entity::find()
            .filter(upstream::Column::TenantId.eq(self.id()))
            .filter(upstream::Column::Id.eq(upstream));
        if is_there.count(db).await.map_err(StoreError::read("upstream"))? == 0 {
            return Ok(());
        }
        let before = row::models(db, this(), Ok).await?.pop();
        let (listed_before, failing_since) = before.map_or((None, None), |row| (row.listed_ms, row.failing_since_ms));
        let now = now.as_millis();
        let row = upstream_health::ActiveModel {
            tenant_id: Set(self.id()),
            upstream_id: Set(upstream),
            asked_ms: Set(now),
            listed_ms: Set(if error.is_none() { Some(now) } else { listed_before }),
            failing_since_ms: Set(error.as_ref().map(|_| failing_since.unwrap_or(now))),
            error: Set(error),
        };
        let known = OnConflict::columns([Column::TenantId, Column::UpstreamId])
            .update_columns([Column::AskedMs, Column::ListedMs, Column::FailingSinceMs, Column::Error])
            .to_owned();
        let insert = upstream_health::Entity::insert(row).on_conflict(known);
        insert.exec_without_returning(db).await.map_err(StoreError::write("upstream_health"))?;
        writing.finish(false).await
    }

    /// How the tenant's upstreams fared, as far as they were asked.
    pub async fn health(&self) -> Result<Vec<UpstreamHealth>, StoreError> {
        let select = upstream_health::Entity::find().filter(Column::TenantId.eq(self.id()));
        row::models(&self.reading().await?.executor(), select, |model| Ok(parse(model))).await
    }
}

/// What was known of an upstream is nothing about another place.
pub(crate) async fn forget<C: ConnectionTrait>(
    db: &C,
    tenant: TenantId,
    upstream: UpstreamId,
) -> Result<(), StoreError> {
    let delete = upstream_health::Entity::delete_many()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UpstreamId.eq(upstream));
    delete.exec(db).await.map_err(StoreError::write("upstream_health"))?;
    Ok(())
}

fn parse(model: upstream_health::Model) -> UpstreamHealth {
    let since = model.failing_since_ms.map(Timestamp::from_millis);
    UpstreamHealth {
        upstream: model.upstream_id,
        asked_at: Timestamp::from_millis(model.asked_ms),
        listed_at: model.listed_ms.map(Timestamp::from_millis),
        failure: since.map(|since| UpstreamFailure { since, error: model.error.unwrap_or_default() }),
    }
}
