//! Taking up a stream that ended before the answer came (MCP 2025-11-25 `basic/transports`, "Resumability and Redelivery"): an upstream
//! that gives its events ids may hang up while it works, and says after how long it is to be asked for the rest.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::unfold;
use http::header::{HeaderMap, HeaderValue};
use tokio::time::{Instant, sleep};

use super::credential::Credential;
use super::error::UpstreamError;
use super::event_stream::{Event, EventStream};
use super::in_flight::Load;
use super::link::Line;
use super::redact::Redactor;
use crate::protocol::LAST_EVENT_ID;

/// The wait where the upstream names none, and the bounds of one that it names.
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a stream is taken up without an event in it.
const TRIES_MAX: usize = 5;
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a stream was left.
#[derive(Debug, Clone)]
pub(super) struct Position {
    /// The id of the last event that had one.
    pub(super) id: HeaderValue,
    /// How long the upstream wants to be left alone.
    pub(super) retry: Option<Duration>,
}

/// What takes up a stream of one session.
pub(super) struct Resume {
    pub(super) line: Arc<Line>,
    pub(super) credential: Arc<Credential>,
    /// The protocol's headers, which name the session.
    pub(super) headers: HeaderMap,
    pub(super) redactor: Redactor,
    pub(super) load: Load,
}

/// A stream, and how it goes on.
struct Going {
    events: EventStream,
    resume: Resume,
    position: Option<Position>,
    tries: usize,
}

impl Resume {
    /// The events of a stream and of those that take it up.
    pub(super) fn of(self, events: EventStream) -> EventStream {
        let load = self.load.clone();
        let events = events.held_by(load.clone());
        let going = Going { events, resume: self, position: None, tries: 0 };
        EventStream::of_events(unfold(going, async |mut going| Some((going.next().await?, going))).boxed())
            .held_inside(load)
    }

    /// What follows on `position`.
    async fn begin(&self, position: &Position) -> Option<EventStream> {
        sleep(position.retry.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX)).await;
        let mut headers = self.headers.clone();
        headers.insert(LAST_EVENT_ID, position.id.clone());
        let begun = self.line.listen(&self.credential, headers, &self.redactor, Instant::now() + BEGIN_TIMEOUT);
        begun.await.map(|events| events.held_by(self.load.clone()))
    }
}

impl Going {
    async fn next(&mut self) -> Option<Result<Event, UpstreamError>> {
        loop {
            let ended = match self.events.next().await {
                Some(Ok(event)) => {
                    self.tries = 0;
                    return Some(Ok(event));
                }
                None | Some(Err(UpstreamError::BrokeOff)) => Some(Err(UpstreamError::BrokeOff)),
                Some(Err(error)) => return Some(Err(error)),
            };
            self.position = self.events.position().or(self.position.take());
            let Some(position) = self.position.as_ref().filter(|_| self.tries < TRIES_MAX) else { return ended };
            self.tries += 1;
            let Some(events) = self.resume.begin(position).await else { return ended };
            self.events = events;
        }
    }
}
