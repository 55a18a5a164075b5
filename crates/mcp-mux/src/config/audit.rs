//! The audit record.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::secret::setting;

/// Longest time between two checkpoints, in seconds.
const CHECKPOINT_SECONDS_MAX: u64 = 3_600;
/// Most that may wait on disk, in MiB.
const SPOOL_MEBIBYTES_MAX: u64 = 1_048_576;

/// Fewest and most days for which events are kept. The database itself lets nobody delete anything of the last 30.
pub const AUDIT_KEEP_DAYS: RangeInclusive<u64> = 31..=36_500;
/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// The audit record.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Seconds after which what was recorded since is signed. What is not signed yet can be cut off unnoticed.
    pub checkpoint_seconds: u64,
    /// What becomes of what the database does not take.
    pub on_full: OnFull,
    /// The folder in which it waits until the database is there again, made when it is needed.
    pub spool_directory: PathBuf,
    /// How many MiB may wait there for each process.
    pub spool_mebibytes: u64,
    /// After how many days events are deleted; never, if that is not said.
    pub keep_days: Option<u64>,
}

/// What becomes of what is recorded while the database takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// It waits on disk. When that is full too, calls go on, and the record says how many it lacks.
    Spool,
    /// It waits in memory. When that is full, calls wait for room, and are refused when their time is over.
    Block,
    /// It waits in memory. When that is full, calls are refused at once.
    Refuse,
}

impl AuditConfig {
    /// The time after which what was recorded is signed.
    pub fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_seconds)
    }

    /// How many bytes may wait on disk.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_mebibytes.saturating_mul(1_048_576)
    }

    /// For how long events are kept, if not for ever.
    pub fn kept(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.keep_days?.saturating_mul(DAY_SECONDS)))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=CHECKPOINT_SECONDS_MAX).contains(&self.checkpoint_seconds) {
            return Err(setting("audit.checkpoint_seconds", "must be from 1 to 3600"));
        }
        if !(1..=SPOOL_MEBIBYTES_MAX).contains(&self.spool_mebibytes) {
            return Err(setting("audit.spool_mebibytes", "must be from 1 to 1048576"));
        }
        if self.keep_days.is_some_and(|days| !AUDIT_KEEP_DAYS.contains(&days)) {
            return Err(setting("audit.keep_days", "must be from 31 to 36500; leave it out to keep events for ever"));
        }
        if self.on_full == OnFull::Spool && self.spool_directory.as_os_str().is_empty() {
            return Err(setting(
                "audit.spool_directory",
                "names no folder: give one, or set audit.on_full to \"block\" or \"refuse\"",
            ));
        }
        Ok(())
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            checkpoint_seconds: 60,
            on_full: OnFull::Spool,
            spool_directory: PathBuf::from("audit-spool"),
            spool_mebibytes: 1_024,
            keep_days: None,
        }
    }
}
