//! Listening to an upstream: in the stream of a `subscriptions/listen` (MCP 2026-07-28 `basic/patterns/subscriptions`), or in a legacy
//! session, which is told of each resource that somebody listens for (2025-11-25 `server/resources`, "Subscriptions").

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::credential::{Credential, Proofs};
use super::error::UpstreamError;
use super::link::{Attempt, Link, Place, Reply, Streaming};
use super::negotiate::{self, Agreement};
use super::notices::{Listener, Notice};
use super::request::{Lane, Rpc};
use crate::audit::Purpose;
use crate::json::{self, Members};

/// How long it may take until an upstream is listened to.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an upstream may take over hearing that nobody listens to it any more.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What a modern stream begins with.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// What somebody wants to hear of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topics<'t> {
    /// Who listens.
    pub(crate) lane: Lane,
    /// Changed lists.
    pub(crate) lists: bool,
    /// The resources with these URIs of the upstream's own.
    pub(crate) uris: &'t [String],
}

/// What an upstream tells one listener, until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription(Source);

#[derive(Debug)]
enum Source {
    /// The stream of one request.
    Stream { is_begun: bool, streaming: Box<Streaming> },
    /// What is told in a session.
    Session { is_begun: bool, listener: Listener, _subscriber: Subscriber },
}

/// How many listeners a session has for each resource that it is subscribed to. Who changes that says so to the upstream before
/// anybody else does: what is told last is what holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscribed(Arc<Mutex<HashMap<String, usize>>>);

/// One listener's part in the subscriptions of a session.
struct Subscriber {
    session: InSession,
    uris: Vec<String>,
}

/// What is said in a session, by a listener who holds this place.
#[derive(Clone)]
struct InSession {
    link: Arc<Link>,
    agreement: Arc<Agreement>,
    credential: Arc<Credential>,
    place: Place,
}

impl Link {
    /// Whether the upstream tells those who listen that a resource changed; none, if that is not known yet.
    pub(crate) fn tells_of_resources(&self) -> Option<bool> {
        if self.is_api() {
            return Some(false);
        }
        let agreed = self.agreed.load();
        agreed.as_ref().map(|agreed| agreed.can_be_heard() && agreed.capabilities.subscriptions)
    }

    /// Listens to the upstream.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        proofs: &Proofs<'_>,
        topics: &Topics<'_>,
    ) -> Result<Subscription, UpstreamError> {
        if self.is_api() {
            return Err(UpstreamError::TellsNothing);
        }
        let deadline = Instant::now() + BEGIN_TIMEOUT;
        let using = self.line().uses().begin(proofs.rows.scope(), &self.upstream().slug, Purpose::Listen);
        let shown = using.shown().clone();
        let proofs = &Proofs { shown: Some(&shown), ..*proofs };
        let credential = Arc::new(self.credential(proofs, None, deadline).await?);
        let issue = credential.issue;
        let source = match (self.listen(credential, topics, deadline).await, issue) {
            (Err(UpstreamError::Unauthorized), Some(refused)) => {
                let credential = Arc::new(self.credential(proofs, Some(refused), deadline).await?);
                self.listen(credential, topics, deadline).await
            }
            (Err(UpstreamError::Unauthorized), None) => Err(UpstreamError::CredentialRefused),
            (source, _) => source,
        };
        if source.is_ok() {
            using.went_well();
        }
        source.map(Subscription)
    }

    /// Listens with one credential. A session that the upstream has forgotten is started anew.
    async fn listen(
        self: &Arc<Self>,
        credential: Arc<Credential>,
        topics: &Topics<'_>,
        deadline: Instant,
    ) -> Result<Source, UpstreamError> {
        let place = self.line().place(topics.lane, deadline).await?;
        let agreement = negotiate::agreement(self, &credential, deadline).await?;
        let session = InSession { link: Arc::clone(self), agreement, credential, place };
        match session.clone().listen(topics, deadline).await {
            Err(UpstreamError::SessionGone | UpstreamError::VersionChanged) => {
                self.forget(&session.agreement);
                let agreement = negotiate::agreement(self, &session.credential, deadline).await?;
                InSession { agreement, ..session }.listen(topics, deadline).await
            }
            source => source,
        }
    }
}

impl Subscription {
    /// What is told next; nothing at the end. Nothing is lost when it is not waited for to its end.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        match &mut self.0 {
            Source::Stream { is_begun, streaming } => told(streaming, is_begun).await,
            Source::Session { is_begun: is_begun @ false, .. } => {
                *is_begun = true;
                Some(Notice::Begun)
            }
            Source::Session { listener, .. } => listener.next().await,
        }
    }
}

/// What a modern stream tells next.
async fn told(streaming: &mut Streaming, is_begun: &mut bool) -> Option<Notice> {
    loop {
        let event = streaming.events.next().await?.ok()?;
        if json::is_too_deep(event.0.as_bytes()) {
            return None;
        }
        let Ok(message) = Members::parse(&event.0) else { continue };
        // What is no notification is the answer to the request, and the end.
        let method = message.get_str("method").filter(|_| message.get("id").is_none())?;
        let notice = match &*method {
            ACKNOWLEDGED => (!mem::replace(is_begun, true)).then_some(Notice::Begun),
            method => Notice::of(method, &message),
        };
        if notice.is_some() {
            return notice;
        }
    }
}

