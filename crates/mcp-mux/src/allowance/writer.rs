//! The one who adds to the database what was let through here, and reads there what all replicas together have counted. What the database did
//! not take goes on waiting, with what comes meanwhile added to it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tenant_store::{Clock, QuotaUse, Store, StoreError, TenantScope, Timestamp};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::counts::{Counted, Key};
use super::{READ_EVERY, Shared};
use crate::civil::{self, Period};

/// Least time between two visits, however many sums are wanted.
const REST: Duration = Duration::from_millis(100);
/// Of how many something is added at a time.
const PART_COUNTED_MAX: usize = 2_500;
/// How long to wait at the end of a process after the database failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the end of a process waits for the database.
const LAST_TIMEOUT: Duration = Duration::from_millis(4_500);
/// How long it is kept what was used in a period, from its beginning: two of the longest months.
const KEEP_MS: i64 = 62 * 24 * 3_600 * 1_000;
/// How often it is looked for what is older.
const FORGET_EVERY: Duration = Duration::from_hours(6);

/// What is added in one step, in an order that is the same at every replica, so that none waits for another in a circle.
type Part = BTreeMap<(TenantScope, String, String), (Counted, Period, i64)>;

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    store: Store,
    /// Of what the database does not know all yet.
    waiting: BTreeSet<Key>,
    is_away: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, store: Store) -> Self {
        Self { shared, store, waiting: BTreeSet::new(), is_away: false }
    }

    /// Writes and reads until nothing else runs any more, and then writes all that there is.
    pub(super) async fn run(mut self, over: CancellationToken) {
        let time_is_up = async {
            over.cancelled().await;
            sleep(LAST_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = self.work(&over) => {}
            () = time_is_up => tracing::error!(
                "the process ends before its last calls were counted for quotas: the other replicas do not know of them"
            ),
        }
    }

    async fn work(&mut self, over: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = over.cancelled() => break,
                () = self.shared.wanted.notified() => {}
                () = sleep(READ_EVERY) => {}
            }
            let rest = if self.visit().await { REST } else { READ_EVERY };
            tokio::select! {
                biased;
                () = over.cancelled() => break,
                () = sleep(rest) => {}
            }
        }
        while !self.visit().await {
            sleep(RETRY_AFTER).await;
        }
    }

    /// Adds to the database what it does not know, and reads the sums. `false` if it did not take all of it.
    pub(super) async fn visit(&mut self) -> bool {
        self.waiting.extend(self.shared.lock().touched());
        while !self.waiting.is_empty() {
            let part = self.part();
            if let Err(error) = self.add(&part).await {
                self.failed(&error);
                return false;
            }
            let rest = self.waiting.iter().nth(PART_COUNTED_MAX).copied();
            self.waiting = rest.map(|first| self.waiting.split_off(&first)).unwrap_or_default();
        }
        self.shared.lock().tidy(self.shared.clock.now());
        if mem::take(&mut self.is_away) {
            tracing::info!("what quotas are about is counted together again");
        }
        true
    }

    /// What is added next.
    fn part(&self) -> Part {
        let mut counts = self.shared.lock();
        let mut part = Part::new();
        for (scope, counted) in self.waiting.iter().take(PART_COUNTED_MAX) {
            for (period, calls) in counts.take((*scope, *counted)) {
                part.insert((*scope, counted.text(), period.text()), (*counted, period, calls));
            }
        }
        part
    }

    async fn add(&self, part: &Part) -> Result<(), StoreError> {
        let mut made: Vec<(TenantScope, Vec<QuotaUse>)> = Vec::new();
        for ((scope, counted, period), (_, _, calls)) in part {
            let row = QuotaUse { counted: counted.clone(), period: period.clone(), calls: *calls };
            match made.last_mut() {
                Some((last, rows)) if last == scope => rows.push(row),
                _ => made.push((*scope, vec![row])),
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        let sums = self.store.add_quota_use(&made).await?;
        let now = self.shared.clock.now();
        let mut counts = self.shared.lock();
        for (scope, sums) in sums {
            for QuotaUse { counted, period, calls } in sums {
                if let Some((counted, period, _)) = part.get(&(scope, counted, period)) {
                    counts.read((scope, *counted), (*period, calls), now);
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError) {
        if !mem::replace(&mut self.is_away, true) {
            tracing::warn!(
                error = error as &dyn Error,
                "what quotas are about is counted by this replica alone until the database takes it"
            );
        }
    }
}

/// Deletes now and then, for ever, what no decision rests on any more.
pub(crate) async fn forget_old(store: &Store, clock: &dyn Clock) {
    loop {
        match forget(store, clock.now()).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "what was used of quotas months ago is forgotten"),
            Err(error) => tracing::warn!(error = &error as &dyn Error, "old counts for quotas cannot be deleted"),
        }
        sleep(FORGET_EVERY).await;
    }
}

pub(super) async fn forget(store: &Store, now: Timestamp) -> Result<u64, StoreError> {
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(KEEP_MS));
    store.forget_quota_use(&civil::date(before)).await
}
