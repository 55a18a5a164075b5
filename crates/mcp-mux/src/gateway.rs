//! Our MCP server face: Streamable HTTP in both eras on one endpoint.
//!
//! `tools/list` and `tools/call` take the raw path. rmcp serves what is protocol machinery: `initialize`, `server/discover`,
//! `ping`, and the answers to `GET` and `DELETE`. What a caller may see is decided behind this module, in the mux.

mod account_missing;
mod answer;
pub(crate) mod envelope;
pub(crate) mod era;
mod lifecycle;
mod problem;
pub(crate) mod request;
mod session;

pub use account_missing::ConnectLinks;
pub use problem::Problem;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use crypto::KeyRing;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use tenant_store::Clock;
use tokio::time::timeout_at;

use self::account_missing::{Elicits, Missing};
use self::envelope::{Message, Rpc};
use self::era::Era;
use self::lifecycle::Lifecycle;
use self::request::{Accepts, read, require_json};
use self::session::Sessions;
use crate::caller::Caller;
use crate::json::{self, Members};
use crate::lifecycle::Tasks;
use crate::mux::{CallError, Endpoint, Mux, ToolCall};
use crate::upstream::{Trace, UpstreamError};

/// Every MCP request method that is answered, and by whom. A method that is not in this list is unknown to everybody.
pub const METHODS: [(&str, Served); 5] = [
    ("initialize", Served::ByLifecycle),
    ("server/discover", Served::ByLifecycle),
    ("ping", Served::ByLifecycle),
    ("tools/list", Served::Raw(RawMethod::ListTools)),
    ("tools/call", Served::Raw(RawMethod::CallTool)),
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
    /// `tools/list`
    ListTools,
    /// `tools/call`
    CallTool,
}

/// Our MCP server face. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    mux: Mux,
    lifecycle: Lifecycle,
    sessions: Sessions,
    links: ConnectLinks,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

impl Gateway {
    /// A face for `mux`; `keys` seal the ids of legacy sessions, `links` lead to `/connect`, `tasks` drive the streams.
    pub fn new(mux: Mux, keys: KeyRing, links: ConnectLinks, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { mux, lifecycle: Lifecycle::new(), sessions: Sessions::new(keys), links, clock, tasks }
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
        let declared = self.sessions.check(caller, self.clock.now(), request.headers_mut())?;
        if request.method() == Method::POST {
            return self.post(caller, endpoint, declared, request).await;
        }
        Ok(self.lifecycle.handle(request.map(|_| Bytes::new())).await)
    }

    async fn post(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        declared: Elicits,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let accepts = Accepts::of(request.headers())?;
        require_json(request.headers())?;
        let (parts, body) = request.into_parts();
        let body = timeout_at(caller.deadline, read(body)).await.map_err(|_| Problem::slow_body())??;
        let rpc = match envelope::parse(&body)? {
            Message::Request(rpc) => rpc,
            // We ask clients nothing and keep nothing for them that a notification or a response could change. A legacy client's
            // `notifications/cancelled` changes nothing either: its call ends when it hangs up.
            Message::Notification | Message::Response => return Ok(answer::accepted()),
        };
        let era = era::check(&parts.headers, &rpc).map_err(|problem| problem.answering(rpc.id))?;
        // What a client calls a method that nobody knows is its own text, and has no place in a log.
        let (known, served) = METHODS
            .into_iter()
            .find(|(method, _)| *method == rpc.method)
            .map_or(("unknown", None), |(method, served)| (method, Some(served)));
        tracing::debug!(request.id = %caller.request_id, mcp.method = known, mcp.era = era.as_str(), "request");
        let answered = match served {
            None => Err(Problem::method_not_found(era)),
            Some(Served::ByLifecycle) => self.machinery(caller, &rpc, Request::from_parts(parts, body.clone())).await,
            Some(Served::Raw(RawMethod::ListTools)) => self.list_tools(caller, endpoint, era, &rpc),
            Some(Served::Raw(RawMethod::CallTool)) => match era::param_headers(&parts.headers, era) {
                Ok(param_headers) => {
                    let elicits = if era == Era::Modern { account_missing::declared(&rpc) } else { declared };
                    self.call_tool(caller, endpoint, Shape { era, accepts, elicits, param_headers }, &rpc).await
                }
                Err(problem) => Err(problem),
            },
        };
        answered.map_err(|problem| problem.answering(rpc.id))
    }

    /// rmcp's answer. Where it could not read the body, it would speak in its own words and not in JSON-RPC.
    async fn machinery(
        &self,
        caller: &Caller,
        rpc: &Rpc<'_>,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, Problem> {
        let mut response = self.lifecycle.handle(request).await;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/json") {
            return Err(Problem::unreadable());
        }
        if rpc.method == "initialize" && response.status().is_success() {
            self.sessions.begin(caller, account_missing::declared_at_start(rpc), response.headers_mut());
        }
        Ok(response)
    }

    fn list_tools(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        era: Era,
        rpc: &Rpc<'_>,
    ) -> Result<Response<Body>, Problem> {
        // A list is one page, so that no cursor was ever given out.
        if rpc.params.get("cursor").is_some_and(|cursor| cursor.get() != "null") {
            return Err(Problem::invalid_params("unknown cursor: lists have one page"));
        }
        Ok(answer::tools(rpc.id, era, self.mux.tools(caller, endpoint)))
    }

    async fn call_tool(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        Shape { era, accepts, elicits, param_headers }: Shape,
        rpc: &Rpc<'_>,
    ) -> Result<Response<Body>, Problem> {
        let name = rpc.params.get_str("name").ok_or(Problem::invalid_params("`params.name` must be a string"))?;
        let arguments = rpc.params.get("arguments").filter(|raw| raw.get() != "null");
        if arguments.is_some_and(|raw| !json::is_object(raw)) {
            return Err(Problem::invalid_params("`params.arguments` must be an object"));
        }
        let progress_token = rpc.progress_token();
        let trace = Trace::from_meta(rpc.meta.as_ref());
        let call = ToolCall { name: &name, arguments, trace, param_headers, progress_token };
        let outcome = self.mux.call(caller, endpoint, &call).await;
        if let Err(error @ CallError::Upstream { error: cause, .. }) = &outcome {
            tracing::warn!(
                request.id = %caller.request_id, mcp.tool = ?name, fault = cause.fault().as_str(),
                error = error as &dyn std::error::Error, "a tool call has no answer"
            );
        }
        if let Err(CallError::Upstream { tenant, upstream, error: UpstreamError::AccountMissing }) = &outcome {
            return Ok(self.links.answer(caller, (rpc, era), elicits, Missing { tenant, upstream }));
        }
        let tasks = (accepts == Accepts::Events).then_some(&self.tasks);
        answer::call(rpc.id, era, tasks, outcome).await
    }
}

/// What a call's HTTP request says about it besides its body.
struct Shape {
    era: Era,
    accepts: Accepts,
    elicits: Elicits,
    param_headers: Option<BTreeMap<String, String>>,
}

/// `params` or `_meta`: an object, or nothing.
fn members<'t>(raw: Option<&'t serde_json::value::RawValue>, problem: &'static str) -> Result<Members<'t>, Problem> {
    Members::parse(raw.map_or("{}", |raw| raw.get())).map_err(|_| Problem::invalid_params(problem))
}
