//! What writers left that were killed: the ends of their parts, which they did not sign. Another writer signs what it found, as that and
//! nothing more: nobody can tell any more whether it is what they wrote, but from then on it stays.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tenant_store::{
    AuditChain, AuditCheckpoint, AuditPart, AuditPruned, AuditWriterId, Clock, Store, StoreError, Timestamp,
};
use tokio::time::sleep;

use super::event::{Event, Head, What};
use super::prune::before;
use super::signer::Signer;
use super::verify::SKEW_MAX;
use super::{Audit, line};
use crate::lifecycle::Tasks;
use crate::policy::Administration;

/// How many writers are looked at, and of how many of the last signatures those are.
const WRITERS_MAX: usize = 256;
const CHECKPOINTS_MAX: u64 = 20_000;
/// For how much longer than from one checkpoint to the next a writer is silent that was killed: calls are recorded as of their beginning.
const SILENCE: Duration = Duration::from_mins(15);
/// How many heads one event names.
const HEADS_MAX: usize = 100;
/// How often that is tried, and how long to wait in between.
const ATTEMPTS_MAX: usize = 12;
const AGAIN_AFTER: Duration = Duration::from_mins(5);
/// How the last line of a writer ends that says so.
const ENDED: &str = r#""event":"ended"}"#;

/// Who was killed, as far as can be known: who has signed nothing since then, and has not said that it ended.
#[derive(Debug)]
pub(super) struct Killed {
    pub(super) writers: Vec<AuditWriterId>,
    pub(super) before: Timestamp,
}

impl Audit {
    /// Some time after the start, and once: what killed writers left is signed.
    pub fn sign_for_the_killed(
        &self,
        store: &Store,
        administration: Administration,
        every: Duration,
        (clock, tasks): (Arc<dyn Clock>, &Tasks),
    ) {
        let (audit, store, silence) = (self.clone(), store.clone(), every + SILENCE);
        tasks.spawn(async move {
            sleep(silence + SKEW_MAX).await;
            let before = before(clock.now(), silence);
            // What is signed for a writer is not taken for a sign of life when that is tried again.
            let mut killed = None;
            for _ in 0..ATTEMPTS_MAX {
                let signed = audit.sign_all((&store, &mut killed), before, administration, clock.now());
                let Err(error) = signed.await else { return };
                tracing::error!(
                    error = &error as &dyn Error,
                    "what killed writers left of the audit record could not all be signed: it is tried for an hour"
                );
                sleep(AGAIN_AFTER).await;
            }
        });
    }

    async fn sign_all(
        &self,
        (store, killed): (&Store, &mut Option<Killed>),
        before: Timestamp,
        administration: Administration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let killed = match killed {
            Some(killed) => killed,
            None => killed.insert(Killed::before((store, &self.signer), before).await?),
        };
        let tenants = store.still().await?.tenant_ids().await?;
        let tenants = tenants.into_iter().map(|tenant| AuditChain::Tenant(administration.scope(tenant)));
        let (mut heads, mut failed) = (Vec::new(), None);
        // The platform's last: what it names of the others lies there before.
        for chain in tenants.chain([AuditChain::Platform]) {
            match sign_in(store, &self.signer, chain, (killed, now)).await {
                Ok(signed) => heads.extend(signed),
                Err(error) => failed = Some(error),
            }
        }
        for heads in heads.chunks(HEADS_MAX) {
            tracing::warn!(
                audit.heads = heads.len(),
                "what killed writers left of the audit record is signed as it was found"
            );
            let what = What::Checkpoint { heads: heads.to_vec() };
            self.room().await.put(Event { at: now, chain: AuditChain::Platform, what });
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Killed {
    pub(super) async fn before((store, signer): (&Store, &Signer), before: Timestamp) -> Result<Self, StoreError> {
        let (mut writers, platform) = (Vec::new(), AuditChain::Platform.to_string());
        for head in store.platform_audit_heads((WRITERS_MAX, CHECKPOINTS_MAX)).await? {
            // A head that nobody signed is nobody's.
            if head.at < before && signer.has_signed(&platform, &head) && !has_ended(store, &head).await? {
                writers.push(head.writer);
            }
        }
        Ok(Self { writers, before })
    }
}

/// Whether the last that a writer signed says that nothing more comes, or was deleted because its time was over.
async fn has_ended(store: &Store, head: &AuditCheckpoint) -> Result<bool, StoreError> {
    let part = (AuditChain::Platform, head.writer);
    if store.audit_pruned_of(part).await?.is_some_and(|AuditPruned(pruned)| pruned.seq >= head.seq) {
        return Ok(true);
    }
    let rows = store.audit_rows_of(part, head.seq.saturating_sub(1)).await?;
    Ok(rows.first().is_some_and(|row| row.seq == head.seq && row.line.ends_with(ENDED)))
}

/// Signs what those writers left in one chain, if that is old enough.
pub(super) async fn sign_in(
    store: &Store,
    signer: &Signer,
    chain: AuditChain,
    (Killed { writers, before }, now): (&Killed, Timestamp),
) -> Result<Vec<Head>, StoreError> {
    let (mut heads, mut checkpoints) = (Vec::new(), Vec::new());
    let left = store.audit_rows_left(chain, writers).await?;
    for row in left.into_iter().filter(|row| row.at < *before) {
        let hash = line::hash(&row.line);
        heads.push(Head { chain: chain.to_string(), writer: row.writer.to_string(), seq: row.seq, hash });
        checkpoints.push(signer.vouch(chain, &row, now));
    }
    if !checkpoints.is_empty() {
        store.append_audit(&[AuditPart { chain, rows: Vec::new(), checkpoints }]).await?;
    }
    Ok(heads)
}
