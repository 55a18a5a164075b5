//! The one writer of a process: gives each event its place in its chain, adds it to the database in batches, and signs now and then.
//!
//! An event has its line as soon as the writer sees it, so that adding it can be tried again, as often as it takes, and never adds anything
//! else. While the database is away lines wait: see [`backlog`](super::backlog). What does not fit any more is counted, and the count is an
//! event.

use std::collections::HashMap;
use std::error::Error;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crypto::KeyRing;
use futures::future::BoxFuture;
use tenant_store::{AuditChain, AuditWriterId, Clock, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Queued;
use super::backlog::{BATCH_LINES_MAX, Backlog, Item};
use super::disk::Disk;
use super::event::{Event, Head, What};
use super::line;
use super::pressure::Pressure;
use super::signer::Signer;
use crate::lifecycle::or_never;

/// How long a line waits for others at most, to be added with them.
const BATCH_EVERY: Duration = Duration::from_millis(200);
/// How long to wait after the database failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After how many events there is a checkpoint, if the time for one has not come before.
const CHECKPOINT_EVENTS: u64 = 1_000;
/// How many heads one event names.
const HEADS_MAX: usize = 100;
/// How many writers before it a new one names.
const AFTER_WRITERS_MAX: usize = 64;
/// Of how many of the last signatures those are.
const AFTER_CHECKPOINTS_MAX: u64 = 1_000;
/// How long the database may take until what waits behind is written to disk.
const SLOW: Duration = Duration::from_secs(2);
/// How long the end of a process waits for the database.
const LAST_TIMEOUT: Duration = Duration::from_millis(3_500);

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    signer: Arc<Signer>,
    clock: Arc<dyn Clock>,
    pub(super) id: AuditWriterId,
    checkpoint_every: Duration,
    chains: HashMap<AuditChain, Chain>,
    backlog: Backlog,
    /// How many events there were since the last checkpoint.
    unsigned: u64,
    is_away: bool,
    pressure: Pressure,
}

/// The writer's own part of a chain.
#[derive(Debug)]
struct Chain {
    seq: u64,
    hash: String,
    signed: u64,
    /// How far the platform's record says that it came.
    told: u64,
}

/// Lines on their way into the database: how many, and when they are late.
struct OnTheirWay {
    count: usize,
    late_at: Instant,
    adding: BoxFuture<'static, Result<(), StoreError>>,
}
type Adding = Option<OnTheirWay>;

impl Writer {
    pub(super) fn new(store: Store, signer: Arc<Signer>, clock: Arc<dyn Clock>, checkpoint_every: Duration) -> Self {
        let id = AuditWriterId::new(clock.now());
        Self {
            store,
            signer,
            clock,
            id,
            checkpoint_every,
            chains: HashMap::new(),
            backlog: Backlog::default(),
            unsigned: 0,
            is_away: false,
            pressure: Pressure::default(),
        }
    }

    /// The same where lines can wait on disk.
    pub(super) fn with_disk(mut self, (folder, bytes_max): (PathBuf, u64), keys: KeyRing) -> Self {
        self.backlog = Backlog::with(Disk::new((folder, bytes_max), self.id, keys));
        self
    }

