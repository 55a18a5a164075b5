//! When each upstream is listed next: at regular times, sooner after a failure and where it tells of changes, and never so often that
//! one upstream keeps the others waiting.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tenant_store::{EgressHosts, Revision, SealedCredential, TenantId, Upstream, UpstreamId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::snapshot::{Shelf, Snapshot};
use crate::upstream::Told;

/// How long after its word a change is looked at: often there are several at once.
pub(super) const HEARD_WAIT: Duration = Duration::from_millis(200);
/// The least time between two listings of an upstream that tells of changes.
const GAP_FIRST: Duration = Duration::from_millis(250);
/// How often in a row an upstream may tell of more before that time is over. From then on the time doubles, up to the regular interval.
const HASTE_FREE: u32 = 6;
/// The first wait after a failure; it doubles up to the regular interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);

pub(super) type Key = (TenantId, UpstreamId);

/// When the upstreams are listed.
#[derive(Debug)]
pub(super) struct Schedules {
    every: Duration,
    all: HashMap<Key, Schedule>,
    /// Those that are not being listed, in the order in which they are due.
    waiting: BTreeSet<(Instant, Key)>,
    /// The configuration that was taken over last.
    followed: Option<Revision>,
}

/// One upstream whose time has come.
pub(super) struct Due {
    key: Key,
    pub(super) upstream: Arc<Upstream>,
    pub(super) snapshot: Arc<Snapshot>,
    /// It is not what is configured any more.
    pub(super) superseded: CancellationToken,
}

/// When an upstream is listed next.
#[derive(Debug)]
struct Schedule {
    conditions: Conditions,
    times: Times,
    /// It is being listed now; to be cancelled when that is not what is configured any more.
    runs: Option<CancellationToken>,
}

/// Under which conditions: at an address, with credentials, to hosts. What one listing begins is right for another under the same.
#[derive(Debug, PartialEq)]
struct Conditions {
    upstream: Arc<Upstream>,
    versions: Vec<u32>,
    hosts: Option<EgressHosts>,
}

#[derive(Debug, Clone)]
struct Times {
    due: Instant,
    /// The wait if the next listing fails.
    retry: Duration,
    /// The wait after its last failure ends here.
    rests_until: Instant,
    listed: Option<Instant>,
    gap: Duration,
    /// How often it was hasty and not forgiven since.
    haste: u32,
    /// It told of a change before the gap behind its last listing was over.
    is_hasty: bool,
    /// It told of a change since it was begun to be listed.
    is_stale: bool,
}

