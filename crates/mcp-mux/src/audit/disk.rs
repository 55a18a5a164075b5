//! Where lines wait on disk once the database takes none, and until all of them have been added.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use crypto::KeyRing;
use tenant_store::{AuditChain, AuditWriterId};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::backlog::{BATCH_LINES_MAX, Kept, batch, is_batch};
use super::spool::{SpoolError, SpoolFile, Spooled, cannot_remove};

/// How long lines wait for others, to be written with them.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// How long the disk has for one thing.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after it failed, and after it did not answer.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// Where.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    bytes_max: u64,
    writer: AuditWriterId,
    keys: KeyRing,
    used: Option<Used>,
    /// When lines are written next.
    write_at: Instant,
    /// When writing is tried again, if it failed.
    again_at: Option<Instant>,
    /// The same of reading. A disk that is full can be read.
    read_at: Option<Instant>,
    /// Whether that failed last.
    is_unread: bool,
}

/// What waits behind what is in memory.
#[derive(Debug, Default)]
struct Used {
    file: Option<SpoolFile>,
    /// How many lines of the file have not been read.
    unread: usize,
    /// How many of those that are read next are in memory already.
    skip: usize,
    /// What is not on disk yet.
    fresh: VecDeque<Kept>,
    chains: HashMap<String, AuditChain>,
}

impl Disk {
    pub(super) fn new((folder, bytes_max): (PathBuf, u64), writer: AuditWriterId, keys: KeyRing) -> Self {
        Self {
            folder,
            bytes_max,
            writer,
            keys,
            used: None,
            write_at: Instant::now(),
            again_at: None,
            read_at: None,
            is_unread: false,
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.is_some()
    }

    /// Uses it from now on, for these first; as many of them as are `kept` in memory are not read again.
    pub(super) fn begin(&mut self, fresh: VecDeque<Kept>, kept: usize) {
        self.used = Some(Used { fresh, skip: kept, ..Used::default() });
    }

    /// One more line for it, or the line itself, if it is not used.
    pub(super) fn push(&mut self, kept: Kept) -> Option<Kept> {
        let Some(used) = &mut self.used else { return Some(kept) };
        used.fresh.push_back(kept);
        None
    }

    /// How many lines wait behind those in memory.
    pub(super) fn len(&self) -> usize {
        self.used.as_ref().map_or(0, |used| (used.unread + used.fresh.len()).saturating_sub(used.skip))
    }

    /// How many of them are not on disk yet.
    pub(super) fn fresh(&self) -> usize {
        self.used.as_ref().map_or(0, |used| used.fresh.len())
    }

    /// When something is to be written, or to be read again, if there is something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.write_due().into_iter().chain(self.read_at).min()
    }

    fn write_due(&self) -> Option<Instant> {
        (self.fresh() > 0).then(|| self.again_at.map_or(self.write_at, |again_at| self.write_at.max(again_at)))
    }

    /// Writes what is not there yet: what has waited for long enough, or all of it `at_once`.
    pub(super) async fn write(&mut self, at_once: bool) {
        let now = Instant::now();
        let is_due = self.write_due().is_some_and(|due| due <= now);
        let is_full = self.fresh() >= BATCH_LINES_MAX && self.again_at.is_none_or(|again_at| again_at <= now);
        let Some(used) = self.used.as_mut().filter(|_| at_once || is_due || is_full) else { return };
        let written = timeout(DISK_TIMEOUT, used.write((&self.folder, self.bytes_max), self.writer, &self.keys)).await;
        self.write_at = Instant::now() + WRITE_EVERY;
        let (error, after) = match written {
            Ok(Ok(())) => {
                self.again_at = None;
                return;
            }
            Ok(Err(error)) => (error, AGAIN_AFTER[0]),
            Err(_) => (SpoolError::Silent, AGAIN_AFTER[1]),
        };
        if self.again_at.replace(Instant::now() + after).is_none() {
            let (error, folder) = (&error as &dyn Error, self.folder.display());
            tracing::error!(error, audit.folder = %folder, "the audit record cannot wait on disk, and waits in memory");
        }
    }

