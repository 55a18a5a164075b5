//! Streams of events to clients (WHATWG HTML §9.2): what a call says before its answer, and the answer.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::answer::{Asked, message};
use super::cancel::Cancellable;
use super::replay::{Resumable, Writer};
use crate::lifecycle::Tasks;
use crate::mux::{CallError, Relay, Step};
use crate::upstream::Load;

/// How often a quiet stream says that it is alive; clients give up on a silent connection after minutes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most events that wait for a client to read them.
pub(super) const EVENTS_AHEAD_MAX: usize = 16;
/// How long after its deadline a call's last event waits for a client to read.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_secs(5);

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A task of its own carries the events, so that a client which stops reading holds its place at the upstream until the call's
/// deadline and no longer.
pub(super) fn of_call(
    (id, asked): (Box<RawValue>, Asked),
    (call, replays): (Option<Cancellable>, Option<Resumable<'_>>),
    relay: Relay,
    tasks: &Tasks,
) -> Response<Body> {
    let (sink, answer) = if let Some((replays, caller, session)) = replays {
        let (writer, body) = replays.begin(caller, session, &relay, tasks);
        (Sink::Replay(writer), response(body))
    } else {
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD_MAX);
        (Sink::Once(sender), stream(receiver, |held| held))
    };
    tasks.spawn_draining(async move {
        let carried = carry(id, asked, relay, sink);
        match &call {
            // A client that cancels waits for no answer.
            Some(call) => tokio::select! { () = call.cancelled() => {}, () = carried => {} },
            None => carried.await,
        }
    });
    answer
}

/// Where the events of a call go.
enum Sink {
    /// To the client that waits, and to nobody when it is gone.
    Once(mpsc::Sender<(String, Load)>),
    /// To the client that waits, or that comes back.
    Replay(Writer),
}

impl Sink {
    /// Waits until nobody reads any more.
    async fn closed(&self) {
        match self {
            Self::Once(events) => events.closed().await,
            Self::Replay(writer) => writer.abandoned().await,
        }
    }

    /// Sends a message; `false`, if nobody reads it.
    async fn send(&self, message: &str, load: Load) -> bool {
        match self {
            Self::Once(events) => events.send((event(message), load)).await.is_ok(),
            Self::Replay(writer) => {
                writer.send(message).await;
                true
            }
        }
    }

    /// That was the answer.
    fn answered(&self) {
        if let Self::Replay(writer) = self {
            writer.answered();
        }
    }

    /// Says that a quiet stream is alive, where nobody else does; `false`, if nobody reads it.
    async fn keep_alive(&self) -> bool {
        match self {
            Self::Once(events) => events.send((": keep-alive\n\n".to_owned(), Load::default())).await.is_ok(),
            Self::Replay(_) => true,
        }
    }
}

/// A response that streams what is sent: of each thing its text, and what holds that until the client asks for the next one. Over HTTP/2 a
/// piece is taken before there is room for it, and the next one at once: so the end of a text goes by itself, and waits for what is before.
pub(super) fn stream<T: Send + 'static>(receiver: mpsc::Receiver<T>, held: fn(T) -> (String, Load)) -> Response<Body> {
    let begin = (receiver, Load::default(), None::<Bytes>);
    let events = stream::unfold(begin, move |(mut receiver, before, end)| async move {
        if let Some(end) = end {
            return Some((Ok::<_, std::convert::Infallible>(end), (receiver, before, None)));
        }
        drop(before);
        let (text, load) = held(receiver.recv().await?);
        let mut text = Bytes::from(text);
        let end = text.split_off(text.len().saturating_sub(1));
        Some((Ok(text), (receiver, load, Some(end))))
    });
    response(Body::from_stream(events))
}

/// A response whose body is events.
pub(super) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

async fn carry(id: Box<RawValue>, asked: Asked, mut relay: Relay, sink: Sink) {
    loop {
        let step = tokio::select! {
            () = sink.closed() => return,
            step = timeout(KEEP_ALIVE, relay.next()) => step,
        };
        let mut is_over = false;
        let message = match step {
            Err(_) => None,
            Ok(Some(Step::Message(text))) => Some(match relay.hold(text.len()) {
                Ok(load) => (text, load),
                // Its client reads more slowly than it speaks.
                Err(error) => {
                    is_over = true;
                    relay.give_up(&error);
                    (unanswered(&id, asked, error), Load::default())
                }
            }),
            Ok(Some(Step::Answer(Ok(answer)))) => Some((message(&id, asked, Ok(answer)), relay.load())),
            Ok(Some(Step::Answer(Err(error)))) => Some((unanswered(&id, asked, error), Load::default())),
            Ok(None) => return sink.answered(),
        };
        let patience = relay.deadline() + LAST_EVENT_TIMEOUT;
        let sent = async {
            match message {
                Some((message, load)) => sink.send(&message, load).await,
                None => sink.keep_alive().await,
            }
        };
        tokio::select! {
            () = sink.closed() => return,
            sent = timeout_at(patience, sent) => if !matches!(sent, Ok(true)) {
                return;
            }
        }
        if is_over {
            return sink.answered();
        }
    }
}

fn unanswered(id: &RawValue, asked: Asked, error: CallError) -> String {
    tracing::warn!(error = &error as &dyn std::error::Error, "a streamed request has no answer");
    message(id, asked, Err(error))
}

/// One server-sent event; a message that spans lines needs one `data` field for each.
pub(super) fn event(message: &str) -> String {
    let data = message.replace('\r', "").replace('\n', "\ndata: ");
    format!("event: message\ndata: {data}\n\n")
}