impl Schedules {
    /// None yet; each upstream is listed `every` so often.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, all: HashMap::new(), waiting: BTreeSet::new(), followed: None }
    }

    /// Takes over what is configured, if that is something else than the last time. What runs under other conditions is cancelled.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        if self.followed.replace(snapshot.revision) == Some(snapshot.revision) {
            return;
        }
        let mut known = HashSet::new();
        for (tenant, shelf) in snapshot.shelves() {
            for upstream in shelf.upstreams_in_use() {
                let key = (tenant, upstream.id);
                known.insert(key);
                self.put(key, Conditions::of(shelf, upstream), now);
            }
        }
        let waiting = &mut self.waiting;
        self.all.retain(|key, schedule| {
            let stays = known.contains(key);
            if !stays {
                schedule.cancel();
                waiting.remove(&(schedule.times.due, *key));
            }
            stays
        });
    }

    /// Up to `room` upstreams whose time has come, those first that wait longest; they run from now on.
    pub(super) fn begin(&mut self, snapshot: &Arc<Snapshot>, now: Instant, room: usize) -> Vec<Due> {
        let mut begun = Vec::new();
        while begun.len() < room
            && let Some((_, key)) = self.waiting.first().copied().filter(|(due, _)| *due <= now)
        {
            self.waiting.pop_first();
            let Some(schedule) = self.all.get_mut(&key) else { continue };
            let superseded = CancellationToken::new();
            schedule.runs = Some(superseded.clone());
            schedule.times.begin(self.every);
            let upstream = Arc::clone(&schedule.conditions.upstream);
            begun.push(Due { key, upstream, snapshot: Arc::clone(snapshot), superseded });
        }
        begun
    }

    /// When the next one is due that is not being listed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Hastens the listing of those that told of something.
    pub(super) fn hear(&mut self, told: &HashMap<Key, Told>, now: Instant) {
        for (key, told) in told {
            if let Some(schedule) = self.all.get_mut(key) {
                let waits = self.waiting.remove(&(schedule.times.due, *key));
                schedule.times.hear(*told, now, schedule.runs.is_some());
                if waits {
                    self.waiting.insert((schedule.times.due, *key));
                }
            }
        }
    }

    /// One was listed, or could not be. One that was configured anew meanwhile is due at once.
    pub(super) fn end(&mut self, listed: &Due, is_listed: bool, now: Instant) {
        let Some(schedule) = self.all.get_mut(&listed.key) else { return };
        let is_superseded = listed.superseded.is_cancelled();
        // One that was taken away and came back is listed, or waits for it, under the same key.
        if schedule.runs.as_ref().is_none_or(|runs| runs.is_cancelled() != is_superseded) {
            return;
        }
        schedule.runs = None;
        if !is_superseded {
            schedule.times.end(is_listed, now, self.every);
        }
        self.waiting.insert((schedule.times.due, listed.key));
    }

    /// One is configured so. Under other conditions than before it is due at once.
    fn put(&mut self, key: Key, conditions: Conditions, now: Instant) {
        let times = Times::new(now);
        if let Some(schedule) = self.all.get_mut(&key) {
            if schedule.conditions == conditions {
                return;
            }
            schedule.cancel();
            let waits = self.waiting.remove(&(schedule.times.due, key));
            if waits {
                self.waiting.insert((times.due, key));
            }
            *schedule = Schedule { conditions, times, runs: schedule.runs.take() };
        } else {
            self.waiting.insert((times.due, key));
            self.all.insert(key, Schedule { conditions, times, runs: None });
        }
    }
}

impl Schedule {
    fn cancel(&self) {
        self.runs.iter().for_each(CancellationToken::cancel);
    }
}

impl Conditions {
    fn of(shelf: &Shelf, upstream: &Arc<Upstream>) -> Self {
        let versions = shelf.credentials(upstream.id).into_iter().map(SealedCredential::version).collect();
        Self { upstream: Arc::clone(upstream), versions, hosts: shelf.egress_hosts().cloned() }
    }
}

