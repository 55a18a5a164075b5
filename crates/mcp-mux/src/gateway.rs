//! Our MCP server face: Streamable HTTP in both eras on one endpoint.
//!
//! Lists, and what is asked of upstreams, take the raw path. rmcp serves what is protocol machinery: `initialize`, `server/discover`,
//! `ping`, and the answers to `GET` and `DELETE`. What a caller may see is decided behind this module, in the mux.

mod account_missing;
mod answer;
mod ask;
mod cancel;
pub(crate) mod envelope;
pub(crate) mod era;
mod events;
mod lifecycle;
mod listen;
mod measured;
mod pieces;
mod problem;
mod replay;
pub(crate) mod request;
mod session;
mod subscribed;

pub use account_missing::ConnectLinks;
pub use problem::Problem;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{Method, Request, Response};
use tenant_store::{Clock, Revision};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::account_missing::Missing;
use self::answer::{Asked, Way};
use self::cancel::{Calls, Cancellable};
use self::envelope::{Message, Notification, Response as Reply, Rpc};
use self::era::Era;
use self::lifecycle::{Face, Lifecycle};
use self::listen::{Listener, Streams, Topics};
use self::replay::{Position, Replays};
use self::request::{Accepts, BODY_TIMEOUT, read, require_json};
use self::session::{Session, Sessions};
use self::subscribed::Subscribed;
use crate::caller::{Caller, Principal};
use crate::json::{self, Members};
use crate::lifecycle::{Tasks, or_never};
use crate::mux::{CallError, Endpoint, Handles, Listed, Mux, TaskAct, Wanted};
use crate::telemetry::{Operation, Operations, Origin, Side};
use crate::upstream::{ClientCapabilities, UpstreamError};

/// Every MCP request method that is answered, and by whom. A method that is not in this list is unknown to everybody.
pub const METHODS: [(&str, Served); 20] = [
    ("initialize", Served::ByLifecycle),
    ("server/discover", Served::ByLifecycle),
    ("ping", Served::ByLifecycle),
    ("tools/list", Served::Raw(RawMethod::List(Listed::Tools))),
    ("tools/call", Served::Raw(RawMethod::Ask(AskMethod::CallTool))),
    ("prompts/list", Served::Raw(RawMethod::List(Listed::Prompts))),
    ("prompts/get", Served::Raw(RawMethod::Ask(AskMethod::GetPrompt))),
    ("resources/list", Served::Raw(RawMethod::List(Listed::Resources))),
    ("resources/templates/list", Served::Raw(RawMethod::List(Listed::Templates))),
    ("resources/read", Served::Raw(RawMethod::Ask(AskMethod::ReadResource))),
    ("completion/complete", Served::Raw(RawMethod::Ask(AskMethod::Complete))),
    ("skills/list", Served::Raw(RawMethod::List(Listed::Skills))),
    ("skills/get", Served::Raw(RawMethod::Ask(AskMethod::GetSkill))),
    ("tasks/get", Served::Raw(RawMethod::Ask(AskMethod::Task(TaskAct::Get)))),
    ("tasks/update", Served::Raw(RawMethod::Ask(AskMethod::Task(TaskAct::Update)))),
    ("tasks/cancel", Served::Raw(RawMethod::Ask(AskMethod::Task(TaskAct::Cancel)))),
    ("resources/subscribe", Served::Raw(RawMethod::Subscribe(true))),
    ("resources/unsubscribe", Served::Raw(RawMethod::Subscribe(false))),
    ("subscriptions/listen", Served::Raw(RawMethod::Listen)),
    ("logging/setLevel", Served::Raw(RawMethod::SetLevel)),
];

/// Who answers a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// rmcp: it says the same to every caller and touches no tenant.
    ByLifecycle,
    /// Ourselves, on the raw path, through policy.
    Raw(RawMethod),
}

/// The methods of the raw path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawMethod {
    /// One of the lists.
    List(Listed),
    /// What leads to an upstream.
    Ask(AskMethod),
    /// `subscriptions/listen`, of the modern era only
    Listen,
    /// `resources/subscribe`, or else `resources/unsubscribe`, of the legacy era only
    Subscribe(bool),
    /// `logging/setLevel`, of the legacy era only
    SetLevel,
}

/// The methods that lead to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskMethod {
    /// `tools/call`
    CallTool,
    /// `prompts/get`
    GetPrompt,
    /// `resources/read`
    ReadResource,
    /// `completion/complete`
    Complete,
    /// `skills/get`, of the modern era only, at a tenant's own endpoint
    GetSkill,
    /// `tasks/…`, of the modern era only
    Task(TaskAct),
}

