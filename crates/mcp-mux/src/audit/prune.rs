//! Retention: what is older than the record is kept is deleted, each writer's part of a chain up to the last line that it had signed by then.
//! What is deleted is checked first, and where anything is wrong it stays, so that it is found. What remains goes on behind a signed word of
//! what was there: whoever deletes without the key is found out as before.
//!
//! Tenants' chains come first. The platform's says how far they had come, and is deleted only where nothing that it speaks of is left
//! unchecked.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tenant_store::{
    AuditChain, AuditCheckpoint, AuditPruned, AuditRow, AuditWriterId, Clock, Store, StoreError, TenantId, Timestamp,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::event::{Event, Head, What};
use super::heads::Heads;
use super::signer::Signer;
use super::verify::Verifier;
use super::wrong::{WRONG_MAX, Wrong};
use super::{Audit, line};
use crate::civil;
use crate::config::AuditConfig;
use crate::policy::Administration;

/// How often it is looked for what is too old.
const PRUNE_EVERY: Duration = Duration::from_hours(6);
/// How long to wait after that failed.
const AGAIN_AFTER: Duration = Duration::from_mins(5);

/// How often a part is begun again that somebody else works on.
const ATTEMPTS_MAX: usize = 3;
/// How many records that cannot be worked on end the work on all.
const FAILED_MAX: usize = 20;
/// The same of those of which nothing can be deleted: others wait while that is tried.
const UNWRITTEN_MAX: usize = 2;

/// A writer's part of a chain.
type Part = (AuditChain, AuditWriterId);

/// What was deleted, or would be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// How many events.
    pub events: u64,
    /// In how many tenants' records.
    pub tenants: u64,
    /// Of which records something was left because it is not as it was written, and what.
    pub wrong: Vec<(AuditChain, Wrong)>,
    /// Which records could not be worked on, and why.
    pub failed: Vec<(AuditChain, StoreError)>,
    /// What ended the work before all was done.
    pub ended_by: Option<StoreError>,
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
    /// Whether the platform's record says what is, or may be, missing from a tenant's.
    is_proof: bool,
    unwritten: usize,
    pruned: &'s mut Pruned,
}

/// What ends the work on a part.
#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be deleted.
    #[error(transparent)]
    Writing(StoreError),
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// It says something of another part with which something is wrong.
    #[error("it is needed as a proof")]
    Proof,
}

impl<'s> Pruning<'s> {
    /// Of all that had been signed by `before`. What is deleted is counted in `pruned`.
    pub fn new(
        (store, signer): (&'s Store, &'s Signer),
        administration: Administration,
        before: Timestamp,
        pruned: &'s mut Pruned,
    ) -> Self {
        let (seen, is_dry, is_proof, unwritten) = (BTreeSet::new(), false, false, 0);
        Self { store, signer, administration, before, is_dry, seen, is_proof, unwritten, pruned }
    }

    /// Only counts what it would delete.
    #[must_use]
    pub fn dry(self, is_dry: bool) -> Self {
        Self { is_dry, ..self }
    }

    /// Deletes it. What goes wrong with one record stops no other tenant's.
    pub async fn run(mut self) {
        self.pruned.ended_by = self.all().await.err();
    }

    async fn all(&mut self) -> Result<(), StoreError> {
        let tenants = self.store.still().await?.tenants(None).await?;
        // One whose row does not parse has its record pruned when the platform's speaks of it.
        for tenant in tenants.into_iter().flatten() {
            self.tenant(tenant.id).await?;
        }
        self.chain(AuditChain::Platform).await
    }

    async fn tenant(&mut self, tenant: TenantId) -> Result<(), StoreError> {
        if !self.seen.insert(tenant) {
            return Ok(());
        }
        let before = self.pruned.events;
        self.chain(AuditChain::Tenant(self.administration.scope(tenant))).await?;
        self.pruned.tenants += u64::from(self.pruned.events > before);
        Ok(())
    }