impl Times {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            retry: RETRY_FIRST,
            rests_until: now,
            listed: None,
            gap: GAP_FIRST,
            haste: 0,
            is_hasty: false,
            is_stale: false,
        }
    }

    fn hear(&mut self, told: Told, now: Instant, is_running: bool) {
        let free = self.listed.map_or(now, |listed| listed + self.gap);
        let is_early = is_running || now < free;
        // What was listed just now is as good as what is listened to: streams that begin again and again change nothing.
        if told == Told::Begun && now < free {
            return;
        }
        self.is_hasty |= is_early && told == Told::Changed;
        self.is_stale |= is_running;
        self.due = self.due.min((now + HEARD_WAIT).max(free).max(self.rests_until));
    }

    fn begin(&mut self, every: Duration) {
        if mem::take(&mut self.is_hasty) {
            // Where doubling goes no further, neither does this.
            self.haste += u32::from(self.gap < every);
        } else {
            self.haste = self.haste.saturating_sub(1);
        }
        let doubled = 2_u32.saturating_pow(self.haste.saturating_sub(HASTE_FREE));
        self.gap = GAP_FIRST.saturating_mul(doubled).min(every);
        self.is_stale = false;
    }

    fn end(&mut self, is_listed: bool, now: Instant, every: Duration) {
        self.listed = Some(now);
        let is_stale = mem::take(&mut self.is_stale);
        let wait = if is_listed {
            self.retry = RETRY_FIRST;
            if is_stale { self.gap } else { every }
        } else {
            let wait = self.retry.min(every);
            self.retry = wait.saturating_mul(2);
            self.rests_until = now + wait;
            wait
        };
        self.due = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_mins(5);

    fn listed(begin: Instant) -> Times {
        let mut times = Times::new(begin);
        times.begin(EVERY);
        times.end(true, begin, EVERY);
        times
    }

    /// How often it is listed within two hours, if it tells of a change every `pause`.
    fn listings(pause: Duration, is_listed: bool) -> usize {
        let begin = Instant::now();
        let (mut now, mut times, mut count) = (begin, listed(begin), 0);
        while now < begin + Duration::from_hours(2) {
            now += pause.min(times.due.saturating_duration_since(now).max(HEARD_WAIT));
            if times.due <= now {
                times.begin(EVERY);
                times.end(is_listed, now, EVERY);
                count += 1;
            } else {
                times.hear(Told::Changed, now, false);
            }
        }
        count
    }

    #[test]
    fn a_change_is_looked_at_soon_and_once_for_several() {
        let begin = Instant::now();
        let mut times = listed(begin);
        assert_eq!(times.due, begin + EVERY);
        let now = begin + Duration::from_mins(1);
        times.hear(Told::Changed, now, false);
        times.hear(Told::Changed, now + HEARD_WAIT / 2, false);
        assert_eq!(times.due, now + HEARD_WAIT);
        times.begin(EVERY);
        times.hear(Told::Changed, now + HEARD_WAIT, true);
        times.end(true, now + HEARD_WAIT, EVERY);
        assert_eq!(times.due, now + HEARD_WAIT + GAP_FIRST, "what changes while it is listed is listed once more");
    }

    #[test]
    fn who_tells_without_end_is_listed_hardly_more_often_than_others() {
        let count = listings(Duration::from_millis(100), true);
        let regular = usize::try_from(Duration::from_hours(2).as_secs() / EVERY.as_secs()).unwrap();
        assert!(count < regular + 20, "{count}");
        let count = listings(Duration::from_mins(1), true);
        assert!(count > 100, "who tells now and then is heard: {count}");
    }

    #[test]
    fn a_few_changes_in_a_row_are_each_looked_at_at_once() {
        let mut times = listed(Instant::now());
        for _ in 0..HASTE_FREE {
            let now = times.listed.unwrap() + HEARD_WAIT / 2;
            times.hear(Told::Changed, now, false);
            assert_eq!(times.due, now + HEARD_WAIT);
            times.begin(EVERY);
            times.end(true, now + HEARD_WAIT, EVERY);
        }
    }

    #[test]
    fn what_fails_is_not_asked_sooner_because_it_tells_of_changes() {
        let begin = Instant::now();
        let mut times = listed(begin);
        for _ in 0..5 {
            times.begin(EVERY);
            times.end(false, begin, EVERY);
        }
        assert_eq!(times.due, begin + RETRY_FIRST * 16);
        times.hear(Told::Changed, begin + GAP_FIRST, false);
        assert_eq!(times.due, begin + RETRY_FIRST * 16);
        assert!(listings(Duration::from_millis(100), false) < 40);
    }

    #[test]
    fn a_stream_that_begins_anew_is_no_change_of_what_was_listed_just_now() {
        let begin = Instant::now();
        let mut times = listed(begin);
        times.hear(Told::Begun, begin + GAP_FIRST / 2, false);
        assert_eq!(times.due, begin + EVERY);
        times.hear(Told::Begun, begin + GAP_FIRST, false);
        assert_eq!(times.due, begin + GAP_FIRST + HEARD_WAIT);
    }

    #[test]
    fn who_was_quiet_is_looked_at_at_once_again() {
        let begin = Instant::now();
        let mut times = Times { haste: HASTE_FREE + 11, ..listed(begin) };
        for round in 1..=12 {
            times.begin(EVERY);
            times.end(true, begin + EVERY * round, EVERY);
        }
        assert_eq!(times.gap, GAP_FIRST);
    }
}
