//! One upstream as we hold on to it: its session, the version agreed on, the access token that it is shown, and the line beneath.

mod line;
mod measured;
mod running;
mod send;
mod token;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use http::header::HeaderMap;
use serde_json::value::RawValue;
use tenant_store::{EgressHosts, Upstream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::account::Live;
use super::answer::{Answer, error_code, events, has_media_type, held, is_events, parse_answer, refusal};
use super::credential::{Actor, Credential, Proofs};
use super::error::UpstreamError;
use super::event_stream::EventStream;
use super::negotiate::{self, Agreement, Failure};
use super::oauth::Held;
use super::old_sse;
use super::openapi;
use super::peer::Peer;
use super::redact::Redactor;
use super::request::{Lane, Outgoing, Rpc};
use super::resume::Resume;
use super::session_end::SessionEnd;
use crate::caller::Principal;
use crate::egress::Response;
use crate::json::Members;

pub(super) use line::{Conditions, Line};
use running::Cancel;
pub(super) use running::Place;
pub(crate) use running::Running;

/// How long a call waits for a place among those that run.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to find out whether there is something to show.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

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
pub(super) struct Attempt<'a> {
    pub(super) rpc: &'a Rpc<'a>,
    pub(super) credential: Arc<Credential>,
    pub(super) deadline: Instant,
    pub(super) place: Place,
}

