//! Answers of the raw path: the upstream's bytes in our envelope.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use super::cancel::Cancellable;
use super::envelope::Rpc;
use super::era::Era;
use super::events;
use super::pieces::Pieces;
use super::problem::Problem;
use super::replay::Resumable;
use crate::json::{self, Members};
use crate::lifecycle::Tasks;
use crate::mux::{CallError, ListPage, Outcome, UNRECORDED_RETRY_SECONDS, URL_ELICITATION_REQUIRED};
use crate::upstream::{Answer, Load, error_code};

/// For how long a client may keep a list, in milliseconds.
const LIST_TTL_MS: u32 = 30_000;
/// What results have in the modern era only.
const MODERN_ONLY: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];
/// The code of a failure that is nobody's mistake here (JSON-RPC 2.0 §5.1).
const INTERNAL_ERROR: i64 = -32603;
/// The code of a method that nobody knows.
const METHOD_NOT_FOUND: i64 = -32601;
/// The code of parameters that cannot be acted on.
const INVALID_PARAMS: i64 = -32602;
/// The codes of errors about the request of one hop to the next: its headers, its version.
const HEADER_MISMATCH: i64 = -32020;
const UNSUPPORTED_VERSION: i64 = -32022;
/// A code of the legacy era that the modern one has no more.
const LEGACY_RESOURCE_NOT_FOUND: i64 = -32002;
/// The code of the error that names capabilities which the client has not declared.
const MISSING_CAPABILITY: i64 = -32021;

/// How long a message is that is held until its client has it, and a result that is sent in a piece of its own and not copied, in bytes.
const LONG_BYTES_MIN: usize = 8 * 1024;
/// What a message has around an id and a value, roughly.
const FRAME_BYTES: usize = 64;

/// The answer to a notification.
pub(super) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// The answer to a list. The definitions are shared, never copied.
pub(super) fn list(id: &RawValue, era: Era, member: &str, page: ListPage) -> Response<Body> {
    let kind = if era == Era::Modern { "\"resultType\":\"complete\"," } else { "" };
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{{kind}\"{member}\":[", id.get());
    let next = page.next.map(|next| format!(",\"nextCursor\":{}", json::quote(&next))).unwrap_or_default();
    let hints = match era {
        Era::Modern => format!(",\"ttlMs\":{LIST_TTL_MS},\"cacheScope\":\"private\""),
        Era::Legacy => String::new(),
    };
    let tail = format!("]{next}{hints}}}}}");
    json_response(Body::new(Pieces::new([head.into(), page.bytes, tail.into()])))
}

/// What an answer of an upstream is to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) era: Era,
    pub(super) kind: Kind,
}

/// How answers to a method look in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A failure of the upstream is a tool error, so that a model reads it and other tools go on.
    Tool,
    /// A failure is an error.
    Other,
    /// The same, and the modern era says for how long a result may be kept.
    Read,
    /// A failure is an error, and an upstream that knows no tasks has none of them.
    Task,
}

/// How an answer gets to its client.
pub(super) struct Way<'w> {
    /// What drives a stream, where the client takes one.
    pub(super) tasks: Option<&'w Tasks>,
    /// What the client can cancel.
    pub(super) call: Option<Cancellable>,
    /// What makes a stream that can be taken up, where the client does that.
    pub(super) replays: Option<Resumable<'w>>,
}

