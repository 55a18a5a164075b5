//! How an API key is written: a prefix that secret scanners look for, 256 random bits, and a checksum that tells a mistyped key
//! from a wrong one without asking anybody.

use aws_lc_rs::rand;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tenant_store::ApiKeyDigest;
use zeroize::Zeroizing;

/// What every key begins with.
pub(crate) const PREFIX: &str = "mcpmux_";

const SECRET_BYTES: usize = 32;
/// Length of the random part in base64url.
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;

/// A key that is well-formed. Whether it is anybody's is another question.
#[derive(Debug)]
pub(crate) struct ApiKeySecret(SecretString);

impl ApiKeySecret {
    /// A new key. Nothing if the system has no randomness to give.
    pub(crate) fn generate() -> Option<Self> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(bytes.as_mut_slice()).ok()?;
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        Some(Self(SecretString::from(format!("{PREFIX}{}{}", secret.as_str(), checksum(&secret)))))
    }

    /// Reads a key; nothing if it was mistyped or is something else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (secret, sum) = text.strip_prefix(PREFIX)?.split_at_checked(SECRET_CHARS)?;
        (sum == checksum(secret)).then(|| Self(SecretString::from(text)))
    }

    /// What the store knows of it.
    pub(crate) fn digest(&self) -> ApiKeyDigest {
        ApiKeyDigest::of(&self.0)
    }

    /// The key, to be shown once.
    pub(crate) fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

fn checksum(secret: &str) -> String {
    let sum = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(secret));
    sum.chars().take(CHECKSUM_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_a_mistyped_one_is_not() {
        let key = ApiKeySecret::generate().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), PREFIX.len() + SECRET_CHARS + CHECKSUM_CHARS);
        assert_eq!(ApiKeySecret::parse(text).unwrap().digest(), key.digest());
        assert_ne!(ApiKeySecret::generate().unwrap().digest(), key.digest());
        for position in PREFIX.len()..text.len() {
            let mut typed: Vec<char> = text.chars().collect();
            typed[position] = if typed[position] == 'A' { 'B' } else { 'A' };
            assert!(ApiKeySecret::parse(&typed.into_iter().collect::<String>()).is_none(), "{position}");
        }
        for text in ["", "mcpmux_", "mcpmux_é", "sk-123", &format!("{text}A"), text.trim_start_matches("mcp")] {
            assert!(ApiKeySecret::parse(text).is_none());
        }
    }
}
