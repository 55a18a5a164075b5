//! HTTP-level answers that are not MCP: 401 with its challenge, and the plain ones.

use std::any::Any;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};

use super::well_known::ProtectedResource;
use crate::auth::AuthError;
use crate::error::Fault;

/// 401 (RFC 6750 §3, RFC 9728 §5.1): tells a client where to learn how to sign in, and nothing about why a token was refused.
pub(super) fn unauthorized(error: &AuthError, resource: &ProtectedResource) -> Response<Body> {
    tracing::info!(fault = Fault::Downstream.as_str(), error = error as &dyn std::error::Error, "nobody was let in");
    // Whose token lacks a scope is told its own issuer's scopes: another issuer may not know them, and refuse.
    let scope = match error {
        AuthError::InsufficientScope(scope) => scope,
        _ => resource.scope.as_str(),
    };
    let scope = if scope.is_empty() { String::new() } else { format!(", scope=\"{scope}\"") };
    let code = error.challenge_error().map(|code| format!(", error=\"{code}\"")).unwrap_or_default();
    let challenge = format!("Bearer resource_metadata=\"{}\"{scope}{code}", resource.metadata_url);
    let mut response = plain(error.status(), error.advice());
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(after) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, after.as_secs().into());
    }
    response
}

pub(super) async fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "there is nothing at this path: MCP is at /mcp")
}

pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!(fault = Fault::Ours.as_str(), "a request met a mistake of ours");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "mcp-mux made a mistake; its log says more")
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
