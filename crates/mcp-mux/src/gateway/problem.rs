//! Requests that cannot be answered as asked: a JSON-RPC error, its HTTP status, and the one log line.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use super::era::Era;
use super::subscribed::SUBSCRIPTIONS_MAX;
use crate::caller::Caller;
use crate::error::Fault;
use crate::json;
use crate::protocol::TASKS;

/// A refusal, as the client reads it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    pub(super) code: i64,
    message: String,
    data: Option<Box<Value>>,
    id: Option<Box<RawValue>>,
}

impl Problem {
    /// A refusal with this status, JSON-RPC code and sentence.
    pub(crate) fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None, id: None }
    }

    /// Bytes that are no JSON, or JSON beyond our limits (JSON-RPC 2.0 §5.1).
    pub(crate) fn parse_error(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32700, message)
    }

    /// JSON that is no message.
    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32600, message)
    }

    /// A method that nobody here knows. The modern era answers it with 404.
    pub(crate) fn method_not_found(era: Era) -> Self {
        let status = if era == Era::Modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
        Self::new(status, -32601, "unknown method")
    }

    /// A message that cannot be acted on. In band: the HTTP exchange itself went well.
    pub(super) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, -32602, message)
    }

    /// The same answer for what does not exist and for what this caller may not know of. Resources had a code of their own in the
    /// legacy era.
    pub(super) fn unknown(what: &str, era: Era) -> Self {
        match what {
            "resource" if era == Era::Legacy => Self::new(StatusCode::OK, -32002, "resource not found"),
            "resource" => Self::invalid_params("resource not found"),
            what => Self::invalid_params(format!("unknown {what}")),
        }
    }

    /// What is about tasks, of a client that has not declared that it knows them (SEP-2663).
    pub(super) fn lacks_tasks() -> Self {
        let data = serde_json::json!({ "requiredCapabilities": { "extensions": { TASKS: {} } } });
        Self {
            data: Some(Box::new(data)),
            ..Self::new(StatusCode::BAD_REQUEST, -32021, format!("the client has not declared `{TASKS}`"))
        }
    }

    /// A modern request without what every modern request must carry.
    pub(super) fn missing_meta(key: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32602, format!("`_meta` lacks `{key}`"))
    }

    /// A modern request in which something that it must carry is no such thing.
    pub(super) fn bad_meta(key: &str, wanted: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32602, format!("`{key}` in `_meta` must be {wanted}"))
    }

    /// What rmcp would not read although it is JSON: a lone surrogate, or one level too deep.
    pub(super) fn unreadable() -> Self {
        Self::parse_error("the body holds text or nesting that cannot be read")
    }

    /// Headers and body say different things (SEP-2243).
    pub(super) fn header_mismatch(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32020, message)
    }

    /// A session that is not this caller's, or nobody's. The client is to begin a new one (MCP 2025-11-25 `basic/transports`).
    pub(super) fn session_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, -32001, "session not found")
    }

    /// A protocol version that we do not speak; `data` says which we do.
    pub(crate) fn unsupported_version(data: Value) -> Self {
        Self {
            data: Some(Box::new(data)),
            ..Self::new(StatusCode::BAD_REQUEST, -32022, "unsupported protocol version")
        }
    }

    /// An answer that nobody here waits for.
    pub(super) fn nobody_asked() -> Self {
        let message = "no request of ours waits here for this answer: it is too late, was answered already, or waits at another replica";
        Self::new(StatusCode::BAD_REQUEST, -32600, message)
    }

    /// What is remembered with a session, outside of one.
    pub(super) fn needs_session() -> Self {
        Self::invalid_request("this is said for a session: name yours in the header Mcp-Session-Id")
    }

    /// Too many calls were made. In band: clients show what is said, and may come again.
    pub(super) fn limited(message: impl Into<String>, seconds: u64) -> Self {
        let data = serde_json::json!({ "retryAfter": seconds });
        Self { data: Some(Box::new(data)), ..Self::new(StatusCode::OK, -32000, message) }
    }

    /// The principal has as many streams open as one may.
    pub(super) fn too_many_streams() -> Self {
        let message = "too many streams are open for you here: close one, or try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, -32000, message)
    }

    /// A stream that is not known here, or not kept any more. A 404 would end the session.
    pub(super) fn stream_not_found() -> Self {
        Self::new(StatusCode::GONE, -32000, "this stream cannot be taken up here any more: ask again")
    }

    /// The client wants to hear of more resources than one listener may.
    pub(super) fn too_many_subscriptions() -> Self {
        Self::invalid_params(format!("a listener hears of at most {SUBSCRIPTIONS_MAX} resources"))
    }

    /// The client takes nothing that we could send.
    pub(super) fn not_acceptable() -> Self {
        let message = "the header Accept must allow application/json or text/event-stream";
        Self::new(StatusCode::NOT_ACCEPTABLE, -32600, message)
    }

    /// The body claims to be something else than JSON.
    pub(super) fn unsupported_media_type() -> Self {
        let message = "the header Content-Type must be application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, -32600, message)
    }

    /// The body is over the limit.
    pub(super) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, -32600, "the body is larger than 4 MiB")
    }

    /// The body ended early.
    pub(super) fn broken_body() -> Self {
        Self::new(StatusCode::BAD_REQUEST, -32700, "the body broke off")
    }

    /// The body came too slowly.
    pub(crate) fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, -32600, "the body did not come in time")
    }

    /// The request that this answers. Without it, the id is null.
    pub(crate) fn answering(mut self, id: &RawValue) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The one log line.
    pub(super) fn log(&self, caller: &Caller) {
        tracing::info!(
            request.id = %caller.request_id,
            status = self.status.as_u16(),
            fault = Fault::Downstream.as_str(),
            error = %self.message,
            "a request was refused"
        );
    }

    /// The JSON-RPC error.
    pub(crate) fn text(&self) -> String {
        let id = self.id.as_ref().map_or("null", |id| id.get());
        let data = self.data.as_ref().map(|data| format!(",\"data\":{data}")).unwrap_or_default();
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{},\"message\":{}{data}}}}}",
            self.code,
            json::quote(&self.message)
        )
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.text()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
