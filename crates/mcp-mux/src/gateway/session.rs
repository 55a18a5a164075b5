//! Legacy sessions. We hold nothing in one, so its id is a sealed note: whose it is and when it ends. Every replica can read it,
//! and to anybody but its own principal and client it is no session at all.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use crypto::{KeyRing, Place};
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use tenant_store::Timestamp;

use super::problem::Problem;
use crate::caller::Caller;

/// The header that carries a session's id.
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Makes and reads session ids.
#[derive(Debug, Clone)]
pub(super) struct Sessions(KeyRing);

impl Sessions {
    pub(super) fn new(keys: KeyRing) -> Self {
        Self(keys)
    }

    /// Writes the id of a new session of `caller` into the answer to its `initialize`. It ends with the proof of identity that it
    /// was begun with.
    pub(super) fn begin(&self, caller: &Caller, headers: &mut HeaderMap) {
        let row = owner(caller);
        let sealed = crypto::seal(&self.0, &place(&row), &caller.proof_ends_at.as_millis().to_be_bytes());
        let id = sealed.ok().and_then(|sealed| HeaderValue::from_str(&BASE64_URL_SAFE_NO_PAD.encode(sealed)).ok());
        // Without an id the client goes on without a session, which is as good.
        if let Some(id) = id {
            headers.insert(SESSION_ID, id);
        }
    }

    /// Refuses a request that names a session which is not the caller's, or has ended. What is left of `headers` names none.
    pub(super) fn check(&self, caller: &Caller, now: Timestamp, headers: &mut HeaderMap) -> Result<(), Problem> {
        let mut ids = headers.get_all(SESSION_ID).iter();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return if headers.contains_key(SESSION_ID) { Err(Problem::session_not_found()) } else { Ok(()) };
        };
        let row = owner(caller);
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(id.as_bytes()).ok();
        let opened = sealed.and_then(|sealed| crypto::open(&self.0, &place(&row), &sealed).ok());
        let ends_at = opened.and_then(|bytes| Some(i64::from_be_bytes(bytes.as_slice().try_into().ok()?)));
        if ends_at.is_none_or(|ends_at| now >= Timestamp::from_millis(ends_at)) {
            return Err(Problem::session_not_found());
        }
        headers.remove(SESSION_ID);
        Ok(())
    }
}

/// Issuer, subject and client, with their lengths, so that no two owners are the same text.
fn owner(caller: &Caller) -> String {
    let (issuer, subject) = (caller.principal.issuer.as_str(), caller.principal.subject.as_str());
    let client = caller.client.as_deref().unwrap_or_default();
    format!("{}:{issuer}{}:{subject}{client}", issuer.len(), subject.len())
}

fn place(row: &str) -> Place<'_> {
    Place { tenant: "", table: "session", column: "id", row, kind: "session", version: 1 }
}
