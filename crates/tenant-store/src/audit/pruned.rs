//! Deleting what is over: the first lines of a writer's part of a chain, up to one that it signed, with a signed word that they were there.

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::{AUDIT_PAGE_ROWS, AuditChain, AuditCheckpoint, AuditRow, checkpoint, checkpoints, event, events, number};
use crate::clock::Timestamp;
use crate::entity::{audit_checkpoint, audit_event, audit_pruned};
use crate::error::StoreError;
use crate::id::AuditWriterId;
use crate::scope::TenantStore;
use crate::store::patience::answered;
use crate::store::transaction::{Reading, Writing};
use crate::store::{Still, Store, row};

/// How far a writer's part of a chain was deleted, because its time was over: its last event that is gone, when that was, and a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPruned(pub AuditCheckpoint);

impl Store {
    /// The writers that had signed something in that chain by then which is still there.
    pub async fn audit_writers_before(
        &self,
        chain: AuditChain,
        before: Timestamp,
    ) -> Result<Vec<AuditWriterId>, StoreError> {
        use audit_checkpoint::Column::{AtMs, Writer};
        let reading = Reading::of_its_own(self, chain.whose()).await?;
        let select = checkpoints(chain).filter(AtMs.lt(before.as_millis())).select_only().column(Writer).distinct();
        let writers = select.order_by_asc(Writer).into_tuple().all(&reading.executor()).await;
        writers.map_err(StoreError::read("audit_checkpoint"))
    }

    /// How far that writer's part was deleted.
    pub async fn audit_pruned_of(
        &self,
        (chain, writer): (AuditChain, AuditWriterId),
    ) -> Result<Option<AuditPruned>, StoreError> {
        let reading = Reading::of_its_own(self, chain.whose()).await?;
        let select = all(chain).filter(audit_pruned::Column::Writer.eq(writer));
        Ok(row::models(&reading.executor(), select, pruned).await?.pop())
    }

    /// Its lines behind that number, in their order: a page.
    pub async fn audit_rows_of(
        &self,
        (chain, writer): (AuditChain, AuditWriterId),
        after: u64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        use audit_event::Column::{Seq, Writer};
        let reading = Reading::of_its_own(self, chain.whose()).await?;
        let select = events(chain).filter(Writer.eq(writer)).filter(Seq.gt(number(after)));
        row::models(&reading.executor(), select.order_by_asc(Seq).limit(AUDIT_PAGE_ROWS), event).await
    }

    /// What it had signed by then behind that number, in its order: a page.
    pub async fn audit_checkpoints_of(
        &self,
        (chain, writer): (AuditChain, AuditWriterId),
        (after, before): (u64, Timestamp),
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        use audit_checkpoint::Column::{AtMs, Seq, Writer};
        let reading = Reading::of_its_own(self, chain.whose()).await?;
        let select = checkpoints(chain).filter(Writer.eq(writer)).filter(Seq.gt(number(after)));
        let select = select.filter(AtMs.lt(before.as_millis())).order_by_asc(Seq);
        row::models(&reading.executor(), select.limit(AUDIT_PAGE_ROWS), checkpoint).await
    }