impl Served {
    /// Whether the method exists for clients of that era, at that endpoint. Skills are known by their server and their URI together, and
    /// where all tenants' are listed, all of them would be of one server.
    fn exists(self, era: Era, endpoint: &Endpoint) -> bool {
        match self {
            Self::Raw(RawMethod::SetLevel | RawMethod::Subscribe(_)) => era == Era::Legacy,
            Self::Raw(RawMethod::Listen | RawMethod::Ask(AskMethod::Task(_))) => era == Era::Modern,
            Self::Raw(RawMethod::List(Listed::Skills) | RawMethod::Ask(AskMethod::GetSkill)) => {
                era == Era::Modern && *endpoint != Endpoint::Aggregate
            }
            Self::ByLifecycle | Self::Raw(_) => true,
        }
    }
}

impl AskMethod {
    /// Whether an answer may ask the client for input (MCP 2026-07-28 `basic/patterns/mrtr`).
    fn may_want_input(self) -> bool {
        !matches!(self, Self::Complete | Self::GetSkill | Self::Task(_))
    }
}

/// Our MCP server face. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    mux: Mux,
    lifecycle: Lifecycle,
    sessions: Sessions,
    subscribed: Subscribed,
    replays: Replays,
    streams: Streams,
    calls: Calls,
    links: ConnectLinks,
    operations: Operations,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

