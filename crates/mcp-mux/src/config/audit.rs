//! The audit record.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::secret::setting;

/// Longest time between two checkpoints, in seconds.
const CHECKPOINT_SECONDS_MAX: u64 = 3_600;

/// The audit record.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Seconds after which what was recorded since is signed. What is not signed yet can be cut off unnoticed.
    pub checkpoint_seconds: u64,
}

impl AuditConfig {
    /// The time after which what was recorded is signed.
    pub fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_seconds)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if (1..=CHECKPOINT_SECONDS_MAX).contains(&self.checkpoint_seconds) {
            return Ok(());
        }
        Err(setting("audit.checkpoint_seconds", "must be from 1 to 3600"))
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { checkpoint_seconds: 60 }
    }
}
