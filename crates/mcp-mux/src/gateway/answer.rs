//! Answers of the raw path: the upstream's bytes in our envelope.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::era::Era;
use super::problem::Problem;
use crate::json::{self, Members};
use crate::lifecycle::Tasks;
use crate::mux::{CallError, Outcome, Relay, Step};
use crate::upstream::Answer;

/// For how long a client may keep a list, in milliseconds.
const LIST_TTL_MS: u32 = 30_000;
/// How often a quiet stream says that it is alive; clients give up on a silent connection after minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Most events that wait for a client to read them.
const EVENTS_AHEAD_MAX: usize = 16;
/// How long after its deadline a call's last event waits for a client to read.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a message has around an id and a value, roughly.
const FRAME_BYTES: usize = 64;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The answer to a notification.
pub(super) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// The answer to `tools/list`. The array is shared, never copied.
pub(super) fn tools(id: &RawValue, era: Era, tools: Bytes) -> Response<Body> {
    let (before, after) = match era {
        Era::Modern => (
            "{\"resultType\":\"complete\",\"tools\":",
            format!(",\"ttlMs\":{LIST_TTL_MS},\"cacheScope\":\"private\"}}}}"),
        ),
        Era::Legacy => ("{\"tools\":", "}}".to_owned()),
    };
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{before}", id.get());
    let length = head.len() + tools.len() + after.len();
    let frames = [Bytes::from(head), tools, Bytes::from(after)].map(Ok::<_, std::convert::Infallible>);
    let mut response = json_response(Body::from_stream(stream::iter(frames)));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// The answer to `tools/call`. An upstream's JSON stays JSON, and its stream a stream if the client takes one: then there are
/// `tasks` to drive it.
pub(super) async fn call(
    id: &RawValue,
    era: Era,
    tasks: Option<&Tasks>,
    outcome: Result<Outcome, CallError>,
) -> Result<Response<Body>, Problem> {
    let answer = match outcome {
        Ok(Outcome::Whole(answer)) => Ok(answer),
        Ok(Outcome::Stream(relay)) => match tasks {
            Some(tasks) => return Ok(event_stream(id.to_owned(), era, *relay, tasks)),
            None => relay.answer().await,
        },
        Err(CallError::UnknownTool) => return Err(Problem::unknown_tool()),
        Err(error @ CallError::ArgumentTwice) => return Err(Problem::invalid_params(error.to_string())),
        Err(error @ CallError::HeaderMismatch) => return Err(Problem::header_mismatch(error.to_string())),
        Err(error) => Err(error),
    };
    Ok(json_response(Body::from(message(id, era, &answer))))
}

/// The response message. A failure of the upstream is a tool error, so that a model reads it and other tools go on.
fn message(id: &RawValue, era: Era, answer: &Result<Answer, CallError>) -> String {
    let (member, value) = match answer {
        Ok(Answer::Result(result)) => ("result", with_result_type(result, era)),
        Ok(Answer::Error(error)) => ("error", Cow::Borrowed(error.get())),
        Err(error) => ("result", Cow::Owned(failed(era, &error.to_string()))),
    };
    envelope(id, member, &value)
}

/// A tool error that says `text`.
pub(super) fn tool_error(id: &RawValue, era: Era, text: &str) -> Response<Body> {
    json_response(Body::from(envelope(id, "result", &failed(era, text))))
}

/// A result of our own.
pub(super) fn result(id: &RawValue, result: &Value) -> Response<Body> {
    json_response(Body::from(envelope(id, "result", &result.to_string())))
}

/// A JSON-RPC error of our own, in band: the HTTP exchange itself went well.
pub(super) fn error(id: &RawValue, error: &Value) -> Response<Body> {
    json_response(Body::from(envelope(id, "error", &error.to_string())))
}

fn failed(era: Era, text: &str) -> String {
    let failed = format!("{{\"content\":[{{\"type\":\"text\",\"text\":{}}}],\"isError\":true}}", json::quote(text));
    if era == Era::Modern { add_result_type(&failed) } else { failed }
}

fn envelope(id: &RawValue, member: &str, value: &str) -> String {
    let mut text = String::with_capacity(value.len() + id.get().len() + FRAME_BYTES);
    text.extend(["{\"jsonrpc\":\"2.0\",\"id\":", id.get(), ",\"", member, "\":", value, "}"]);
    text
}

/// Modern clients demand a `resultType`, which legacy upstreams do not send.
fn with_result_type(result: &RawValue, era: Era) -> Cow<'_, str> {
    // Modern upstreams say it first.
    let lacks_it = || {
        let is_first = result.get().starts_with("{\"resultType\":");
        !is_first && Members::parse(result.get()).is_ok_and(|members| members.get("resultType").is_none())
    };
    if era == Era::Modern && lacks_it() {
        Cow::Owned(add_result_type(result.get()))
    } else {
        Cow::Borrowed(result.get())
    }
}

fn add_result_type(object: &str) -> String {
    json::splice(object, vec![json::insertion_into_object(object, 0..object.len(), "\"resultType\":\"complete\"")])
}

/// A task of its own carries the events, so that a client which stops reading holds its place at the upstream until the call's
/// deadline and no longer.
fn event_stream(id: Box<RawValue>, era: Era, relay: Relay, tasks: &Tasks) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD_MAX);
    tasks.spawn_draining(carry(id, era, relay, sender));
    let events = stream::unfold(receiver, |mut receiver| async move {
        let text: String = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), receiver))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

async fn carry(id: Box<RawValue>, era: Era, mut relay: Relay, events: mpsc::Sender<String>) {
    loop {
        let step = tokio::select! {
            () = events.closed() => return,
            step = timeout(KEEP_ALIVE, relay.next()) => step,
        };
        let text = match step {
            Err(_) => ": keep-alive\n\n".to_owned(),
            Ok(Some(Step::Notification(text))) => event(&text),
            Ok(Some(Step::Answer(answer))) => {
                if let Err(error) = &answer {
                    tracing::warn!(error = error as &dyn std::error::Error, "a streamed tool call has no answer");
                }
                event(&message(&id, era, &answer))
            }
            Ok(None) => return,
        };
        let patience = relay.deadline() + LAST_EVENT_TIMEOUT;
        if !matches!(timeout_at(patience, events.send(text)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// One server-sent event; a message that spans lines needs one `data` field for each.
fn event(message: &str) -> String {
    let data = message.replace('\r', "").replace('\n', "\ndata: ");
    format!("event: message\ndata: {data}\n\n")
}

fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
