//! The stream that a legacy session has of its own (MCP 2025-11-25 `basic/transports`, "Listening for Messages from the Server"). Many
//! upstreams ask there, and not in the stream of the call that makes them ask.
//!
//! A session is one principal's and one kind of client's. While one call runs in it, what comes here is about that call. Where several
//! run, nobody can tell which of them is meant: then requests are refused, and the rest is dropped. That something changed is for
//! whoever listens, and for no call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt as _;
use futures::stream::{FuturesUnordered, unfold};
use http::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::credential::Credential;
use super::error::UpstreamError;
use super::event_stream::{Event, EventStream};
use super::link::Line;
use super::notices::{Notice, Notices};
use super::old_sse::reply;
use super::pause::Pause;
use super::redact::Redactor;
use super::request::Outgoing;
use crate::json::{self, Members};

/// How long a session waits for its stream to begin. An upstream that has none says so.
pub(super) const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait before a stream that ended is begun anew, and the longest.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];
/// How long an event of a call waits for what may have been sent beside its stream before.
const BESIDE_DELAY: Duration = Duration::from_millis(25);
/// How many messages wait for a call to read them.
const EVENTS_AHEAD_MAX: usize = 16;
/// How many requests are refused at once; others are dropped.
const REPLIES_MAX: usize = 4;
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a session's own stream is held, if it has one. It is begun when somebody needs it.
#[derive(Debug, Default)]
pub(super) struct Own {
    stream: ArcSwapOption<OwnStream>,
    beginning: tokio::sync::Mutex<()>,
}

/// A session's own stream, until it is dropped.
#[derive(Debug)]
pub(super) struct OwnStream {
    calls: Calls,
    /// What is told of changes.
    pub(super) notices: Notices,
    _close: DropGuard,
}

/// The calls that run in a session.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<Mutex<HashMap<u64, mpsc::Sender<Event>>>>);

/// What comes beside the stream of a call.
pub(super) struct Beside {
    id: u64,
    calls: Calls,
    events: mpsc::Receiver<Event>,
}

/// A call's own stream, and what comes beside it.
struct Both {
    own: EventStream,
    beside: Beside,
    /// Whether anything came beside it.
    has_come: bool,
    /// What came in its own stream, and waits until then.
    held: Option<(Result<Event, UpstreamError>, Instant)>,
}

/// What reads a stream.
struct Reader {
    line: Arc<Line>,
    credential: Arc<Credential>,
    /// The protocol's headers, which name the session.
    headers: HeaderMap,
    calls: Calls,
    notices: Notices,
    redactor: Redactor,
}

impl Own {
    /// A call of that id runs in the session from now on.
    pub(super) fn join(&self, id: u64) -> Option<Beside> {
        Some(self.stream.load().as_ref()?.join(id))
    }

    /// The stream of the session that `headers` and `id` name, begun if it is not; nothing, if the upstream has none.
    pub(super) async fn open(
        &self,
        line: &Arc<Line>,
        credential: &Arc<Credential>,
        named: (HeaderMap, Option<&str>),
        deadline: Instant,
    ) -> Option<Arc<OwnStream>> {
        let _turn = timeout_at(deadline, self.beginning.lock()).await.ok()?;
        let is_good = |stream: &Arc<OwnStream>| !stream.notices.is_over();
        if let Some(stream) = self.stream.load_full().filter(is_good) {
            return Some(stream);
        }
        let stream = Arc::new(OwnStream::open(line, credential, named, deadline).await?);
        self.stream.store(Some(Arc::clone(&stream)));
        Some(stream)
    }
}

impl OwnStream {
    async fn open(
        line: &Arc<Line>,
        credential: &Arc<Credential>,
        (headers, id): (HeaderMap, Option<&str>),
        deadline: Instant,
    ) -> Option<Self> {
        let (calls, notices, closed) = (Calls::default(), Notices::default(), CancellationToken::new());
        let reader = Reader {
            line: Arc::clone(line),
            credential: Arc::clone(credential),
            headers,
            calls: calls.clone(),
            notices: notices.clone(),
            redactor: Redactor::new(credential, id, "", line),
        };
        let events = reader.begin(deadline).await?;
        let (close, told) = (closed.clone().drop_guard(), notices.clone());
        line.tasks().spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = reader.run(events) => {}
            }
            told.end();
        });
        Some(Self { calls, notices, _close: close })
    }

    fn join(&self, id: u64) -> Beside {
        let (sender, events) = mpsc::channel(EVENTS_AHEAD_MAX);
        self.calls.lock().insert(id, sender);
        Beside { id, calls: self.calls.clone(), events }
    }
}