impl Gateway {
    /// Whether nobody is let in as that principal.
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.mux.is_revoked(principal)
    }

    /// Tells of each new state of what is decided by.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.mux.revisions()
    }

    /// A face for `mux`; `handles` are the ids of legacy sessions, `links` lead to `/connect`, `tasks` drive the streams, and `operations`
    /// are told of each request.
    pub(crate) fn new(
        (mux, handles): (Mux, Handles),
        links: ConnectLinks,
        operations: Operations,
        (clock, tasks): (Arc<dyn Clock>, Tasks),
    ) -> Self {
        let (sessions, streams, calls) = (Sessions::new(handles), Streams::new(), Calls::default());
        let (subscribed, replays) = (Subscribed::new(), Replays::new());
        let lifecycle = Lifecycle::new();
        Self { mux, lifecycle, sessions, subscribed, replays, streams, calls, links, operations, clock, tasks }
    }

    /// Answers one HTTP request of a caller whose identity was verified. The request carries no credential any more.
    pub async fn handle(&self, caller: &Caller, endpoint: &Endpoint, request: Request<Body>) -> Response<Body> {
        match self.answer(caller, endpoint, request).await {
            Ok(response) => response,
            Err(problem) => {
                problem.log(caller);
                problem.into_response()
            }
        }
    }

    async fn answer(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let session = self.sessions.check(caller, self.clock.now(), request.headers_mut())?;
        if request.method() == Method::POST {
            return self.post(caller, endpoint, session, request).await;
        }
        if let Some(session) = session.filter(|_| request.method() == Method::GET)
            && takes_events(request.headers())?
        {
            if replay::is_asked_for(request.headers()) {
                return self.take_up(caller, endpoint, &session, Position::of(request.headers()));
            }
            let wanted = Wanted { tools: true, prompts: true, resources: true };
            let listener = Listener::Legacy(self.subscribed.stream(session));
            return self.listen(caller, endpoint, (wanted, BTreeSet::new()), listener);
        }
        Ok(Box::pin(self.lifecycle.handle(Face::Legacy, request.map(|_| Bytes::new()))).await)
    }

    async fn post(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        session: Option<Session>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let accepts = Accepts::of(request.headers())?;
        require_json(request.headers())?;
        let (parts, body) = request.into_parts();
        let deadline = caller.deadline.min(Instant::now() + BODY_TIMEOUT);
        let body = timeout_at(deadline, read(body)).await.map_err(|_| Problem::slow_body())??;
        let rpc = match envelope::parse(&body)? {
            Message::Request(rpc) => rpc,
            Message::Notification(notification) => {
                self.hear(session.as_ref(), &notification);
                return Ok(answer::accepted());
            }
            Message::Response(Reply { id, answer }) => {
                let is_taken = self.mux.take_answer(caller, &id, answer);
                return if is_taken { Ok(answer::accepted()) } else { Err(Problem::nobody_asked()) };
            }
        };
        let origin = || Origin::of(rpc.meta.as_ref(), &parts.headers);
        let mut operation = self.operations.begin(Side::Server, &rpc.method, origin);
        operation.is_known_by(rpc.id.get());
        let client = Client { session, accepts, parts };
        let answered = self.serve(caller, endpoint, client, (&rpc, &body, &mut operation)).await;
        operation.end(measured::ending(&answered));
        answered.map_err(|problem| problem.answering(rpc.id))
    }

    /// Answers a request that was read.
    async fn serve(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        Client { session, accepts, parts }: Client,
        (rpc, body, operation): (&Rpc<'_>, &Bytes, &mut Operation),
    ) -> Result<Response<Body>, Problem> {
        let era = era::check(&parts.headers, rpc)?;
        operation.speaks(era::version(&parts.headers, (era, rpc)));
        // What a client calls a method that nobody knows is its own text, and has no place in a log.
        let (known, served) = METHODS
            .into_iter()
            .find(|(method, _)| *method == rpc.method)
            .map_or(("unknown", None), |(method, served)| (method, Some(served)));
        tracing::debug!(request.id = %caller.request_id, mcp.method = known, mcp.era = era.as_str(), "request");
        match served.filter(|served| served.exists(era, endpoint)) {
            None => Err(Problem::method_not_found(era)),
            Some(Served::ByLifecycle) => {
                Box::pin(self.machinery(caller, endpoint, (rpc, era), Request::from_parts(parts, body.clone()))).await
            }
            Some(Served::Raw(RawMethod::Listen)) if accepts != Accepts::Events => Err(Problem::not_acceptable()),
            Some(Served::Raw(RawMethod::Listen)) => {
                let listen = |wanted| self.listen(caller, endpoint, wanted, Listener::Modern(rpc.id.to_owned()));
                listen::wanted(rpc).and_then(listen)
            }
            Some(Served::Raw(RawMethod::Subscribe(begins))) => {
                self.subscribe(caller, endpoint, (session.as_ref(), begins), rpc)
            }
            Some(Served::Raw(RawMethod::SetLevel)) => self.set_level(session.as_ref(), rpc),
            Some(Served::Raw(RawMethod::List(listed))) => self.list(caller, endpoint, (era, listed), rpc),
            Some(Served::Raw(RawMethod::Ask(method))) => {
                let session = session.filter(|_| era == Era::Legacy);
                let can = session.as_ref().map_or_else(|| ask::declared(era, rpc), |session| session.can);
                let shape = Shape { era, accepts, session, can, headers: &parts.headers };
                self.ask(caller, endpoint, (method, shape), (rpc, operation)).await
            }
        }
    }

    /// rmcp's answer. Where it could not read the body, it would speak in its own words and not in JSON-RPC.
    async fn machinery(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (rpc, era): (&Rpc<'_>, Era),
        request: Request<Bytes>,
    ) -> Result<Response<Body>, Problem> {
        let mut response = self.lifecycle.handle(Face::of(era, endpoint), request).await;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/json") {
            return Err(Problem::unreadable());
        }
        if rpc.method == "initialize" && response.status().is_success() {
            let can = ClientCapabilities::of(rpc.params.get("capabilities"));
            self.sessions.begin(caller, can, response.headers_mut());
        }
        Ok(response)
    }

    fn list(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (era, listed): (Era, Listed),
        rpc: &Rpc<'_>,
    ) -> Result<Response<Body>, Problem> {
        let unknown = || Problem::invalid_params("unknown cursor: begin the list anew");
        let cursor = match rpc.params.get("cursor").filter(|cursor| cursor.get() != "null") {
            None => None,
            Some(cursor) => Some(json::as_str(cursor).ok_or_else(unknown)?),
        };
        let page = self.mux.list(caller, endpoint, listed, cursor.as_deref()).ok_or_else(unknown)?;
        let member = match listed {
            Listed::Tools => "tools",
            Listed::Prompts => "prompts",
            Listed::Resources => "resources",
            Listed::Templates => "resourceTemplates",
            Listed::Skills => "skills",
        };
        Ok(answer::list(rpc.id, era, member, page))
    }

    fn listen(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (wanted, uris): (Wanted, BTreeSet<String>),
        listener: Listener,
    ) -> Result<Response<Body>, Problem> {
        for uri in &uris {
            // What cannot be subscribed to is not acknowledged, and no error.
            self.mux.check_subscription(caller, endpoint, ("subscriptions/listen", uri)).ok();
        }
        let changes = self.mux.changes(caller, endpoint, wanted);
        let subscriptions = self.mux.subscriptions(caller, endpoint);
        let topics = Topics { changes, wanted, subscriptions, uris };
        self.streams.open(caller, topics, listener, (&self.tasks, self.clock.now()))
    }

    /// Notes what a legacy session wants to hear of, or does not any more.
    fn subscribe(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (session, begins): (Option<&Session>, bool),
        rpc: &Rpc<'_>,
    ) -> Result<Response<Body>, Problem> {
        let session = session.ok_or_else(Problem::needs_session)?;
        let uri = ask::uri(rpc)?;
        if begins {
            // Before it is recorded that it begins.
            let added = self.subscribed.add(session, uri.clone().into_owned());
            let is_new = added.ok_or_else(Problem::too_many_subscriptions)?;
            let checked = self.mux.check_subscription(caller, endpoint, ("resources/subscribe", &uri));
            let undo = |_: &CallError| {
                if is_new {
                    self.subscribed.remove(session, &uri);
                }
            };
            checked.inspect_err(undo).map_err(|error| match error {
                CallError::Unknown(what) => Problem::unknown(what, Era::Legacy),
                error => Problem::invalid_params(error.to_string()),
            })?;
        } else {
            self.subscribed.remove(session, &uri);
        }
        Ok(answer::result(rpc.id, &serde_json::json!({})))
    }

    /// What follows in the stream of a call whose connection broke.
    fn take_up(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        session: &Session,
        position: Option<Position>,
    ) -> Result<Response<Body>, Problem> {
        let position = position.ok_or_else(Problem::stream_not_found)?;
        let replay = self.replays.find(session, endpoint, position);
        let replay = replay.filter(|replay| self.mux.may_use(caller, replay.matter()));
        let replay = replay.ok_or_else(Problem::stream_not_found)?;
        Ok(events::response(replay.take_up(caller, position)))
    }

    async fn ask(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (method, shape): (AskMethod, Shape<'_>),
        (rpc, operation): (&Rpc<'_>, &mut Operation),
    ) -> Result<Response<Body>, Problem> {
        let Shape { era, accepts, session, can, headers } = shape;
        let streams = accepts == Accepts::Events;
        // Who takes no stream can neither be asked in one nor hear of anything there.
        let level = session.as_ref().filter(|_| streams).map(|session| self.sessions.level(session));
        let find_task = |id: &str| self.mux.task(caller, endpoint, id);
        let mut ask = ask::read(method, (era, headers), (can, level), (rpc, find_task))?;
        ask.trace.is_within(operation.context());
        let call = session.as_ref().and_then(|session| self.calls.begin(session, rpc.id));
        let cancelled = or_never(call.as_ref().map(Cancellable::cancelled));
        let outcome = tokio::select! {
            () = cancelled => return Ok(answer::accepted()),
            outcome = self.mux.ask(caller, endpoint, &ask, operation.take()) => outcome,
        };
        if let Err(error @ CallError::Upstream { error: cause, .. }) = &outcome {
            tracing::warn!(
                request.id = %caller.request_id, mcp.thing = ask.wish.thing().word(), fault = cause.fault().as_str(),
                error = error as &dyn std::error::Error, "a request has no answer"
            );
        }
        if let Err(CallError::Upstream { tenant, upstream, error: UpstreamError::AccountMissing }) = &outcome {
            let can = if method.may_want_input() { can } else { ClientCapabilities::default() };
            return Ok(self.links.answer(caller, (rpc, era), can, Missing { tenant, upstream }));
        }
        if let Err(CallError::Unknown(what)) = outcome {
            return Err(Problem::unknown(what, era));
        }
        let replays = session.filter(|_| replay::is_known_to(headers)).map(|session| (&self.replays, caller, session));
        let way = Way { tasks: streams.then_some(&self.tasks), call, replays };
        answer::call(rpc.id, Asked { era, kind: ask::kind(&ask.wish) }, way, outcome).await
    }

    /// What a legacy client tells us. Everything but that it cancels a call changes nothing here.
    fn hear(&self, session: Option<&Session>, notification: &Notification<'_>) {
        if notification.method != "notifications/cancelled" {
            return;
        }
        let params = notification.params.and_then(|params| Members::parse(params.get()).ok());
        if let Some((session, id)) = session.zip(params.and_then(|params| params.get("requestId"))) {
            self.calls.cancel(session, id);
        }
    }

    fn set_level(&self, session: Option<&Session>, rpc: &Rpc<'_>) -> Result<Response<Body>, Problem> {
        let level = ask::level(rpc)?;
        self.sessions.set_level(session.ok_or_else(Problem::needs_session)?, level);
        Ok(answer::result(rpc.id, &serde_json::json!({})))
    }
}

/// What an HTTP request says besides its body.
struct Client {
    session: Option<Session>,
    accepts: Accepts,
    parts: Parts,
}

/// What a call's HTTP request says about it besides its body.
struct Shape<'h> {
    era: Era,
    accepts: Accepts,
    session: Option<Session>,
    /// What the client can be asked for.
    can: ClientCapabilities,
    headers: &'h HeaderMap,
}

fn takes_events(headers: &HeaderMap) -> Result<bool, Problem> {
    Accepts::of(headers).map(|accepts| accepts == Accepts::Events)
}

/// `params` or `_meta`: an object, or nothing.
fn members<'t>(raw: Option<&'t serde_json::value::RawValue>, problem: &'static str) -> Result<Members<'t>, Problem> {
    Members::parse(raw.map_or("{}", |raw| raw.get())).map_err(|_| Problem::invalid_params(problem))
}
