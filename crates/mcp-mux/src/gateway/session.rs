//! Legacy sessions. We hold nothing in one, so its id is a sealed note: whose it is, when it ends, and what its
//! client declared. Every replica can read it,
//! and to anybody but its own principal and client it is no session at all.

use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use tenant_store::Timestamp;

use super::account_missing::Elicits;
use super::problem::Problem;
use crate::caller::Caller;
use crate::mux::{Bond, Handles, Purpose};

/// The header that carries a session's id.
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Makes and reads session ids.
#[derive(Debug, Clone)]
pub(super) struct Sessions(Handles);

impl Sessions {
    pub(super) fn new(handles: Handles) -> Self {
        Self(handles)
    }

    /// Writes the id of a new session of `caller` into the answer to its `initialize`. It ends with the proof of identity that it
    /// was begun with.
    pub(super) fn begin(&self, caller: &Caller, elicits: Elicits, headers: &mut HeaderMap) {
        let id = self.0.seal(&bond(caller), caller.proof_ends_at, &[u8::from(elicits == Elicits::Url)]);
        // Without an id the client goes on without a session, which is as good.
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(SESSION_ID, id);
        }
    }

    /// Refuses a request that names a session which is not the caller's, or has ended, and returns what was declared at its begin;
    /// nothing, where none is named. What is left of `headers` names none.
    pub(super) fn check(
        &self,
        caller: &Caller,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) -> Result<Option<Elicits>, Problem> {
        let mut ids = headers.get_all(SESSION_ID).iter();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return if headers.contains_key(SESSION_ID) { Err(Problem::session_not_found()) } else { Ok(None) };
        };
        let elicits = match self.0.open(&bond(caller), now, id.as_bytes()).as_deref() {
            Some([0]) => Elicits::Nothing,
            Some([1]) => Elicits::Url,
            _ => return Err(Problem::session_not_found()),
        };
        headers.remove(SESSION_ID);
        Ok(Some(elicits))
    }
}

fn bond(caller: &Caller) -> Bond {
    Bond::new(Purpose::Session, caller, &[])
}
