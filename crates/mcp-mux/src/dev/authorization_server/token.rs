//! The token endpoint: codes and refresh tokens, each good once (OAuth 2.1 §3.2, RFC 6749 §5).

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Json};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tenant_store::Timestamp;

use super::{AuthorizationServer, SignError, keep, random};
use crate::dev::people::Person;

const ACCESS_LIFETIME: Duration = Duration::from_hours(1);

/// What somebody allowed a client.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) person: &'static Person,
    pub(super) resource: String,
    pub(super) client_id: String,
    pub(super) scope: String,
    pub(super) nonce: Option<String>,
}

/// A grant that waits to be redeemed.
pub(super) struct Code {
    pub(super) grant: Grant,
    pub(super) challenge: String,
    pub(super) redirect_uri: String,
    pub(super) expires_at: Timestamp,
}

#[derive(Deserialize)]
pub(super) struct Parameters {
    grant_type: String,
    code: Option<String>,
    code_verifier: Option<String>,
    redirect_uri: Option<String>,
    refresh_token: Option<String>,
    resource: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// `POST /token`
pub(super) async fn token(
    State(server): State<AuthorizationServer>,
    headers: HeaderMap,
    Form(parameters): Form<Parameters>,
) -> Response {
    let (status, answer) = match redeem(&server, &headers, &parameters) {
        Ok(answer) => (StatusCode::OK, answer),
        Err("invalid_client") => (StatusCode::UNAUTHORIZED, json!({ "error": "invalid_client" })),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "error": error })),
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

fn redeem(server: &AuthorizationServer, headers: &HeaderMap, parameters: &Parameters) -> Result<Value, &'static str> {
    let client_id = authenticate(server, headers, parameters).ok_or("invalid_client")?;
    let grant = match parameters.grant_type.as_str() {
        "authorization_code" => by_code(server, parameters).ok_or("invalid_grant")?,
        "refresh_token" => {
            let token = parameters.refresh_token.as_ref().ok_or("invalid_request")?;
            server.kept.lock().ok().and_then(|mut kept| kept.refreshable.remove(token)).ok_or("invalid_grant")?
        }
        _ => return Err("unsupported_grant_type"),
    };
    if grant.client_id != client_id {
        return Err("invalid_grant");
    }
    if parameters.resource.as_ref().is_some_and(|resource| *resource != grant.resource) {
        return Err("invalid_target");
    }
    let refresh_token = random();
    let answer = tokens(server, &grant, &refresh_token).map_err(|_| "server_error")?;
    let kept = server.kept.lock().is_ok_and(|mut kept| keep(&mut kept.refreshable, refresh_token, grant));
    if kept { Ok(answer) } else { Err("temporarily_unavailable") }
}

fn tokens(server: &AuthorizationServer, grant: &Grant, refresh_token: &str) -> Result<Value, SignError> {
    let access = server.access_token(grant.person, &grant.resource, &grant.client_id, ACCESS_LIFETIME)?;
    let mut answer = json!({
        "access_token": access.expose_secret(),
        "token_type": "Bearer",
        "expires_in": ACCESS_LIFETIME.as_secs(),
        "refresh_token": refresh_token,
        "scope": grant.scope,
    });
    if grant.scope.split(' ').any(|scope| scope == "openid") {
        let now = server.now();
        let claims = json!({
            "iss": server.issuer,
            "sub": grant.person.name,
            "aud": grant.client_id,
            "iat": now.as_millis() / 1_000,
            "exp": now.plus(ACCESS_LIFETIME).as_millis() / 1_000,
            "nonce": grant.nonce,
        });
        let id_token = server.sign("JWT", &claims)?;
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("id_token".to_owned(), json!(id_token.expose_secret()));
        }
    }
    Ok(answer)
}

/// A code is spent by the first who shows it, whether the rest fits or not.
fn by_code(server: &AuthorizationServer, parameters: &Parameters) -> Option<Grant> {
    let code = server.kept.lock().ok()?.codes.remove(parameters.code.as_ref()?)?;
    let verifier = parameters.code_verifier.as_ref()?;
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    let fits = bool::from(challenge.as_bytes().ct_eq(code.challenge.as_bytes()))
        && parameters.redirect_uri.as_ref() == Some(&code.redirect_uri)
        && server.now() < code.expires_at;
    fits.then_some(code.grant)
}

/// The client that asks: by its secret if it has one, by its id alone if it has none.
fn authenticate(server: &AuthorizationServer, headers: &HeaderMap, parameters: &Parameters) -> Option<String> {
    let (id, secret) = match basic(headers) {
        Some((id, secret)) => (id, Some(secret)),
        None => (parameters.client_id.clone()?, parameters.client_secret.clone()),
    };
    let client = server.kept.lock().ok()?.clients.get(&id)?.clone();
    let proven = match client.secret {
        None => true,
        Some(expected) => secret.is_some_and(|secret| bool::from(secret.as_bytes().ct_eq(expected.as_bytes()))),
    };
    proven.then_some(id)
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}
