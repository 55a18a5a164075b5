//! HTTP-level answers: those to callers who are not known, with their challenge, and the plain ones.

use std::any::Any;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, Response, StatusCode};
use serde_json::json;

use super::well_known::ProtectedResource;
use crate::auth::AuthError;
use crate::error::Fault;
use crate::limits::whole_seconds;

/// JSON-RPC's code for a message that is not as it should be (JSON-RPC 2.0 §5.1).
const INVALID_REQUEST: i64 = -32600;
/// Ours for a request that was fine and is not served now, or not to this caller.
const NOT_SERVED: i64 = -32000;

/// 401 and its like (RFC 6750 §3, RFC 9728 §5.1): tells a client where to learn how to sign in, and nothing about why a token was
/// refused.
pub(super) fn unauthorized(error: &AuthError, resource: &ProtectedResource, method: &Method) -> Response<Body> {
    tracing::info!(fault = Fault::Downstream.as_str(), error = error as &dyn std::error::Error, "nobody was let in");
    // Whose token lacks a scope is told its own issuer's scopes: another issuer may not know them, and refuse.
    let scope = match error {
        AuthError::InsufficientScope(scope) => scope,
        _ => resource.scope.as_str(),
    };
    let scope = if scope.is_empty() { String::new() } else { format!(", scope=\"{scope}\"") };
    let code = error.challenge_error().map(|code| format!(", error=\"{code}\"")).unwrap_or_default();
    let challenge = format!("Bearer resource_metadata=\"{}\"{scope}{code}", resource.metadata_url);
    // Clients recover from a 401 by its challenge. Of any other status they show their user what a JSON-RPC error says, and
    // nothing at all of a plain text.
    let mut response = match (error.status(), method) {
        (StatusCode::UNAUTHORIZED, _) => plain(StatusCode::UNAUTHORIZED, error.advice()),
        (status, &Method::POST) => message(status, error.advice()),
        (status, _) => plain(status, error.advice()),
    };
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(after) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(after).into());
    }
    response
}

pub(super) async fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "there is nothing at this path: MCP is at /mcp")
}

pub(super) async fn no_probe() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "there is nothing at this path: this listener answers probes, at /healthz and /readyz")
}

pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!(fault = Fault::Ours.as_str(), "a request met a mistake of ours");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "mcp-mux made a mistake; its log says more")
}

/// An answer to a message that was not read (MCP 2025-11-25 `basic/transports`): so its id is not known.
fn message(status: StatusCode, text: &'static str) -> Response<Body> {
    let code = if status == StatusCode::BAD_REQUEST { INVALID_REQUEST } else { NOT_SERVED };
    let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": text}});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