    /// Deletes a writer's part of a chain up to that event, and keeps that word of it. All of it or nothing.
    pub async fn prune_audit(&self, chain: AuditChain, up_to: &AuditPruned) -> Result<(), StoreError> {
        use audit_pruned::Column::{AtMs, Chain, Hash, KeyId, Seq, Signature, Writer};

        let AuditPruned(AuditCheckpoint { writer, seq, at, hash, key_id, signature }) = up_to;
        let model = audit_pruned::ActiveModel {
            chain: Set(chain.to_string()),
            writer: Set(*writer),
            seq: Set(number(*seq)),
            at_ms: Set(at.as_millis()),
            hash: Set(hash.clone()),
            key_id: Set(key_id.clone()),
            signature: Set(signature.clone()),
        };
        // Somebody else may have deleted more meanwhile.
        let moved = OnConflict::columns([Chain, Writer])
            .update_columns([Seq, AtMs, Hash, KeyId, Signature])
            .action_and_where(Expr::col((audit_pruned::Entity, Seq)).lt(number(*seq)))
            .to_owned();
        let writing = Writing::beside(self).await?;
        writing.about(chain.whose()).await?;
        let db = writing.executor();
        // Whoever adds a line of these again at the same time sees that it is gone, and not only that it is not there. Whoever adds any waits
        // behind us while we wait: so not for long, but longer than PostgreSQL takes to call off a vacuum of its own (`deadlock_timeout`).
        if self.has_roles() {
            let lock = "SET LOCAL lock_timeout = '3s'; LOCK TABLE audit_event IN SHARE ROW EXCLUSIVE MODE";
            let lock = db.execute_unprepared(lock);
            answered(lock).await.map_err(StoreError::write("audit_event"))?;
        }
        let insert = audit_pruned::Entity::insert(model).on_conflict(moved).exec_without_returning(db);
        answered(insert).await.map_err(StoreError::write("audit_pruned"))?;
        let (chain, seq) = (chain.to_string(), number(*seq));
        let signatures = Condition::all()
            .add(audit_checkpoint::Column::Chain.eq(chain.clone()))
            .add(audit_checkpoint::Column::Writer.eq(*writer))
            .add(audit_checkpoint::Column::Seq.lte(seq));
        let delete = audit_checkpoint::Entity::delete_many().filter(signatures).exec(db);
        answered(delete).await.map_err(StoreError::write("audit_checkpoint"))?;
        let lines = Condition::all()
            .add(audit_event::Column::Chain.eq(chain))
            .add(audit_event::Column::Writer.eq(*writer))
            .add(audit_event::Column::Seq.lte(seq));
        let delete = audit_event::Entity::delete_many().filter(lines).exec(db);
        answered(delete).await.map_err(StoreError::write("audit_event"))?;
        writing.finish(false).await
    }
}

impl TenantStore {
    /// How far the parts of the tenant's record were deleted, by writer, behind that one.
    pub async fn audit_pruned(&self, after: Option<AuditWriterId>) -> Result<Vec<AuditPruned>, StoreError> {
        page(&self.reading().await?, self.audit_chain(), after).await
    }
}

impl Still {
    /// How far the parts of the platform's record were deleted, by writer, behind that one.
    pub async fn platform_audit_pruned(&self, after: Option<AuditWriterId>) -> Result<Vec<AuditPruned>, StoreError> {
        page(&self.reading().await?, AuditChain::Platform, after).await
    }
}

async fn page(
    reading: &Reading,
    chain: AuditChain,
    after: Option<AuditWriterId>,
) -> Result<Vec<AuditPruned>, StoreError> {
    let mut select = all(chain).order_by_asc(audit_pruned::Column::Writer);
    if let Some(after) = after {
        select = select.filter(audit_pruned::Column::Writer.gt(after));
    }
    row::models(&reading.executor(), select.limit(AUDIT_PAGE_ROWS), pruned).await
}

/// Whether anything of the platform's record was ever deleted.
pub(super) async fn has_any(reading: &Reading) -> Result<bool, StoreError> {
    Ok(!row::models(&reading.executor(), all(AuditChain::Platform).limit(1), pruned).await?.is_empty())
}

fn all(chain: AuditChain) -> sea_orm::Select<audit_pruned::Entity> {
    audit_pruned::Entity::find().filter(audit_pruned::Column::Chain.eq(chain.to_string()))
}

fn pruned(model: audit_pruned::Model) -> Result<AuditPruned, row::BoxError> {
    let audit_pruned::Model { writer, seq, at_ms, hash, key_id, signature, .. } = model;
    let (seq, at) = (u64::try_from(seq)?, Timestamp::from_millis(at_ms));
    Ok(AuditPruned(AuditCheckpoint { writer, seq, at, hash, key_id, signature }))
}
