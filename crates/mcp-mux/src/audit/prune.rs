//! Retention: what is older than the record is kept is deleted, each writer's part of a chain up to the last line that it had signed by then.
//! What is deleted is checked first, and where anything is wrong it stays, so that it is found. What remains goes on behind a signed word of
//! what was there: whoever deletes without the key is found out as before.
//!
//! Tenants' chains come first. The platform's says how far they had come, and is deleted only where nothing that it speaks of is left
//! unchecked.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tenant_store::{
    AuditChain, AuditCheckpoint, AuditRow, AuditWriterId, Clock, Store, StoreError, TenantId, Timestamp,
};
use tokio::time::sleep;

use super::Audit;
use super::event::{Event, What};
use super::heads::Heads;
use super::signer::Signer;
use super::verify::Verifier;
use super::wrong::{WRONG_MAX, Wrong};
use crate::civil;
use crate::config::AuditConfig;
use crate::policy::Administration;

/// How often it is looked for what is too old.
const PRUNE_EVERY: Duration = Duration::from_hours(6);
/// How long to wait after that failed.
const AGAIN_AFTER: Duration = Duration::from_mins(5);

/// A writer's part of a chain.
type Part = (AuditChain, AuditWriterId);

/// What was deleted, or would be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many events.
    pub events: u64,
    /// In how many tenants' records.
    pub tenants: u64,
    /// Of the record of which tenant, or of the platform, something was left because it is not as it was written, and what.
    pub wrong: Vec<(AuditChain, Wrong)>,
}

/// Deletes old events.
#[derive(Debug)]
pub struct Pruning<'s> {
    store: &'s Store,
    signer: &'s Signer,
    administration: Administration,
    before: Timestamp,
    /// Whether it only counts.
    is_dry: bool,
    seen: BTreeSet<TenantId>,
    pruned: Pruned,
}

/// What ends the work on a part.
#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

impl<'s> Pruning<'s> {
    /// Of all that had been signed by `before`.
    pub fn new(store: &'s Store, signer: &'s Signer, administration: Administration, before: Timestamp) -> Self {
        let (seen, pruned) = (BTreeSet::new(), Pruned::default());
        Self { store, signer, administration, before, is_dry: false, seen, pruned }
    }

    /// Only counts what it would delete.
    #[must_use]
    pub fn dry(self, is_dry: bool) -> Self {
        Self { is_dry, ..self }
    }

    /// Deletes it.
    pub async fn run(mut self) -> Result<Pruned, StoreError> {
        for tenant in self.store.tenants().await? {
            self.tenant(tenant.id).await?;
        }
        let writers = self.store.audit_writers_before(AuditChain::Platform, self.before).await?;
        for writer in writers {
            self.part((AuditChain::Platform, writer)).await?;
        }
        Ok(self.pruned)
    }

    async fn tenant(&mut self, tenant: TenantId) -> Result<(), StoreError> {
        if !self.seen.insert(tenant) {
            return Ok(());
        }
        let chain = AuditChain::Tenant(self.administration.scope(tenant));
        let before = self.pruned.events;
        for writer in self.store.audit_writers_before(chain, self.before).await? {
            self.part((chain, writer)).await?;
        }
        self.pruned.tenants += u64::from(self.pruned.events > before);
        Ok(())
    }

