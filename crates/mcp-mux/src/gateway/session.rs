//! Legacy sessions. Their ids are sealed notes: whose a session is, when it ends, and what its client can be asked for. Every replica can
//! read them, and to anybody but its own principal and client one is no session at all. What a client says later, which log messages it
//! wants, is remembered where it said it.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use moka::sync::Cache;
use tenant_store::Timestamp;

use super::problem::Problem;
use crate::caller::Caller;
use crate::mux::{Bond, Handles, Purpose};
use crate::protocol::SESSION_ID;
use crate::upstream::{ClientCapabilities, LogLevel};

/// What a note begins with.
const NOTE_FORMAT: u8 = 2;
/// Most sessions whose log level is remembered, and for how long if it is not used.
const LEVELS_MAX: u64 = 100_000;
const LEVEL_LIFE: Duration = Duration::from_hours(12);
/// The level of a session whose client named none.
const LEVEL_DEFAULT: LogLevel = LogLevel::Info;

/// Makes and reads session ids.
#[derive(Debug, Clone)]
pub(super) struct Sessions {
    handles: Handles,
    levels: Cache<Box<[u8]>, LogLevel>,
}

/// A session of the caller's.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// What its client can be asked for.
    pub(super) can: ClientCapabilities,
    id: HeaderValue,
}

impl Session {
    #[cfg(test)]
    pub(super) fn of_test() -> Self {
        Self { can: ClientCapabilities::default(), id: HeaderValue::from_static("of-a-test") }
    }

    /// What tells sessions apart.
    pub(super) fn id(&self) -> &[u8] {
        self.id.as_bytes()
    }
}

impl Sessions {
    pub(super) fn new(handles: Handles) -> Self {
        let levels = Cache::builder().max_capacity(LEVELS_MAX).time_to_idle(LEVEL_LIFE).build();
        Self { handles, levels }
    }

    /// Writes the id of a new session of `caller` into the answer to its `initialize`. It ends with the proof of identity that it
    /// was begun with.
    pub(super) fn begin(&self, caller: &Caller, can: ClientCapabilities, headers: &mut HeaderMap) {
        let id = self.handles.seal(&bond(caller), caller.proof_ends_at, &[NOTE_FORMAT, can.bits()]);
        // Without an id the client goes on without a session, and is not asked for anything.
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(SESSION_ID, id);
        }
    }

    /// The session that a request names, if it names one. One that is not the caller's, or has ended, is refused. What is left of
    /// `headers` names none.
    pub(super) fn check(
        &self,
        caller: &Caller,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) -> Result<Option<Session>, Problem> {
        let mut ids = headers.get_all(SESSION_ID).iter();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return if headers.contains_key(SESSION_ID) { Err(Problem::session_not_found()) } else { Ok(None) };
        };
        let note = self.handles.open(&bond(caller), now, id.as_bytes());
        let Some(&[NOTE_FORMAT, bits]) = note.as_deref() else { return Err(Problem::session_not_found()) };
        let session = Session { can: ClientCapabilities::from_bits(bits), id: id.clone() };
        headers.remove(SESSION_ID);
        Ok(Some(session))
    }

    /// From now on the client of this session wants log messages of this level and graver ones.
    pub(super) fn set_level(&self, session: &Session, level: LogLevel) {
        self.levels.insert(session.id().into(), level);
    }

    /// From which level on it wants log messages.
    pub(super) fn level(&self, session: &Session) -> LogLevel {
        self.levels.get(session.id()).unwrap_or(LEVEL_DEFAULT)
    }
}

fn bond(caller: &Caller) -> Bond {
    Bond::new(Purpose::Session, caller, &[])
}
