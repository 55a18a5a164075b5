//! Key-encryption keys: what wraps the data keys. They never lie in the database, and where they lie is the provider's business.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crypto::{Key, KeyId, KeyRing, Place};

use crate::name::KekId;

/// An answer that may take a while.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, KekError>> + Send + 'a>>;

/// Wraps data keys. A provider at the edge of the process: keys in files, HashiCorp Vault, or the key service of a cloud.
pub trait KeyEncryption: fmt::Debug + Send + Sync {
    /// The key that wraps now.
    fn primary(&self) -> Asking<'_, KekId>;

    /// Wraps a key, which opens again only for the same place, and says under which key-encryption key.
    fn wrap<'a>(&'a self, place: KeyPlace, key: &'a Key) -> Asking<'a, (KekId, Vec<u8>)>;

    /// Unwraps what was wrapped for that place.
    fn unwrap<'a>(&'a self, place: KeyPlace, kek: &'a KekId, wrapped: &'a [u8]) -> Asking<'a, Key>;

    /// Whether it has that key-encryption key, as far as that can be known without asking.
    fn knows(&self, kek: &KekId) -> bool;

    /// The keys that it has, for messages.
    fn describe(&self) -> String;

    /// Keeps what the provider lent us, such as a token, from running out. Ends when it is dropped.
    fn keep_alive(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// Why a key was not wrapped or unwrapped. Nothing of the key or of the provider's words is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KekError {
    /// The provider cannot be asked now; it may be later.
    #[error("the key provider cannot be reached")]
    Unreachable,
    /// The provider answers that the value was altered or moved, or is of another key.
    #[error("the key provider refuses")]
    Refused,
    /// The provider answers that we may not: a permission is missing, or was taken away.
    #[error("the key provider does not let us")]
    Denied,
    /// There is no such key-encryption key.
    #[error("the key-encryption key {0} is not configured")]
    Unknown(KekId),
    /// What it gave is no key, or no key could be made.
    #[error("the key provider gave something that is no key")]
    Malformed,
}

/// What a wrapped key belongs to. It unwraps for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    /// The tenant's id, or nothing for the platform's own keys.
    pub owner: String,
    /// The data key.
    pub key: KeyId,
}

/// Keys that the process was given: one that wraps, and those that still unwrap.
#[derive(Debug, Clone)]
pub struct LocalKeys(KeyRing);

impl LocalKeys {
    /// From a ring.
    pub fn new(keys: KeyRing) -> Self {
        Self(keys)
    }

    fn id_of(key: KeyId) -> KekId {
        key.to_string().parse().expect("a key's id is short and printable")
    }
}

impl KeyPlace {
    /// Calls `act` with the place as `crypto` knows it.
    fn within<R>(&self, act: impl FnOnce(&Place<'_>) -> R) -> R {
        let key = self.key.to_string();
        act(&Place { tenant: &self.owner, table: "key", column: "wrapped", row: &key, kind: "data-key", version: 1 })
    }

    /// The place as text, for providers that bind to a context of their own form.
    pub fn context(&self) -> String {
        format!("mcp-mux.data-key.v1:{}:{}{}", self.owner.len(), self.owner, self.key)
    }
}

impl KeyEncryption for LocalKeys {
    fn primary(&self) -> Asking<'_, KekId> {
        Box::pin(std::future::ready(Ok(Self::id_of(self.0.primary()))))
    }

    fn wrap<'a>(&'a self, place: KeyPlace, key: &'a Key) -> Asking<'a, (KekId, Vec<u8>)> {
        let wrapped = place.within(|place| crypto::seal(&self.0, place, key.bytes()));
        let wrapped = wrapped.map(|wrapped| (Self::id_of(self.0.primary()), wrapped));
        Box::pin(std::future::ready(wrapped.map_err(|_| KekError::Malformed)))
    }

    fn unwrap<'a>(&'a self, place: KeyPlace, kek: &'a KekId, wrapped: &'a [u8]) -> Asking<'a, Key> {
        let opened = if self.knows(kek) {
            place.within(|place| crypto::open(&self.0, place, wrapped)).map_err(|_| KekError::Refused)
        } else {
            Err(KekError::Unknown(kek.clone()))
        };
        let key =
            opened.and_then(|bytes| bytes.as_slice().try_into().map(Key::from_bytes).map_err(|_| KekError::Malformed));
        Box::pin(std::future::ready(key))
    }

    fn knows(&self, kek: &KekId) -> bool {
        kek.as_str().parse().is_ok_and(|id| self.0.contains(id))
    }

    fn describe(&self) -> String {
        self.0.ids().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
    }
}
