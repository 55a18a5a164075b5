//! Lines that wait for the database: in memory, and once it takes none, on disk. What was taken first is added first.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::path::PathBuf;

use tenant_store::{AuditChain, AuditCheckpoint, AuditPart, AuditRow};
use tokio::time::Instant;

use super::content::Held;
use super::disk::Disk;

/// How many lines wait in memory.
const MEMORY_LINES_MAX: usize = 100_000;
/// How many bytes of lines are added at a time, unless one is longer.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many lines are added at a time.
pub(super) const BATCH_LINES_MAX: usize = 1_000;

/// Something that waits.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// With the room of what it holds, which is free for others when this is dropped.
    Line(AuditRow, #[expect(dead_code, reason = "it is held, and not looked at")] Held),
    Checkpoint(AuditCheckpoint),
}

/// It, and where it belongs.
pub(super) type Kept = (AuditChain, Item);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// What is added next. While the disk is used, these are to be found there as well.
    memory: VecDeque<Kept>,
    disk: Option<Disk>,
    /// How many lines could not be read again.
    lost: u64,
}

impl Backlog {
    /// One that can go on on disk.
    pub(super) fn with(disk: Disk) -> Self {
        Self { disk: Some(disk), ..Self::default() }
    }

    pub(super) fn push(&mut self, chain: AuditChain, item: Item) {
        let kept = (chain, item);
        let here = match &mut self.disk {
            Some(disk) => disk.push(kept),
            None => Some(kept),
        };
        self.memory.extend(here);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.memory.len() + self.disk.as_ref().map_or(0, Disk::len)
    }

    /// Whether more fits into memory.
    pub(super) fn has_room(&self) -> bool {
        self.memory.len() + self.disk.as_ref().map_or(0, Disk::fresh) < MEMORY_LINES_MAX
    }

    /// Whether there is something that can be added.
    pub(super) fn has_next(&self) -> bool {
        !self.memory.is_empty()
    }

    /// Whether lines wait on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_used)
    }

    /// When something is to be written there, if there is something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.disk.as_ref()?.due()
    }

    /// The first that wait, `lines_max` if possible, and how many those are. They go on waiting until they are [added](Self::added).
    pub(super) fn next(&self, lines_max: usize) -> (usize, Vec<AuditPart>) {
        let mut count = batch(self.memory.iter().take(lines_max));
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

    /// The database takes nothing: from now on lines wait on disk, if there is one. The first `kept` stay in memory as well.
    pub(super) fn leave_memory(&mut self, kept: usize) {
        let Some(disk) = self.disk.as_mut().filter(|disk| !disk.is_used() && !self.memory.is_empty()) else { return };
        let kept = kept.min(self.memory.len());
        let staying = self.memory.iter().take(kept).cloned().collect();
        disk.begin(mem::replace(&mut self.memory, staying), kept);
    }

    /// Writes to disk what has waited for that, and reads what is added next.
    pub(super) async fn settle(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        disk.write(false).await;
        self.lost += disk.fill(&mut self.memory).await;
    }

    /// Writes to disk all that is to wait there, at once.
    pub(super) async fn write_all(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.write(true).await;
        }
    }

    /// What waits on disk is read at the next turn, whenever that failed last.
    pub(super) fn read_now(&mut self) {
        self.disk.iter_mut().for_each(Disk::read_now);
    }

    /// How many lines could not be read again since that was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    /// Leaves all that waits on disk. Says in which file the next process finds it; nothing, if not all of it is there.
    pub(super) async fn leave(&mut self) -> Option<PathBuf> {
        self.leave_memory(0);
        self.write_all().await;
        self.disk.as_ref()?.left()
    }
}

/// Whether these are as many as are added at a time.
pub(super) fn is_batch(items: &VecDeque<Kept>) -> bool {
    items.len() >= BATCH_LINES_MAX || batch(items.iter()) < items.len()
}

