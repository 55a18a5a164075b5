//! What writers left that were killed: the ends of their parts, which they did not sign. Another writer signs what it found, as that and
//! nothing more: nobody can tell any more whether it is what they wrote, but from then on it stays.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tenant_store::{AuditChain, AuditCheckpoint, AuditPart, Clock, Store, StoreError, Timestamp};
use tokio::time::sleep;

use super::event::{Event, Head, What};
use super::signer::Signer;
use super::{Audit, line};
use crate::lifecycle::Tasks;
use crate::policy::Administration;

/// How many writers are looked at, the most recent.
const WRITERS_MAX: u64 = 256;
/// For how much longer than from one checkpoint to the next a writer is silent that was killed: calls are recorded as of their beginning.
const SILENCE: Duration = Duration::from_mins(15);
/// How many heads one event names.
const HEADS_MAX: usize = 100;
/// How often that is tried, and how long to wait in between.
const ATTEMPTS_MAX: usize = 12;
const AGAIN_AFTER: Duration = Duration::from_mins(5);

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
            sleep(silence).await;
            for _ in 0..ATTEMPTS_MAX {
                let Err(error) = audit.sign_all(&store, administration, (&*clock, silence)).await else { return };
                tracing::error!(
                    error = &error as &dyn Error,
                    "what killed writers left of the audit record could not all be signed: it is tried again"
                );
                sleep(AGAIN_AFTER).await;
            }
        });
    }

    async fn sign_all(
        &self,
        store: &Store,
        administration: Administration,
        (clock, silence): (&dyn Clock, Duration),
    ) -> Result<(), StoreError> {
        let now = clock.now();
        let silence_ms = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(silence_ms));
        let silent = store.platform_audit_heads(WRITERS_MAX).await?;
        let silent: Vec<AuditCheckpoint> = silent.into_iter().filter(|head| head.at < before).collect();
        let tenants = store.still().await?.tenant_ids().await?;
        let tenants = tenants.into_iter().map(|tenant| AuditChain::Tenant(administration.scope(tenant)));
        let (mut heads, mut failed) = (Vec::new(), None);
        // The platform's last: what it names of the others lies there before.
        for chain in tenants.chain([AuditChain::Platform]) {
            match sign_in(store, &self.signer, chain, (&silent, before, now)).await {
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

/// Signs what those writers left in one chain that is older than that.
pub(super) async fn sign_in(
    store: &Store,
    signer: &Signer,
    chain: AuditChain,
    (silent, before, now): (&[AuditCheckpoint], Timestamp, Timestamp),
) -> Result<Vec<Head>, StoreError> {
    let (mut heads, mut checkpoints) = (Vec::new(), Vec::new());
    for row in store.audit_rows_left(chain, silent, before).await? {
        let hash = line::hash(&row.line);
        heads.push(Head { chain: chain.to_string(), writer: row.writer.to_string(), seq: row.seq, hash });
        checkpoints.push(signer.vouch(chain, &row, now));
    }
    if !checkpoints.is_empty() {
        store.append_audit(&[AuditPart { chain, rows: Vec::new(), checkpoints }]).await?;
    }
    Ok(heads)
}