    fn chain(&mut self, chain: AuditChain) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.store.audit_writers_before(chain, self.before).await {
                Ok(writers) => {
                    for writer in writers {
                        self.part((chain, writer)).await?;
                    }
                    Ok(())
                }
                Err(error) => self.failed(chain, error),
            }
        })
    }

    /// Works on one writer's part of a chain. What goes wrong with it is noted.
    async fn part(&mut self, part: Part) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut begin = 0;
            match self.go_on(part, &mut begin).await {
                Ok(()) | Err(PartError::Proof) => break,
                Err(PartError::Store(error)) => return self.failed(part.0, error),
                Err(PartError::Writing(error)) if self.unwritten == UNWRITTEN_MAX => return Err(error),
                Err(PartError::Writing(error)) => {
                    self.unwritten += 1;
                    return self.failed(part.0, error);
                }
                // Somebody else deleted some of it meanwhile.
                Err(PartError::Wrong(_)) if self.pruned_of(part).await? != begin => {}
                Err(PartError::Wrong(wrong)) => {
                    self.is_proof |= part.0 != AuditChain::Platform;
                    if self.pruned.wrong.len() < WRONG_MAX {
                        self.pruned.wrong.push((part.0, wrong));
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, chain: AuditChain, error: StoreError) -> Result<(), StoreError> {
        self.is_proof |= chain != AuditChain::Platform;
        if self.pruned.failed.len() == FAILED_MAX {
            return Err(error);
        }
        self.pruned.failed.push((chain, error));
        Ok(())
    }

    async fn pruned_of(&self, part: Part) -> Result<u64, StoreError> {
        Ok(self.store.audit_pruned_of(part).await?.map_or(0, |pruned| pruned.0.seq))
    }

    /// Goes on with a part; what of it is deleted then is up to `begin`.
    async fn go_on(&mut self, part: Part, begin: &mut u64) -> Result<(), PartError> {
        let mut verifier = Verifier::new(&part.0.to_string(), self.signer.all(), &Heads::default(), None);
        if let Some(pruned) = self.store.audit_pruned_of(part).await? {
            *begin = pruned.0.seq;
            verifier.pruned(&pruned)?;
        }
        let (mut counted, mut at, mut signed_at) = (*begin, *begin, *begin);
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
            yield_now().await;
            at = last.at;
            let Some(up_to) = last.signed else { continue };
            if part.0 == AuditChain::Platform {
                self.prove(verifier.take_told()).await?;
            }
            if !self.is_dry {
                let word = self.signer.prune(part.0, &up_to, self.store.now());
                self.store.prune_audit(part.0, &word).await.map_err(PartError::Writing)?;
                self.unwritten = 0;
                *begin = up_to.seq;
            }
            self.pruned.events += up_to.seq - counted;
            counted = up_to.seq;
        }
    }

    /// Before lines of the platform's chain are deleted: what they say of other parts is there, or was deleted before them.
    async fn prove(&mut self, told: Vec<Head>) -> Result<(), PartError> {
        for head in told {
            let Head { chain, writer, seq, hash } = head;
            let chain = match chain.parse() {
                Ok(tenant) => {
                    self.tenant(tenant).await?;
                    AuditChain::Tenant(self.administration.scope(tenant))
                }
                Err(_) => AuditChain::Platform,
            };
            let part = (chain, writer.parse().map_err(|_| Wrong::NotALine)?);
            let is_there = match self.store.audit_pruned_of(part).await? {
                Some(AuditPruned(pruned)) if pruned.seq >= seq => pruned.seq > seq || pruned.hash == hash,
                _ => {
                    let rows = self.store.audit_rows_of(part, seq.saturating_sub(1)).await?;
                    rows.first().is_some_and(|row| row.seq == seq && line::hash(&row.line) == hash)
                }
            };
            if !is_there {
                return Err(Wrong::CutOff { writer, seq }.into());
            }
        }
        if self.is_proof { Err(PartError::Proof) } else { Ok(()) }
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
            let mut telling = Telling { retention: self, before, pruned: Pruned::default() };
            Pruning::new((store, &self.audit.signer), administration, before, &mut telling.pruned).run().await;
            let next = if telling.pruned.ended_by.is_none() { PRUNE_EVERY } else { AGAIN_AFTER };
            drop(telling);
            sleep(next).await;
        }
    }

    fn tell_of(&self, pruned: Pruned, before: Timestamp) {
        let Pruned { events, tenants, wrong, failed, ended_by } = pruned;
        if let Some(error) = ended_by {
            let error = &error as &dyn Error;
            tracing::error!(error, "what is old of the audit record could not all be deleted: it is tried again");
        }
        for (chain, error) in failed {
            let error = &error as &dyn Error;
            tracing::error!(error, audit.chain = %chain, "old events could not be deleted: it is tried again");
        }
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
        self.audit.push(Event { at: self.clock.now(), chain: AuditChain::Platform, what });
    }
}

