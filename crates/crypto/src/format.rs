//! The bytes of a sealed value, version 1:
//!
//! ```text
//! 0x01 | key id (8) | nonce (12) | ciphertext | tag (16)
//! ```

use crate::error::OpenError;
use crate::key::{KEY_ID_BYTES, KeyId};

pub(crate) const VERSION: u8 = 1;
pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;

/// A sealed value, taken apart.
#[derive(Debug)]
pub(crate) struct Sealed<'b> {
    pub(crate) key_id: KeyId,
    pub(crate) nonce: &'b [u8; NONCE_BYTES],
    /// The ciphertext with its tag.
    pub(crate) ciphertext: &'b [u8],
}

impl<'b> Sealed<'b> {
    /// Takes any bytes apart; never panics.
    pub(crate) fn parse(bytes: &'b [u8]) -> Result<Self, OpenError> {
        let (version, rest) = bytes.split_first().ok_or(OpenError::Malformed)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(OpenError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        if *version != VERSION || ciphertext.len() < TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        Ok(Self { key_id: KeyId(*key_id), nonce, ciphertext })
    }
}

/// What stands before the ciphertext.
pub(crate) fn header(key_id: KeyId, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
    [&[VERSION][..], &key_id.0, &nonce].concat()
}
