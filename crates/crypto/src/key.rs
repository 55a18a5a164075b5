//! Keys, their ids, and the ring of those that are in use. Key bytes are wiped from memory when a key is dropped.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::error::KeyError;

/// Bytes of a key: AES-256.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a key's id.
pub(crate) const KEY_ID_BYTES: usize = 8;

const KEY_ID_DOMAIN: &[u8] = b"mcp-mux key id v1";

/// A 256-bit key. Neither `Clone` nor printable.
#[derive(ZeroizeOnDrop)]
pub struct Key {
    bytes: [u8; KEY_BYTES],
    #[zeroize(skip)]
    id: KeyId,
}

/// Names a key without telling anything about it: the first 8 bytes of a hash of the key. Printed as `key_` and 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) [u8; KEY_ID_BYTES]);

/// The key that seals and the retired ones that still open what they sealed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyRing {
    /// Each in a place of its own, so that moving the list leaves no copy of a key behind.
    keys: Arc<[Box<Key>]>,
}

impl Key {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The key with these bytes. The caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(bytes).finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self { bytes: *bytes, id: KeyId(id) }
    }

    /// Reads base64 of 32 bytes; white space around it does not matter.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let bytes = BASE64_STANDARD.decode(text.expose_secret().trim()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| KeyError::Malformed)?;
        bytes.as_slice().try_into().map(Self::from_bytes).map_err(|_| KeyError::Malformed)
    }

    /// The text that [`Key::parse`] reads.
    pub fn encode(&self) -> SecretString {
        SecretString::from(BASE64_STANDARD.encode(self.bytes))
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The bytes, for whoever wraps them under another key. The caller wipes its copies.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

impl KeyRing {
    /// A ring in which `primary` seals. A key that is named twice is kept once.
    pub fn new(primary: Key, retired: Vec<Key>) -> Self {
        let mut keys = vec![Box::new(primary)];
        for key in retired {
            if keys.iter().all(|known| known.id != key.id) {
                keys.push(Box::new(key));
            }
        }
        Self { keys: keys.into() }
    }

    /// The id of the key that seals.
    pub fn primary(&self) -> KeyId {
        self.primary_key().id
    }

    /// The ids of all keys, the primary one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|key| key.id)
    }

    /// Whether the ring holds the key.
    pub fn contains(&self, id: KeyId) -> bool {
        self.find(id).is_some()
    }

    pub(crate) fn primary_key(&self) -> &Key {
        self.keys.first().expect("`new` puts the primary key first")
    }

    pub(crate) fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id).map(AsRef::as_ref)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix("key_").filter(|digits| digits.len() == 2 * KEY_ID_BYTES);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(|number| Self(number.to_be_bytes())).ok_or(KeyError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read() {
        let key = Key::generate().unwrap();
        let text = SecretString::from(format!("  {}\n", key.encode().expose_secret()));
        let again = Key::parse(&text).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(again.bytes(), key.bytes());
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for text in ["", "abc", &BASE64_STANDARD.encode([0; 31]), &BASE64_STANDARD.encode([0; 33]), "%%%%"] {
            assert_eq!(Key::parse(&SecretString::from(text)).unwrap_err(), KeyError::Malformed, "{text}");
        }
        for text in ["", "key_", "key_+123456789abcdef", "0123456789abcdef", "key_0123456789abcde"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_never_prints_its_bytes() {
        let key = Key::from_bytes(&[0xab; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
        assert!(!format!("{key:?}").contains("abab"));
    }

    #[test]
    fn a_key_named_twice_is_kept_once() {
        let ring = KeyRing::new(Key::from_bytes(&[1; 32]), vec![Key::from_bytes(&[1; 32]), Key::from_bytes(&[2; 32])]);
        assert_eq!(ring.ids().count(), 2);
    }
}
