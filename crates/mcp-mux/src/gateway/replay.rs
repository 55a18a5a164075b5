//! Streams of calls that can be taken up (MCP 2025-11-25 `basic/transports`, "Resumability and Redelivery"): a client of a session whose
//! connection breaks comes back with the id of the last event that it got, and reads on. Meanwhile its call runs, for a while.
//!
//! Streams are known at the replica where their call runs, by ids that nobody can guess, and to their own session only. What was sent
//! last is kept for as long as there is room.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::unfold;
use http::header::HeaderMap;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::{EVENTS_AHEAD_MAX, KEEP_ALIVE, event};
use super::session::Session;
use crate::caller::{Caller, Principal, Quota, Share};
use crate::lifecycle::Tasks;
use crate::mux::{Endpoint, Matter, Relay};
use crate::protocol::{LAST_EVENT_ID, PROTOCOL_VERSION};

/// The first version whose clients know what an event without data is for.
const FIRST_VERSION: &str = "2025-11-25";
/// How long clients are given to come back.
const GRACE: Duration = Duration::from_secs(30);
/// After how long a client is to come back, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// How many events of a stream are kept that were sent already, and of how many bytes together.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// How many bytes are kept of all streams that ended, and of one; what ended first goes first.
const ENDED_BYTES_MAX: u64 = 64 * 1024 * 1024;
const ENDED_STREAM_BYTES_MAX: usize = 1024 * 1024;
/// What a stream costs besides, roughly.
const STREAM_BYTES: usize = 1024;
/// How long it is kept then.
const ENDED_LIFE: Duration = Duration::from_mins(6);
/// How many calls of one principal go on that nobody listens to. Each holds a place at its upstream.
const ALONE_MAX: usize = 8;
/// How long it is waited for the last word to somebody whose proof of identity has ended.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// All streams that can be taken up here.
#[derive(Debug, Clone)]
pub(super) struct Replays {
    running: Arc<Mutex<HashMap<Uuid, Arc<Replay>>>>,
    ended: Cache<Uuid, Arc<Replay>>,
    alone: Quota,
    /// How long a call goes on that nobody listens to.
    grace: Duration,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Replay {
    id: Uuid,
    session: Session,
    matter: Matter,
    /// Ends the call.
    ended: CancellationToken,
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
    /// The number of the first event that was sent when the call had been ended.
    last_words: Option<u64>,
    is_answered: bool,
    is_over: bool,
    /// Which of its readers reads.
    reader: u64,
    left_at: Option<Instant>,
}

/// What makes the stream of a call one that can be taken up.
pub(super) type Resumable<'w> = (&'w Replays, &'w Caller, Session);

/// What writes a stream, until its end.
#[derive(Debug)]
pub(super) struct Writer {
    replays: Replays,
    replay: Arc<Replay>,
    principal: Principal,
    shutdown: CancellationToken,
}

/// What there is to read.
enum Taken {
    Event(Bytes),
    Nothing,
    End,
}

/// Who reads a stream.
struct Reader {
    replay: Arc<Replay>,
    number: u64,
    /// Cancelled when the reader's proof of identity is not good any more.
    ended: CancellationToken,
    /// Until when the last word is waited for then. Nothing that was said before is read any more.
    last_word: Option<Instant>,
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
        let ended = Cache::builder().weigher(weight).max_capacity(ENDED_BYTES_MAX).time_to_live(ENDED_LIFE);
        let ended = ended.eviction_policy(EvictionPolicy::lru()).build();
        Self { running: Arc::default(), ended, alone: Quota::new(ALONE_MAX), grace: GRACE }
    }

    /// The stream of a new call in `session`: what writes it, and what `caller` reads.
    pub(super) fn begin(&self, caller: &Caller, session: Session, relay: &Relay, tasks: &Tasks) -> (Writer, Body) {
        self.begin_about(caller, (session, relay.matter(), relay.ended().clone()), tasks.shutdown())
    }

    fn begin_about(
        &self,
        caller: &Caller,
        (session, matter, ended): (Session, Matter, CancellationToken),
        shutdown: CancellationToken,
    ) -> (Writer, Body) {
        let state = State {
            kept: VecDeque::new(),
            kept_bytes: 0,
            next: 0,
            unread: 0,
            last_words: None,
            is_answered: false,
            is_over: false,
            reader: 0,
            left_at: None,
        };
        let (news, read) = (Notify::new(), Notify::new());
        let id = Uuid::new_v4();
        let replay = Arc::new(Replay { id, session, matter, ended, state: Mutex::new(state), news, read });
        // What can be taken up before anything has happened.
        replay.keep(|id| format!("id: {id}\nretry: {RETRY_MS}\ndata:\n\n"));
        self.lock().insert(id, Arc::clone(&replay));
        let body = replay.read_from(0, caller);
        (Writer { replays: self.clone(), replay, principal: caller.principal.clone(), shutdown }, body)
    }

