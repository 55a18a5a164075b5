//! Legacy sessions. We hold nothing in one, so its id is a sealed note: whose it is, when it ends, and what its
//! client declared. Every replica can read it,
//! and to anybody but its own principal and client it is no session at all.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use crypto::{KeyRing, Place};
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use tenant_store::Timestamp;

use super::account_missing::Elicits;
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
    pub(super) fn begin(&self, caller: &Caller, elicits: Elicits, headers: &mut HeaderMap) {
        let row = owner(caller);
        let mut note = caller.proof_ends_at.as_millis().to_be_bytes().to_vec();
        note.push(u8::from(elicits == Elicits::Url));
        let sealed = crypto::seal(&self.0, &place(&row), &note);
        let id = sealed.ok().and_then(|sealed| HeaderValue::from_str(&BASE64_URL_SAFE_NO_PAD.encode(sealed)).ok());
        // Without an id the client goes on without a session, which is as good.
        if let Some(id) = id {
            headers.insert(SESSION_ID, id);
        }
    }

    /// Refuses a request that names a session which is not the caller's, or has ended, and returns what was declared at its begin.
    /// What is left of `headers` names none.
    pub(super) fn check(&self, caller: &Caller, now: Timestamp, headers: &mut HeaderMap) -> Result<Elicits, Problem> {
        let mut ids = headers.get_all(SESSION_ID).iter();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return if headers.contains_key(SESSION_ID) {
                Err(Problem::session_not_found())
            } else {
                Ok(Elicits::Nothing)
            };
        };
        let row = owner(caller);
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(id.as_bytes()).ok();
        let opened = sealed.and_then(|sealed| crypto::open(&self.0, &place(&row), &sealed).ok());
        let (ends_at, elicits) = opened.and_then(|note| read(&note)).ok_or_else(Problem::session_not_found)?;
        if now >= ends_at {
            return Err(Problem::session_not_found());
        }
        headers.remove(SESSION_ID);
        Ok(elicits)
    }
}

/// Notes of the previous release end after the time.
fn read(note: &[u8]) -> Option<(Timestamp, Elicits)> {
    let (ends_at, declared) = note.split_first_chunk()?;
    let elicits = match declared {
        [] | [0] => Elicits::Nothing,
        [1] => Elicits::Url,
        _ => return None,
    };
    Some((Timestamp::from_millis(i64::from_be_bytes(*ends_at)), elicits))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_the_previous_release_is_read_and_another_one_is_not() {
        let ends_at = 7_i64.to_be_bytes();
        let noted = |rest: &[u8]| read(&[&ends_at, rest].concat());
        let moment = Timestamp::from_millis(7);
        assert_eq!(noted(&[]), Some((moment, Elicits::Nothing)));
        assert_eq!(noted(&[0]), Some((moment, Elicits::Nothing)));
        assert_eq!(noted(&[1]), Some((moment, Elicits::Url)));
        for other in [&[2][..], &[1, 0]] {
            assert_eq!(noted(other), None);
        }
        assert_eq!(read(&[0; 7]), None);
    }
}
