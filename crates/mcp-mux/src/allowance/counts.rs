//! What was used, as far as it is known here: of each period the sum that was read last, and what was let through here since.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use foldhash::fast::RandomState;
use tenant_store::{TenantScope, Timestamp};

use super::READ_EVERY;
use super::settings::Allowed;
use crate::civil::{self, Period};
use crate::hex;
use crate::limits::Span;

/// Most principals and tools that are counted at once. What nobody used lately makes room for others: it is in the database.
const COUNTED_MAX: usize = 200_000;
/// The same in one tenant, so that none takes the room of all.
pub(super) const COUNTED_OF_TENANT_MAX: usize = 50_000;
/// After so long without a use something is counted no more.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// What is counted in a tenant. No name is kept: there are many, and they are as long as their makers like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Counted {
    Tenant,
    Principal([u8; 32]),
    Tool([u8; 32]),
}

pub(super) type Key = (TenantScope, Counted);

/// The periods in which a moment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Today {
    day: Period,
    month: Period,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    tenants: HashMap<TenantScope, HashMap<Counted, Count, RandomState>, RandomState>,
    /// How many there are besides the tenants.
    others: usize,
    /// What was counted since the writer came last.
    touched: Vec<Key>,
    tidied_at: Option<Timestamp>,
}

/// What was used of one allowance.
#[derive(Debug)]
pub(super) struct Count {
    day: Tally,
    month: Tally,
    used_at: Timestamp,
    is_touched: bool,
    /// Of which of these periods somebody was told that nothing is left.
    used_up: Option<Span>,
}

/// What was used in one period.
#[derive(Debug)]
struct Tally {
    period: Period,
    /// What all replicas together had counted, when that was read.
    known: i64,
    read_at: Option<Timestamp>,
    /// What was let through here, and the writer has not told the database, or does not know whether.
    taken: i64,
    /// What was let through here since the writer came last. Less than nothing, where more was given back.
    fresh: i64,
    /// Whether the sum is to be read, though nothing is to be added.
    is_wanted: bool,
}

impl Counted {
    /// As it is called in the database.
    pub(super) fn text(self) -> String {
        match self {
            Self::Tenant => "tenant".to_owned(),
            Self::Principal(digest) => format!("principal:{}", hex::encode(&digest)),
            Self::Tool(digest) => format!("tool:{}", hex::encode(&digest)),
        }
    }
}

impl Today {
    pub(super) fn at(now: Timestamp) -> Self {
        Self { day: Period::day(now), month: Period::month(now) }
    }
}

impl Counts {
    /// What is known of that today; none, if there is no room for it.
    pub(super) fn find(&mut self, (scope, counted): Key, today: Today, now: Timestamp) -> Option<&mut Count> {
        let of_tenant = self.tenants.entry(scope).or_default();
        if counted != Counted::Tenant && !of_tenant.contains_key(&counted) {
            if self.others >= COUNTED_MAX || of_tenant.len() >= COUNTED_OF_TENANT_MAX {
                return None;
            }
            self.others += 1;
        }
        let count = of_tenant.entry(counted).or_insert_with(|| Count::new(today, now));
        count.turn_to(today);
        Some(count)
    }

    /// Adds calls, or takes them back, in the periods in which something is allowed. Whether the sum ought to be read soon.
    pub(super) fn add(
        &mut self,
        (scope, counted): Key,
        (calls, allowed): (i64, Allowed),
        (today, now): (Today, Timestamp),
    ) -> bool {
        let Some(count) = self.tenants.get_mut(&scope).and_then(|of_tenant| of_tenant.get_mut(&counted)) else {
            return false;
        };
        if !mem::replace(&mut count.is_touched, true) {
            self.touched.push((scope, counted));
        }
        count.used_at = now;
        let periods = [(&mut count.day, today.day, allowed.day), (&mut count.month, today.month, allowed.month)];
        let mut is_stale = false;
        for (tally, period, allowed) in periods {
            // What belongs to a period that is over decides nothing any more.
            if allowed > 0 && tally.period == period {
                tally.fresh += calls;
                is_stale |= tally.is_stale(now);
            }
        }
        is_stale
    }

    /// Nothing was left of what is allowed of that. Whether the sum ought to be read soon: it is not by what comes, for nothing does.
    pub(super) fn refuse(&mut self, (scope, counted): Key, (span, allowed): (Span, Allowed), now: Timestamp) -> bool {
        let Some(count) = self.tenants.get_mut(&scope).and_then(|of_tenant| of_tenant.get_mut(&counted)) else {
            return false;
        };
        (count.used_at, count.used_up) = (now, Some(span));
        let mut is_stale = false;
        for (tally, allowed) in [(&mut count.day, allowed.day), (&mut count.month, allowed.month)] {
            if allowed > 0 && tally.is_stale(now) {
                (tally.is_wanted, is_stale) = (true, true);
            }
        }
        if is_stale && !mem::replace(&mut count.is_touched, true) {
            self.touched.push((scope, counted));
        }
        is_stale
    }

