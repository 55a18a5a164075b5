//! Which credentials were used: named by whose they are, by name and version. A call's event says it of the call; of what is done for
//! nobody's call, such as listing and getting tokens, there are events that count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tenant_store::{AuditChain, Clock, TenantScope, Timestamp, UpstreamSlug};
use tokio::time::Instant;

use super::Audit;
use super::event::{Event, What};
use crate::caller::Principal;
use crate::lifecycle::Tasks;

/// How often it is recorded that a credential is used for something that is nobody's call. Uses in between are counted.
const SECRET_USES_EVERY: Duration = Duration::from_hours(1);
/// How often it is looked for uses that are to be recorded.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Of how many credentials uses are counted. Those of others are recorded one by one.
const COUNTED_MAX: usize = 50_000;

/// A credential, as the record names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// Whose it is.
    pub owner: Owner,
    /// Of the tenant's secrets, which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<UsedSecret>,
    /// The version of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Whose account it is, where that is not whoever called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// A secret of a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct UsedSecret {
    /// Its name.
    pub name: String,
    /// Which of those that were stored under that name.
    pub version: u32,
}

/// Whose a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// The tenant's.
    Tenant,
    /// Somebody's own account.
    Account,
    /// What the caller's access token was exchanged for.
    Exchange,
}

/// What a credential is used for that is nobody's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// To list what the upstream has.
    List,
    /// To hear what the upstream tells of changes.
    Listen,
    /// To get an access token.
    Token,
}

/// What one credential was used for, added up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretUsed {
    upstream: UpstreamSlug,
    credential: Arc<Used>,
    purpose: Purpose,
    count: u64,
    failed: u64,
}

/// What an upstream was shown of a call, once it was: the call itself, and a credential. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    is_sent: Arc<AtomicBool>,
    used: Arc<OnceLock<Arc<Used>>>,
    says_whose: bool,
}

impl Shown {
    /// For what is nobody's call: nothing else says whose it is.
    fn of_no_call() -> Self {
        Self { says_whose: true, ..Self::default() }
    }

    /// Whether it is to be said whose a credential is that is somebody's own.
    pub fn says_whose(&self) -> bool {
        self.says_whose
    }

    /// The call is sent now, or was.
    pub fn goes(&self) {
        self.is_sent.store(true, Ordering::Relaxed);
    }

    /// It was not sent after all.
    pub fn stays(&self) {
        self.is_sent.store(false, Ordering::Relaxed);
    }

    /// Whether it was, or may have been.
    pub fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    /// That credential was shown.
    pub fn note(&self, used: &Arc<Used>) {
        self.used.get_or_init(|| Arc::clone(used));
    }

    /// Which credential was, if one was.
    pub fn get(&self) -> Option<Arc<Used>> {
        self.used.get().cloned()
    }
}

impl Used {
    /// Somebody's own account.
    pub fn account_of(principal: &Principal) -> Self {
        let of = Some(format!("{}/{}", principal.issuer, principal.subject));
        Self { owner: Owner::Account, secrets: Vec::new(), version: None, of }
    }
}

/// The uses of credentials that belong to no call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SecretUses(Option<Arc<Counts>>);

#[derive(Debug)]
struct Counts {
    audit: Audit,
    clock: Arc<dyn Clock>,
    counted: Mutex<HashMap<Key, Count>>,
    /// Whether nobody looks for what is counted any more.
    is_over: AtomicBool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    scope: TenantScope,
    upstream: UpstreamSlug,
    purpose: Purpose,
    used: Arc<Used>,
}

/// What was not recorded yet.
#[derive(Debug)]
struct Count {
    recorded_at: Instant,
    first: Timestamp,
    uses: u64,
    failed: u64,
}

/// Something that a credential is used for, until it is dropped. It counts if one was shown, and as failed unless it went well.
#[derive(Debug)]
pub struct Using {
    uses: SecretUses,
    place: (TenantScope, UpstreamSlug),
    purpose: Purpose,
    shown: Shown,
    went_well: AtomicBool,
}

impl SecretUses {
    /// Recorded in `audit`, until the server stops and then.
    pub fn start(audit: &Audit, clock: &Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let counts = Counts {
            audit: audit.clone(),
            clock: Arc::clone(clock),
            counted: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        let (counts, shutdown) = (Arc::new(counts), tasks.shutdown());
        let looking = Arc::clone(&counts);
        tasks.spawn_draining(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
                looking.look(Instant::now());
            }
            looking.end();
        });
        Self(Some(counts))
    }

    /// Begins something that a credential of a tenant's is used for.
    pub fn begin(&self, scope: TenantScope, upstream: &UpstreamSlug, purpose: Purpose) -> Using {
        let place = (scope, upstream.clone());
        Using { uses: self.clone(), place, purpose, shown: Shown::of_no_call(), went_well: AtomicBool::new(false) }
    }
}