    /// Works on one writer's part of a chain. What is wrong with it is noted.
    fn part(&mut self, part: Part) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.go_on(part).await {
                Ok(()) => Ok(()),
                Err(PartError::Store(error)) => Err(error),
                Err(PartError::Wrong(wrong)) => {
                    if self.pruned.wrong.len() < WRONG_MAX {
                        self.pruned.wrong.push((part.0, wrong));
                    }
                    Ok(())
                }
            }
        })
    }

    async fn go_on(&mut self, part: Part) -> Result<(), PartError> {
        let mut verifier = Verifier::new(&part.0.to_string(), self.signer.all(), &Heads::default(), None);
        let mut begin = 0;
        if let Some(pruned) = self.store.audit_pruned_of(part).await? {
            verifier.pruned(&pruned)?;
            begin = pruned.0.seq;
        }
        let (mut at, mut signed_at) = (begin, begin);
        let mut signed = VecDeque::new();
        loop {
            if signed.is_empty() {
                signed = self.store.audit_checkpoints_of(part, (signed_at, self.before)).await?.into();
            }
            let Some(AuditCheckpoint { seq, .. }) = signed.back() else { return Ok(()) };
            signed_at = *seq;
            let rows = self.store.audit_rows_of(part, at).await?;
            if rows.is_empty() {
                return Err(Wrong::CutOff { writer: part.1.to_string(), seq: signed_at }.into());
            }
            let last = check(&mut verifier, &mut signed, rows)?;
            at = last.at;
            let Some(up_to) = last.signed else { continue };
            if part.0 == AuditChain::Platform {
                self.go_before(&verifier).await?;
            }
            self.delete(part.0, &up_to).await?;
            self.pruned.events += up_to.seq - begin;
            begin = up_to.seq;
        }
    }

    /// Before lines of the platform's chain are deleted: what they say of other chains goes first, and nothing may be wrong with that.
    async fn go_before(&mut self, verifier: &Verifier) -> Result<(), PartError> {
        let named: Vec<TenantId> = verifier.heads().chains().filter_map(|chain| chain.parse().ok()).collect();
        for tenant in named {
            self.tenant(tenant).await?;
        }
        let of_tenants = self.pruned.wrong.iter().find(|(chain, _)| *chain != AuditChain::Platform);
        of_tenants.map_or(Ok(()), |(_, wrong)| Err(wrong.clone().into()))
    }

    async fn delete(&self, chain: AuditChain, up_to: &AuditCheckpoint) -> Result<(), StoreError> {
        if self.is_dry {
            return Ok(());
        }
        self.store.prune_audit(chain, &self.signer.prune(chain, up_to, self.store.now())).await
    }
}

/// How far a page of lines was checked.
struct Checked {
    at: u64,
    /// The last of what was signed that it reached.
    signed: Option<AuditCheckpoint>,
}

/// Checks lines, as far as they are signed.
fn check(
    verifier: &mut Verifier,
    signed: &mut VecDeque<AuditCheckpoint>,
    rows: Vec<AuditRow>,
) -> Result<Checked, Wrong> {
    let mut checked = Checked { at: 0, signed: None };
    for row in rows {
        verifier.row(&row)?;
        checked.at = row.seq;
        if let Some(checkpoint) = signed.pop_front_if(|next| next.seq <= row.seq) {
            verifier.checkpoint(&checkpoint)?;
            checked.signed = Some(checkpoint);
        }
        if signed.is_empty() {
            break;
        }
    }
    Ok(checked)
}

/// Deletes now and then what is older than events are kept.
#[derive(Debug)]
pub struct Retention {
    audit: Audit,
    kept: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl Retention {
    /// As that configuration says, with a word in that record.
    pub fn new(audit: Audit, config: &AuditConfig, clock: Arc<dyn Clock>) -> Self {
        Self { audit, kept: config.kept(), clock }
    }

    /// Does so, for ever; where events are kept for ever, nothing.
    pub async fn keep(&self, store: &Store, administration: Administration) {
        let Some(kept) = self.kept else { return };
        loop {
            let before = before(self.clock.now(), kept);
            let next = match Pruning::new(store, &self.audit.signer, administration, before).run().await {
                Ok(pruned) => {
                    self.tell_of(pruned, before).await;
                    PRUNE_EVERY
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::error!(error, "what is old of the audit record could not be deleted: it is tried again");
                    AGAIN_AFTER
                }
            };
            sleep(next).await;
        }
    }

    async fn tell_of(&self, Pruned { events, tenants, wrong }: Pruned, before: Timestamp) {
        for (chain, wrong) in wrong {
            tracing::error!(
                error = &wrong as &dyn Error,
                audit.chain = %chain,
                "old events are not deleted, because something is wrong with them: see `mcp-mux audit verify`"
            );
        }
        if events == 0 {
            return;
        }
        let before = civil::rfc3339(before);
        tracing::info!(audit.events = events, audit.before = before, "old events were deleted from the audit record");
        let what = What::Pruned { before, events, tenant_count: tenants };
        self.audit.room().await.put(Event { at: self.clock.now(), chain: AuditChain::Platform, what });
    }
}

/// When what is kept begins.
pub fn before(now: Timestamp, kept: Duration) -> Timestamp {
    let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(kept_ms))
}