/// How many of these are added or written at a time: at least one, and no more than so many bytes.
pub(super) fn batch<'i>(items: impl Iterator<Item = &'i Kept>) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for (_, item) in items {
        if let Item::Line(row, _) = item {
            bytes += row.line.len();
        }
        if bytes > BATCH_BYTES_MAX && count > 0 {
            break;
        }
        count += 1;
    }
    count
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
            Item::Line(row, _) => part.rows.push(row.clone()),
            Item::Checkpoint(checkpoint) => part.checkpoints.push(checkpoint.clone()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crypto::{Key, KeyRing};
    use tempfile::TempDir;
    use tenant_store::{AuditWriterId, Timestamp};

    use super::*;
    use crate::audit::spool::{SpoolError, SpoolFile};

    /// What is in no file that anybody can read.
    const SECRET: &str = "acme__read_ledger";

    /// A folder, and a backlog that may keep so many bytes there.
    fn with_disk(bytes_max: u64) -> anyhow::Result<(TempDir, KeyRing, Backlog)> {
        let (folder, keys) = (tempfile::tempdir()?, KeyRing::new(Key::generate()?, Vec::new()));
        let writer = AuditWriterId::new(Timestamp::from_millis(1));
        let disk = Disk::new((folder.path().join("spool"), bytes_max), writer, keys.clone());
        Ok((folder, keys, Backlog::with(disk)))
    }

    fn push(backlog: &mut Backlog, seqs: std::ops::Range<u64>) {
        for seq in seqs {
            let (writer, at) = (AuditWriterId::new(Timestamp::from_millis(1)), Timestamp::from_millis(1));
            let line = Item::Line(AuditRow { writer, seq, at, line: SECRET.to_owned() }, None);
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
        backlog.leave_memory(0);
        backlog.write_all().await;
        backlog.settle().await;
        push(&mut backlog, 2_500..2_600);
        backlog.write_all().await;
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
        backlog.leave_memory(0);
        assert_eq!(drain(&mut backlog).await, [0, 1, 2]);
        Ok(())
    }

    #[tokio::test]
    async fn many_small_writes_are_added_in_large_batches_and_what_is_on_its_way_is_not_added_twice()
    -> anyhow::Result<()> {
        let (_folder, _keys, mut backlog) = with_disk(u64::MAX)?;
        push(&mut backlog, 0..10);
        // The first ten are on their way, and late.
        backlog.leave_memory(10);
        for seq in 10..3_000 {
            push(&mut backlog, seq..seq + 1);
            backlog.settle().await;
        }
        assert_eq!((backlog.len(), backlog.next(BATCH_LINES_MAX).0), (3_000, BATCH_LINES_MAX));
        let mut rounds = 0;
        while backlog.has_next() {
            let (count, _) = backlog.next(BATCH_LINES_MAX);
            backlog.added(count);
            backlog.write_all().await;
            backlog.settle().await;
            rounds += 1;
        }
        assert_eq!((rounds, backlog.len(), backlog.is_on_disk()), (3, 0, false));

        push(&mut backlog, 0..10);
        backlog.leave_memory(10);
        push(&mut backlog, 10..20);
        backlog.write_all().await;
        assert!(drain(&mut backlog).await.into_iter().eq(0..20));
        Ok(())
    }

    #[tokio::test]
    async fn where_no_more_may_wait_on_disk_memory_is_filled_and_nothing_of_it_is_lost() -> anyhow::Result<()> {
        let (folder, _keys, mut backlog) = with_disk(200_000)?;
        push(&mut backlog, 0..2_000);
        backlog.leave_memory(0);
        backlog.write_all().await;
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
        backlog.leave_memory(0);
        backlog.write_all().await;
        backlog.settle().await;
        let path = &files(&folder)?[0];
        let mut bytes = fs::read(path)?;
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, &bytes)?;
        // The first thousand was in memory already.
        assert!(drain(&mut backlog).await.into_iter().eq(0..1_000));
        assert_eq!(backlog.take_lost(), 1_000);
        push(&mut backlog, 2_000..2_001);
        backlog.leave_memory(0);
        backlog.write_all().await;
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
        let mut file = SpoolFile::take_up(&path, &keys)?.unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = file.next().await? {
            seen.push(batch.len());
        }
        assert_eq!(seen, [1_000, 500]);
        drop(file);

        let other_keys = KeyRing::new(Key::generate()?, Vec::new());
        let mut file = SpoolFile::take_up(&path, &other_keys)?.unwrap();
        assert!(matches!(file.next().await, Err(SpoolError::Open(_))));
        drop(file);
        let other = path.with_file_name(format!("{}.spool", AuditWriterId::new(Timestamp::from_millis(2))));
        fs::copy(&path, &other)?;
        let mut file = SpoolFile::take_up(&other, &keys)?.unwrap();
        assert!(matches!(file.next().await, Err(SpoolError::Open(_))), "another writer's");
        // Cut off in the midst of the second batch, then the first one left out, then the second one's length damaged, then another file's number.
        let bytes = fs::read(&path)?;
        let first = 8 + 12 + usize::try_from(u32::from_be_bytes(bytes[8..12].try_into()?))?;
        fs::write(&path, &bytes[..bytes.len() - 1])?;
        let mut file = SpoolFile::take_up(&path, &keys)?.unwrap();
        assert!(file.next().await?.is_some());
        assert!(matches!(file.next().await, Err(SpoolError::Torn)));
        drop(file);
        fs::write(&path, [&bytes[..8], &bytes[first..]].concat())?;
        assert!(matches!(SpoolFile::take_up(&path, &keys)?.unwrap().next().await, Err(SpoolError::NotABatch)));
        let mut longer = bytes.clone();
        longer[first + 1] ^= 1;
        fs::write(&path, longer)?;
        let mut file = SpoolFile::take_up(&path, &keys)?.unwrap();
        assert!(file.next().await?.is_some());
        assert!(matches!(file.next().await, Err(SpoolError::Torn)));
        drop(file);
        let mut renumbered = bytes.clone();
        renumbered[0] ^= 1;
        fs::write(&path, renumbered)?;
        assert!(matches!(SpoolFile::take_up(&path, &keys)?.unwrap().next().await, Err(SpoolError::Open(_))));
        assert_eq!(files(&folder)?.len(), 2);
        Ok(())
    }
}
