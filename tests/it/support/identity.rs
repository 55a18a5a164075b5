//! An identity provider: real keys, real signatures, discovery and a key set over HTTP.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tenant_store::{Clock as _, SystemClock};
use tokio::net::TcpListener;

/// An issuer that runs.
pub(crate) struct Idp {
    /// Its identifier.
    pub url: String,
    key: EncodingKey,
    /// What the token endpoint gives for whatever code.
    id_token: Arc<Mutex<Option<String>>>,
}

impl Idp {
    /// Starts one on a free port.
    pub(crate) async fn start() -> Result<Self> {
        let (key, jwk) = new_key()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let discovery = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(discovery) }))
            .route("/jwks", get(move || async move { Json(json!({ "keys": [jwk] })) }));
        let id_token = Arc::new(Mutex::new(None));
        let given = Arc::clone(&id_token);
        let routes = routes.route("/token", post(move || async move { token_answer(&given) }));
        super::server::serve(listener, routes);
        Ok(Self { url, key, id_token })
    }

    /// The claims of a good token for `subject`, issued for `audience`.
    pub(crate) fn claims(&self, subject: &str, groups: &[&str], audience: &str) -> Value {
        let now = SystemClock.now().as_millis() / 1000;
        json!({
            "iss": self.url, "sub": subject, "aud": audience, "exp": now + 300, "iat": now, "groups": groups,
        })
    }

    /// Signs whatever claims with the issuer's own key.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String> {
        self.sign_as(
            &Header { typ: Some("at+jwt".to_owned()), kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) },
            claims,
        )
    }

    /// Signs under whatever header.
    pub(crate) fn sign_as(&self, header: &Header, claims: &Value) -> Result<String> {
        Ok(jsonwebtoken::encode(header, claims, &self.key)?)
    }

    /// From now on whoever signs in is given an ID token with these claims.
    pub(crate) fn give_claims(&self, claims: &Value) -> Result<()> {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        self.give(self.sign_as(&header, claims)?);
        Ok(())
    }

    /// From now on whoever signs in is given this ID token.
    pub(crate) fn give(&self, id_token: String) {
        *self.id_token.lock().expect("no test panics while it holds this") = Some(id_token);
    }

    /// Signs with a key that the issuer does not have.
    pub(crate) fn sign_with_foreign_key(claims: &Value) -> Result<String> {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &new_key()?.0)?)
    }
}

fn token_answer(given: &Mutex<Option<String>>) -> Response {
    match given.lock().expect("no test panics while it holds this").clone() {
        Some(token) => {
            Json(json!({"access_token": "CANARY-at", "token_type": "Bearer", "id_token": token})).into_response()
        }
        None => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    }
}

fn new_key() -> Result<(EncodingKey, Value)> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    let key = EncodingKey::from_ec_der(document.as_ref());
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256)?)?;
    jwk["kid"] = json!("k1");
    jwk["use"] = json!("sig");
    Ok((key, jwk))
}
