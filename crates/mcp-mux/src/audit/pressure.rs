//! How much the audit record is behind, for whoever looks from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that wait, and events that were lost. Clones share the numbers.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    waiting: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Pressure {
    pub(super) fn waits(&self, lines: usize) {
        self.waiting.store(lines as u64, Ordering::Relaxed);
    }

    pub(super) fn loses_one(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lines wait for the database.
    pub fn waiting(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let waiting = Arc::clone(&self.waiting);
        move || waiting.load(Ordering::Relaxed)
    }

    /// How many events were lost since the process began.
    pub fn lost(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lost = Arc::clone(&self.lost);
        move || lost.load(Ordering::Relaxed)
    }
}
