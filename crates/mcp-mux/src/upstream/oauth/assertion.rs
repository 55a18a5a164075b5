//! A client's signed proof of itself, `private_key_jwt` (RFC 7523 §3): good for one request at one authorization server.

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{OAuthClientId, OAuthKeyId, Timestamp};
use uuid::Uuid;

use super::super::pem::SigningKey;

/// How long an assertion is good for.
const ASSERTION_LIFE: Duration = Duration::from_mins(1);
const MILLIS_PER_SECOND: i64 = 1_000;

/// Who signs, and with which key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signing<'s> {
    pub(super) client_id: &'s OAuthClientId,
    pub(super) key: &'s SigningKey,
    pub(super) key_id: Option<&'s OAuthKeyId>,
}

impl Signing<'_> {
    /// An assertion for `audience`; none if it cannot be signed.
    pub(super) fn assertion(&self, audience: &str, now: Timestamp) -> Option<SecretString> {
        let mut header = json!({ "alg": self.key.algorithm(), "typ": "JWT" });
        if let (Some(key_id), Some(header)) = (self.key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), key_id.as_str().into());
        }
        let seconds = |time: Timestamp| time.as_millis() / MILLIS_PER_SECOND;
        let claims = json!({
            "iss": self.client_id.as_str(),
            "sub": self.client_id.as_str(),
            "aud": audience,
            "jti": Uuid::new_v4().to_string(),
            "iat": seconds(now),
            "exp": seconds(now.plus(ASSERTION_LIFE)),
        });
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?);
        Some(SecretString::from(format!("{signed}.{signature}")))
    }
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}
