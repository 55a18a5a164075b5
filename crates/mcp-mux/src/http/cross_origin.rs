//! What pages of the configured origins may do in a browser (CORS, Fetch standard §3.2): call with the headers that MCP needs, and
//! read those that it answers with. A page shows its own token; what a browser would add by itself, such as cookies, is not asked
//! for.

use std::collections::HashSet;
use std::time::Duration;

use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    WWW_AUTHENTICATE,
};
use axum::http::{Method, request};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::protocol::{LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};

/// For how long a browser may remember what it was allowed.
const PREFLIGHT_LIFE: Duration = Duration::from_mins(10);

const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

/// What a page may send.
const REQUEST_HEADERS: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ACCEPT, LAST_EVENT_ID];

/// MCP's own headers. Some of them are named by tools (`Mcp-Param-…`), so there is no list of them.
const REQUEST_HEADER_PREFIX: &str = "mcp-";

/// What a page may read.
const RESPONSE_HEADERS: [HeaderName; 3] = [WWW_AUTHENTICATE, SESSION_ID, PROTOCOL_VERSION];

/// The layer for exactly these origins; none without any.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins: HashSet<String> = origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
    // The library can only list headers or take all, so a page that asks for another one is refused with its origin.
    let is_allowed = move |origin: &HeaderValue, request: &request::Parts| {
        let is_listed = origin.to_str().is_ok_and(|origin| origins.contains(&origin.to_ascii_lowercase()));
        is_listed && asks_for_known_headers(&request.headers)
    };
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods(METHODS)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(RESPONSE_HEADERS)
        .max_age(PREFLIGHT_LIFE);
    Some(layer)
}

fn asks_for_known_headers(headers: &HeaderMap) -> bool {
    let is_known = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        name.starts_with(REQUEST_HEADER_PREFIX) || REQUEST_HEADERS.iter().any(|known| known.as_str() == name)
    };
    let mut values = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    values.all(|value| value.to_str().is_ok_and(|names| names.split(',').all(is_known)))
}
