//! An identity provider: real keys, real signatures, discovery and a key set over HTTP.

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::routing::get;
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
        super::server::serve(listener, routes);
        Ok(Self { url, key })
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

    /// Signs with a key that the issuer does not have.
    pub(crate) fn sign_with_foreign_key(claims: &Value) -> Result<String> {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &new_key()?.0)?)
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
