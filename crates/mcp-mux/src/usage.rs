//! What tenants use: calls of tools, added up in memory and added to the database now and then. No call waits for that.
//!
//! There is one sum for each tool and day, so that the longer the database is away, the larger the sums are, and not the memory. What finds no
//! room all the same is counted.

#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tenant_store::{LocalName, Store, TenantScope, Timestamp, UpstreamId, UpstreamSlug};
use tokio::sync::Notify;

use self::writer::Writer;
use crate::lifecycle::Tasks;

/// Most sums that are added to between two visits of the writer, and most that wait for the database.
const SUMS_MAX: usize = 200_000;
const MILLIS_PER_DAY: i64 = 24 * 3_600 * 1_000;

/// Where calls are counted. Clones share the sums.
#[derive(Debug, Clone, Default)]
pub struct Usage(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sums: Mutex<Sums>,
    lost: Arc<AtomicU64>,
    wanted: Notify,
}

/// A call of a tool that has ended.
#[derive(Debug, Clone, Copy)]
pub struct UsedOnce<'c> {
    /// Whose tool it was.
    pub scope: TenantScope,
    /// Where it is.
    pub upstream: (UpstreamId, &'c UpstreamSlug),
    /// Its name there.
    pub tool: &'c LocalName,
    /// When the call began.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether it failed.
    pub is_error: bool,
}

/// What was counted since the writer came last.
#[derive(Debug, Default)]
struct Sums {
    days: HashMap<(TenantScope, UpstreamId, Day), OfUpstream, RandomState>,
    count: usize,
}

/// What was counted of an upstream on a day.
#[derive(Debug)]
struct OfUpstream {
    slug: UpstreamSlug,
    tools: HashMap<LocalName, Sum, RandomState>,
}

/// A day in UTC, counted from the first of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Day(i64);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    calls: u64,
    errors: u64,
    duration_ms: u64,
}

impl Usage {
    /// Starts what adds to the database. It ends after everything else, when all is there or time is up.
    pub fn start(store: &Store, tasks: &Tasks) -> Self {
        let usage = Self::default();
        let writer = Writer::new(usage.clone(), store.clone());
        tasks.spawn_last(|over| writer.run(over));
        usage
    }

    /// Counts a call.
    pub fn count(&self, call: &UsedOnce<'_>) {
        if !self.lock().add(call) {
            self.lose(1);
        }
    }

    /// Has what was counted so far written now.
    pub fn wake(&self) {
        self.0.wanted.notify_one();
    }

    /// How many calls found no room since the process began.
    pub fn lost(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lost = Arc::clone(&self.0.lost);
        move || lost.load(Ordering::Relaxed)
    }

    fn lose(&self, calls: u64) {
        self.0.lost.fetch_add(calls, Ordering::Relaxed);
    }

    /// What was counted so far. From here on it is counted anew.
    fn take(&self) -> Sums {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    /// Adds a call. `false` if there is no room for it.
    fn add(&mut self, call: &UsedOnce<'_>) -> bool {
        let (upstream, slug) = call.upstream;
        let key = (call.scope, upstream, Day::of(call.at));
        let known = self.days.get_mut(&key).and_then(|day| day.tools.get_mut(call.tool));
        if let Some(sum) = known {
            sum.add(Sum::of(call));
            return true;
        }
        if self.count >= SUMS_MAX {
            return false;
        }
        let new = || OfUpstream { slug: slug.clone(), tools: HashMap::default() };
        self.days.entry(key).or_insert_with(new).tools.insert(call.tool.clone(), Sum::of(call));
        self.count += 1;
        true
    }
}

impl Day {
    fn of(at: Timestamp) -> Self {
        Self(at.as_millis().div_euclid(MILLIS_PER_DAY))
    }

    fn begins_at(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(MILLIS_PER_DAY))
    }
}

impl Sum {
    fn of(call: &UsedOnce<'_>) -> Self {
        Self { calls: 1, errors: u64::from(call.is_error), duration_ms: call.duration_ms }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
    }
}
