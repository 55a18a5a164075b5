//! The authorization server of the demonstration (OAuth 2.1, RFC 8414, RFC 7591, RFC 7636, RFC 8707, RFC 9207): whoever asks
//! picks one of the four people, without a password.
//!
//! Its key is made at start and its grants are kept in memory, so its tokens are good for one process on this machine. What it
//! keeps is bounded, and it redirects only to addresses that a client registered.

mod authorize;
mod clients;
mod token;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{Clock, Timestamp};
use tower_http::cors::{Any, CorsLayer};
use uuid::Uuid;

use self::clients::Client;
use self::token::Grant;
use super::people::Person;

const KEY_ID: &str = "dev";
/// Most clients, codes and refresh tokens, each; the next one is refused.
const KEPT_MAX: usize = 1_000;

/// The authorization server. Cheap to clone.
#[derive(Clone)]
pub(super) struct AuthorizationServer {
    issuer: String,
    /// What tokens may be for; the first unless a client says.
    resources: Arc<[String]>,
    key: Arc<EncodingKey>,
    jwk: Value,
    clock: Arc<dyn Clock>,
    kept: Arc<Mutex<Kept>>,
}

/// What is remembered between requests.
#[derive(Default)]
struct Kept {
    clients: HashMap<String, Client>,
    codes: HashMap<String, token::Code>,
    refreshable: HashMap<String, Grant>,
}

/// Inserts unless there are too many already.
fn keep<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) -> bool {
    let room = map.len() < KEPT_MAX;
    if room {
        map.insert(key, value);
    }
    room
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
    /// One that calls itself `issuer` and signs tokens for `resources`.
    pub(super) fn new(issuer: String, resources: Vec<String>, clock: Arc<dyn Clock>) -> Result<Self, SignError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(document.map_err(|_| SignError)?.as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| SignError)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        let jwk = serde_json::to_value(jwk).map_err(|_| SignError)?;
        Ok(Self { issuer, resources: resources.into(), key: Arc::new(key), jwk, clock, kept: Arc::default() })
    }

    /// Its issuer identifier.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its surface. Pages of other origins may read it: clients run in browsers too.
    pub(super) fn router(&self) -> Router {
        let metadata = self.metadata();
        let keys = json!({ "keys": [self.jwk] });
        let document = move || std::future::ready(Json(metadata.clone()));
        Router::new()
            .route("/.well-known/openid-configuration", get(document.clone()))
            .route("/.well-known/oauth-authorization-server", get(document))
            .route("/jwks", get(move || std::future::ready(Json(keys.clone()))))
            .route("/register", post(clients::register))
            .route("/authorize", get(authorize::authorize))
            .route("/token", post(token::token))
            .layer(CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(Any))
            .with_state(self.clone())
    }

    fn metadata(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "registration_endpoint": format!("{issuer}/register"),
            "jwks_uri": format!("{issuer}/jwks"),
            "scopes_supported": ["openid", "groups"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// A ready-made token for `person` that is good for `lifetime`.
    pub(super) fn token_for(&self, person: &Person, lifetime: Duration) -> Result<SecretString, SignError> {
        let resource = self.resources.first().ok_or(SignError)?;
        self.access_token(person, resource, "mcp-mux-dev", lifetime)
    }

    /// An access token (RFC 9068).
    fn access_token(
        &self,
        person: &Person,
        resource: &str,
        client_id: &str,
        lifetime: Duration,
    ) -> Result<SecretString, SignError> {
        let now = self.now();
        self.sign(
            "at+jwt",
            &json!({
                "iss": self.issuer,
                "sub": person.name,
                "aud": resource,
                "iat": now.as_millis() / 1_000,
                "exp": now.plus(lifetime).as_millis() / 1_000,
                "jti": Uuid::new_v4(),
                "client_id": client_id,
                "name": person.full_name,
                "groups": person.groups,
            }),
        )
    }

    fn sign(&self, kind: &str, claims: &Value) -> Result<SecretString, SignError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).map(SecretString::from).map_err(|_| SignError)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// 244 random bits, in hex.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
