//! Lines on disk: a file of batches, each sealed under the platform's keys for its writer, its file and its number, so that nobody who finds
//! the file reads it, changes it, or puts one batch in the place of another. A file belongs to one process as long as that holds its lock.
//!
//! A file begins with a number of its own (8 bytes, big-endian). A batch is its length (4 bytes), its number in the file (8 bytes) and what is
//! sealed: JSON.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto::{KeyRing, OpenError, SealError};
use serde::{Deserialize, Serialize};
use tenant_store::{AuditCheckpoint, AuditRow, AuditWriterId, Timestamp};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::backlog::Item;

/// The file's own number.
const START: u64 = 8;
/// Length and number of a batch.
const HEADER_BYTES: usize = 12;
/// Longest batch.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How the name of a file ends; the same of one that is not locked yet.
const ENDING: &str = "spool";
const NEW_ENDING: &str = "new";
/// The same of one that cannot be read.
const ASIDE_ENDING: &str = "unreadable";

/// Nothing has been read.
const BEGINNING: Place = Place { at: START, batches: 0 };

/// Why lines cannot wait on disk, or not be read from there.
#[derive(Debug, Error)]
pub(super) enum SpoolError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("as much waits on disk as may: see audit.spool_mebibytes")]
    Full,
    #[error("a batch could not be sealed")]
    Seal(#[source] SealError),
    #[error("a batch cannot be opened: it was changed, or its key is gone")]
    Open(#[source] OpenError),
    #[error("a batch is not one, or not the next")]
    NotABatch,
    #[error("the last batch is not whole")]
    Torn,
    #[error("the disk does not answer")]
    Silent,
}

/// A line or a signature, and the name of its chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spooled {
    pub(super) chain: String,
    seq: u64,
    at_ms: i64,
    what: SpooledWhat,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum SpooledWhat {
    Line(String),
    Checkpoint { hash: String, key_id: String, signature: String },
}

/// A file that this process has for itself.
#[derive(Debug)]
pub(super) struct SpoolFile {
    pub(super) path: PathBuf,
    writer: AuditWriterId,
    serial: u64,
    keys: KeyRing,
    file: tokio::fs::File,
    /// Where the next batch begins.
    end: u64,
    batches: u64,
    read: Place,
}

/// How far a file has been read.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    batches: u64,
}

impl Spooled {
    pub(super) fn of(chain: String, item: &Item) -> Self {
        match item {
            Item::Line(AuditRow { seq, at, line, .. }, _) => {
                Self { chain, seq: *seq, at_ms: at.as_millis(), what: SpooledWhat::Line(line.clone()) }
            }
            Item::Checkpoint(AuditCheckpoint { seq, at, hash, key_id, signature, .. }) => {
                let (hash, key_id, signature) = (hash.clone(), key_id.clone(), BASE64.encode(signature));
                let what = SpooledWhat::Checkpoint { hash, key_id, signature };
                Self { chain, seq: *seq, at_ms: at.as_millis(), what }
            }
        }
    }

    /// The same as that writer's; nothing, if its signature is not written as one.
    pub(super) fn item(self, writer: AuditWriterId) -> Option<Item> {
        let (seq, at) = (self.seq, Timestamp::from_millis(self.at_ms));
        Some(match self.what {
            SpooledWhat::Line(line) => Item::Line(AuditRow { writer, seq, at, line }, None),
            SpooledWhat::Checkpoint { hash, key_id, signature } => {
                let signature = BASE64.decode(signature).ok()?;
                Item::Checkpoint(AuditCheckpoint { writer, seq, at, hash, key_id, signature })
            }
        })
    }
}

