//! Streams of calls that can be taken up (MCP 2025-11-25 `basic/transports`, "Resumability and Redelivery"): a client of a session whose
//! connection breaks comes back with the id of the last event that it got, and reads on. Meanwhile its call runs, for a while.
//!
//! Streams are known at the replica where their call runs, by ids that nobody can guess, and to their own session only. What was sent
//! last is kept for as long as there is room.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::unfold;
use http::header::{HeaderMap, HeaderName};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::{EVENTS_AHEAD_MAX, KEEP_ALIVE, event};
use super::session::Session;
use crate::caller::Caller;
use crate::mux::{Endpoint, Thing};

/// The first version whose clients know what an event without data is for.
const FIRST_VERSION: &str = "2025-11-25";
/// How long clients are given to come back.
const GRACE: Duration = Duration::from_secs(30);
/// After how long a client is to come back, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// How many events of a stream are kept that were sent already, and of how many bytes together.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// How many bytes are kept of all streams; what was not used for longest goes first.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What a stream costs besides, roughly.
const STREAM_BYTES: usize = 1024;
/// How long it is kept: longer than a call runs.
const KEPT_LIFE: Duration = Duration::from_mins(6);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// All streams that can be taken up here.
#[derive(Debug, Clone)]
pub(super) struct Replays {
    kept: Cache<Uuid, Arc<Replay>>,
    /// How long a call goes on that nobody listens to.
    grace: Duration,
}

/// What one stream is about.
#[derive(Debug)]
pub(super) struct About {
    pub(super) session: Session,
    pub(super) endpoint: Endpoint,
    pub(super) thing: Thing,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Replay {
    id: Uuid,
    pub(super) about: About,
    state: Mutex<State>,
    /// There is something to read, or another reader.
    news: Notify,
    /// Something was read, or the reader has left.
    read: Notify,
}

#[derive(Debug)]
struct State {
    /// Events, by their numbers.
    kept: VecDeque<(u64, String)>,
    kept_bytes: usize,
    next: u64,
    /// The number of the event that the reader reads next.
    unread: u64,
    is_over: bool,
    /// Which of its readers reads.
    reader: u64,
    left_at: Option<Instant>,
}

/// What makes the stream of a call one that can be taken up.
pub(super) type Resumable<'w> = (&'w Replays, &'w Caller, About);

/// What writes a stream, until its end.
#[derive(Debug)]
pub(super) struct Writer {
    replays: Replays,
    replay: Arc<Replay>,
}

/// Who reads a stream.
struct Reader {
    replay: Arc<Replay>,
    number: u64,
    ended: CancellationToken,
}

/// Where a client wants to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    stream: Uuid,
    after: u64,
}

impl Position {
    /// What a request names, if that is one of ours.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (stream, after) = headers.get(LAST_EVENT_ID)?.to_str().ok()?.split_once('/')?;
        Some(Self { stream: stream.parse().ok()?, after: after.parse().ok()? })
    }
}

/// Whether a request asks for a stream to be taken up.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.contains_key(LAST_EVENT_ID)
}

/// Whether a client takes streams up.
pub(super) fn is_known_to(headers: &HeaderMap) -> bool {
    headers.get(PROTOCOL_VERSION).is_some_and(|version| version.as_bytes() >= FIRST_VERSION.as_bytes())
}

impl Replays {
    /// None yet.
    pub(super) fn new() -> Self {
        let weight =
            |_: &_, replay: &Arc<Replay>| u32::try_from(replay.state().kept_bytes + STREAM_BYTES).unwrap_or(u32::MAX);
        let cache = Cache::builder().weigher(weight).max_capacity(BYTES_MAX).time_to_live(KEPT_LIFE);
        Self { kept: cache.eviction_policy(EvictionPolicy::lru()).build(), grace: GRACE }
    }

    /// A new stream, what writes it, and what `caller` reads.
    pub(super) fn begin(&self, caller: &Caller, about: About) -> (Writer, Body) {
        let state = State {
            kept: VecDeque::new(),
            kept_bytes: 0,
            next: 0,
            unread: 0,
            is_over: false,
            reader: 0,
            left_at: None,
        };
        let (news, read) = (Notify::new(), Notify::new());
        let replay = Arc::new(Replay { id: Uuid::new_v4(), about, state: Mutex::new(state), news, read });
        // What can be taken up before anything has happened.
        replay.keep(|id| format!("id: {id}\nretry: {RETRY_MS}\ndata:\n\n"));
        self.kept.insert(replay.id, Arc::clone(&replay));
        let body = replay.read_from(0, caller);
        (Writer { replays: self.clone(), replay }, body)
    }

    /// The stream in which `session` wants to read on.
    pub(super) fn find(&self, session: &Session, position: Position) -> Option<Arc<Replay>> {
        self.kept.get(&position.stream).filter(|replay| replay.about.session.id() == session.id())
    }
}

impl Replay {
    /// What `caller` reads from behind that event on. Whoever read before reads no more.
    pub(super) fn take_up(self: &Arc<Self>, caller: &Caller, position: Position) -> Body {
        self.read_from(position.after.saturating_add(1), caller)
    }

