//! Handles: what a client keeps for us and gives back, such as a cursor. Each is sealed and bound to whoever got it, to its purpose and
//! to what it is about, and ends; so any replica understands it, and in other hands or elsewhere it is none.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use crypto::{KeyRing, Place};
use tenant_store::Timestamp;

use crate::caller::Caller;

/// Longest handle that is read, in bytes.
const HANDLE_BYTES_MAX: usize = 64 * 1024;

/// What a handle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A legacy session.
    Session,
    /// The rest of a list.
    Cursor,
    /// The state of a request that asked for input.
    RequestState,
    /// A task.
    Task,
}

/// Makes and reads handles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handles(KeyRing);

/// What a handle is good for.
#[derive(Debug, Clone)]
pub struct Bond {
    purpose: Purpose,
    /// Whose it is and what it is about, each part behind its length.
    row: String,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Cursor => "cursor",
            Self::RequestState => "request-state",
            Self::Task => "task",
        }
    }
}

impl Bond {
    /// With `caller`, as it calls through this client, about `what`.
    pub fn new(purpose: Purpose, caller: &Caller, what: &[&str]) -> Self {
        let (issuer, subject) = (caller.principal.issuer.as_str(), caller.principal.subject.as_str());
        let client = caller.client.as_deref().unwrap_or_default();
        let parts = [issuer, subject, client].into_iter().chain(what.iter().copied());
        Self { purpose, row: parts.fold(String::new(), |row, part| format!("{row}{}:{part}", part.len())) }
    }

    fn place(&self) -> Place<'_> {
        let kind = self.purpose.as_str();
        Place { tenant: "", table: "handle", column: "value", row: &self.row, kind, version: 1 }
    }
}

impl Handles {
    /// Sealed with `keys`.
    pub fn new(keys: KeyRing) -> Self {
        Self(keys)
    }

    /// A handle that holds `value` until `ends_at`. None, if nothing can be sealed any more.
    pub fn seal(&self, bond: &Bond, ends_at: Timestamp, value: &[u8]) -> Option<String> {
        let note = [&ends_at.as_millis().to_be_bytes()[..], value].concat();
        Some(BASE64_URL_SAFE_NO_PAD.encode(crypto::seal(&self.0, &bond.place(), &note).ok()?))
    }

    /// The same for a while.
    pub fn seal_for(&self, bond: &Bond, (now, life): (Timestamp, Duration), value: &[u8]) -> Option<String> {
        self.seal(bond, now.plus(life), value)
    }

    /// What a handle holds, if it is of that bond and has not ended.
    pub fn open(&self, bond: &Bond, now: Timestamp, handle: &[u8]) -> Option<Vec<u8>> {
        let handle = Some(handle).filter(|handle| handle.len() <= HANDLE_BYTES_MAX)?;
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(handle).ok()?;
        let note = crypto::open(&self.0, &bond.place(), &sealed).ok()?;
        let (ends_at, value) = note.split_first_chunk()?;
        (now < Timestamp::from_millis(i64::from_be_bytes(*ends_at))).then(|| value.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use tenant_store::Clock as _;

    use super::*;

    fn handles() -> Handles {
        Handles::new(KeyRing::new(crypto::Key::generate().unwrap(), Vec::new()))
    }

    #[test]
    fn a_handle_is_good_for_its_owner_its_purpose_its_matter_and_its_time() {
        let (handles, others, now) = (handles(), handles(), tenant_store::SystemClock.now());
        let (alice, bob) = (Caller::of_test("alice", Some("web")), Caller::of_test("bob", Some("web")));
        let bond = Bond::new(Purpose::Cursor, &alice, &["a", "bc"]);
        let life = Duration::from_mins(1);
        let handle = handles.seal_for(&bond, (now, life), b"value").unwrap();
        let open = |bond: &Bond, now| handles.open(bond, now, handle.as_bytes());
        assert_eq!(open(&bond, now).as_deref(), Some(&b"value"[..]));
        assert_eq!(open(&bond, now.plus(life)), None, "it has ended");
        let wrong = [
            Bond::new(Purpose::Cursor, &bob, &["a", "bc"]),
            Bond::new(Purpose::Cursor, &Caller::of_test("alice", Some("other")), &["a", "bc"]),
            Bond::new(Purpose::Cursor, &Caller::of_test("alice", None), &["a", "bc"]),
            Bond::new(Purpose::RequestState, &alice, &["a", "bc"]),
            Bond::new(Purpose::Session, &alice, &["a", "bc"]),
            Bond::new(Purpose::Cursor, &alice, &["ab", "c"]),
            Bond::new(Purpose::Cursor, &alice, &["a"]),
        ];
        for other in wrong {
            assert_eq!(open(&other, now), None, "{other:?}");
        }
        assert_eq!(others.open(&bond, now, handle.as_bytes()), None, "another key");
        let (head, tail) = handle.split_at(1);
        for forged in ["", "AAAA", "%", head, tail] {
            assert_eq!(handles.open(&bond, now, forged.as_bytes()), None, "{forged}");
        }
    }
}