impl Beside {
    /// The call's own stream, and what comes beside it.
    pub(super) fn with(self, own: EventStream) -> EventStream {
        let load = own.load().clone();
        let both = Both { own, beside: self, has_come: false, held: None };
        EventStream::of_events(unfold(both, async |mut both| Some((both.next().await?, both))).boxed())
            .held_inside(load)
    }
}

impl Both {
    /// What was sent first comes first, as far as that can be told: two connections know nothing of each other. An upstream that says
    /// things beside the stream may have said something before its answer which is still on its way.
    async fn next(&mut self) -> Option<Result<Event, UpstreamError>> {
        if self.held.is_none() {
            tokio::select! {
                biased;
                Some(event) = self.beside.events.recv() => {
                    self.has_come = true;
                    return Some(Ok(event));
                }
                event = self.own.next() => self.held = Some((event?, Instant::now() + BESIDE_DELAY)),
            }
        }
        if let Some((_, until)) = &self.held
            && self.has_come
            && let Ok(Some(event)) = timeout_at(*until, self.beside.events.recv()).await
        {
            return Some(Ok(event));
        }
        self.held.take().map(|(event, _)| event)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
    }
}

impl Calls {
    /// Hands a message to the only call that runs; `false`, if there is not one.
    fn hand(&self, event: Event) -> bool {
        let calls = self.lock();
        let mut senders = calls.values();
        match (senders.next(), senders.next()) {
            (Some(call), None) => call.try_send(event).is_ok(),
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    async fn begin(&self, deadline: Instant) -> Option<EventStream> {
        self.line.listen(&self.credential, self.headers.clone(), &self.redactor, deadline).await
    }

    /// Reads one stream after the other, until the upstream has none any more.
    async fn run(self, mut events: EventStream) {
        let mut pause = Pause::new(AGAIN_AFTER, Instant::now());
        loop {
            let begun = Instant::now();
            self.read(events).await;
            pause.begin(begun.elapsed(), Instant::now());
            sleep_until(pause.until()).await;
            let Some(next) = self.begin(Instant::now() + BEGIN_TIMEOUT).await else { return };
            events = next;
            // What was told meanwhile, nobody heard.
            self.notices.tell(&Notice::Begun);
        }
    }

    async fn read(&self, mut events: EventStream) {
        let mut replies = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = replies.next() => {}
                event = events.next() => {
                    let Some(Ok(event)) = event else { return };
                    let reply = self.pass(event).filter(|_| replies.len() < REPLIES_MAX);
                    replies.extend(reply.map(|reply| self.send(reply)));
                }
            }
        }
    }

    /// Hands a message to whom it belongs, or says what is replied. Answers do not come here.
    fn pass(&self, event: Event) -> Option<String> {
        if json::is_too_deep(event.0.as_bytes()) {
            return None;
        }
        let message = Members::parse(&event.0).ok()?;
        let is_answer = ["result", "error"].iter().any(|key| message.get(key).is_some());
        let method = message.get("method").filter(|_| !is_answer)?;
        let Some(id) = message.get("id") else {
            match Notice::of(&json::as_str(method)?, &message) {
                Some(notice) => self.notices.tell(&notice),
                None => drop(self.calls.hand(event)),
            }
            return None;
        };
        let refusal = reply(method, id);
        let is_ping = json::as_str(method).is_some_and(|method| method == "ping");
        if !is_ping && self.calls.hand(event) { None } else { refusal }
    }

    async fn send(&self, reply: String) {
        if self.line.is_silent() {
            return;
        }
        let outgoing = Outgoing::message(self.line.upstream().spec.url.clone(), self.headers.clone(), reply);
        // An upstream that does not take it has itself to blame.
        drop(self.line.send(&self.credential, outgoing, Instant::now() + REPLY_TIMEOUT).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_beside_belongs_to_the_only_call_that_runs() {
        let stream = OwnStream {
            calls: Calls::default(),
            notices: Notices::default(),
            _close: CancellationToken::new().drop_guard(),
        };
        let event = || Event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#.into());
        assert!(!stream.calls.hand(event()), "nobody is there");
        let mut first = stream.join(1);
        assert!(stream.calls.hand(event()));
        assert!(first.events.try_recv().is_ok());
        let mut second = stream.join(2);
        assert!(!stream.calls.hand(event()), "nobody can tell which of them is meant");
        assert!(first.events.try_recv().is_err() && second.events.try_recv().is_err());
        drop(first);
        assert!(stream.calls.hand(event()));
        assert!(second.events.try_recv().is_ok());
    }
}
