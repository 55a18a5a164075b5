//! What legacy sessions subscribed to (MCP 2025-11-25 `server/resources`, "Subscriptions"). It is remembered where it was said, for the
//! stream of the session that is open at the same replica, and lasts while somebody uses it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;

use super::session::Session;

/// To how many resources one listener may subscribe.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;
/// How much of it is remembered, in bytes of URIs; the least used is forgotten first.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an entry costs besides, with its session's id, roughly.
const ENTRY_BYTES: usize = 1024;
/// How long it is remembered, if nobody uses it.
const IDLE_MAX: Duration = Duration::from_hours(12);

/// The URIs of one session, as its client named them.
pub(super) type Watched = Arc<watch::Sender<BTreeSet<String>>>;

/// All that is remembered.
#[derive(Debug, Clone)]
pub(super) struct Subscribed(Cache<Box<[u8]>, Watched>);

impl Subscribed {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let weight = |_: &_, watched: &Watched| {
            let bytes = watched.borrow().iter().map(String::len).sum::<usize>() + ENTRY_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().weigher(weight).max_capacity(BYTES_MAX).time_to_idle(IDLE_MAX).build())
    }

    /// What `session` subscribed to, and what it will.
    pub(super) fn of(&self, session: &Session) -> Watched {
        self.0.get_with(session.id().into(), Watched::default)
    }

    /// One more; `false`, if there are too many.
    pub(super) fn add(&self, session: &Session, uri: String) -> bool {
        let watched = self.of(session);
        let mut has_room = true;
        watched.send_if_modified(|uris| {
            has_room = uris.len() < SUBSCRIPTIONS_MAX || uris.contains(&uri);
            has_room && uris.insert(uri)
        });
        self.weigh_anew(session, watched);
        has_room
    }

    /// One less.
    pub(super) fn remove(&self, session: &Session, uri: &str) {
        let watched = self.of(session);
        watched.send_if_modified(|uris| uris.remove(uri));
        self.weigh_anew(session, watched);
    }

    fn weigh_anew(&self, session: &Session, watched: Watched) {
        self.0.insert(session.id().into(), watched);
    }
}
