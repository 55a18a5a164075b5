//! One upstream as we hold on to it: its session, the version agreed on, the access token that it is shown, and the line beneath.

mod line;
mod token;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tenant_store::Upstream;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::account::Live;
use super::answer::{Answer, error_code, events, has_media_type, is_events, parse_answer, refusal, whole};
use super::credential::{Actor, Credential, Proofs};
use super::error::UpstreamError;
use super::event_stream::EventStream;
use super::negotiate::{self, Agreement, Failure};
use super::oauth::Held;
use super::openapi;
use super::redact::Redactor;
use super::request::{Outgoing, Rpc};
use crate::egress::SendError;

pub(super) use line::{Conditions, Line};

/// How long a call waits for a place among those that run.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
const CODE_UNSUPPORTED_VERSION: i64 = -32022;

/// An answer, or the stream in which it will come.
#[derive(Debug)]
pub enum Reply {
    /// The upstream answered at once.
    Whole(Answer),
    /// The upstream streams.
    Stream(Box<Streaming>),
}

/// A stream that will hold the answer.
#[derive(Debug)]
pub struct Streaming {
    /// Our request id, which is also the progress token. The answer is the event with this id.
    pub id: u64,
    /// What comes.
    pub events: EventStream,
    /// Holds the place of the call and cancels it upstream when dropped before its end.
    pub running: Running,
}

/// One request, as it is asked once or, after a session was lost, twice.
struct Attempt<'a> {
    rpc: &'a Rpc<'a>,
    credential: Arc<Credential>,
    deadline: Instant,
    place: Place,
}

/// A call that runs upstream. Dropping it tells a legacy upstream that nobody waits any more; a modern one learns it from the
/// closed connection.
pub struct Running {
    cancel: Option<Cancel>,
    _place: Place,
}

/// A call's place among those that may run at once; free again when the last holder is gone.
type Place = Arc<OwnedSemaphorePermit>;

struct Cancel {
    link: Arc<Link>,
    agreement: Arc<Agreement>,
    credential: Arc<Credential>,
    id: u64,
}

impl Running {
    /// The answer has come; there is nothing left to cancel.
    pub fn finish(&mut self) {
        self.cancel = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(cancel) = self.cancel.take() else { return };
        if cancel.agreement.is_modern() {
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
        let headers = self.agreement.headers(&Rpc::new("notifications/cancelled"));
        let sent = self.link.post(&self.credential, headers, body, Instant::now() + CANCEL_TIMEOUT).await;
        tracing::debug!(upstream.id = %self.link.upstream().id, delivered = sent.is_ok(), "cancelled a call upstream");
    }
}

/// One upstream as we hold on to it, for one actor if it is called as somebody. Nothing that proves anybody is shared between two
/// links: the session of a legacy upstream and the access token lie in here.
pub struct Link {
    line: Arc<Line>,
    actor: Option<Actor>,
    next_id: AtomicU64,
    token: Arc<Held>,
    account: Arc<Live>,
    pub(super) agreed: ArcSwapOption<Agreement>,
    pub(super) negotiation: Mutex<Option<Failure>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("upstream", &self.upstream().id).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(line: Arc<Line>, actor: Option<Actor>) -> Self {
        Self::showing(line, actor, Arc::default())
    }

    /// One for an actor, which keeps a session of its own and shows what this one shows.
    pub(super) fn for_session_of(&self, actor: Actor) -> Self {
        Self::showing(Arc::clone(&self.line), Some(actor), Arc::clone(&self.token))
    }

    fn showing(line: Arc<Line>, actor: Option<Actor>, token: Arc<Held>) -> Self {
        Self {
            line,
            actor,
            next_id: AtomicU64::new(1),
            token,
            account: Arc::default(),
            agreed: ArcSwapOption::empty(),
            negotiation: Mutex::new(None),
        }
    }

    /// What it shares with the other links of its upstream.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Whether it is known that the upstream keeps nothing between requests.
    pub(super) fn is_stateless(&self) -> bool {
        self.is_api() || self.agreed.load().as_ref().is_some_and(|agreed| !agreed.has_session())
    }

    /// Whether the upstream is an API, with which nothing is agreed on.
    fn is_api(&self) -> bool {
        self.upstream().spec.protocol.document().is_some()
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        self.line.upstream()
    }

    /// Asks `rpc` and waits at most until `deadline`. An access token that the upstream refuses is replaced and the request repeated
    /// once; the upstream's 401 says that it was not executed.
    pub async fn ask(
        self: &Arc<Self>,
        proofs: &Proofs<'_>,
        rpc: &Rpc<'_>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let credential = Arc::new(self.credential(proofs, None, deadline).await?);
        let issue = credential.issue;
        match (self.attempt(rpc, credential, deadline).await, issue) {
            (Err(UpstreamError::Unauthorized), Some(refused)) => {
                let credential = Arc::new(self.credential(proofs, Some(refused), deadline).await?);
                self.attempt(rpc, credential, deadline).await
            }
            (Err(UpstreamError::Unauthorized), None) => Err(UpstreamError::CredentialRefused),
            (reply, _) => reply,
        }
    }

