//! Arguments and results, where a tenant wants them in its record: sealed before anything else sees them, for the tenant and the request that
//! they belong to. Each request has a key of its own, derived from the tenant's (HKDF, RFC 5869): however many there are, none seals twice. Long
//! ones are cut, and say so. What waits for the database is bounded for all tenants together, and no tenant has more than a quarter of that:
//! what finds no room is left out, and the event says that.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use crypto::{Key, KeyRing, Place, Zeroizing};
use serde::{Deserialize, Serialize};
use tenant_store::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::{Quota, Share};

/// Most of an argument or a result that is recorded, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// How much waits in memory at most, in KiB.
const WAITING_KIBIBYTES_MAX: usize = 64 * 1024;
/// How much of that one tenant's is at most.
const TENANT_KIBIBYTES_MAX: usize = WAITING_KIBIBYTES_MAX / 4;
const KIBIBYTE: usize = 1024;
const KEY_BYTES: usize = 32;
/// What keys of requests are derived for.
const KEY_INFO: &[u8] = b"mcp-mux call content v1\n";

/// Room for what waits.
#[derive(Debug, Clone)]
pub(super) struct ContentRoom {
    all: Arc<Semaphore>,
    tenants: Quota<TenantId>,
}

/// Keeps its room for as long as it waits.
pub(super) type Held = Option<Arc<(Share<TenantId>, OwnedSemaphorePermit)>>;

/// What a call brought, on its way into the record.
pub struct Content {
    /// The tenant's recording key; nothing, where it could not be had.
    key: Option<Key>,
    has_results: bool,
    text: Texts,
}

/// What is sealed.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Texts {
    /// What the upstream was asked with: members of JSON-RPC parameters.
    pub arguments: String,
    /// How long that was, in bytes, if it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_bytes: Option<usize>,
    /// The result, or the error, as it was passed on, where results are recorded and there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// How long that was, in bytes, if it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<usize>,
}

/// What the record says of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Sealed, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Why it is not there, though the tenant wants it: `noKey` or `noRoom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_missing: Option<&'static str>,
    #[serde(skip)]
    pub(super) held: Held,
}

impl Content {
    /// Of a call with these parameters. Without a key the record only says that it is missing.
    pub fn new(key: Option<Key>, has_results: bool, parameters: &str) -> Self {
        let (arguments, arguments_bytes) = cut(parameters);
        Self { key, has_results, text: Texts { arguments, arguments_bytes, ..Texts::default() } }
    }

    /// What came of it.
    pub fn answered(&mut self, result: &str) {
        if self.has_results {
            let (result, bytes) = cut(result);
            (self.text.result, self.text.result_bytes) = (Some(result), bytes);
        }
    }

    /// Seals it as that of a request to that tenant.
    pub(super) fn recorded(&self, (tenant, request_id): (TenantId, &str), room: &ContentRoom) -> Recorded {
        let missing = |why| Recorded { content_missing: Some(why), ..Recorded::default() };
        let Some(keys) = self.key.as_ref().and_then(|key| of_request(key, request_id)) else { return missing("noKey") };
        // A structure of texts and numbers can be written, and is far from too long to be sealed.
        let Ok(plain) = serde_json::to_vec(&self.text) else { return missing("noKey") };
        let Some(held) = room.hold(tenant, plain.len()) else { return missing("noRoom") };
        match in_place((tenant, request_id), |place| crypto::seal(&keys, place, &plain)) {
            Ok(sealed) => {
                let content = Some(BASE64_STANDARD.encode(sealed));
                Recorded { content, content_missing: None, held }
            }
            Err(_) => missing("noKey"),
        }
    }
}

impl Texts {
    /// Opens what the record holds of a request to that tenant; nothing, if it is not that or another key's.
    pub fn open(key: &Key, of: (TenantId, &str), content: &str) -> Option<Self> {
        let keys = of_request(key, of.1)?;
        let sealed = BASE64_STANDARD.decode(content).ok()?;
        let plain = in_place(of, |place| crypto::open(&keys, place, &sealed)).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

impl ContentRoom {
    fn new(kibibytes: usize, of_tenant: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(kibibytes)), tenants: Quota::new(of_tenant) }
    }

    /// Room for so many bytes of that tenant, if there is that much: sealed and as base64 they take a third more.
    fn hold(&self, tenant: TenantId, bytes: usize) -> Option<Held> {
        let kibibytes = u32::try_from((bytes + bytes / 3).div_ceil(KIBIBYTE)).ok()?;
        let share = self.tenants.take_many(&tenant, usize::try_from(kibibytes).ok()?)?;
        let permit = Arc::clone(&self.all).try_acquire_many_owned(kibibytes).ok()?;
        Some(Some(Arc::new((share, permit))))
    }
}

