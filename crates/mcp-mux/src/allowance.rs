//! How many calls may be made in a day and in a month: in a tenant by all, there by one principal, and by one principal of one tool. Each of
//! these belongs to one tenant, and what is used in another counts for nothing.
//!
//! It is decided in memory, by what all replicas together had counted when this one read it last, and what this one let through since. In the
//! background each adds to the database what it let through and reads the sum in the same step: every few seconds, and at once where
//! something is used of which that was not read for as long. What was never read is taken for nothing until then. While the database is away,
//! each goes on with what it knows.

mod counts;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use writer::forget_old;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tenant_store::{Clock, Store, TenantScope, TenantSlug, UpstreamId};
use tokio::sync::Notify;

use self::counts::{Counted, Counts, Today};
use self::settings::{Allowed, Settings};
use self::writer::Writer;
use crate::caller::Principal;
use crate::config::LimitsConfig;
use crate::lifecycle::Tasks;
use crate::limits::{Counter, Limited};

/// How often the sums are read of what is used.
const READ_EVERY: Duration = Duration::from_secs(5);

/// What may be used in a day and in a month, and what is. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Allowances(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
    wanted: Notify,
}

/// What one call uses: whose share, how it is counted, and how much of it there is.
type Use = (Counter, Counted, Allowed);

/// A call that was counted. Unless it is said that it was sent, it is given back in the end.
#[derive(Debug)]
#[must_use]
pub struct Spent {
    of: Option<(Arc<Shared>, TenantScope, Today)>,
    uses: [Option<Use>; 3],
    is_sent: bool,
}

impl Allowances {
    /// Those of the configuration. Starts what adds to the database and reads there, if anything is to be counted.
    pub fn start(config: &LimitsConfig, store: &Store, (clock, tasks): (&Arc<dyn Clock>, &Tasks)) -> Self {
        let allowances = Self::new(config, Arc::clone(clock));
        if let Some(shared) = &allowances.0 {
            let writer = Writer::new(Arc::clone(shared), store.clone());
            tasks.spawn_last(|over| writer.run(over));
        }
        allowances
    }

    fn new(config: &LimitsConfig, clock: Arc<dyn Clock>) -> Self {
        let shared = |settings| Shared { settings, clock, counts: Mutex::default(), wanted: Notify::new() };
        Self(Settings::new(config).map(shared).map(Arc::new))
    }

    /// Counts a call of something at an upstream of a tenant, if it may be made now; otherwise what is used up, and for how long.
    pub fn count(
        &self,
        principal: &Principal,
        (scope, tenant): (TenantScope, &TenantSlug),
        used: (UpstreamId, &'static str, &str),
    ) -> Result<Spent, (Limited, Duration)> {
        let Some(shared) = &self.0 else { return Ok(Spent { of: None, uses: [None; 3], is_sent: false }) };
        let uses = uses(&shared.settings, tenant, (principal, used));
        let mut counts = shared.lock();
        // Whoever comes later sees no earlier moment.
        let now = shared.clock.now();
        let today = Today::at(now);
        // Nothing is counted anywhere before all of it may be.
        for (counter, counted, allowed) in uses.iter().flatten() {
            let Some(count) = counts.find((scope, *counted), today, now) else {
                shared.wanted.notify_one();
                return Err((Limited::Uncounted, READ_EVERY));
            };
            if let Some((span, wait)) = count.used_up(*allowed, now) {
                // Others may have given some of it back.
                if counts.refuse((scope, *counted), (span, *allowed), now) {
                    shared.wanted.notify_one();
                }
                return Err((Limited::UsedUp(*counter, span), wait));
            }
        }
        for (_, counted, allowed) in uses.iter().flatten() {
            if counts.add((scope, *counted), (1, *allowed), (today, now)) {
                shared.wanted.notify_one();
            }
        }
        drop(counts);
        Ok(Spent { of: Some((Arc::clone(shared), scope, today)), uses, is_sent: false })
    }

    /// Has what was counted so far written, and the sums read, now.
    pub fn wake(&self) {
        if let Some(shared) = &self.0 {
            shared.wanted.notify_one();
        }
    }
}

impl Spent {
    /// Whether it was sent, or may have been.
    pub fn is_sent(&mut self, is_sent: bool) {
        self.is_sent = is_sent;
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        let Some((shared, scope, today)) = self.of.take().filter(|_| !self.is_sent) else { return };
        let mut counts = shared.lock();
        let now = shared.clock.now();
        for (_, counted, allowed) in self.uses.iter().flatten() {
            // It may have been forgotten meanwhile, but it is in the database.
            counts.find((scope, *counted), Today::at(now), now);
            counts.add((scope, *counted), (-1, *allowed), (today, now));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call uses, one's own first: what others share says nothing to whom has used up what is their own.
fn uses(
    settings: &Settings,
    tenant: &TenantSlug,
    (principal, (upstream, kind, local)): (&Principal, (UpstreamId, &'static str, &str)),
) -> [Option<Use>; 3] {
    let (issuer, subject) = (principal.issuer.as_str(), principal.subject.as_str());
    let counted = |counter| match counter {
        Counter::Tenant => Counted::Tenant,
        Counter::Principal => Counted::Principal(digest(&[issuer, subject])),
        Counter::Tool => Counted::Tool(digest(&[issuer, subject, &upstream.to_string(), kind, local])),
    };
    [Counter::Tool, Counter::Principal, Counter::Tenant].map(|counter| {
        let allowed = settings.allowed(tenant, counter)?;
        Some((counter, counted(counter), allowed))
    })
}

/// By which something is known in the database: the same in every release.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}