    /// Reads what is added next into `memory`, until a batch is there. Where nothing is left, it is used no more. Says how many lines cannot be
    /// read.
    pub(super) async fn fill(&mut self, memory: &mut VecDeque<Kept>) -> u64 {
        if self.read_at.is_some_and(|read_at| Instant::now() < read_at) {
            return 0;
        }
        self.read_at = None;
        while !is_batch(memory)
            && let Some(used) = &mut self.used
        {
            let read = timeout(DISK_TIMEOUT, used.read()).await.unwrap_or(Err(SpoolError::Silent));
            self.is_unread &= read.is_err();
            match read {
                Ok(Some(next)) => memory.extend(next),
                Ok(None) if memory.is_empty() => {
                    memory.extend(used.end().await);
                    self.used = None;
                }
                Ok(None) => break,
                Err(error @ (SpoolError::Io(_) | SpoolError::Silent)) => {
                    self.read_later(&error);
                    break;
                }
                Err(error) => {
                    let lost = used.unread.saturating_sub(used.skip) as u64;
                    used.skip = used.skip.saturating_sub(used.unread);
                    let path = match used.file.take() {
                        Some(file) => file.put_aside().await,
                        None => PathBuf::new(),
                    };
                    tracing::error!(
                        error = &error as &dyn Error,
                        audit.lost = lost,
                        path = %path.display(),
                        "what waited of the audit record on disk cannot be read again"
                    );
                    memory.extend(used.end().await);
                    self.used = None;
                    return lost;
                }
            }
        }
        0
    }

    /// It is tried at the next turn.
    pub(super) fn read_now(&mut self) {
        self.read_at = None;
    }

    /// It is not tried at every turn: a disk that does not answer takes its time each time.
    fn read_later(&mut self, error: &SpoolError) {
        let after = if matches!(error, SpoolError::Silent) { AGAIN_AFTER[1] } else { AGAIN_AFTER[0] };
        self.read_at = Some(Instant::now() + after);
        if !mem::replace(&mut self.is_unread, true) {
            let error = error as &dyn Error;
            tracing::error!(error, "what waits of the audit record on disk cannot be read now: it is tried again");
        }
    }

    /// The file in which all that waits is found by the next process, if there is one and all of it is there.
    pub(super) fn left(&self) -> Option<PathBuf> {
        let used = self.used.as_ref().filter(|used| used.fresh.is_empty())?;
        Some(used.file.as_ref()?.path.clone())
    }
}

impl Used {
    /// Writes what is not on disk yet, as far as that goes.
    async fn write(
        &mut self,
        (folder, bytes_max): (&PathBuf, u64),
        writer: AuditWriterId,
        keys: &KeyRing,
    ) -> Result<(), SpoolError> {
        while !self.fresh.is_empty() {
            let count = batch(self.fresh.iter().take(BATCH_LINES_MAX));
            let mut batch = Vec::with_capacity(count);
            for (chain, item) in self.fresh.iter().take(count) {
                let name = chain.to_string();
                batch.push(Spooled::of(name.clone(), item));
                self.chains.insert(name, *chain);
            }
            let file = match &mut self.file {
                Some(file) => file,
                none => {
                    let (folder, keys) = (folder.clone(), keys.clone());
                    let made = spawn_blocking(move || SpoolFile::create(&folder, writer, &keys)).await;
                    none.insert(made.map_err(std::io::Error::other)??)
                }
            };
            file.append(&batch, bytes_max).await?;
            self.fresh.drain(..count);
            self.unread += count;
        }
        Ok(())
    }

    /// The next lines on disk; nothing, if all have been read.
    async fn read(&mut self) -> Result<Option<VecDeque<Kept>>, SpoolError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let Some(batch) = file.next().await? else { return Ok(None) };
        let (writer, count) = (file.writer(), batch.len());
        let kept = |spooled: Spooled| Some((*self.chains.get(&spooled.chain)?, spooled.item(writer)?));
        let kept: Option<VecDeque<Kept>> = batch.into_iter().map(kept).collect();
        let mut kept = kept.ok_or(SpoolError::NotABatch)?;
        let skipped = self.skip.min(count);
        kept.drain(..skipped);
        self.skip -= skipped;
        self.unread = self.unread.saturating_sub(count);
        Ok(Some(kept))
    }

    /// All that was on disk has been added. What could not be written is left.
    async fn end(&mut self) -> VecDeque<Kept> {
        if let Some(file) = self.file.take() {
            let path = file.path.clone();
            if let Err(error) = file.remove().await {
                cannot_remove(&error, &path);
            }
        }
        let mut left = mem::take(&mut self.fresh);
        left.drain(..self.skip.min(left.len()));
        left
    }
}