impl InSession {
    /// Listens in the stream of a request.
    async fn stream(&self, topics: &Topics<'_>, deadline: Instant) -> Result<Source, UpstreamError> {
        let lists = r#""toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true"#;
        let uris = topics.uris.iter().map(|uri| json::quote(uri)).collect::<Vec<_>>().join(",");
        let wanted = if topics.lists { lists.to_owned() } else { format!("\"resourceSubscriptions\":[{uris}]") };
        let params = format!("\"notifications\":{{{wanted}}}");
        match self.ask(&Rpc { params, ..Rpc::new("subscriptions/listen") }, deadline).await? {
            Reply::Stream(streaming) => Ok(Source::Stream { is_begun: false, streaming }),
            Reply::Whole(_) => Err(UpstreamError::TellsNothing),
        }
    }

    async fn listen(self, topics: &Topics<'_>, deadline: Instant) -> Result<Source, UpstreamError> {
        if !topics.lists && !self.agreement.capabilities.subscriptions {
            return Err(UpstreamError::TellsNothing);
        }
        if self.agreement.is_modern() {
            return self.stream(topics, deadline).await;
        }
        let notices = match self.agreement.old_sse() {
            Some(session) => session.notices.clone(),
            None if self.agreement.has_session() => {
                let own = self.agreement.own_stream(self.link.line(), &self.credential, deadline).await;
                let Some(own) = own else {
                    // The upstream has no such stream, or does not know the session any more.
                    self.answered(&Rpc::new("ping"), deadline).await?;
                    return Err(UpstreamError::TellsNothing);
                };
                own.notices.clone()
            }
            None => return Err(UpstreamError::TellsNothing),
        };
        let listener = notices.listen(topics.uris);
        let mut subscriber = Subscriber { session: self, uris: Vec::new() };
        for uri in topics.uris {
            subscriber.subscribe(uri, deadline).await?;
        }
        if subscriber.uris.is_empty() && !topics.lists {
            return Err(UpstreamError::TellsNothing);
        }
        Ok(Source::Session { is_begun: false, listener, _subscriber: subscriber })
    }

    /// Says that one listener less is there for each of these. An upstream that does not take it has itself to blame.
    async fn unsubscribe(&self, uris: Vec<String>, deadline: Instant) {
        let Subscribed(subscribed) = self.agreement.subscribed.clone();
        let Ok(mut subscribed) = timeout_at(deadline, subscribed.lock()).await else { return };
        let last: Vec<String> = uris.into_iter().filter(|uri| forget(&mut subscribed, uri)).collect();
        for uri in last {
            let is_silent = self.link.line().is_silent();
            if is_silent || self.answered(&about("resources/unsubscribe", &uri), deadline).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self, rpc: &Rpc<'_>, deadline: Instant) -> Result<Reply, UpstreamError> {
        let (credential, place) = (Arc::clone(&self.credential), Arc::clone(&self.place));
        self.link.exchange(&Attempt { rpc, credential, deadline, place }, &self.agreement).await
    }

    async fn answered(&self, rpc: &Rpc<'_>, deadline: Instant) -> Result<Answer, UpstreamError> {
        match self.ask(rpc, deadline).await? {
            Reply::Whole(answer) => Ok(answer),
            Reply::Stream(mut streaming) => {
                let answer = negotiate::answer_in(&mut streaming.events, streaming.id, deadline).await;
                streaming.running.finish();
                answer
            }
        }
    }
}

impl Subscriber {
    /// Subscribes to a resource. One of which the upstream does not want to tell is left out.
    async fn subscribe(&mut self, uri: &str, deadline: Instant) -> Result<(), UpstreamError> {
        let Subscribed(subscribed) = self.session.agreement.subscribed.clone();
        let mut subscribed = timeout_at(deadline, subscribed.lock()).await.map_err(|_| UpstreamError::TimedOut)?;
        // Before it is asked: whoever gives up meanwhile takes back what may have arrived.
        *subscribed.entry(uri.to_owned()).or_default() += 1;
        self.uris.push(uri.to_owned());
        if let Answer::Error(_) = self.session.answered(&about("resources/subscribe", uri), deadline).await? {
            let upstream = self.session.link.upstream().id;
            tracing::debug!(upstream.id = %upstream, "an upstream does not tell of a resource");
            forget(&mut subscribed, uri);
            self.uris.pop();
        }
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let (session, uris) = (self.session.clone(), mem::take(&mut self.uris));
        let tasks = session.link.line().tasks().clone();
        // To an upstream that was taken away or moved nothing is sent any more, and a server that stops ends its sessions.
        let is_unsaid = uris.is_empty() || session.link.line().is_silent() || tasks.shutdown().is_cancelled();
        if is_unsaid || Handle::try_current().is_err() {
            return;
        }
        let shutdown = tasks.shutdown();
        tasks.spawn_draining(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session.unsubscribe(uris, Instant::now() + END_TIMEOUT) => {}
            }
        });
    }
}

/// One listener less; whether it was the last.
fn forget(subscribed: &mut HashMap<String, usize>, uri: &str) -> bool {
    let count = subscribed.get(uri).copied().unwrap_or_default().saturating_sub(1);
    if count == 0 {
        return subscribed.remove(uri).is_some();
    }
    subscribed.insert(uri.to_owned(), count);
    false
}

fn about(method: &'static str, uri: &str) -> Rpc<'static> {
    Rpc { params: format!("\"uri\":{}", json::quote(uri)), ..Rpc::new(method) }
}

// By hand: what proves anybody is not printed.
impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("uris", &self.uris.len()).finish_non_exhaustive()
    }
}
