//! The one writer of a process: takes what was counted, and adds it to the database in parts, each of them whole or not at all.
//!
//! What the database did not take goes on waiting, with what comes meanwhile added to it. Nobody who counts waits for the writer: it holds the
//! lock for no longer than it takes to put an empty map in the place of a full one.

use std::collections::BTreeMap;
use std::error::Error;
use std::mem;
use std::time::Duration;

use tenant_store::{LocalName, Store, StoreError, TenantScope, UpstreamSlug, Used};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Day, SUMS_MAX, Sum, Usage};
use crate::civil;

/// How long sums wait for others.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How many sums are added at a time.
pub(super) const PART_SUMS_MAX: usize = 5_000;
/// How long to wait at the end of a process after the database failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the end of a process waits for the database.
const LAST_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Always in the same order, so that replicas that add to the same rows do not wait for each other in a circle.
type Key = (TenantScope, Day, UpstreamSlug, LocalName);

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    usage: Usage,
    store: Store,
    /// What the database does not have yet.
    waiting: BTreeMap<Key, Sum>,
    is_away: bool,
    lost_told: u64,
}

impl Writer {
    pub(super) fn new(usage: Usage, store: Store) -> Self {
        Self { usage, store, waiting: BTreeMap::new(), is_away: false, lost_told: 0 }
    }

    /// Writes until nothing else runs any more, and then all that there is.
    pub(super) async fn run(mut self, over: CancellationToken) {
        let is_done = {
            let time_is_up = async {
                over.cancelled().await;
                sleep(LAST_TIMEOUT).await;
            };
            tokio::select! {
                biased;
                () = self.work(&over) => true,
                () = time_is_up => false,
            }
        };
        if !is_done {
            self.take();
            let calls: u64 = self.waiting.values().map(|sum| sum.calls).sum();
            tracing::error!(
                usage.lost = calls,
                "the process ends before its last usage was written: calls are not counted"
            );
        }
    }

    async fn work(&mut self, over: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = over.cancelled() => break,
                () = self.usage.0.wanted.notified() => {}
                () = sleep(WRITE_EVERY) => {}
            }
            self.take();
            self.write().await;
        }
        self.take();
        while !self.write().await {
            sleep(RETRY_AFTER).await;
        }
    }

    /// Takes what was counted to what waits.
    pub(super) fn take(&mut self) {
        for ((scope, _, day), of_upstream) in self.usage.take().days {
            for (tool, sum) in of_upstream.tools {
                let key = (scope, day, of_upstream.slug.clone(), tool);
                let has_room = self.waiting.len() < SUMS_MAX;
                match self.waiting.get_mut(&key) {
                    Some(known) => known.add(sum),
                    None if has_room => drop(self.waiting.insert(key, sum)),
                    None => self.usage.lose(sum.calls),
                }
            }
        }
        self.tell_lost();
    }

    fn tell_lost(&mut self) {
        let lost = self.usage.lost()();
        let count = lost.saturating_sub(mem::replace(&mut self.lost_told, lost));
        if count > 0 {
            tracing::error!(
                usage.lost = count,
                "calls found no room to be counted in, and are missing in what tenants use"
            );
        }
    }

    /// Adds what waits to the database. `false` if that did not take all of it.
    pub(super) async fn write(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let added = self.store.add_usage(&self.part()).await;
            if let Err(error) = added {
                self.failed(&error);
                return false;
            }
            let rest = self.waiting.keys().nth(PART_SUMS_MAX).cloned();
            self.waiting = rest.map(|first| self.waiting.split_off(&first)).unwrap_or_default();
        }
        if mem::take(&mut self.is_away) {
            tracing::info!("usage is written again");
        }
        true
    }

    fn failed(&mut self, error: &StoreError) {
        if !mem::replace(&mut self.is_away, true) {
            tracing::warn!(error = error as &dyn Error, "usage waits in memory until the database takes it");
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Sum> {
        self.waiting.values()
    }

    /// What is added next.
    fn part(&self) -> Vec<(TenantScope, Vec<Used>)> {
        let mut part: Vec<(TenantScope, Vec<Used>)> = Vec::new();
        for ((scope, day, upstream, tool), sum) in self.waiting.iter().take(PART_SUMS_MAX) {
            let &Sum { calls, errors, duration_ms } = sum;
            let (day, upstream, tool) = (civil::date(day.begins_at()), upstream.clone(), tool.clone());
            let used = Used { day, upstream, tool, calls, errors, duration_ms };
            match part.last_mut() {
                Some((last, rows)) if last == scope => rows.push(used),
                _ => part.push((*scope, vec![used])),
            }
        }
        part
    }
}