impl Using {
    /// Where it is noted what is shown.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// It came to what it was for.
    pub fn went_well(&self) {
        self.went_well.store(true, Ordering::Relaxed);
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let (Some(counts), Some(used)) = (&self.uses.0, self.shown.get()) else { return };
        let (scope, upstream) = self.place.clone();
        counts.note(
            Key { scope, upstream, purpose: self.purpose, used },
            (self.went_well.load(Ordering::Relaxed), Instant::now()),
        );
    }
}

impl Counts {
    /// The first use is recorded at once, and those that follow together.
    fn note(&self, key: Key, (went_well, now): (bool, Instant)) {
        let (at, failed) = (self.clock.now(), u64::from(!went_well));
        let mut counted = self.counted();
        let is_over = self.is_over.load(Ordering::Relaxed);
        if let Some(known) = counted.get_mut(&key) {
            if known.uses == 0 {
                known.first = at;
            }
            known.uses += 1;
            known.failed += failed;
            return;
        }
        if counted.len() < COUNTED_MAX && !is_over {
            counted.insert(key.clone(), Count { recorded_at: now, first: at, uses: 0, failed: 0 });
        }
        drop(counted);
        self.record(key, &Count { recorded_at: now, first: at, uses: 1, failed });
    }

    /// Records what has waited long enough, and forgets what is not used any more.
    fn look(&self, now: Instant) {
        let mut due = Vec::new();
        self.counted().retain(|key, count| {
            if now.duration_since(count.recorded_at) < SECRET_USES_EVERY {
                return true;
            }
            let is_used = count.uses > 0;
            if is_used {
                let next = Count { recorded_at: now, first: count.first, uses: 0, failed: 0 };
                due.push((key.clone(), std::mem::replace(count, next)));
            }
            is_used
        });
        for (key, count) in due {
            self.record(key, &count);
        }
    }

    /// Records all that waits, and what comes then at once.
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let left = std::mem::take(&mut *self.counted());
        for (key, count) in left.into_iter().filter(|(_, count)| count.uses > 0) {
            self.record(key, &count);
        }
    }

    fn record(&self, key: Key, &Count { first, uses: count, failed, .. }: &Count) {
        let Key { scope, upstream, purpose, used: credential } = key;
        let what = What::Secret(SecretUsed { upstream, credential, purpose, count, failed });
        self.audit.push(Event { at: first, chain: AuditChain::Tenant(scope), what });
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<Key, Count>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tenant_store::TenantId;
    use tenant_store::testing::ThrowAway;
    use tokio::sync::mpsc;

    use super::super::{Pressure, Queued, Signer};
    use super::*;
    use crate::audit::content::ContentRoom;
    use crate::config::OnFull;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test stands for whoever has such a scope")]
    async fn the_first_use_is_recorded_at_once_and_those_of_an_hour_together() -> anyhow::Result<()> {
        let away = ThrowAway::new().await;
        let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
        let (queue, mut events) = mpsc::channel(64);
        let audit = Audit {
            queue,
            signer,
            lost: Arc::default(),
            pressure: Pressure::default(),
            on_full: OnFull::Spool,
            contents: ContentRoom::default(),
        };
        let clock = Arc::clone(&away.clock) as _;
        let counts = Counts { audit, clock, counted: Mutex::default(), is_over: AtomicBool::new(false) };
        let used = Used { owner: Owner::Tenant, secrets: Vec::new(), version: None, of: None };
        let tenants = [1, 2].map(|at| TenantScope::of(TenantId::new(Timestamp::from_millis(at))));
        let key = |place: usize| Key {
            scope: tenants[place],
            upstream: "desk".parse().unwrap(),
            purpose: Purpose::List,
            used: Arc::new(used.clone()),
        };
        let mut told = || {
            let mut told = Vec::new();
            while let Ok(Queued::Event(event)) = events.try_recv() {
                let What::Secret(SecretUsed { count, failed, .. }) = event.what else { panic!("{event:?}") };
                told.push((event.chain, count, failed));
            }
            told
        };
        let chain = |place: usize| AuditChain::Tenant(tenants[place]);
        let (now, hour) = (Instant::now(), SECRET_USES_EVERY);
        counts.note(key(0), (true, now));
        counts.note(key(1), (false, now));
        assert_eq!(told(), [(chain(0), 1, 0), (chain(1), 1, 1)]);
        for went_well in [true, false, true] {
            counts.note(key(0), (went_well, now + hour / 2));
        }
        counts.look(now + hour - Duration::from_secs(1));
        assert_eq!(told(), []);
        counts.look(now + hour);
        assert_eq!(told(), [(chain(0), 3, 1)]);
        assert_eq!(counts.counted().len(), 1, "what is not used is forgotten");
        // At the end nothing waits, and what comes then does not wait either.
        counts.note(key(0), (true, now + hour));
        counts.end();
        counts.note(key(0), (true, now + hour));
        assert_eq!(told(), [(chain(0), 1, 0), (chain(0), 1, 0)]);
        Ok(())
    }
}
