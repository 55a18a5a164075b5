//! Lines that wait for the database: in memory, and once it takes none, on disk. What was taken first is added first.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crypto::KeyRing;
use tenant_store::{AuditChain, AuditCheckpoint, AuditPart, AuditRow, AuditWriterId};
use tokio::time::Instant;

use super::spool::{SpoolError, SpoolFile, Spooled, cannot_remove};

/// How many lines wait in memory.
const MEMORY_LINES_MAX: usize = 100_000;
/// How many lines are added at a time.
pub(super) const BATCH_LINES_MAX: usize = 1_000;
/// How long to wait after the disk failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Something that waits.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Line(AuditRow),
    Checkpoint(AuditCheckpoint),
}

type Kept = (AuditChain, Item);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// What is added next. Where lines wait on disk, these do as well.
    memory: VecDeque<Kept>,
    disk: Option<Disk>,
    /// How many lines could not be read again.
    lost: u64,
}

/// Where lines wait on disk.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    bytes_max: u64,
    writer: AuditWriterId,
    keys: KeyRing,
    /// What is used since the database took nothing, until all of it has been added.
    used: Option<Used>,
    /// When it is tried again, if it failed.
    again_at: Option<Instant>,
}

/// What waits behind what is in memory.
#[derive(Debug, Default)]
struct Used {
    file: Option<SpoolFile>,
    /// How far the file has been read, and how many lines are behind that.
    read: u64,
    unread: usize,
    /// What is not on disk yet.
    fresh: VecDeque<Kept>,
    chains: HashMap<String, AuditChain>,
}

impl Disk {
    pub(super) fn new((folder, bytes_max): (PathBuf, u64), writer: AuditWriterId, keys: KeyRing) -> Self {
        Self { folder, bytes_max, writer, keys, used: None, again_at: None }
    }
}

impl Backlog {
    /// One that can go on on disk.
    pub(super) fn with(disk: Option<Disk>) -> Self {
        Self { disk, ..Self::default() }
    }

    pub(super) fn push(&mut self, chain: AuditChain, item: Item) {
        let queue = self.disk.as_mut().and_then(|disk| disk.used.as_mut()).map(|used| &mut used.fresh);
        queue.unwrap_or(&mut self.memory).push_back((chain, item));
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let behind = self.used().map_or(0, |used| used.unread + used.fresh.len());
        self.memory.len() + behind
    }

    /// Whether more fits into memory.
    pub(super) fn has_room(&self) -> bool {
        self.memory.len() + self.used().map_or(0, |used| used.fresh.len()) < MEMORY_LINES_MAX
    }

    /// Whether there is something that can be added.
    pub(super) fn has_next(&self) -> bool {
        !self.memory.is_empty()
    }

    fn used(&self) -> Option<&Used> {
        self.disk.as_ref()?.used.as_ref()
    }

    /// The first that wait, `lines_max` if possible, and how many those are. They go on waiting until they are [added](Self::added).
    pub(super) fn next(&self, lines_max: usize) -> (usize, Vec<AuditPart>) {
        let mut count = self.memory.len().min(lines_max);
        // A line goes with its signature.
        while matches!(self.memory.get(count), Some((_, Item::Checkpoint(_)))) {
            count += 1;
        }
        (count, parts(self.memory.iter().take(count)))
    }

    /// The first so many wait no more.
    pub(super) fn added(&mut self, count: usize) {
        self.memory.drain(..count.min(self.memory.len()));
    }

    /// The database takes nothing: from now on lines wait on disk, if there is one.
    pub(super) fn leave_memory(&mut self) {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.used.is_none()) else { return };
        disk.used = Some(Used { fresh: mem::take(&mut self.memory), ..Used::default() });
    }

    /// Writes to disk what is to wait there, and reads what is added next.
    pub(super) async fn settle(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let Some(used) = &mut disk.used else { return };
        if disk.again_at.is_none_or(|again_at| again_at <= Instant::now()) {
            let written = used.write((&disk.folder, disk.bytes_max), disk.writer, &disk.keys).await;
            let again_at = written.as_ref().err().map(|_| Instant::now() + RETRY_AFTER);
            if let (Err(error), None) = (written, mem::replace(&mut disk.again_at, again_at)) {
                let (error, folder) = (&error as &dyn Error, disk.folder.display());
                tracing::error!(error, audit.folder = %folder, "the audit record cannot wait on disk, and waits in memory");
            }
        }
        if !self.memory.is_empty() {
            return;
        }
        match used.read().await {
            Ok(Some(next)) => self.memory = next,
            Ok(None) => self.memory = used.end(),
            Err(error) => {
                let path = used.file.take().map(SpoolFile::put_aside).unwrap_or_default();
                tracing::error!(
                    error = &error as &dyn Error,
                    audit.lost = used.unread,
                    path = %path.display(),
                    "what waited of the audit record on disk cannot be read again"
                );
                self.lost += used.unread as u64;
                self.memory = used.end();
            }
        }
        if used.file.is_none() && used.fresh.is_empty() {
            disk.used = None;
        }
    }

    /// How many lines could not be read again since that was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    /// The file in which all that waits can be found by the next process; nothing, if there is none.
    pub(super) async fn leave(&mut self) -> Option<PathBuf> {
        self.leave_memory();
        self.settle().await;
        let used = self.used().filter(|used| used.fresh.is_empty())?;
        Some(used.file.as_ref()?.path.clone())
    }
}