impl Default for ContentRoom {
    fn default() -> Self {
        Self::new(WAITING_KIBIBYTES_MAX, TENANT_KIBIBYTES_MAX)
    }
}

/// The key of one request.
fn of_request(key: &Key, request_id: &str) -> Option<KeyRing> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let derived = Salt::new(HKDF_SHA256, &[]).extract(key.bytes());
    derived.expand(&[KEY_INFO, request_id.as_bytes()], KeyBytes).ok()?.fill(&mut *bytes).ok()?;
    Some(KeyRing::new(Key::from_bytes(&bytes), Vec::new()))
}

/// How long it is.
struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("text", &self.text).finish_non_exhaustive()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("arguments", &self.arguments.len()).finish_non_exhaustive()
    }
}

/// The beginning of a text, and how long all of it was if that is not all.
fn cut(text: &str) -> (String, Option<usize>) {
    if text.len() <= TEXT_BYTES_MAX {
        return (text.to_owned(), None);
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    (text.get(..end).unwrap_or_default().to_owned(), Some(text.len()))
}

fn in_place<R>((tenant, request_id): (TenantId, &str), act: impl FnOnce(&Place<'_>) -> R) -> R {
    let tenant = tenant.to_string();
    act(&Place {
        tenant: &tenant,
        table: "audit_event",
        column: "line",
        row: request_id,
        kind: "call content",
        version: 1,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenant_store::Timestamp;

    use super::*;

    fn key() -> Key {
        Key::generate().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_sealed_opens_for_its_own_request_and_tenant_only(
            arguments in ".{0,400}",
            result in prop::option::of(".{0,400}"),
        ) {
            let (key, room) = (key(), ContentRoom::default());
            let (acme, globex) = (TenantId::new(Timestamp::from_millis(1)), TenantId::new(Timestamp::from_millis(2)));
            let mut content = Content::new(Some(Key::from_bytes(key.bytes())), true, &arguments);
            if let Some(result) = &result {
                content.answered(result);
            }
            let recorded = content.recorded((acme, "r1"), &room);
            let sealed = recorded.content.clone().unwrap();
            let opened = Texts::open(&key, (acme, "r1"), &sealed).unwrap();
            prop_assert_eq!(&opened.arguments, &arguments);
            prop_assert_eq!(&opened.result, &result);
            for of in [(acme, "r2"), (globex, "r1")] {
                prop_assert_eq!(Texts::open(&key, of, &sealed), None);
            }
            prop_assert_eq!(Texts::open(&self::key(), (acme, "r1"), &sealed), None);
        }
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let mut content = Content::new(Some(key()), true, &format!("x{long}"));
        content.answered(&long);
        assert_eq!(
            (content.text.arguments.len(), content.text.arguments_bytes),
            (TEXT_BYTES_MAX - 1, Some(long.len() + 1))
        );
        assert_eq!(content.text.result.as_ref().map(String::len), Some(TEXT_BYTES_MAX));
        assert_eq!(content.text.result_bytes, Some(long.len()));
        let mut without = Content::new(Some(key()), false, "");
        without.answered("a result");
        assert_eq!(without.text.result, None);
    }

    #[test]
    fn what_finds_no_room_is_left_out_until_others_have_been_written() {
        let id = |at| TenantId::new(Timestamp::from_millis(at));
        let (room, tenant) = (ContentRoom::new(80, 40), id(1));
        let content = Content::new(Some(key()), false, &"x".repeat(TEXT_BYTES_MAX));
        let first = content.recorded((tenant, "r1"), &room);
        assert!(first.content.is_some());
        let second = content.recorded((tenant, "r2"), &room);
        assert_eq!((second.content, second.content_missing), (None, Some("noRoom")));
        let others = [2, 3, 4].map(|at| content.recorded((id(at), "r1"), &room));
        let missing = others.each_ref().map(|recorded| recorded.content_missing);
        assert_eq!(missing, [None, None, Some("noRoom")], "each tenant has room of its own, as far as there is any");
        drop(first);
        assert!(content.recorded((tenant, "r3"), &room).content.is_some());
        let keyless = Content::new(None, false, "x").recorded((tenant, "r4"), &room);
        assert_eq!(keyless.content_missing, Some("noKey"));
    }
}