    /// What was counted since this was asked last.
    pub(super) fn touched(&mut self) -> Vec<Key> {
        let touched = mem::take(&mut self.touched);
        for key in &touched {
            if let Some(count) = self.count(*key) {
                count.is_touched = false;
            }
        }
        touched
    }

    /// What is to be added to the database of that, by period. It stays taken until the sum is read.
    pub(super) fn take(&mut self, key: Key) -> impl Iterator<Item = (Period, i64)> + use<> {
        let taken = self.count(key).map(|count| [&mut count.day, &mut count.month].map(Tally::take));
        taken.into_iter().flatten().flatten()
    }

    /// What was taken is in the database, and with it the sum comes to that.
    pub(super) fn read(&mut self, key: Key, (period, sum): (Period, i64), now: Timestamp) {
        let Some(count) = self.count(key) else { return };
        for tally in [&mut count.day, &mut count.month].into_iter().filter(|tally| tally.period == period) {
            (tally.known, tally.taken, tally.read_at) = (sum, 0, Some(now));
            tally.is_wanted = false;
        }
    }

    /// Forgets what nobody used for a while, and sooner where there is not much room left.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        if self.tidied_at.is_some_and(|at| at <= now && now.since(at) < READ_EVERY) {
            return;
        }
        self.tidied_at = Some(now);
        let (is_crowded, today) = (self.others > COUNTED_MAX / 2, Today::at(now));
        self.others = 0;
        for of_tenant in self.tenants.values_mut() {
            let is_crowded = is_crowded || of_tenant.len() > COUNTED_OF_TENANT_MAX / 2;
            let is_kept = |counted: &Counted, count: &mut Count| {
                // Whoever begins anew may make calls before the sum is read: whoever has none left is remembered longer.
                let idle_max = match (is_crowded, count.is_used_up(today)) {
                    (false, true) => Duration::MAX,
                    (false, false) | (true, true) => IDLE_MAX,
                    (true, false) => READ_EVERY,
                };
                *counted == Counted::Tenant || count.is_unsettled() || now.since(count.used_at) < idle_max
            };
            of_tenant.retain(is_kept);
            self.others += of_tenant.keys().filter(|counted| **counted != Counted::Tenant).count();
        }
    }

    fn count(&mut self, (scope, counted): Key) -> Option<&mut Count> {
        self.tenants.get_mut(&scope)?.get_mut(&counted)
    }
}

impl Count {
    fn new(today: Today, now: Timestamp) -> Self {
        Self {
            day: Tally::new(today.day),
            month: Tally::new(today.month),
            used_at: now,
            is_touched: false,
            used_up: None,
        }
    }

    /// A new day, and a new month, begin with nothing but what the database knows: also one to which a clock was put back.
    fn turn_to(&mut self, today: Today) {
        for (tally, period) in [(&mut self.day, today.day), (&mut self.month, today.month)] {
            if tally.period != period {
                *tally = Tally::new(period);
                self.used_up = None;
            }
        }
    }

    /// Whether somebody was told so of a period that is not over.
    fn is_used_up(&self, today: Today) -> bool {
        match self.used_up {
            None => false,
            Some(Span::Day) => self.day.period == today.day,
            Some(Span::Month) => self.month.period == today.month,
        }
    }

    /// In which period nothing is left, the longer one first, and until when.
    pub(super) fn used_up(&self, allowed: Allowed, now: Timestamp) -> Option<(Span, Duration)> {
        if self.month.has_used(allowed.month) {
            return Some((Span::Month, civil::until_next_month(now)));
        }
        self.day.has_used(allowed.day).then(|| (Span::Day, civil::until_tomorrow(now)))
    }

    fn is_unsettled(&self) -> bool {
        self.is_touched || [&self.day, &self.month].iter().any(|tally| tally.fresh != 0 || tally.taken != 0)
    }
}

impl Tally {
    fn new(period: Period) -> Self {
        Self { period, known: 0, read_at: None, taken: 0, fresh: 0, is_wanted: false }
    }

    /// Whether all of it is used; of any number never.
    fn has_used(&self, allowed: u32) -> bool {
        allowed > 0 && self.known + self.taken + self.fresh >= i64::from(allowed)
    }

    /// Whether the sum was not read for a while, or at a moment that has not come.
    fn is_stale(&self, now: Timestamp) -> bool {
        self.read_at.is_none_or(|at| at > now || now.since(at) >= READ_EVERY)
    }

    /// What is to be added, if there is anything, or the sum is wanted.
    fn take(&mut self) -> Option<(Period, i64)> {
        self.taken += mem::take(&mut self.fresh);
        (self.taken != 0 || self.is_wanted).then_some((self.period, self.taken))
    }
}
