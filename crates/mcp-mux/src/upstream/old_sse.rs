//! The transport of MCP 2024-11-05, which was called HTTP with SSE: a stream of events is a session. Its first event names the
//! endpoint where messages are posted, and what is answered comes in the stream.
//!
//! Nobody configures it. It is found where the handshake of the later transport is refused with a status that says "no messages
//! here", as the specification of 2025-11-25 tells clients to. One task reads the stream of a link and hands each answer to the
//! call that waits for it. The stream ends with its link, with its upstream, or when nobody has used it for some minutes; whoever
//! comes next begins another one.

mod calls;
mod endpoint;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{StreamExt as _, iter, unfold};
use http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::calls::{Calls, Item, Wait};
use self::endpoint::Endpoint;
use self::reader::Reader;
pub(super) use self::reader::reply;
use super::answer::{is_events, refusal};
use super::credential::Credential;
use super::error::UpstreamError;
use super::event_stream::{EventStream, Kind};
use super::link::{Link, Place};
use super::negotiate::{self, Agreement, INITIALIZED};
use super::notices::Notices;
use super::peer::ClientCapabilities;
use super::redact::Redactor;
use super::request::Outgoing;

/// How long the stream may take to name its endpoint.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(5);

/// A session, which lives as long as its stream.
pub(super) struct Session {
    endpoint: Arc<Endpoint>,
    calls: Arc<Calls>,
    /// What is told of changes.
    pub(super) notices: Notices,
    /// Ends the stream with the last holder of the session.
    _close: DropGuard,
}

/// A request to be posted.
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) body: String,
    pub(super) deadline: Instant,
    /// Taken for as long as the upstream is at it.
    pub(super) place: Option<Place>,
}

/// Whether `status` is what an address answers where messages are not posted.
pub(super) fn is_hinted_at_by(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

/// Agrees on a version over a stream, if there is one; else the upstream has `refused`.
pub(super) async fn agree(
    link: &Link,
    credential: &Arc<Credential>,
    refused: UpstreamError,
    deadline: Instant,
) -> Result<Agreement, UpstreamError> {
    let session = match Session::open(link, credential, deadline.min(Instant::now() + ENDPOINT_TIMEOUT)).await {
        Ok(session) => session,
        Err(
            error @ (UpstreamError::Unauthorized
            | UpstreamError::CredentialRefused
            | UpstreamError::Forbidden
            | UpstreamError::EndpointElsewhere),
        ) => return Err(error),
        Err(_) => return Err(refused),
    };
    let id = link.next_id();
    let ask =
        Ask { id, body: negotiate::initialize(ClientCapabilities::default()).body(id, false), deadline, place: None };
    let mut events = session.ask(credential, ask).await?;
    let chosen = negotiate::chosen(negotiate::answer_in(&mut events, id, deadline).await?)?;
    session.notify(credential, INITIALIZED.to_owned(), deadline).await?;
    Ok(Agreement::in_stream(chosen, Arc::new(session)))
}

impl Session {
    /// Opens the stream, waits for the endpoint, and lets a task read what follows.
    async fn open(link: &Link, credential: &Arc<Credential>, deadline: Instant) -> Result<Self, UpstreamError> {
        let line = link.line();
        let outgoing = Outgoing::for_events(line.upstream().spec.url.clone());
        let response = line.send(credential, outgoing, deadline).await?;
        if let Some(refusal) = refusal(response.status()) {
            return Err(refusal);
        }
        if !response.status().is_success() || !is_events(&response) {
            return Err(UpstreamError::NotMcp);
        }
        let calls = Arc::new(Calls::new());
        let heard = Arc::clone(&calls);
        let body = response.chunks().map(move |chunk| {
            heard.note_heard();
            chunk.map_err(|_| UpstreamError::BrokeOff)
        });
        let mut events = EventStream::new(body.boxed()).wanting(Kind::Endpoint);
        let named = timeout_at(deadline, events.next()).await.map_err(|_| UpstreamError::TimedOut)?;
        let named = named.ok_or(UpstreamError::BrokeOff)??;
        let endpoint = Arc::new(Endpoint::named(&named.0, line, credential)?);
        let closed = CancellationToken::new();
        let events = events.wanting(Kind::Message);
        let notices = Notices::default();
        let (calls_too, endpoint_too) = (Arc::clone(&calls), Arc::clone(&endpoint));
        let redactor = Redactor::new(credential, endpoint.ids(), "", line);
        let reader = Reader { events, calls: calls_too, notices: notices.clone(), redactor, endpoint: endpoint_too };
        let tasks = line.tasks();
        tasks.spawn_draining(reader.run(closed.clone(), tasks.shutdown()));
        Ok(Self { endpoint, calls, notices, _close: closed.drop_guard() })
    }

    /// What names the session, as far as it can be told apart from the rest of the endpoint.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.endpoint.ids()
    }

    /// Posts a request; the answer comes in what is returned, behind notifications about the request. The upstream may answer before
    /// it is done with the post, and does not see the post end early.
    pub(super) async fn ask(&self, credential: &Arc<Credential>, ask: Ask) -> Result<EventStream, UpstreamError> {
        let Ask { id, body, deadline, place } = ask;
        let mut wait = self.calls.wait(id, deadline)?;
        self.endpoint.show(credential);
        let (mut tell, mut posted) = oneshot::channel();
        let (endpoint, credential) = (Arc::clone(&self.endpoint), Arc::clone(credential));
        let shutdown = self.endpoint.tasks().shutdown();
        self.endpoint.tasks().spawn_draining(async move {
            let _place = place;
            tokio::select! {
                posted = endpoint.post(&credential, body, deadline) => drop(tell.send(posted)),
                // A server that stops waits for nothing that nobody waits for.
                () = async { tokio::join!(shutdown.cancelled(), tell.closed()); } => {}
            }
        });
        let first = tokio::select! {
            biased;
            posted = &mut posted => {
                let posted = posted.unwrap_or(Err(UpstreamError::BrokeOff));
                posted.inspect_err(|error| self.give_up_after(error))?;
                None
            }
            item = wait.next() => match item.unwrap_or(Err(UpstreamError::BrokeOff)) {
                Ok(event) => Some(Ok(event)),
                // Whether the request was executed is for the post to say, not for the stream.
                Err(ended) => return Err(posted.await.ok().and_then(Result::err).unwrap_or(ended)),
            },
        };
        Ok(EventStream::of_events(iter(first).chain(coming(wait)).boxed()))
    }

    /// Posts what is not answered.
    pub(super) async fn notify(
        &self,
        credential: &Credential,
        body: String,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        self.endpoint.post(credential, body, deadline).await
    }

    /// A session that the upstream has forgotten takes no more calls.
    fn give_up_after(&self, error: &UpstreamError) {
        if *error == UpstreamError::SessionGone {
            self.calls.take_no_more();
        }
    }
}

fn coming(wait: Wait) -> impl futures::Stream<Item = Item> {
    unfold(wait, async |mut wait| Some((wait.next().await?, wait)))
}

// By hand: who knows the endpoint may be all that the upstream asks for.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
