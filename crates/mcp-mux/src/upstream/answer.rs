//! Reading what an upstream answers, within bounds: its status, its media type, its JSON-RPC.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use memchr::memmem;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::error::UpstreamError;
use super::event_stream::EventStream;
use super::in_flight::Load;
use crate::egress::Response;
use crate::json::{self, Members};

/// Largest answer that is not streamed, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Members of results by which is decided what becomes of them.
const DECISIVE_KEYS: [&str; 5] = ["resultType", "requestState", "inputRequests", "ttlMs", "cacheScope"];

/// How much room is made at once for what an upstream only says that it will send, in bytes.
const RESERVED_BYTES_MAX: usize = 256 * 1024;

/// How an upstream answered a request: JSON-RPC's `result` or `error`, as raw as it came.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The `result` member.
    Result(Box<RawValue>),
    /// The `error` member.
    Error(Box<RawValue>),
}

impl Answer {
    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        let (Self::Result(raw) | Self::Error(raw)) = self;
        raw.get().len()
    }
}

/// What a status says about the credential.
pub(super) fn refusal(status: StatusCode) -> Option<UpstreamError> {
    match status {
        StatusCode::UNAUTHORIZED => Some(UpstreamError::Unauthorized),
        StatusCode::FORBIDDEN => Some(UpstreamError::CredentialRefused),
        _ => None,
    }
}

/// Whether the upstream answers with a stream of events.
pub(super) fn is_events(response: &Response) -> bool {
    has_media_type(response, "text/event-stream")
}

pub(super) fn has_media_type(response: &Response, wanted: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

pub(super) fn events(response: Response) -> EventStream {
    EventStream::new(response.chunks().map(|chunk| chunk.map_err(|_| UpstreamError::BrokeOff)).boxed())
}

/// The body, if it has at most `limit` bytes and comes in time.
pub(super) async fn whole(response: Response, limit: usize, deadline: Instant) -> Result<Bytes, UpstreamError> {
    held(response, (limit, &Load::default()), deadline).await
}

/// The same, if there is room for it as it comes.
pub(super) async fn held(
    mut response: Response,
    (limit, load): (usize, &Load),
    deadline: Instant,
) -> Result<Bytes, UpstreamError> {
    let length = response.bytes_left().unwrap_or_default();
    if length > limit as u64 {
        return Err(UpstreamError::TooLarge);
    }
    let mut body = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(chunk) = timeout_at(deadline, response.chunk()).await.map_err(|_| UpstreamError::TimedOut)? {
        let chunk = chunk.map_err(|_| UpstreamError::BrokeOff)?;
        if body.len() + more.len() + chunk.len() > limit {
            return Err(UpstreamError::TooLarge);
        }
        if !load.take(chunk.len()) {
            return Err(UpstreamError::NoRoomToRead);
        }
        if body.is_empty() && more.is_empty() {
            // Most answers come in one piece, which is not copied.
            body = chunk;
            continue;
        }
        if more.is_empty() {
            more.reserve(usize::try_from(length).map_or(0, |length| length.min(RESERVED_BYTES_MAX)));
            more.extend_from_slice(&std::mem::take(&mut body));
        }
        more.extend_from_slice(&chunk);
    }
    Ok(if more.is_empty() { body } else { more.freeze() })
}

/// Reads a response message (JSON-RPC 2.0 §5) and checks that it answers request `id`. An error may come without an id, when the
/// upstream could not read that far.
pub(crate) fn parse_answer(body: &[u8], id: u64) -> Result<Answer, UpstreamError> {
    if json::is_too_deep(body) {
        return Err(UpstreamError::NotMcp);
    }
    let message = Members::parse_slice(body).map_err(|_| UpstreamError::NotMcp)?;
    let is_version_2 = message.get_str("jsonrpc").is_some_and(|version| version == "2.0");
    let answers = message.get("id").map(RawValue::get).filter(|raw| *raw != "null");
    let answers_us = answers.is_some_and(|raw| raw == id.to_string());
    match (message.get("result"), message.get("error")) {
        _ if !is_version_2 || message.get("method").is_some() => Err(UpstreamError::NotMcp),
        (Some(result), None) if answers_us && is_result(result) => Ok(Answer::Result(result.to_owned())),
        (None, Some(error)) if (answers_us || answers.is_none()) && is_error(error) => {
            Ok(Answer::Error(error.to_owned()))
        }
        _ => Err(UpstreamError::NotMcp),
    }
}

/// Whether it is an object that everybody reads in the same way: what decides over a result is there once, and is spelt plainly.
fn is_result(result: &RawValue) -> bool {
    Members::parse(result.get()).is_ok_and(|members| !members.has_escaped(&DECISIVE_KEYS))
}

/// Whether it is an error object (JSON-RPC 2.0 §5.1) and not just an object.
fn is_error(error: &RawValue) -> bool {
    let says = Members::parse(error.get()).is_ok_and(|members| members.get_str("message").is_some());
    says && error_code(error).is_some()
}

/// The `code` of a JSON-RPC error object.
pub(crate) fn error_code(error: &RawValue) -> Option<i64> {
    let members = Members::parse(error.get()).ok()?;
    serde_json::from_str(members.get("code")?.get()).ok()
}

/// Whether a result says that the tool failed. Only one that holds the word is looked into.
pub(crate) fn is_tool_error(result: &RawValue) -> bool {
    let text = result.get();
    memmem::find(text.as_bytes(), b"\"isError\"").is_some()
        && Members::parse(text).is_ok_and(|members| members.get("isError").is_some_and(|raw| raw.get() == "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_json_rpc_response_to_this_request_is_an_answer() {
        for answer in [
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}"#,
        ] {
            assert!(parse_answer(answer.as_bytes(), 7).is_ok(), "{answer}");
        }
        for other in [
            r#"{"error":{"message":"dial tcp 10.0.0.1:5432: refused"}}"#,
            r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32000,"message":"for somebody else"}}"#,
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":[]}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"cacheScope":"public","cacheScope":"public"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"result\u0054ype":"input_required"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":"both"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":"1","message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1}}"#,
            "[]",
            "",
        ] {
            assert!(parse_answer(other.as_bytes(), 7).is_err(), "{other}");
        }
    }
}