    /// The stream in which `session` wants to read on, at that endpoint, if nothing behind that position is lost.
    pub(super) fn find(&self, session: &Session, endpoint: &Endpoint, position: Position) -> Option<Arc<Replay>> {
        let running = self.lock().get(&position.stream).cloned();
        let replay = running.or_else(|| self.ended.get(&position.stream))?;
        let is_theirs = replay.session.id() == session.id() && replay.matter.endpoint() == endpoint;
        (is_theirs && replay.has_all_after(position.after)).then_some(replay)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Replay>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    /// What its call is about.
    pub(super) fn matter(&self) -> &Matter {
        &self.matter
    }

    fn has_all_after(&self, after: u64) -> bool {
        let state = self.state();
        let oldest = state.kept.front().map_or(state.next, |(number, _)| *number);
        after < state.next && after.saturating_add(1) >= oldest
    }

    /// What `caller` reads from behind that event on. Whoever read before reads no more.
    pub(super) fn take_up(self: &Arc<Self>, caller: &Caller, position: Position) -> Body {
        self.read_from(position.after.saturating_add(1), caller)
    }

    fn read_from(self: &Arc<Self>, first: u64, caller: &Caller) -> Body {
        let mut state = self.state();
        state.reader += 1;
        state.left_at = None;
        state.unread = first.min(state.next);
        let (replay, ended) = (Arc::clone(self), caller.ended.clone());
        let reader = Reader { replay, number: state.reader, ended, last_word: None };
        drop(state);
        self.news.notify_waiters();
        self.read.notify_waiters();
        let events = unfold(reader, async |mut reader| Some((Ok::<_, Infallible>(reader.next().await?), reader)));
        Body::from_stream(events)
    }

    /// Keeps one more event, made of its id.
    fn keep(&self, text: impl FnOnce(String) -> String) {
        let mut state = self.state();
        let number = state.next;
        if self.ended.is_cancelled() {
            state.last_words.get_or_insert(number);
        }
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

    /// That was the answer. It can be read again for a while.
    pub(super) fn answered(&self) {
        self.replay.state().is_answered = true;
    }

    /// Waits until nobody has read for a while, or nobody can come back.
    pub(super) async fn abandoned(&self) {
        let mut alone: Option<Share> = None;
        loop {
            let read = self.replay.read.notified();
            let left_at = self.replay.state().left_at;
            let Some(left_at) = left_at else {
                alone = None;
                read.await;
                continue;
            };
            alone = alone.or_else(|| self.replays.alone.take(&self.principal));
            let gives_up_at = left_at + self.replays.grace;
            if alone.is_none() || self.shutdown.is_cancelled() || gives_up_at <= Instant::now() {
                return;
            }
            tokio::select! {
                () = read => {}
                () = self.shutdown.cancelled() => {}
                () = sleep_until(gives_up_at) => {}
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Self { replays, replay, .. } = self;
        let mut state = replay.state();
        state.is_over = true;
        // A stream without an answer is not worth coming back to.
        let is_kept = state.is_answered && state.kept_bytes <= ENDED_STREAM_BYTES_MAX;
        drop(state);
        replay.news.notify_waiters();
        if is_kept {
            replays.ended.insert(replay.id, Arc::clone(replay));
        }
        replays.lock().remove(&replay.id);
    }
}

impl Reader {
    /// What is read next; nothing at the end, or when somebody else reads.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let replay = Arc::clone(&self.replay);
            let news = replay.news.notified();
            if self.ended.is_cancelled() && self.last_word.is_none() {
                self.last_word = Some(Instant::now() + LAST_WORD_TIMEOUT);
                self.forget_unread();
                // The call of who is nobody any more ends, whoever began it.
                replay.ended.cancel();
            }
            match self.take() {
                Taken::Event(text) => return Some(text),
                Taken::End => return None,
                Taken::Nothing => {}
            }
            let until = self.last_word.unwrap_or_else(|| Instant::now() + KEEP_ALIVE);
            tokio::select! {
                () = self.ended.cancelled(), if self.last_word.is_none() => {}
                news = timeout_at(until, news) => match news {
                    Ok(()) => {}
                    Err(_) if self.last_word.is_some() => return None,
                    Err(_) => return Some(Bytes::from_static(b": keep-alive\n\n")),
                },
            }
        }
    }

    fn forget_unread(&self) {
        let mut state = self.replay.state();
        if state.reader == self.number {
            state.unread = state.last_words.unwrap_or(state.next).max(state.unread);
            drop(state);
            self.replay.read.notify_waiters();
        }
    }

    fn take(&self) -> Taken {
        let mut state = self.replay.state();
        if state.reader != self.number {
            return Taken::End;
        }
        let unread = state.unread;
        let Some((number, text)) = state.kept.iter().find(|(number, _)| *number >= unread) else {
            return if state.is_over { Taken::End } else { Taken::Nothing };
        };
        let (next, text) = (number + 1, Bytes::from(text.clone()));
        state.unread = next;
        drop(state);
        self.replay.read.notify_waiters();
        Taken::Event(text)
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
        let about = (Session::of_test(), Matter::of_test(), alice.ended.clone());
        replays.begin_about(alice, about, CancellationToken::new())
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