    /// Asks with one credential, which was got before there was a place: nobody at the upstream waits for an authorization server. A
    /// session that the upstream has forgotten is started anew and the request repeated once; the upstream's 404 says that it was
    /// not executed.
    async fn attempt(
        self: &Arc<Self>,
        rpc: &Rpc<'_>,
        credential: Arc<Credential>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let place = self.line.place(rpc.is_beside, deadline.min(Instant::now() + PLACE_TIMEOUT)).await?;
        if self.is_api() {
            // The place is held until the answer is whole.
            let answer = openapi::answer(self, &credential, rpc, deadline).await;
            drop(place);
            return answer.map(Reply::Whole);
        }
        let attempt = Attempt { rpc, credential, deadline, place };
        let agreement = negotiate::agreement(self, &attempt.credential, deadline).await?;
        match self.exchange(&attempt, &agreement).await {
            Err(UpstreamError::SessionGone | UpstreamError::VersionChanged) => {
                self.forget(&agreement);
                let agreement = negotiate::agreement(self, &attempt.credential, deadline).await?;
                self.exchange(&attempt, &agreement).await
            }
            reply => reply,
        }
    }

    fn forget(&self, agreement: &Arc<Agreement>) {
        let current = self.agreed.load_full();
        if current.is_some_and(|current| Arc::ptr_eq(&current, agreement)) {
            self.agreed.store(None);
        }
    }

    /// One request and its reply.
    async fn exchange(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        agreement: &Arc<Agreement>,
    ) -> Result<Reply, UpstreamError> {
        let Attempt { rpc, credential, deadline, place } = attempt;
        let id = self.next_id();
        let cancel =
            Cancel { link: Arc::clone(self), agreement: Arc::clone(agreement), credential: Arc::clone(credential), id };
        let mut running = Running { cancel: Some(cancel), _place: Arc::clone(place) };
        let read = async {
            let body = rpc.body(id, agreement.is_modern());
            let response = self.post(credential, agreement.headers(rpc), body, *deadline).await?;
            self.read(response, id, agreement, attempt).await
        };
        let read = read.await;
        if !matches!(read, Ok(Read::Events(_)) | Err(UpstreamError::TimedOut)) {
            running.finish();
        }
        match read? {
            Read::Answer(answer) => Ok(Reply::Whole(answer)),
            Read::Events(events) => Ok(Reply::Stream(Box::new(Streaming { id, events, running }))),
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Posts a message. Nothing of a downstream request is in reach here.
    pub(super) async fn post(
        &self,
        credential: &Credential,
        headers: HeaderMap,
        body: String,
        deadline: Instant,
    ) -> Result<reqwest::Response, UpstreamError> {
        let mut outgoing = Outgoing { method: Method::POST, url: self.upstream().spec.url.clone(), headers, body };
        let json = HeaderValue::from_static("application/json");
        outgoing.headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        outgoing.headers.insert(CONTENT_TYPE, json);
        self.send(credential, outgoing, deadline).await
    }

    /// Proves a request and sends it.
    pub(super) async fn send(
        &self,
        credential: &Credential,
        mut outgoing: Outgoing,
        deadline: Instant,
    ) -> Result<reqwest::Response, UpstreamError> {
        credential.prove(&mut outgoing, self.line.now())?;
        let sent = async {
            let request = credential.http.request(outgoing.method, &outgoing.url)?;
            request.headers(outgoing.headers).body(outgoing.body).send().await
        };
        let sent = timeout_at(deadline, sent).await.map_err(|_| UpstreamError::TimedOut)?;
        sent.map_err(|error| self.unsent(&error))
    }

    /// What a caller hears about a request that got no response. Nothing but the log says more.
    fn unsent(&self, error: &SendError) -> UpstreamError {
        let cause = error as &dyn std::error::Error;
        let upstream = self.upstream();
        match error {
            SendError::Refused(refused) => {
                tracing::warn!(
                    tenant.id = %upstream.tenant, upstream.id = %upstream.id, error = cause,
                    "an upstream is not called"
                );
                // Callers do not learn which names lead where.
                let is_name = upstream.spec.url.domain().is_some();
                if is_name && refused.is_about_addresses() {
                    UpstreamError::Unreachable
                } else {
                    UpstreamError::Forbidden
                }
            }
            SendError::TimedOut | SendError::Unreachable(_) => {
                tracing::debug!(upstream.id = %upstream.id, error = cause, "no response");
                if matches!(error, SendError::TimedOut) { UpstreamError::TimedOut } else { UpstreamError::Unreachable }
            }
        }
    }

    async fn read(
        &self,
        response: reqwest::Response,
        id: u64,
        agreement: &Agreement,
        attempt: &Attempt<'_>,
    ) -> Result<Read, UpstreamError> {
        let redactor = Redactor::new(&attempt.credential, agreement.session(), &attempt.rpc.params, &self.line);
        let status = response.status();
        if let Some(refusal) = refusal(status) {
            return Err(refusal);
        }
        if status == StatusCode::NOT_FOUND && agreement.has_session() {
            return Err(UpstreamError::SessionGone);
        }
        if is_events(&response) && status.is_success() {
            return Ok(Read::Events(events(response).without(redactor)));
        }
        if !has_media_type(&response, "application/json") {
            return Err(if status.is_success() {
                UpstreamError::NotMcp
            } else {
                UpstreamError::Status(status.as_u16())
            });
        }
        let body = whole(response, attempt.rpc.answer_bytes_max, attempt.deadline).await?;
        let redacted = redactor.redacted(&body);
        let answer = parse_answer(redacted.as_ref().map_or(&body, String::as_bytes), id);
        // What is no JSON-RPC is somebody else's page, whatever its media type says, and may tell anything.
        let answer =
            answer.map_err(|error| if status.is_success() { error } else { UpstreamError::Status(status.as_u16()) })?;
        match &answer {
            Answer::Error(error) if error_code(error) == Some(CODE_UNSUPPORTED_VERSION) => {
                Err(UpstreamError::VersionChanged)
            }
            _ => Ok(Read::Answer(answer)),
        }
    }
}

enum Read {
    Answer(Answer),
    Events(EventStream),
}
