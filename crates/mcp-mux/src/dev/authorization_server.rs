//! The authorization server of the demonstration: it signs access tokens for the four people with a key of its own, made at start,
//! and publishes that key. Its tokens are good for one process on this machine.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::Clock;
use uuid::Uuid;

use super::people::Person;

const KEY_ID: &str = "dev";

/// The authorization server. Cheap to clone.
#[derive(Clone)]
pub(super) struct AuthorizationServer {
    issuer: String,
    resource: String,
    key: Arc<EncodingKey>,
    jwk: Value,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for AuthorizationServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizationServer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// A key could not be made or used.
#[derive(Debug, thiserror::Error)]
#[error("the authorization server of the demonstration cannot sign")]
pub(super) struct SignError;

impl AuthorizationServer {
    /// One that calls itself `issuer` and signs tokens for `resource`.
    pub(super) fn new(issuer: String, resource: String, clock: Arc<dyn Clock>) -> Result<Self, SignError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(document.map_err(|_| SignError)?.as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| SignError)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        let jwk = serde_json::to_value(jwk).map_err(|_| SignError)?;
        Ok(Self { issuer, resource, key: Arc::new(key), jwk, clock })
    }

    /// Its issuer identifier.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its documents: discovery and keys.
    pub(super) fn router(&self) -> Router {
        let issuer = &self.issuer;
        let discovery = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let keys = json!({ "keys": [self.jwk] });
        Router::new()
            .route("/.well-known/openid-configuration", get(move || std::future::ready(Json(discovery.clone()))))
            .route("/jwks", get(move || std::future::ready(Json(keys.clone()))))
    }

    /// A token for `person` that is good for `lifetime` (RFC 9068).
    pub(super) fn token_for(&self, person: &Person, lifetime: Duration) -> Result<SecretString, SignError> {
        let now = self.clock.now();
        let claims = json!({
            "iss": self.issuer,
            "sub": person.name,
            "aud": self.resource,
            "iat": now.as_millis() / 1_000,
            "exp": now.plus(lifetime).as_millis() / 1_000,
            "jti": Uuid::new_v4(),
            "client_id": "mcp-mux-dev",
            "name": person.full_name,
            "groups": person.groups,
        });
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).map(SecretString::from).map_err(|_| SignError)
    }
}
