//! What legacy sessions subscribed to (MCP 2025-11-25 `server/resources`, "Subscriptions"). It is remembered where it was said, for the
//! stream of the session that is open at the same replica, and lasts while somebody uses it.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::session::Session;

/// To how many resources one listener may subscribe.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;
/// How much of it is remembered, in bytes of URIs; what was not used for longest is forgotten first.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an entry costs besides, with its session's id, roughly.
const ENTRY_BYTES: usize = 1024;
/// How long it is remembered, if nobody uses it: longer than any stream lives.
const IDLE_MAX: Duration = Duration::from_hours(24);

/// All that is remembered.
#[derive(Debug, Clone)]
pub(super) struct Subscribed(Cache<Box<[u8]>, Arc<Watched>>);

/// What is remembered of one session.
#[derive(Debug, Default)]
struct Watched {
    /// The URIs, as its client named them.
    uris: watch::Sender<BTreeSet<String>>,
    /// Ends the stream that it has now.
    stream: Mutex<CancellationToken>,
}

/// The stream of a session.
#[derive(Debug)]
pub(super) struct SessionStream {
    subscribed: Subscribed,
    session: Session,
    watched: Arc<Watched>,
    /// A session has one stream: a message goes into one only (2025-11-25 `basic/transports`), and the newest is what its client reads.
    superseded: CancellationToken,
}

impl Subscribed {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let weight = |_: &_, watched: &Arc<Watched>| {
            let bytes = watched.uris.borrow().iter().map(String::len).sum::<usize>() + ENTRY_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().weigher(weight).max_capacity(BYTES_MAX).time_to_idle(IDLE_MAX);
        Self(cache.eviction_policy(EvictionPolicy::lru()).build())
    }

    /// A stream for `session`, not begun.
    pub(super) fn stream(&self, session: Session) -> SessionStream {
        let watched = self.of(&session);
        SessionStream { subscribed: self.clone(), session, watched, superseded: CancellationToken::new() }
    }

    /// One more, and whether that is new; none, if there are too many.
    pub(super) fn add(&self, session: &Session, uri: String) -> Option<bool> {
        let watched = self.of(session);
        let mut has_room = true;
        let is_new = watched.uris.send_if_modified(|uris| {
            has_room = uris.len() < SUBSCRIPTIONS_MAX || uris.contains(&uri);
            has_room && uris.insert(uri)
        });
        self.weigh_anew(session, watched);
        has_room.then_some(is_new)
    }

    /// One less.
    pub(super) fn remove(&self, session: &Session, uri: &str) {
        let watched = self.of(session);
        watched.uris.send_if_modified(|uris| uris.remove(uri));
        self.weigh_anew(session, watched);
    }

    fn of(&self, session: &Session) -> Arc<Watched> {
        self.0.get_with(session.id().into(), Arc::default)
    }

    fn weigh_anew(&self, session: &Session, watched: Arc<Watched>) {
        self.0.insert(session.id().into(), watched);
    }
}

impl SessionStream {
    /// It is the session's stream from now on; another one that it had ends.
    pub(super) fn begin(&self) {
        let mut stream = self.watched.stream.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *stream, self.superseded.clone()).cancel();
    }

    /// What the session is subscribed to, now and later.
    pub(super) fn uris(&self) -> watch::Receiver<BTreeSet<String>> {
        let mut uris = self.watched.uris.subscribe();
        uris.mark_changed();
        uris
    }

    /// Waits until the session has another stream.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// Has it remembered for longer.
    pub(super) fn keep(&self) {
        self.subscribed.0.get_with(self.session.id().into(), || Arc::clone(&self.watched));
    }
}
