//! What a directory is answered: resources, and refusals as RFC 7644 §3.12 writes them.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tenant_store::{IssuerName, StoreError};

use crate::error::Fault;
use crate::limits::whole_seconds;

const MEDIA_TYPE: &str = "application/scim+json";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// Why a directory does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("show the token of this directory as `Authorization: Bearer`")]
    Unproved,
    #[error("too many tokens from this address were not those of a directory: wait")]
    TooMany(Duration),
    #[error("there is no such resource")]
    NotFound,
    #[error("this is not done to such a resource")]
    Method(&'static str),
    #[error("searching by POST is not supported: use GET")]
    NotImplemented,
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body is too large")]
    TooLarge,
    /// 400, with a word of RFC 7644 §3.12.
    #[error("{detail}")]
    Bad { kind: &'static str, detail: String },
    #[error("another resource has this `{0}`")]
    Taken(&'static str),
    #[error("{0}")]
    Full(String),
    #[error("the database is busy: try again")]
    Busy,
    #[error("mcp-mux cannot do this now; its log says why")]
    Store(#[source] StoreError),
}

impl Refused {
    pub(super) fn syntax(detail: impl Into<String>) -> Self {
        Self::Bad { kind: "invalidSyntax", detail: detail.into() }
    }

    pub(super) fn value(detail: impl Into<String>) -> Self {
        Self::Bad { kind: "invalidValue", detail: detail.into() }
    }

    pub(super) fn filter(detail: impl Into<String>) -> Self {
        Self::Bad { kind: "invalidFilter", detail: detail.into() }
    }

    pub(super) fn path(detail: impl Into<String>) -> Self {
        Self::Bad { kind: "invalidPath", detail: detail.into() }
    }

    pub(super) fn mutability(attribute: &str) -> Self {
        Self::Bad { kind: "mutability", detail: format!("`{attribute}` cannot be changed so") }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unproved => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Bad { .. } => StatusCode::BAD_REQUEST,
            Self::Taken(_) => StatusCode::CONFLICT,
            Self::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Bad { kind, .. } => Some(kind),
            Self::Taken(_) => Some("uniqueness"),
            _ => None,
        }
    }

    /// Says once that a request failed. What it sent is not repeated.
    pub(super) fn log(&self, issuer: &IssuerName) {
        if let Self::Store(error) = self {
            let error = error as &dyn std::error::Error;
            tracing::error!(fault = Fault::Ours.as_str(), principal.issuer = %issuer, error, "a directory's request failed");
        } else {
            let (fault, status) = (Fault::Downstream.as_str(), self.status().as_u16());
            tracing::info!(fault, principal.issuer = %issuer, status, "a directory's request was refused");
        }
    }

    pub(super) fn answer(&self) -> Response {
        let status = self.status();
        let body = json!({
            "schemas": [ERROR], "status": status.as_str(), "scimType": self.kind(), "detail": self.to_string(),
        });
        let mut response = answer(status, &present(body));
        match self {
            Self::Unproved => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooMany(wait) => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(*wait)));
            }
            Self::Busy => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Method(allowed) => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DirectoryTaken { what } => Self::Taken(what),
            StoreError::DirectoryFull { .. } => Self::Full(error.to_string()),
            StoreError::NotFound { what: "user of the directory", name } => {
                Self::value(format!("there is no user `{name}` to be a member"))
            }
            StoreError::Busy => Self::Busy,
            other => Self::Store(other),
        }
    }
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

/// A resource that was just made, with its address.
pub(super) fn created(body: &Value) -> Response {
    let mut response = answer(StatusCode::CREATED, body);
    let location = body.pointer("/meta/location").and_then(Value::as_str);
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(location).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

pub(super) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Some of `total` resources, from the one with that number on.
pub(super) fn list(total: u64, start: u64, resources: &[Value]) -> Response {
    answer(
        StatusCode::OK,
        &json!({
            "schemas": [LIST], "totalResults": total, "startIndex": start, "itemsPerPage": resources.len(),
            "Resources": resources,
        }),
    )
}

/// An object without what is `null` in it.
pub(super) fn present(object: Value) -> Value {
    let Value::Object(mut object) = object else { return object };
    object.retain(|_, value| !value.is_null());
    Value::Object(object)
}