/// One upstream as we hold on to it, for one actor if it is called as somebody. Nothing that proves anybody is shared between two
/// links: the session of a legacy upstream and the access token lie in here.
pub struct Link {
    line: Arc<Line>,
    actor: Option<Actor>,
    peer: Peer,
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
        Self {
            line,
            actor,
            peer: Peer::default(),
            next_id: AtomicU64::new(1),
            token: Arc::default(),
            account: Arc::default(),
            agreed: ArcSwapOption::empty(),
            negotiation: Mutex::new(None),
        }
    }

    /// One for a client of `actor`, which keeps a session of its own and shows what this one shows.
    pub(super) fn for_session_of(&self, actor: Actor, peer: Peer) -> Self {
        let (token, account) = (Arc::clone(&self.token), Arc::clone(&self.account));
        Self { peer, token, account, ..Self::new(Arc::clone(&self.line), Some(actor)) }
    }

    /// The client that its session is for.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// What it shares with the other links of its upstream.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Whether both lead to the same upstream, called in the same way.
    pub(crate) fn shares_line(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    /// Whether both lead to the same upstream, called in the same way and with the same account.
    pub(crate) fn is_called_like(&self, other: &Self) -> bool {
        self.shares_line(other) && Arc::ptr_eq(&self.account, &other.account)
    }

    /// Whether there is something to show to the upstream now.
    pub(crate) async fn check(&self, proofs: &Proofs<'_>) -> Result<(), UpstreamError> {
        self.credential(proofs, None, Instant::now() + CHECK_TIMEOUT).await.map(drop)
    }

    /// Sends nothing of its own accord any more, if what is configured for the upstream now is nothing, or another place.
    pub(crate) fn follow(&self, upstream: Option<&Upstream>, hosts: Option<&EgressHosts>) {
        if !upstream.is_some_and(|upstream| self.line.is_still_at(upstream, hosts)) {
            self.line.fall_silent();
        }
    }

    /// Whether it is known that the upstream keeps nothing between requests.
    pub(super) fn is_stateless(&self) -> bool {
        self.is_api() || self.agreed.load().as_ref().is_some_and(|agreed| !agreed.has_session())
    }

    /// Whether the upstream is an API, with which nothing is agreed on.
    pub(super) fn is_api(&self) -> bool {
        self.upstream().spec.protocol.document().is_some()
    }

    /// Ends its session, as soon as no call runs in it. What is asked later begins another one.
    pub(super) fn let_go(&self) {
        self.agreed.store(None);
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        self.line.upstream()
    }

    /// Asks `rpc` and waits at most until `deadline`. The upstream is told which of our spans that is, if there are spans.
    pub async fn ask(
        self: &Arc<Self>,
        proofs: &Proofs<'_>,
        rpc: &mut Rpc<'_>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let operation = self.line.operation(rpc);
        rpc.trace.goes_on_in(operation.context().as_ref());
        let mut reply = self.answered(proofs, rpc, deadline).await;
        self.note(operation, &mut reply);
        reply
    }

    /// An access token that the upstream refuses is replaced and the request repeated
    /// once; the upstream's 401 says that it was not executed.
    async fn answered(
        self: &Arc<Self>,
        proofs: &Proofs<'_>,
        rpc: &Rpc<'_>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let credential = Arc::new(self.credential(proofs, None, deadline).await?);
        let (issue, caller) = (credential.issue, proofs.caller.map(|caller| &caller.principal));
        match (self.attempt((rpc, caller), credential, deadline).await, issue) {
            (Err(UpstreamError::Unauthorized), Some(refused)) => {
                // Boxed, like all that happens seldom: every call would carry it along.
                let credential = Arc::new(Box::pin(self.credential(proofs, Some(refused), deadline)).await?);
                Box::pin(self.attempt((rpc, caller), credential, deadline)).await
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
        (rpc, caller): (&Rpc<'_>, Option<&Principal>),
        credential: Arc<Credential>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let caller = caller.filter(|_| rpc.lane == Lane::Calls);
        let pass = caller.map(|caller| self.line.pass(caller)).transpose()?;
        let mut reply = self.made(rpc, credential, deadline).await;
        match (pass, &mut reply) {
            // What becomes of it is known when its stream is read.
            (Some(pass), Ok(Reply::Stream(streaming))) => streaming.running.counts(pass),
            (Some(pass), reply) => self.line.ended(pass, reply.as_ref().err()),
            (None, _) => {}
        }
        reply
    }

    async fn made(
        self: &Arc<Self>,
        rpc: &Rpc<'_>,
        credential: Arc<Credential>,
        deadline: Instant,
    ) -> Result<Reply, UpstreamError> {
        let place = self.line.place(rpc.lane, deadline.min(Instant::now() + PLACE_TIMEOUT)).await?;
        if self.is_api() {
            // The place is held until the answer is whole.
            let answer = Box::pin(openapi::answer(self, &credential, rpc, deadline)).await;
            drop(place);
            return answer.map(Reply::Whole);
        }
        let attempt = Attempt { rpc, credential, deadline, place };
        let agreement = negotiate::agreement(self, &attempt.credential, deadline).await?;
        match self.exchange(&attempt, &agreement).await {
            Err(UpstreamError::SessionGone | UpstreamError::VersionChanged) => {
                self.forget(&agreement);
                let agreement = negotiate::agreement(self, &attempt.credential, deadline).await?;
                Box::pin(self.exchange(&attempt, &agreement)).await
            }
            reply => reply,
        }
    }

    pub(super) fn forget(&self, agreement: &Arc<Agreement>) {
        agreement.end.iter().for_each(SessionEnd::note_over);
        let current = self.agreed.load_full();
        if current.is_some_and(|current| Arc::ptr_eq(&current, agreement)) {
            self.agreed.store(None);
        }
    }

    /// One request and its reply.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        agreement: &Arc<Agreement>,
    ) -> Result<Reply, UpstreamError> {
        let Attempt { rpc, credential, deadline, place } = attempt;
        agreement.end.iter().for_each(|end| end.show(credential));
        let id = self.next_id();
        let cancel =
            Cancel { link: Arc::clone(self), agreement: Arc::clone(agreement), credential: Arc::clone(credential), id };
        let mut running = Running::new(cancel, Arc::clone(place));
        let beside = agreement.join(id);
        let read = async {
            let body = rpc.body(id, agreement.is_modern());
            rpc.goes();
            if let Some(session) = agreement.old_sse() {
                return Box::pin(self.read_from(session, (id, body), attempt)).await;
            }
            let response = self.post(credential, agreement.headers(rpc), body, *deadline).await?;
            self.read(response, id, agreement, attempt).await
        };
        let read = read.await;
        if !matches!(read, Ok(Read::Events(_)) | Err(UpstreamError::TimedOut)) {
            running.finish();
        }
        match read? {
            Read::Answer(answer) => Ok(Reply::Whole(answer)),
            // What we agreed on may be forgotten there. What is asked next finds it out.
            Read::Unread(answer) => {
                self.forget(agreement);
                Ok(Reply::Whole(answer))
            }
            Read::Events(events) => {
                let events = match beside {
                    Some(beside) => beside.with(events),
                    None => events,
                };
                Ok(Reply::Stream(Box::new(Streaming { id, events, running })))
            }
        }
    }

    /// Answers a request that the upstream made in the stream of a call.
    async fn answer(
        &self,
        agreement: &Agreement,
        credential: &Credential,
        (id, outcome): (&RawValue, &str),
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        // To an upstream that was taken away or moved nothing is sent any more.
        if self.line.is_silent() {
            return Err(UpstreamError::BrokeOff);
        }
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{outcome}}}", id.get());
        let headers = agreement.headers(&Rpc::new(""));
        let status = self.post(credential, headers, body, deadline).await?.status();
        match refusal(status) {
            Some(refusal) => Err(refusal),
            None if status == StatusCode::NOT_FOUND => Err(UpstreamError::BrokeOff),
            None if status.is_success() => Ok(()),
            None => Err(UpstreamError::Status(status.as_u16())),
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
    ) -> Result<Response, UpstreamError> {
        let url = self.upstream().spec.url.clone();
        self.line.send(credential, Outgoing::message(url, headers, body), deadline).await
    }

    /// One request over the stream of a session, and its reply.
    async fn read_from(
        &self,
        session: &old_sse::Session,
        (id, body): (u64, String),
        attempt: &Attempt<'_>,
    ) -> Result<Read, UpstreamError> {
        let Attempt { rpc, credential, deadline, place } = attempt;
        let redactor = Redactor::new(credential, session.ids(), &rpc.params, &self.line);
        let ask = old_sse::Ask { id, body, deadline: *deadline, place: Some(Arc::clone(place)) };
        let mut events = session.ask(credential, ask).await?.without(redactor).held_by(rpc.load.apart());
        if rpc.progress {
            return Ok(Read::Events(events));
        }
        let answer = negotiate::answer_in(&mut events, id, *deadline).await?;
        drop(events);
        if rpc.load.take(answer.bytes()) { Ok(Read::Answer(answer)) } else { Err(UpstreamError::NoRoomToRead) }
    }

    async fn read(
        &self,
        response: Response,
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
            let (events, load) = (events(response).without(redactor.clone()), attempt.rpc.load.apart());
            if !agreement.has_session() {
                return Ok(Read::Events(events.held_by(load)));
            }
            let (line, credential) = (Arc::clone(&self.line), Arc::clone(&attempt.credential));
            let resume = Resume { line, credential, headers: agreement.headers(attempt.rpc), redactor, load };
            return Ok(Read::Events(resume.of(events)));
        }
        if !has_media_type(&response, "application/json") {
            return Err(if status.is_success() {
                UpstreamError::NotMcp
            } else {
                UpstreamError::Status(status.as_u16())
            });
        }
        let within = (attempt.rpc.answer_bytes_max, &attempt.rpc.load);
        let body = held(response, within, attempt.deadline).await?;
        let redacted = redactor.redacted(&body);
        let answer = parse_answer(redacted.as_ref().map_or(&body, String::as_bytes), id);
        // What is no JSON-RPC is somebody else's page, whatever its media type says, and may tell anything.
        let answer =
            answer.map_err(|error| if status.is_success() { error } else { UpstreamError::Status(status.as_u16()) })?;
        match &answer {
            Answer::Error(error) if error_code(error) == Some(CODE_UNSUPPORTED_VERSION) => {
                Err(UpstreamError::VersionChanged)
            }
            Answer::Error(_) if is_unread(status, &body) => Ok(Read::Unread(answer)),
            _ => Ok(Read::Answer(answer)),
        }
    }
}

/// Whether the upstream refused a request without reading it: the error is to no request.
fn is_unread(status: StatusCode, body: &[u8]) -> bool {
    let refuses = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status);
    refuses && Members::parse_slice(body).is_ok_and(|message| message.get("id").is_none_or(|id| id.get() == "null"))
}

enum Read {
    Answer(Answer),
    Unread(Answer),
    Events(EventStream),
}