#[cfg(test)]
mod tests {
    use tenant_store::testing::ThrowAway;
    use tenant_store::{ManualClock, SystemClock};

    use tenant_store::AuditPruned;

    use super::*;
    use crate::audit::event::Administered;
    use crate::audit::whole::check_platform;
    use crate::audit::writer::Writer;
    use crate::hex;

    const DAY: Duration = Duration::from_hours(24);

    /// A writer that signs something of the platform's every ten days, of which one has lasted for 100 of them.
    async fn signed(away: &ThrowAway) -> anyhow::Result<(Signer, AuditWriterId)> {
        let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
        let clock = Arc::new(ManualClock::at(before(SystemClock.now(), DAY * 100)));
        let mut writer = Writer::new(away.store.clone(), signer, Arc::clone(&clock) as _, Duration::MAX);
        for day in (10..100).step_by(10) {
            let (operator, name) = ("somebody".to_owned(), day.to_string());
            let what = Administered { operator, action: "apply", kind: "all", name, became: None, revision: None };
            writer.take(&Event { at: clock.now(), chain: AuditChain::Platform, what: What::Administration(what) });
            clock.advance(DAY * 10);
            writer.sign();
        }
        writer.add_once().await?;
        let heads = away.store.platform_audit_heads(1).await?;
        let id = heads.first().map(|head| head.writer).ok_or(anyhow::anyhow!("it has signed"))?;
        Ok((Signer::of(&away.store, &away.store.platform_keys().await?).await?, id))
    }

    #[tokio::test]
    async fn of_a_writer_that_goes_on_what_is_old_is_gone_and_only_as_far_as_is_signed() -> anyhow::Result<()> {
        let away = ThrowAway::new().await;
        let (signer, writer) = signed(&away).await?;
        let now = SystemClock.now();
        let prune = async |days: u32| {
            Pruning::new(&away.store, &signer, Administration::of_test(), before(now, DAY * days)).run().await
        };
        let check = async || check_platform(&away.store.still().await?, (&signer, now)).await;
        assert_eq!(prune(61).await?.events, 3);
        let checked = check().await?;
        assert_eq!((checked.wrong.len(), checked.found.pruned, checked.found.events), (0, 3, 6));
        let older = away.store.still().await?.platform_audit_pruned(None).await?;
        assert_eq!(older[0].0.seq, 3);
        assert_eq!(prune(61).await?, Pruned::default());
        assert_eq!(prune(31).await?.events, 3);
        let checked = check().await?;
        assert_eq!((checked.wrong.len(), checked.found.pruned, checked.found.events), (0, 6, 3));

        // Without the word, or with the one from before, something is missing.
        let writer = writer.to_string();
        let (off, alter) = if tenant_store::testing::is_on_postgres() {
            ("SET session_replication_role = replica; ", away.database())
        } else {
            ("DROP TRIGGER audit_pruned_forward; DROP TRIGGER audit_pruned_kept_on_delete; ", away.database())
        };
        alter.alter(&format!("{off} UPDATE audit_pruned SET seq = 3")).await?;
        assert!(matches!(check().await?.wrong[..], [Wrong::Signature { seq: 3, .. }, ..]));
        let AuditPruned(AuditCheckpoint { at, hash, signature, .. }) = &older[0];
        let signature = hex::encode(signature);
        let bytes = if off.starts_with("SET") { format!("'\\x{signature}'") } else { format!("x'{signature}'") };
        let role = if off.starts_with("SET") { off } else { "" };
        let back = format!("UPDATE audit_pruned SET hash = '{hash}', at_ms = {}, signature = {bytes}", at.as_millis());
        alter.alter(&format!("{role} {back}")).await?;
        let gap = Wrong::Gap { writer: writer.clone(), wanted: 4, found: 7 };
        assert_eq!(check().await?.wrong, [gap]);
        assert!(matches!(prune(31).await?.wrong[..], []), "nothing else is old");
        alter.alter(&format!("{role} DELETE FROM audit_pruned")).await?;
        assert_eq!(check().await?.wrong, [Wrong::Gap { writer, wanted: 1, found: 7 }]);
        Ok(())
    }
}
