//! Sealing of secrets: AES-256-GCM (NIST SP 800-38D) with a fresh random nonce, bound to the place where a value is kept.
//!
//! A sealed value opens only under a key of the ring that sealed it and only in the [`Place`] it was sealed for, so that a row
//! that was copied to another tenant, column or version is as useless as a random one. No I/O, no async, no knowledge of what
//! a tenant is.
//!
//! Random 96-bit nonces are safe for at most 2^32 seals under one key (SP 800-38D §8.3); rotate long before.

mod error;
mod format;
mod key;
mod seal;

pub use error::{KeyError, OpenError, SealError};
pub use key::{Key, KeyId, KeyRing};
pub use seal::{Place, key_id_of, open, seal};
pub use zeroize::Zeroizing;