impl Used {
    /// Writes what is not on disk yet, as far as that goes.
    async fn write(
        &mut self,
        (folder, bytes_max): (&Path, u64),
        writer: AuditWriterId,
        keys: &KeyRing,
    ) -> Result<(), SpoolError> {
        while !self.fresh.is_empty() {
            let count = self.fresh.len().min(BATCH_LINES_MAX);
            let mut batch = Vec::with_capacity(count);
            for (chain, item) in self.fresh.iter().take(count) {
                let name = chain.to_string();
                batch.push(Spooled::of(name.clone(), item));
                self.chains.insert(name, *chain);
            }
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(SpoolFile::create(folder, writer, keys)?),
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
        let Some((batch, next)) = file.read(self.read).await? else { return Ok(None) };
        let (writer, count) = (file.writer(), batch.len());
        let kept = |spooled: Spooled| Some((*self.chains.get(&spooled.chain)?, spooled.item(writer)?));
        let kept: Option<VecDeque<Kept>> = batch.into_iter().map(kept).collect();
        let kept = kept.ok_or(SpoolError::NotABatch)?;
        (self.read, self.unread) = (next, self.unread.saturating_sub(count));
        Ok(Some(kept))
    }

    /// All that was on disk has been added. What could not be written is left.
    fn end(&mut self) -> VecDeque<Kept> {
        if let Some(file) = self.file.take() {
            let path = file.path.clone();
            if let Err(error) = file.remove() {
                cannot_remove(&error, &path);
            }
        }
        (self.read, self.unread) = (0, 0);
        mem::take(&mut self.fresh)
    }
}

/// Lines and signatures by their chains, each in its order.
pub(super) fn parts<'i>(items: impl Iterator<Item = &'i Kept>) -> Vec<AuditPart> {
    let mut places: HashMap<AuditChain, usize> = HashMap::new();
    let mut parts: Vec<AuditPart> = Vec::new();
    for (chain, item) in items {
        let place = *places.entry(*chain).or_insert_with(|| {
            parts.push(AuditPart { chain: *chain, rows: Vec::new(), checkpoints: Vec::new() });
            parts.len() - 1
        });
        let Some(part) = parts.get_mut(place) else { continue };
        match item {
            Item::Line(row) => part.rows.push(row.clone()),
            Item::Checkpoint(checkpoint) => part.checkpoints.push(checkpoint.clone()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crypto::Key;
    use tempfile::TempDir;
    use tenant_store::Timestamp;

    use super::*;

    /// What is in no file that anybody can read.
    const SECRET: &str = "acme__read_ledger";

    /// A folder, and a backlog that may keep so many bytes there.
    fn with_disk(bytes_max: u64) -> anyhow::Result<(TempDir, KeyRing, Backlog)> {
        let (folder, keys) = (tempfile::tempdir()?, KeyRing::new(Key::generate()?, Vec::new()));
        let writer = AuditWriterId::new(Timestamp::from_millis(1));
        let disk = Disk::new((folder.path().join("spool"), bytes_max), writer, keys.clone());
        Ok((folder, keys, Backlog::with(Some(disk))))
    }

    fn push(backlog: &mut Backlog, seqs: std::ops::Range<u64>) {
        for seq in seqs {
            let (writer, at) = (AuditWriterId::new(Timestamp::from_millis(1)), Timestamp::from_millis(1));
            let line = Item::Line(AuditRow { writer, seq, at, line: SECRET.to_owned() });
            backlog.push(AuditChain::Platform, line);
        }
    }

    fn files(folder: &TempDir) -> anyhow::Result<Vec<PathBuf>> {
        Ok(SpoolFile::all(&folder.path().join("spool"))?)
    }

    /// All that waits, as the database would get it.
    async fn drain(backlog: &mut Backlog) -> Vec<u64> {
        let mut seqs = Vec::new();
        backlog.settle().await;
        while backlog.has_next() {
            let (count, parts) = backlog.next(BATCH_LINES_MAX);
            seqs.extend(parts.iter().flat_map(|part| &part.rows).map(|row| row.seq));
            backlog.added(count);
            backlog.settle().await;
        }
        seqs
    }

    #[tokio::test]
    async fn lines_wait_on_disk_in_their_order_and_unreadable_and_leave_nothing_there() -> anyhow::Result<()> {
        let (folder, _keys, mut backlog) = with_disk(u64::MAX)?;
        push(&mut backlog, 0..2_500);
        assert_eq!(files(&folder)?, Vec::<PathBuf>::new(), "nothing is written before that is needed");
        backlog.leave_memory();
        backlog.settle().await;
        push(&mut backlog, 2_500..2_600);
        backlog.settle().await;
        assert_eq!((backlog.len(), files(&folder)?.len()), (2_600, 1));
        let bytes = fs::read(&files(&folder)?[0])?;
        assert!(!bytes.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&files(&folder)?[0])?.permissions().mode() & 0o777, 0o600);
        }
        assert!(drain(&mut backlog).await.into_iter().eq(0..2_600));
        assert_eq!((backlog.len(), files(&folder)?.len()), (0, 0));
        // And from the beginning again.
        push(&mut backlog, 0..3);
        backlog.leave_memory();
        assert_eq!(drain(&mut backlog).await, [0, 1, 2]);
        Ok(())
    }

    #[tokio::test]
    async fn where_no_more_may_wait_on_disk_memory_is_filled_and_nothing_of_it_is_lost() -> anyhow::Result<()> {
        let (folder, _keys, mut backlog) = with_disk(200_000)?;
        push(&mut backlog, 0..2_000);
        backlog.leave_memory();
        backlog.settle().await;
        assert!(fs::metadata(&files(&folder)?[0])?.len() < 200_000);
        push(&mut backlog, 2_000..MEMORY_LINES_MAX as u64);
        assert!(backlog.has_room());
        push(&mut backlog, MEMORY_LINES_MAX as u64..MEMORY_LINES_MAX as u64 + 2_000);
        assert!(!backlog.has_room(), "{}", backlog.len());
        assert!(drain(&mut backlog).await.into_iter().eq(0..MEMORY_LINES_MAX as u64 + 2_000));
        assert_eq!(backlog.take_lost(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn what_was_changed_on_disk_is_counted_as_lost_and_the_rest_goes_on() -> anyhow::Result<()> {
        let (folder, _keys, mut backlog) = with_disk(u64::MAX)?;
        push(&mut backlog, 0..2_000);
        backlog.leave_memory();
        backlog.settle().await;
        let path = &files(&folder)?[0];
        let mut bytes = fs::read(path)?;
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, &bytes)?;
        // The first thousand was in memory already.
        assert!(drain(&mut backlog).await.into_iter().eq(0..1_000));
        assert_eq!(backlog.take_lost(), 1_000);
        push(&mut backlog, 2_000..2_001);
        backlog.leave_memory();
        assert_eq!(drain(&mut backlog).await, [2_000]);
        assert_eq!(fs::read(path.with_extension("unreadable"))?, bytes, "it is left for somebody to look at");
        Ok(())
    }

    #[tokio::test]
    async fn a_file_is_read_by_who_has_its_lock_and_its_keys_and_under_its_own_name() -> anyhow::Result<()> {
        let (folder, keys, mut backlog) = with_disk(u64::MAX)?;
        push(&mut backlog, 0..1_500);
        let path = backlog.leave().await.unwrap();
        assert!(SpoolFile::take_up(&path, &keys)?.is_none(), "its writer lives");
        drop(backlog);
        let mut seen = Vec::new();
        let mut file = SpoolFile::take_up(&path, &keys)?.unwrap();
        let mut at = 0;
        while let Some((batch, next)) = file.read(at).await? {
            seen.push(batch.len());
            at = next;
        }
        assert_eq!(seen, [1_000, 500]);
        drop(file);

        let other_keys = KeyRing::new(Key::generate()?, Vec::new());
        let mut file = SpoolFile::take_up(&path, &other_keys)?.unwrap();
        assert!(matches!(file.read(0).await, Err(SpoolError::Open(_))));
        drop(file);
        let other = path.with_file_name(format!("{}.spool", AuditWriterId::new(Timestamp::from_millis(2))));
        fs::copy(&path, &other)?;
        let mut file = SpoolFile::take_up(&other, &keys)?.unwrap();
        assert!(matches!(file.read(0).await, Err(SpoolError::Open(_))), "another writer's");
        // Cut off in the midst of the second batch.
        let bytes = fs::read(&path)?;
        fs::write(&path, &bytes[..bytes.len() - 1])?;
        let mut file = SpoolFile::take_up(&path, &keys)?.unwrap();
        let (_, next) = file.read(0).await?.unwrap();
        assert!(file.read(next).await?.is_none());
        assert_eq!(files(&folder)?.len(), 2);
        Ok(())
    }
}
