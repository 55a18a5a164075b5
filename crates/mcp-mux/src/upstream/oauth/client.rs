//! How our client proves itself to an authorization server in a form that is posted there.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{OAuthClientId, OAuthKeyId, Timestamp};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::super::pem::SigningKey;
use super::assertion::Signing;
use super::error::OAuthError;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What our client proves itself with, opened.
#[derive(Debug)]
pub(in crate::upstream) enum ClientSecret {
    /// Nothing: a public client.
    None,
    Basic(SecretString),
    Post(SecretString),
    Signed(SigningKey, Option<OAuthKeyId>),
}

/// Our client at one authorization server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) id: &'c OAuthClientId,
    pub(super) secret: &'c ClientSecret,
}

impl Client<'_> {
    /// Adds the proof to `form`, or answers it as a header.
    pub(super) fn prove(
        &self,
        form: &mut Serializer<'_, String>,
        audience: &str,
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, OAuthError> {
        match self.secret {
            ClientSecret::None => {
                form.append_pair("client_id", self.id.as_str());
            }
            ClientSecret::Basic(secret) => {
                return basic(self.id.as_str(), secret).map(Some).ok_or(OAuthError::NotWritten);
            }
            ClientSecret::Post(secret) => {
                form.append_pair("client_id", self.id.as_str()).append_pair("client_secret", secret.expose_secret());
            }
            ClientSecret::Signed(key, key_id) => {
                let signing = Signing { client_id: self.id, key, key_id: key_id.as_ref() };
                let assertion = signing.assertion(audience, now).ok_or(OAuthError::NotWritten)?;
                form.append_pair("client_id", self.id.as_str())
                    .append_pair("client_assertion_type", ASSERTION)
                    .append_pair("client_assertion", assertion.expose_secret());
            }
        }
        Ok(None)
    }
}

/// `Authorization: Basic …`, each half encoded as in a form (RFC 6749 §2.3.1).
fn basic(id: &str, secret: &SecretString) -> Option<HeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = SecretString::from(format!("{}:{}", encoded(id), encoded(secret.expose_secret())));
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair.expose_secret()))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_and_secret_are_encoded_before_they_are_joined() {
        let value = basic("mux:acme", &SecretString::from("CANARY:a b")).unwrap();
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(BASE64_STANDARD.decode(encoded).unwrap(), b"mux%3Aacme:CANARY%3Aa+b");
    }
}