    fn read_from(self: &Arc<Self>, first: u64, caller: &Caller) -> Body {
        let mut state = self.state();
        state.reader += 1;
        state.left_at = None;
        state.unread = first.min(state.next);
        let reader = Reader { replay: Arc::clone(self), number: state.reader, ended: caller.ended.clone() };
        drop(state);
        self.news.notify_waiters();
        let events = unfold(reader, async |reader| Some((Ok::<_, Infallible>(reader.next().await?), reader)));
        Body::from_stream(events)
    }

    /// Keeps one more event, made of its id.
    fn keep(&self, text: impl FnOnce(String) -> String) {
        let mut state = self.state();
        let number = state.next;
        let text = text(format!("{}/{number}", self.id.simple()));
        state.next += 1;
        state.kept_bytes += text.len();
        state.kept.push_back((number, text));
        while let Some((oldest, text)) = state.kept.front() {
            let is_too_much = state.kept.len() > KEPT_MAX || state.kept_bytes > KEPT_BYTES_MAX;
            if !is_too_much || *oldest >= state.unread {
                break;
            }
            state.kept_bytes -= text.len();
            state.kept.pop_front();
        }
        drop(state);
        self.news.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Sends a message, as soon as the client has read most of what was sent before.
    pub(super) async fn send(&self, message: &str) {
        loop {
            let read = self.replay.read.notified();
            {
                let state = self.replay.state();
                if state.next - state.unread < EVENTS_AHEAD_MAX as u64 {
                    break;
                }
            }
            read.await;
        }
        self.replay.keep(|id| format!("id: {id}\n{}", event(message)));
    }

    /// Waits until nobody has read for a while.
    pub(super) async fn abandoned(&self) {
        let grace = self.replays.grace;
        loop {
            let read = self.replay.read.notified();
            let left_at = self.replay.state().left_at;
            match left_at {
                None => read.await,
                Some(left_at) if left_at.elapsed() >= grace => return,
                Some(left_at) => {
                    tokio::select! {
                        () = read => {}
                        () = sleep_until(left_at + grace) => {}
                    }
                }
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.replay.state().is_over = true;
        self.replay.news.notify_waiters();
        // It weighs something else by now.
        self.replays.kept.insert(self.replay.id, Arc::clone(&self.replay));
    }
}

impl Reader {
    /// What is read next; nothing at the end, or when somebody else reads.
    async fn next(&self) -> Option<Bytes> {
        loop {
            let news = self.replay.news.notified();
            {
                let mut state = self.replay.state();
                if state.reader != self.number {
                    return None;
                }
                let unread = state.unread;
                // What is not kept any more was sent once.
                if let Some((number, text)) = state.kept.iter().find(|(number, _)| *number >= unread) {
                    let (next, text) = (number + 1, Bytes::from(text.clone()));
                    state.unread = next;
                    drop(state);
                    self.replay.read.notify_waiters();
                    return Some(text);
                }
                if state.is_over {
                    return None;
                }
            }
            tokio::select! {
                () = self.ended.cancelled() => return None,
                news = timeout(KEEP_ALIVE, news) => if news.is_err() {
                    return Some(Bytes::from_static(b": keep-alive\n\n"));
                }
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.replay.state();
        if state.reader == self.number {
            state.left_at = Some(Instant::now());
            drop(state);
            self.replay.read.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn begin(replays: &Replays, alice: &Caller) -> (Writer, Body) {
        let about =
            About { session: Session::of_test(), endpoint: Endpoint::Aggregate, thing: Thing::Tool("t".into()) };
        replays.begin(alice, about)
    }

    #[tokio::test]
    async fn a_call_that_nobody_listens_to_is_given_up_after_a_while() {
        let (replays, alice) =
            (Replays { grace: Duration::from_millis(50), ..Replays::new() }, Caller::of_test("alice", None));
        let (writer, body) = begin(&replays, &alice);
        assert!(writer.abandoned().now_or_never().is_none(), "somebody may read");
        drop(body);
        let left = Instant::now();
        writer.abandoned().await;
        assert!(left.elapsed() >= replays.grace);
        let body = writer.replay.take_up(&alice, Position { stream: writer.replay.id, after: 0 });
        assert!(writer.abandoned().now_or_never().is_none(), "it came back");
        drop(body);
        writer.abandoned().await;
    }

    #[tokio::test]
    async fn who_reads_slowly_holds_up_the_writer_and_what_was_read_is_kept_for_a_while() {
        let (replays, alice) = (Replays::new(), Caller::of_test("alice", None));
        let (writer, body) = begin(&replays, &alice);
        for _ in 1..EVENTS_AHEAD_MAX {
            writer.send("{}").now_or_never().unwrap();
        }
        assert!(writer.send("{}").now_or_never().is_none());
        let mut read = body.into_data_stream();
        for _ in 0..10 * KEPT_MAX {
            read.next().await.unwrap().unwrap();
            writer.send("{}").now_or_never().unwrap();
        }
        assert!(writer.replay.state().kept.len() <= KEPT_MAX + EVENTS_AHEAD_MAX);
        drop(writer);
        assert_eq!(read.count().await, EVENTS_AHEAD_MAX, "all that was sent is read, and then it ends");
    }
}
