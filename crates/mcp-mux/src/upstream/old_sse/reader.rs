//! The task that reads one stream: answers and progress go to the call that they are about, what tells of a change to whoever listens,
//! requests of the upstream are answered with "no", and everything else is dropped.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::error::UpstreamError;
use super::super::event_stream::{Event, EventStream};
use super::super::notices::{Notice, Notices};
use super::super::redact::Redactor;
use super::calls::Calls;
use super::endpoint::Endpoint;
use crate::json::{self, Members};

/// How long a stream is kept that nobody uses.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// The same while the server stops: a call may be between two of its requests.
const IDLE_WHILE_STOPPING_MAX: Duration = Duration::from_millis(200);
/// How many requests of the upstream are answered at once; others are dropped.
const REPLIES_MAX: usize = 4;
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest id of a request that is repeated, in bytes.
const ID_BYTES_MAX: usize = 256;

/// What reads one stream.
pub(super) struct Reader {
    pub(super) events: EventStream,
    pub(super) calls: Arc<Calls>,
    pub(super) notices: Notices,
    /// Knows what the stream was begun with. What repeats that tells nobody anything.
    pub(super) redactor: Redactor,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Reader {
    /// Reads until the stream ends, it is `closed`, or nobody has used it for long. A server that stops has its calls answered first.
    pub(super) async fn run(mut self, closed: CancellationToken, shutdown: CancellationToken) {
        let endpoint = Arc::clone(&self.endpoint);
        let mut replies = FuturesUnordered::new();
        let mut idle_max = IDLE_MAX;
        let ended = loop {
            let used_ago = if self.is_heard(idle_max) { Duration::ZERO } else { self.calls.idle_for() };
            let patience = idle_max.saturating_sub(used_ago);
            tokio::select! {
                biased;
                () = closed.cancelled() => break UpstreamError::BrokeOff,
                () = shutdown.cancelled(), if idle_max == IDLE_MAX => idle_max = IDLE_WHILE_STOPPING_MAX,
                Some(()) = replies.next() => {}
                event = self.events.next() => match event {
                    None => break UpstreamError::BrokeOff,
                    Some(Err(error)) => break error,
                    Some(Ok(event)) => {
                        let reply = self.pass(event).filter(|_| replies.len() < REPLIES_MAX);
                        replies.extend(reply.map(|reply| send(&endpoint, reply)));
                    }
                },
                () = sleep(patience) => {
                    if !self.is_heard(idle_max) && self.calls.ends_after(idle_max) {
                        break UpstreamError::BrokeOff;
                    }
                }
            }
        };
        self.calls.end(&ended);
        self.notices.end();
    }

    /// Whether somebody listens for whom it is kept. A server that stops keeps it for nobody.
    fn is_heard(&self, idle_max: Duration) -> bool {
        idle_max == IDLE_MAX && !self.notices.is_unheard()
    }

    /// Hands a message to whom it belongs, or says what is replied.
    fn pass(&mut self, event: Event) -> Option<String> {
        if json::is_too_deep(event.0.as_bytes()) {
            return None;
        }
        let message = Members::parse(&event.0).ok()?;
        let is_answer = ["result", "error"].iter().any(|key| message.get(key).is_some());
        match (message.get("method"), message.get("id")) {
            (None, Some(id)) => {
                let id = id.get().parse().ok()?;
                // Whoever answers may go on for as long again.
                if self.calls.answer(id, event) {
                    self.events.count_anew();
                }
            }
            (Some(method), Some(id)) if !is_answer => return reply(method, id),
            (Some(method), None) if json::as_str(method).is_some_and(|name| name == "notifications/progress") => {
                let params = message.get("params")?;
                let token = Members::parse(params.get()).ok()?.get("progressToken")?;
                let id = token.get().parse().ok()?;
                self.calls.notify(id, event);
            }
            (Some(method), None) => {
                let notice = Notice::of(&json::as_str(method)?, &message).filter(|_| !is_answer);
                let is_clean = |_: &Notice| self.redactor.redacted(event.0.as_bytes()).is_none();
                self.notices.tell(&notice.filter(is_clean)?);
            }
            _ => {}
        }
        None
    }
}

/// What a request of the upstream is answered: that it can ask for nothing here but a sign of life.
pub(in crate::upstream) fn reply(method: &RawValue, id: &RawValue) -> Option<String> {
    let is_id = id.get().len() <= ID_BYTES_MAX && id.get().starts_with(|c: char| matches!(c, '"' | '-' | '0'..='9'));
    let is_ping = json::as_str(method)? == "ping";
    let said = if is_ping {
        r#""result":{}"#
    } else {
        r#""error":{"code":-32601,"message":"mcp-mux does not relay this request"}"#
    };
    is_id.then(|| format!(r#"{{"jsonrpc":"2.0","id":{},{said}}}"#, id.get()))
}

async fn send(endpoint: &Endpoint, reply: String) {
    // An upstream that does not take it has itself to blame.
    drop(endpoint.reply(reply, Instant::now() + REPLY_TIMEOUT).await);
}
