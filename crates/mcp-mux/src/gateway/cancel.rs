//! Legacy clients end a call with `notifications/cancelled` (MCP 2025-11-25 `basic/utilities/cancellation`), which names the request in the
//! same session. A call that runs at another replica does not hear of it, and ends when its client hangs up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::session::Session;

/// A session's id, and the id of a request in it.
type Key = (Box<[u8]>, Box<str>);

/// The calls of legacy sessions that run here.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Mutex<HashMap<Key, CancellationToken>>>);

/// A call that its client can cancel, until it is dropped.
#[derive(Debug)]
pub(super) struct Cancellable {
    calls: Calls,
    key: Key,
    cancelled: CancellationToken,
}

impl Calls {
    /// Notes a call. An id that runs already names the first one only.
    pub(super) fn begin(&self, session: &Session, id: &RawValue) -> Option<Cancellable> {
        let key = key(session, id);
        let cancelled = CancellationToken::new();
        let mut calls = self.lock();
        if calls.contains_key(&key) {
            return None;
        }
        calls.insert(key.clone(), cancelled.clone());
        Some(Cancellable { calls: self.clone(), key, cancelled })
    }

    /// Cancels the call with this id in this session, if it runs here.
    pub(super) fn cancel(&self, session: &Session, id: &RawValue) {
        if let Some(call) = self.lock().get(&key(session, id)) {
            call.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cancellable {
    /// Waits until it is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.key);
    }
}

fn key(session: &Session, id: &RawValue) -> Key {
    (session.id().into(), id.get().into())
}