/// The answer to a request. An upstream's JSON stays JSON, and its stream a stream if the client takes one.
pub(super) async fn call(
    id: &RawValue,
    asked: Asked,
    Way { tasks, call, replays }: Way<'_>,
    outcome: Result<Outcome, CallError>,
) -> Result<Response<Body>, Problem> {
    let (answer, load) = match outcome {
        Ok(Outcome::Whole(answer, load)) => (Ok(answer), load),
        Ok(Outcome::Unasked(answer)) => (Ok(answer), Load::default()),
        Ok(Outcome::Stream(relay)) => {
            if let Some(tasks) = tasks {
                return Ok(events::of_call((id.to_owned(), asked), (call, replays), *relay, tasks));
            }
            let answer = relay.answer();
            match &call {
                Some(call) => {
                    tokio::select! { () = call.cancelled() => return Ok(accepted()), answer = answer => answer }
                }
                None => answer.await,
            }
        }
        Err(
            error @ (CallError::ArgumentTwice | CallError::OtherState | CallError::NotParked | CallError::NoAnswer),
        ) => {
            return Err(Problem::invalid_params(error.to_string()));
        }
        Err(error @ CallError::Limited { seconds, .. }) => return Err(Problem::limited(error.to_string(), seconds)),
        Err(error @ CallError::Unrecorded) => {
            return Err(Problem::limited(error.to_string(), UNRECORDED_RETRY_SECONDS));
        }
        Err(error @ CallError::HeaderMismatch) => return Err(Problem::header_mismatch(error.to_string())),
        Err(error) => (Err(error), Load::default()),
    };
    let status = status(asked.era, &answer);
    let mut response = json_response(body((id, asked), answer, load));
    *response.status_mut() = status;
    Ok(response)
}

/// The modern era says in the HTTP status too that a client cannot do what an upstream needs (SEP-2575).
fn status(era: Era, answer: &Result<Answer, CallError>) -> StatusCode {
    let Ok(Answer::Error(error)) = answer else { return StatusCode::OK };
    let lacks = era == Era::Modern && error_code(error) == Some(MISSING_CAPABILITY);
    if lacks { StatusCode::BAD_REQUEST } else { StatusCode::OK }
}

/// The response message as a body. A long one is held until the client has it, and a long result is not copied into it.
fn body((id, asked): (&RawValue, Asked), answer: Result<Answer, CallError>, load: Load) -> Body {
    match answer {
        Ok(Answer::Result(result)) if result.get().len() >= LONG_BYTES_MIN => {
            let put_right = match put_right(&result, asked) {
                Cow::Owned(text) => Some(text),
                Cow::Borrowed(_) => None,
            };
            let text = put_right.unwrap_or_else(|| Box::<str>::from(result).into_string());
            let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", id.get());
            Body::new(Pieces::new([head.into(), text.into(), Bytes::from_static(b"}")]).held_by(load))
        }
        answer => {
            let mut text = Bytes::from(message(id, asked, answer));
            if text.len() < LONG_BYTES_MIN {
                return Body::from(text);
            }
            // Over HTTP/2 a piece is taken before there is room for it: the last one goes when there is.
            let end = text.split_off(text.len() - 1);
            Body::new(Pieces::new([text, end, Bytes::new()]).held_by(load))
        }
    }
}

/// The response message.
pub(super) fn message(id: &RawValue, asked: Asked, answer: Result<Answer, CallError>) -> String {
    match answer {
        Ok(Answer::Result(result)) => envelope(id, "result", &put_right(&result, asked)),
        Ok(Answer::Error(error)) => envelope(id, "error", &error_put_right(&error, asked)),
        Err(error) => failed(id, asked, &error.to_string()),
    }
}

/// That a request has no answer, in the words `text`, as those who make it read it.
pub(super) fn failure(rpc: &Rpc<'_>, era: Era, text: &str) -> Response<Body> {
    let kind = if rpc.method == "tools/call" { Kind::Tool } else { Kind::Other };
    json_response(Body::from(failed(rpc.id, Asked { era, kind }, text)))
}

/// A result of our own.
pub(super) fn result(id: &RawValue, result: &Value) -> Response<Body> {
    json_response(Body::from(envelope(id, "result", &result.to_string())))
}

/// A JSON-RPC error of our own, in band: the HTTP exchange itself went well.
pub(super) fn error(id: &RawValue, error: &Value) -> Response<Body> {
    json_response(Body::from(envelope(id, "error", &error.to_string())))
}

