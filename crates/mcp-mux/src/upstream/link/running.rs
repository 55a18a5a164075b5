//! A call that runs upstream: its place, its end, and answers to what the upstream asks meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::answer::Answer;
use super::super::breaker::Pass;
use super::super::credential::Credential;
use super::super::error::UpstreamError;
use super::super::negotiate::Agreement;
use super::super::peer::Peer;
use super::super::request::{Lane, Rpc};
use super::measured::of_answer;
use super::{Line, Link, PLACE_TIMEOUT};
use crate::telemetry::{Ending, Operation};

/// How long it may take to tell an upstream something that nobody waits for.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A call's place among those that may run at once; free again when the last holder is gone.
pub(in crate::upstream) type Place = Arc<OwnedSemaphorePermit>;

/// A call that runs upstream. Dropping it tells a legacy upstream that nobody waits any more; a modern one learns it from the
/// closed connection.
pub struct Running {
    cancel: Option<Cancel>,
    place: Option<Place>,
    /// Whether the upstream is called at all depends on what becomes of its calls.
    pass: Option<(Pass, Arc<Line>)>,
    /// Told how it ends.
    operation: Operation,
}

/// What the upstream is told with.
pub(super) struct Cancel {
    pub(super) link: Arc<Link>,
    pub(super) agreement: Arc<Agreement>,
    pub(super) credential: Arc<Credential>,
    pub(super) id: u64,
}

impl Running {
    pub(super) fn new(cancel: Cancel, place: Place) -> Self {
        Self { cancel: Some(cancel), place: Some(place), pass: None, operation: Operation::unseen() }
    }

    /// What becomes of it counts.
    pub(super) fn counts(&mut self, pass: Pass) {
        self.pass = self.cancel.as_ref().map(|cancel| (pass, Arc::clone(&cancel.link.line)));
    }

    /// It is noted how long it takes.
    pub(super) fn is_measured(&mut self, operation: Operation) {
        self.operation = operation;
    }

    /// That answer has come.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        self.operation.take().end(of_answer(answer));
        self.finish();
    }

    /// The answer has come; there is nothing left to cancel.
    pub fn finish(&mut self) {
        self.cancel = None;
        self.operation.take().end(Ending::Done);
        if let Some((pass, line)) = self.pass.take() {
            line.ended(pass, None);
        }
    }

    /// The answer will not come.
    pub(crate) fn failed(&mut self, error: &UpstreamError) {
        self.operation.take().end(Ending::Failed(error.word()));
        if let Some((pass, line)) = self.pass.take() {
            line.ended(pass, Some(error));
        }
    }

    /// Whether the upstream may ask the client behind us in the stream of this call, and which client its session is for. A modern one
    /// asks in its answers, and one with a single stream for all its calls does not say in which of them it asks.
    pub fn asks(&self) -> Option<Peer> {
        let has_stream = |cancel: &&Cancel| !cancel.agreement.is_modern() && cancel.agreement.old_sse().is_none();
        let cancel = self.cancel.as_ref().filter(has_stream)?;
        Some(cancel.link.peer)
    }

    /// The upstream says something, and has not answered yet.
    pub fn stirs(&mut self) {
        if let Some((pass, line)) = &mut self.pass {
            line.stirs(pass);
        }
    }

    /// Leaves its place to others while the upstream waits for the client.
    pub fn rest(&mut self) {
        self.place = None;
        // It asked, so it is well: how long a person takes says nothing about it.
        if let Some((pass, line)) = self.pass.take() {
            line.ended(pass, None);
        }
    }

    /// Whether it runs at what is called now over `link`: at the same address, with the same credentials.
    pub(crate) fn is_at(&self, link: &Link) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.link.shares_line(link))
    }

    /// Answers a request of the upstream's: `outcome` is `"result":…` or `"error":…`. It takes a place again, if it left its own.
    pub async fn answer(&mut self, id: &RawValue, outcome: &str, deadline: Instant) -> Result<(), UpstreamError> {
        let Some(cancel) = &self.cancel else { return Ok(()) };
        if self.place.is_none() {
            let place = cancel.link.line.place(Lane::Calls, deadline.min(Instant::now() + PLACE_TIMEOUT)).await?;
            self.place = Some(place);
        }
        cancel.link.answer(&cancel.agreement, &cancel.credential, (id, outcome), deadline).await
    }

    /// The same in the background, where nobody waits for it.
    pub fn answer_soon(&self, id: &RawValue, outcome: &'static str) {
        let Some(Cancel { link, agreement, credential, .. }) = &self.cancel else { return };
        let (link, agreement, credential) = (Arc::clone(link), Arc::clone(agreement), Arc::clone(credential));
        let id = id.to_owned();
        link.line.tasks().clone().spawn_draining(async move {
            let deadline = Instant::now() + TELL_TIMEOUT;
            let sent = link.answer(&agreement, &credential, (&id, outcome), deadline).await;
            tracing::debug!(upstream.id = %link.upstream().id, delivered = sent.is_ok(), "answered an upstream's request");
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(cancel) = self.cancel.take() else { return };
        if cancel.agreement.is_modern() {
            return;
        }
        // To an upstream that was taken away or moved nothing is sent any more.
        if cancel.link.line.is_silent() {
            return;
        }
        let tasks = cancel.link.line.tasks().clone();
        tasks.spawn_draining(async move { cancel.send().await });
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Cancel {
    async fn send(self) {
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"the client went away"}}}}"#,
            self.id
        );
        let deadline = Instant::now() + TELL_TIMEOUT;
        let is_sent = if let Some(session) = self.agreement.old_sse() {
            session.notify(&self.credential, body, deadline).await.is_ok()
        } else {
            let headers = self.agreement.headers(&Rpc::new("notifications/cancelled"));
            self.link.post(&self.credential, headers, body, deadline).await.is_ok()
        };
        tracing::debug!(upstream.id = %self.link.upstream().id, delivered = is_sent, "cancelled a call upstream");
    }
}