/// Says what was deleted, also where the work ends before its time: somebody else leads, or the server stops.
struct Telling<'r> {
    retention: &'r Retention,
    before: Timestamp,
    pruned: Pruned,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.retention.tell_of(mem::take(&mut self.pruned), self.before);
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
    use tenant_store::{ManualClock, SystemClock, TenantSpec};

    use super::*;
    use crate::audit::event::Administered;
    use crate::audit::whole::{check_platform, verify_store};
    use crate::audit::writer::Writer;
    use crate::hex;

    const DAY: Duration = Duration::from_hours(24);

    /// A writer that signs something of the platform's every ten days, of which one has lasted for 100 of them.
    async fn signed(away: &ThrowAway) -> anyhow::Result<(Signer, AuditWriterId)> {
        let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
        let clock = Arc::new(ManualClock::at(before(SystemClock.now(), DAY * 100)));
        let mut writer = Writer::new(away.store.clone(), signer, Arc::clone(&clock) as _, Duration::MAX);
        for day in (10..100).step_by(10) {
            writer.take(&done(AuditChain::Platform, (clock.now(), &day.to_string())));
            clock.advance(DAY * 10);
            writer.sign();
        }
        writer.add_once().await?;
        let heads = away.store.platform_audit_heads((1, 1_000)).await?;
        let id = heads.first().map(|head| head.writer).ok_or(anyhow::anyhow!("it has signed"))?;
        Ok((Signer::of(&away.store, &away.store.platform_keys().await?).await?, id))
    }

    fn done(chain: AuditChain, (at, name): (Timestamp, &str)) -> Event {
        let (operator, name) = ("somebody".to_owned(), name.to_owned());
        let what = Administered { operator, action: "apply", kind: "all", name, became: None, revision: None };
        Event { at, chain, what: What::Administration(what) }
    }

    /// A writer that lasted for 100 days and has ended: on the first day there was something of a tenant's, and every ten days of the platform's.
    async fn quiet_tenant(away: &ThrowAway) -> anyhow::Result<(Signer, TenantId)> {
        let change = away.store.begin().await?;
        let (tenant, _) = change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme")).await?;
        change.commit().await?;
        let keys = away.store.platform_keys().await?;
        let signer = Arc::new(Signer::of(&away.store, &keys).await?);
        let clock = Arc::new(ManualClock::at(before(SystemClock.now(), DAY * 100)));
        let mut writer = Writer::new(away.store.clone(), signer, Arc::clone(&clock) as _, Duration::MAX);
        let acme = AuditChain::Tenant(Administration::of_test().scope(tenant.id));
        for name in ["first", "second", "third"] {
            writer.take(&done(acme, (clock.now(), name)));
        }
        for _ in 0..9 {
            writer.take(&done(AuditChain::Platform, (clock.now(), "something")));
            clock.advance(DAY * 10);
            writer.sign();
        }
        writer.sign_last();
        writer.add_once().await?;
        Ok((Signer::of(&away.store, &keys).await?, tenant.id))
    }

    async fn prune(away: &ThrowAway, signer: &Signer, old: Timestamp) -> Pruned {
        let mut pruned = Pruned::default();
        Pruning::new((&away.store, signer), Administration::of_test(), old, &mut pruned).run().await;
        pruned
    }

    fn is_nothing(pruned: &Pruned) -> bool {
        pruned.events == 0 && pruned.wrong.is_empty() && pruned.failed.is_empty() && pruned.ended_by.is_none()
    }

    #[tokio::test]
    async fn a_tenant_that_was_quiet_for_long_is_sound_when_what_was_told_of_it_is_gone() -> anyhow::Result<()> {
        let away = ThrowAway::new().await;
        let (signer, _) = quiet_tenant(&away).await?;
        let old = before(SystemClock.now(), DAY * 61);
        let pruned = prune(&away, &signer, old).await;
        assert!(pruned.tenants == 1 && pruned.wrong.is_empty() && pruned.failed.is_empty(), "{pruned:?}");
        for checked in verify_store(&away.store, &signer, Administration::of_test()).await? {
            assert!(checked.wrong.is_empty() && checked.found.pruned > 0, "{checked:?}");
        }
        let again = prune(&away, &signer, old).await;
        assert!(is_nothing(&again), "{again:?}");
        Ok(())
    }

    #[tokio::test]
    async fn what_says_that_something_is_missing_stays() -> anyhow::Result<()> {
        let chains = ["audit_event", "audit_checkpoint"];
        let off = if tenant_store::testing::is_on_postgres() {
            "SET session_replication_role = replica; ".to_owned()
        } else {
            chains.map(|table| format!("DROP TRIGGER {table}_kept_on_delete; ")).concat()
        };
        // The end of the tenant's record, with its signature, and all of it.
        for more_than in [1, 0] {
            let away = ThrowAway::new().await;
            let (signer, tenant) = quiet_tenant(&away).await?;
            let cut =
                chains.map(|table| format!("DELETE FROM {table} WHERE chain = '{tenant}' AND seq > {more_than}; "));
            away.database().alter(&format!("{off}{}", cut.concat())).await?;
            let rows = away.store.still().await?.platform_audit_rows(None).await?.len();
            let old = before(SystemClock.now(), DAY * 31);
            let pruned = prune(&away, &signer, old).await;
            assert!(matches!(pruned.wrong[..], [(AuditChain::Platform, Wrong::CutOff { seq: 3, .. })]), "{pruned:?}");
            assert_eq!(away.store.still().await?.platform_audit_rows(None).await?.len(), rows);
            let report = verify_store(&away.store, &signer, Administration::of_test()).await?;
            assert!(matches!(report[1].wrong[..], [Wrong::CutOff { seq: 3, .. }]), "{report:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn of_a_writer_that_goes_on_what_is_old_is_gone_and_only_as_far_as_is_signed() -> anyhow::Result<()> {
        let away = ThrowAway::new().await;
        let (signer, writer) = signed(&away).await?;
        let now = SystemClock.now();
        let prune = async |days: u32| prune(&away, &signer, before(now, DAY * days)).await;
        let check = async || check_platform(&away.store.still().await?, (&signer, now)).await;
        assert_eq!(prune(61).await.events, 3);
        let checked = check().await?;
        assert_eq!((checked.wrong.len(), checked.found.pruned, checked.found.events), (0, 3, 6));
        let older = away.store.still().await?.platform_audit_pruned(None).await?;
        assert_eq!(older[0].0.seq, 3);
        assert!(is_nothing(&prune(61).await));
        assert_eq!(prune(31).await.events, 3);
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
        assert!(matches!(prune(31).await.wrong[..], []), "nothing else is old");
        alter.alter(&format!("{role} DELETE FROM audit_pruned")).await?;
        assert_eq!(check().await?.wrong, [Wrong::Gap { writer, wanted: 1, found: 7 }]);
        Ok(())
    }
}