    /// How much it is behind.
    pub(super) fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }

    /// Says in the platform's chain that there is a new writer, and how far others had come.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        let heads = self.store.platform_audit_heads((AFTER_WRITERS_MAX, AFTER_CHECKPOINTS_MAX)).await?;
        let chain = AuditChain::Platform;
        let after = heads.into_iter().map(|head| Head {
            chain: chain.to_string(),
            writer: head.writer.to_string(),
            seq: head.seq,
            hash: head.hash,
        });
        let what = What::Started { version: env!("CARGO_PKG_VERSION"), after: after.collect() };
        self.take(&Event { at: self.clock.now(), chain, what });
        tracing::info!(audit.writer = %self.id, audit.key = %self.signer.public().id, "the audit record goes on");
        Ok(())
    }

    /// Writes until nothing else runs any more.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<Queued>,
        lost: Arc<AtomicU64>,
        over: CancellationToken,
    ) {
        let (mut seen, mut adding): (Vec<Queued>, Adding) = (Vec::new(), None);
        let mut add_at = Instant::now();
        let mut sign_at = Instant::now() + self.checkpoint_every;
        loop {
            self.pressure.waits(self.backlog.len());
            let has_room = self.backlog.has_room();
            let late = adding.as_ref().map(|adding| adding.late_at);
            tokio::select! {
                biased;
                () = over.cancelled() => break,
                outcome = ended(&mut adding) => add_at = self.added(outcome),
                () = sleep_until(sign_at), if self.unsigned > 0 => {
                    self.sign();
                    sign_at = Instant::now() + self.checkpoint_every;
                }
                () = sleep_until(add_at), if adding.is_none() && self.backlog.has_next() => adding = Some(self.add()),
                () = or_never(late.map(sleep_until)), if !self.backlog.is_on_disk() => {
                    self.backlog.leave_memory(adding.as_ref().map_or(0, |adding| adding.count));
                }
                () = or_never(self.backlog.due().map(sleep_until)) => {}
                count = events.recv_many(&mut seen, BATCH_LINES_MAX), if has_room => {
                    if count == 0 {
                        break;
                    }
                    if !self.backlog.has_next() && adding.is_none() {
                        add_at = add_at.max(Instant::now() + BATCH_EVERY);
                    }
                    self.take_all(&mut seen, &lost).await;
                }
            }
            if self.unsigned >= CHECKPOINT_EVENTS {
                self.sign();
                sign_at = Instant::now() + self.checkpoint_every;
            }
            self.backlog.settle().await;
        }
        self.end(events, adding, &lost).await;
    }

    pub(super) async fn take_all(&mut self, events: &mut Vec<Queued>, lost: &AtomicU64) {
        for queued in mem::take(events) {
            match queued {
                Queued::Event(event) => self.take(&event),
                Queued::Later(event) => {
                    self.take(&event());
                    // What was looked for may have taken a while.
                    yield_now().await;
                }
            }
        }
        let count = lost.swap(0, Ordering::Relaxed) + self.backlog.take_lost();
        if count > 0 {
            tracing::error!(
                audit.lost = count,
                "audit events found no room, or their calls did not end in time, and are lost: the record says how many"
            );
            let what = What::Lost { count };
            self.take(&Event { at: self.clock.now(), chain: AuditChain::Platform, what });
        }
    }

    /// Gives an event its place.
    pub(super) fn take(&mut self, event: &Event) {
        let none_before = || Chain { seq: 0, hash: line::NONE_BEFORE.to_owned(), signed: 0, told: 0 };
        let chain = self.chains.entry(event.chain).or_insert_with(none_before);
        match line::row(event, self.id, (chain.seq + 1, &chain.hash)) {
            Ok(row) => {
                (chain.seq, chain.hash) = (row.seq, line::hash(&row.line));
                self.unsigned += 1;
                let is_first = row.seq == 1;
                self.backlog.push(event.chain, Item::Line(row, event.held()));
                // What nobody signed at all is nobody's: whoever checks can tell it from what is too new.
                if is_first {
                    self.sign_chain(event.chain);
                }
            }
            // Every field of an event is one that can be written.
            Err(error) => tracing::error!(error = &error as &dyn Error, "an audit event cannot be written"),
        }
    }

    /// Signs for the last time, and that it is the last.
    pub(super) fn sign_last(&mut self) -> Option<Head> {
        self.tell_heads();
        self.take(&Event { at: self.clock.now(), chain: AuditChain::Platform, what: What::Ended });
        self.sign_platform()
    }

    /// Signs how far each chain has come that went on, tenants' first: the platform's own then covers them all.
    pub(super) fn sign(&mut self) {
        self.tell_heads();
        self.sign_platform();
    }

    fn tell_heads(&mut self) {
        let went_on = |(chain, state): (&AuditChain, &Chain)| {
            (*chain != AuditChain::Platform && state.told < state.seq).then_some(*chain)
        };
        let chains: Vec<AuditChain> = self.chains.iter().filter_map(went_on).collect();
        let heads: Vec<Head> = chains.into_iter().filter_map(|chain| self.head(chain)).collect();
        for heads in heads.chunks(HEADS_MAX) {
            let what = What::Checkpoint { heads: heads.to_vec() };
            self.take(&Event { at: self.clock.now(), chain: AuditChain::Platform, what });
        }
    }

    fn sign_platform(&mut self) -> Option<Head> {
        let head = self.head(AuditChain::Platform);
        if let Some(head) = &head {
            // Who keeps the log elsewhere has an anchor.
            tracing::info!(
                audit.writer = %self.id, audit.seq = head.seq, audit.hash = %head.hash, audit.key = %self.signer.public().id,
                "audit checkpoint"
            );
        }
        self.unsigned = 0;
        head
    }

    /// How far a chain has come that went on since that was told last, signed.
    fn head(&mut self, chain: AuditChain) -> Option<Head> {
        self.sign_chain(chain);
        let state = self.chains.get_mut(&chain).filter(|state| state.told < state.seq)?;
        state.told = state.seq;
        let (seq, hash) = (state.seq, state.hash.clone());
        Some(Head { chain: chain.to_string(), writer: self.id.to_string(), seq, hash })
    }

    fn sign_chain(&mut self, chain: AuditChain) {
        let Some(state) = self.chains.get_mut(&chain).filter(|state| state.signed < state.seq) else { return };
        let signed = self.signer.checkpoint(chain, self.id, (state.seq, &state.hash), self.clock.now());
        state.signed = state.seq;
        self.backlog.push(chain, Item::Checkpoint(signed));
    }

    /// The first lines that wait, on their way. They go on waiting until they are added.
    fn add(&self) -> OnTheirWay {
        let (count, parts) = self.backlog.next(BATCH_LINES_MAX);
        let (store, late_at) = (self.store.clone(), Instant::now() + SLOW);
        OnTheirWay { count, late_at, adding: Box::pin(async move { store.append_audit(&parts).await }) }
    }

    /// When to go on.
    fn added(&mut self, (count, outcome): (usize, Result<(), StoreError>)) -> Instant {
        match outcome {
            Ok(()) => {
                self.backlog.added(count);
                if mem::take(&mut self.is_away) {
                    tracing::info!("the audit record is written again");
                }
                Instant::now()
            }
            Err(error) => {
                self.backlog.leave_memory(0);
                if !mem::replace(&mut self.is_away, true) {
                    let waiting = self.backlog.len();
                    tracing::error!(
                        error = &error as &dyn Error,
                        audit.waiting = waiting,
                        "the audit record cannot be written: it waits until the database is there again"
                    );
                }
                Instant::now() + RETRY_AFTER
            }
        }
    }

    /// What is there still, and a last signature. What is `adding` then is waited for: the same lines added a second time would wait for the first,
    /// which nobody would go on with.
    async fn end(mut self, mut events: mpsc::Receiver<Queued>, mut adding: Adding, lost: &AtomicU64) {
        events.close();
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        // Whoever has room still has a call that did not end in time. Nobody will read what becomes of it.
        let running = events.max_capacity().saturating_sub(events.capacity());
        lost.fetch_add(u64::try_from(running).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.take_all(&mut seen, lost).await;
        self.sign_last();
        // Where that may take longer than there is time.
        if self.is_away || self.backlog.len() > BATCH_LINES_MAX {
            self.backlog.leave_memory(adding.as_ref().map_or(0, |adding| adding.count));
            self.backlog.write_all().await;
        }
        self.backlog.read_now();
        let last = async {
            if adding.is_some() {
                let outcome = ended(&mut adding).await;
                self.added(outcome);
            }
            self.add_all().await;
        };
        let is_late = timeout(LAST_TIMEOUT, last).await.is_err();
        let waiting = self.backlog.len();
        if is_late || waiting > 0 {
            if let Some(path) = self.backlog.leave().await {
                tracing::warn!(
                    audit.waiting = waiting,
                    path = %path.display(),
                    "the process ends before its audit record was written: it waits on disk for the next start with the same audit.spool_directory"
                );
            } else {
                tracing::error!(
                    audit.lost = waiting,
                    "the process ends before its audit record was written: lines are lost"
                );
            }
        }
    }

    /// Adds all that waits, for as long as it takes.
    pub(super) async fn add_all(&mut self) {
        self.backlog.settle().await;
        while self.backlog.has_next() {
            let mut adding = Some(self.add());
            let outcome = ended(&mut adding).await;
            let next = self.added(outcome);
            self.backlog.settle().await;
            sleep_until(next).await;
        }
    }

    /// The same, and at the first failure no more.
    pub(super) async fn add_once(&mut self) -> Result<(), StoreError> {
        while self.backlog.has_next() {
            let (count, parts) = self.backlog.next(BATCH_LINES_MAX);
            self.store.append_audit(&parts).await?;
            self.backlog.added(count);
        }
        Ok(())
    }
}

/// What became of lines on their way, once that is known. Nothing is lost when it is not waited for to its end.
async fn ended(adding: &mut Adding) -> (usize, Result<(), StoreError>) {
    let Some(now) = adding else { return std::future::pending().await };
    let (count, outcome) = (now.count, (&mut now.adding).await);
    *adding = None;
    (count, outcome)
}