fn failed(id: &RawValue, asked: Asked, text: &str) -> String {
    let text = json::quote(text);
    if asked.kind == Kind::Tool {
        let result = format!("{{\"content\":[{{\"type\":\"text\",\"text\":{text}}}],\"isError\":true}}");
        let result = if asked.era == Era::Modern { insert(&result, "\"resultType\":\"complete\"") } else { result };
        envelope(id, "result", &result)
    } else {
        envelope(id, "error", &format!("{{\"code\":{INTERNAL_ERROR},\"message\":{text}}}"))
    }
}

fn envelope(id: &RawValue, member: &str, value: &str) -> String {
    let mut text = String::with_capacity(value.len() + id.get().len() + FRAME_BYTES);
    text.extend(["{\"jsonrpc\":\"2.0\",\"id\":", id.get(), ",\"", member, "\":", value, "}"]);
    text
}

/// A result as its client's era has it. Modern clients demand a `resultType`, which legacy upstreams do not send, and with what was read
/// for how long it may be kept: by this caller alone, whatever the upstream says, for it does not know whose its answer is.
fn put_right(result: &RawValue, asked: Asked) -> Cow<'_, str> {
    let text = result.get();
    if asked.era == Era::Legacy {
        return json::without(text, &MODERN_ONLY);
    }
    // Modern upstreams say it first, and of most answers there is nothing more to look at.
    if asked.kind != Kind::Read && text.starts_with("{\"resultType\":") {
        return Cow::Borrowed(text);
    }
    let Ok(members) = Members::parse(text) else { return Cow::Borrowed(text) };
    let kind = members.get_str("resultType");
    let is_complete = kind.as_deref().is_none_or(|kind| kind == "complete");
    let mut missing = Vec::new();
    let mut edits = Vec::new();
    if kind.is_none() {
        missing.push("\"resultType\":\"complete\"".to_owned());
    }
    if asked.kind == Kind::Read && is_complete {
        if members.get("ttlMs").is_none() {
            missing.push("\"ttlMs\":0".to_owned());
        }
        match members.get("cacheScope").and_then(|scope| json::span_in(text, scope.get())) {
            Some(span) => edits.push((span, "\"private\"".to_owned())),
            None => missing.push("\"cacheScope\":\"private\"".to_owned()),
        }
    }
    if !missing.is_empty() {
        edits.push(json::insertion_into_object(text, 0..text.len(), &missing.join(",")));
    }
    if edits.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(json::splice(text, edits)) }
}

/// An error as its client's era has it. What an upstream says about our own request to it is none of the client's doing.
fn error_put_right(error: &RawValue, Asked { era, kind }: Asked) -> Cow<'_, str> {
    let text = error.get();
    let replaced = match error_code(error) {
        Some(HEADER_MISMATCH | UNSUPPORTED_VERSION) => INTERNAL_ERROR,
        Some(LEGACY_RESOURCE_NOT_FOUND) if era == Era::Modern => INVALID_PARAMS,
        Some(URL_ELICITATION_REQUIRED) if era == Era::Modern => INTERNAL_ERROR,
        // It is this upstream that has nothing of the kind.
        Some(METHOD_NOT_FOUND) if kind == Kind::Read && era == Era::Legacy => LEGACY_RESOURCE_NOT_FOUND,
        Some(METHOD_NOT_FOUND) if matches!(kind, Kind::Read | Kind::Task) => INVALID_PARAMS,
        _ => return Cow::Borrowed(text),
    };
    let span = json::member(Some(error), "code").and_then(|code| json::span_in(text, code.get()));
    let Some(span) = span else { return Cow::Borrowed(text) };
    Cow::Owned(json::splice(text, vec![(span, replaced.to_string())]))
}

fn insert(object: &str, members: &str) -> String {
    json::splice(object, vec![json::insertion_into_object(object, 0..object.len(), members)])
}

fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