impl SpoolFile {
    /// A new one in that folder, which is made if need be.
    pub(super) fn create(folder: &Path, writer: AuditWriterId, keys: &KeyRing) -> io::Result<Self> {
        let mut make = DirBuilder::new();
        let mut open = OpenOptions::new();
        make.recursive(true);
        open.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
            make.mode(0o700);
            open.mode(0o600);
        }
        make.create(folder)?;
        // Nobody takes it up before it is locked.
        let (new, path) = (folder.join(format!("{writer}.{NEW_ENDING}")), folder.join(format!("{writer}.{ENDING}")));
        let mut serial = [0; 8];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| io::Error::other("there are no random bytes"))?;
        let begun = (|| {
            let mut file = open.open(&new)?;
            file.try_lock()?;
            file.write_all(&serial)?;
            std::fs::rename(&new, &path)?;
            io::Result::Ok(file)
        })();
        if begun.is_err() {
            std::fs::remove_file(&new).ok();
        }
        let file = begun?.into();
        let (serial, keys) = (u64::from_be_bytes(serial), keys.clone());
        Ok(Self { path, writer, serial, keys, file, end: START, batches: 0, read: BEGINNING })
    }

    /// Those of that folder, whoever made them.
    pub(super) fn all(folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
        paths.sort();
        Ok(paths)
    }

    /// One that another process left; nothing, if that still has it, or it is no such file.
    pub(super) fn take_up(path: &Path, keys: &KeyRing) -> io::Result<Option<Self>> {
        let named = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(writer) = named else { return Ok(None) };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its process may have removed it meanwhile, and made another one of that name.
        if !is_at(&file, path) {
            return Ok(None);
        }
        let mut serial = [0; 8];
        file.read_exact(&mut serial)?;
        let end = file.metadata()?.len();
        let (path, serial, keys) = (path.to_owned(), u64::from_be_bytes(serial), keys.clone());
        Ok(Some(Self { path, writer, serial, keys, file: file.into(), end, batches: 0, read: BEGINNING }))
    }

    pub(super) fn writer(&self) -> AuditWriterId {
        self.writer
    }

    /// Adds a batch, all of it or nothing, if no more than `bytes_max` are there then.
    pub(super) async fn append(&mut self, batch: &[Spooled], bytes_max: u64) -> Result<(), SpoolError> {
        let plain = serde_json::to_vec(batch).map_err(|_| SpoolError::NotABatch)?;
        let (number, name) = (self.batches + 1, self.name());
        let sealed = crypto::seal(&self.keys, &place(&name, number), &plain).map_err(SpoolError::Seal)?;
        let length = u32::try_from(sealed.len()).ok().filter(|_| sealed.len() <= BATCH_BYTES_MAX);
        let length = length.ok_or(SpoolError::NotABatch)?;
        let record = [&length.to_be_bytes()[..], &number.to_be_bytes(), &sealed].concat();
        let end = self.end + record.len() as u64;
        if end > bytes_max {
            return Err(SpoolError::Full);
        }
        if let Err(error) = self.write(&record).await {
            // Half a batch would be in the way of the next one.
            self.file.set_len(self.end).await.ok();
            return Err(error.into());
        }
        (self.end, self.batches) = (end, number);
        Ok(())
    }

    async fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end)).await?;
        self.file.write_all(record).await?;
        self.file.flush().await?;
        self.file.sync_data().await
    }

    /// The next batch; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Spooled>>, SpoolError> {
        let Some((number, sealed)) = self.record().await? else { return Ok(None) };
        let Place { at, batches } = self.read;
        if number != batches + 1 {
            return Err(SpoolError::NotABatch);
        }
        let plain = crypto::open(&self.keys, &place(&self.name(), number), &sealed).map_err(SpoolError::Open)?;
        let batch: Vec<Spooled> = serde_json::from_slice(&plain).map_err(|_| SpoolError::NotABatch)?;
        self.read = Place { at: at + (HEADER_BYTES + sealed.len()) as u64, batches: number };
        Ok(Some(batch))
    }

    async fn record(&mut self) -> Result<Option<(u64, Vec<u8>)>, SpoolError> {
        let rest = self.end.saturating_sub(self.read.at);
        if rest == 0 {
            return Ok(None);
        }
        if rest < HEADER_BYTES as u64 {
            return Err(SpoolError::Torn);
        }
        self.file.seek(SeekFrom::Start(self.read.at)).await?;
        let (length, number) = (self.file.read_u32().await?, self.file.read_u64().await?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BATCH_BYTES_MAX {
            return Err(SpoolError::NotABatch);
        }
        if rest < (HEADER_BYTES + length) as u64 {
            return Err(SpoolError::Torn);
        }
        let mut sealed = vec![0; length];
        self.file.read_exact(&mut sealed).await?;
        Ok(Some((number, sealed)))
    }

    /// Whose batches they are, and in which file.
    fn name(&self) -> String {
        format!("{} {:016x}", self.writer, self.serial)
    }

    /// Leaves it for somebody to look at, under a name by which nobody takes it up.
    pub(super) async fn put_aside(self) -> PathBuf {
        let aside = self.path.with_extension(ASIDE_ENDING);
        match tokio::fs::rename(&self.path, &aside).await {
            Ok(()) => aside,
            Err(_) => self.path,
        }
    }

    /// Removes it from the disk.
    pub(super) async fn remove(self) -> io::Result<()> {
        tokio::fs::remove_file(&self.path).await
    }
}

/// Whether that file is the one which has that name.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let same =
            |one: &std::fs::Metadata, other: &std::fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        file.metadata().is_ok_and(|file| std::fs::metadata(path).is_ok_and(|named| same(&file, &named)))
    }
    #[cfg(not(unix))]
    {
        file.metadata().is_ok() && path.exists()
    }
}

/// Says that a file is left of which all has been added. The next start adds it again, which changes nothing.
pub(super) fn cannot_remove(error: &io::Error, path: &Path) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, path = %path.display(), "a file of audit lines that have been added cannot be removed");
}

/// Where a batch of that writer and file is kept.
fn place(name: &str, number: u64) -> crypto::Place<'_> {
    let (tenant, table, column, kind) = ("platform", "audit-spool", "batch", "audit");
    crypto::Place { tenant, table, column, row: name, kind, version: number }
}
