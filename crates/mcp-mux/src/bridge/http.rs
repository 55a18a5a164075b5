//! The bridge's Streamable HTTP face: one route, one key, both eras, no sessions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::routing::post;
use futures::stream;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use super::conversation::{Call, Cancels, Client, Heard};
use super::keeper::Ready;
use super::message;
use crate::config::BridgeKey;
use crate::gateway::Problem;
use crate::gateway::envelope::{self, Message, Rpc};
use crate::gateway::era::{self, Era};
use crate::gateway::request::{Accepts, read, require_json};
use crate::json::Members;
use crate::protocol::MODERN_VERSION;

/// How long a request waits for a place, and how long for a child that is being started.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a quiet stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// JSON-RPC's code for whatever a server says in words of its own.
const CODE_SERVER: i64 = -32000;
/// Answers of the child which the modern era repeats as a status: see MCP 2026-07-28 `basic/transports`.
const CODES_BAD_REQUEST: [i64; 3] = [-32020, -32021, -32022];
const CODE_METHOD_NOT_FOUND: i64 = -32601;

/// What the requests share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) key: BridgeKey,
    /// The child that can be asked now.
    pub(super) children: watch::Receiver<Option<Arc<Ready>>>,
    /// Room for requests that run or wait.
    pub(super) admitted: Semaphore,
    /// Room for requests that run.
    pub(super) places: Arc<Semaphore>,
    pub(super) call_timeout: Duration,
}

/// The whole surface. The key comes first, whatever is asked for.
pub(super) fn router(server: Server) -> Router {
    let server = Arc::new(server);
    let layers = ServiceBuilder::new() // A request passes these lines top to bottom.
        .layer(CatchPanicLayer::new()) // A mistake of ours costs one answer, not the connection.
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard));
    let routes = Router::new().route("/mcp", post(mcp)).fallback(nothing);
    routes.layer(layers).with_state(server)
}

async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response<Body> {
    if request.headers().contains_key(ORIGIN) {
        return Problem::new(StatusCode::FORBIDDEN, CODE_SERVER, "a bridge is not for browsers").into_response();
    }
    if bearer(request.headers()).is_none_or(|shown| !server.key.is(shown)) {
        tracing::info!("a request without the key was refused");
        let words = "show the bridge's key: `Authorization: Bearer …`";
        let mut response = Problem::new(StatusCode::UNAUTHORIZED, CODE_SERVER, words).into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

/// What is shown as a bearer token, once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, key) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

async fn nothing() -> Response<Body> {
    Problem::new(StatusCode::NOT_FOUND, CODE_SERVER, "there is nothing at this path: MCP is at /mcp").into_response()
}

async fn mcp(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    server.answer(request).await.unwrap_or_else(Problem::into_response)
}

impl Server {
    async fn answer(&self, request: Request) -> Result<Response<Body>, Problem> {
        let _admission = self.admitted.try_acquire().map_err(|_| busy())?;
        let accepts = Accepts::of(request.headers())?;
        require_json(request.headers())?;
        let (parts, body) = request.into_parts();
        let body = timeout(BODY_TIMEOUT, read(body)).await.map_err(|_| Problem::slow_body())??;
        let rpc = match envelope::parse(&body)? {
            Message::Request(rpc) => rpc,
            // The child's handshake was ours, it asks clients nothing, and a call is cancelled by hanging up.
            Message::Notification(_) | Message::Response(_) => return Ok(status(StatusCode::ACCEPTED)),
        };
        let answered = async {
            let era = era::check(&parts.headers, &rpc)?;
            // Nobody is told of changes: whose they are cannot be known where callers share a child.
            if rpc.method == "subscriptions/listen" {
                return Err(Problem::method_not_found(era));
            }
            let child = self.child().await?;
            match from_memory(&child, era, &rpc)? {
                Some(result) => Ok(json(StatusCode::OK, message::reply(rpc.id, &format!("\"result\":{result}")))),
                None => self.call(&child, accepts, era, (&rpc, &body)).await,
            }
        };
        answered.await.map_err(|problem| problem.answering(rpc.id))
    }

    /// The child, which may be on its way.
    async fn child(&self) -> Result<Arc<Ready>, Problem> {
        let mut children = self.children.clone();
        let words = "the bridged server does not run: it is being started again, and its log says more";
        let absent = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, CODE_SERVER, words);
        let ready = timeout(WAIT_TIMEOUT, children.wait_for(Option::is_some)).await.map_err(|_| absent())?;
        ready.ok().and_then(|ready| ready.clone()).ok_or_else(absent)
    }

    async fn call(
        &self,
        child: &Ready,
        accepts: Accepts,
        era: Era,
        (rpc, body): (&Rpc<'_>, &Bytes),
    ) -> Result<Response<Body>, Problem> {
        let place = timeout(WAIT_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let deadline = Instant::now() + self.call_timeout;
        let modern = child.agreement.is_modern();
        let text = std::str::from_utf8(body).map_err(|_| Problem::parse_error("the body is not UTF-8"))?;
        let line = |id| message::line(text, rpc, id, modern && era == Era::Legacy).unwrap_or_default();
        let progress_token = rpc.progress_token().filter(|_| accepts == Accepts::Events);
        let client = Client { id: rpc.id.to_owned(), progress_token: progress_token.map(ToOwned::to_owned) };
        let cancels = if modern { Cancels::Modern } else { Cancels::Legacy };
        let asked = timeout_at(deadline, child.conversation.ask(client, cancels, line)).await;
        let call = asked.map_err(|_| timed_out())?.ok_or_else(stopped)?;
        let mut running = Running { call, deadline, id: rpc.id.to_owned(), _place: place };
        match running.next().await? {
            Heard::Progress(first) => Ok(events(&first, running)),
            Heard::Answer(text) => Ok(json(status_of(era, &text), text)),
            Heard::Stopped => Err(stopped()),
        }
    }
}

/// The result of what does not concern the child, if it is that.
fn from_memory(child: &Ready, era: Era, rpc: &Rpc<'_>) -> Result<Option<String>, Problem> {
    let agreement = &child.agreement;
    Ok(match (era, rpc.method.as_ref()) {
        (_, "initialize") => {
            let version = rpc.params.get_str("protocolVersion");
            Some(agreement.initialize_result(version.as_deref()))
        }
        // There is none in the modern era.
        (Era::Legacy, "ping") if agreement.is_modern() => Some("{}".to_owned()),
        (Era::Modern, "server/discover") => agreement.discover_result(),
        (Era::Modern, _) if !agreement.is_modern() => {
            let versions = serde_json::json!({ "supported": agreement.offered(), "requested": MODERN_VERSION });
            return Err(Problem::unsupported_version(versions));
        }
        _ => None,
    })
}

/// A request that has a place and a deadline.
struct Running {
    call: Call,
    deadline: Instant,
    id: Box<RawValue>,
    _place: OwnedSemaphorePermit,
}

impl Running {
    async fn next(&mut self) -> Result<Heard, Problem> {
        timeout_at(self.deadline, self.call.next()).await.map_err(|_| timed_out())
    }
}

/// A stream of what comes of a request, beginning with `first`. When the client hangs up it is dropped, and the call with it.
fn events(first: &str, running: Running) -> Response<Body> {
    let first = stream::iter([event(first)]);
    let rest = stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        let Ok(heard) = timeout(KEEP_ALIVE, running.next()).await else {
            return Some((": keep-alive\n\n".to_owned(), Some(running)));
        };
        let failed = |problem: Problem| Some((event(&problem.answering(&running.id).text()), None));
        match heard {
            Ok(Heard::Progress(text)) => Some((event(&text), Some(running))),
            Ok(Heard::Answer(text)) => Some((event(&text), None)),
            Ok(Heard::Stopped) => failed(stopped()),
            Err(problem) => failed(problem),
        }
    });
    let texts = futures::StreamExt::chain(first, rest);
    let frames = futures::StreamExt::map(texts, |text| Ok::<_, Infallible>(Bytes::from(text)));
    answer(StatusCode::OK, "text/event-stream", Body::from_stream(frames))
}

/// One server-sent event; what a child says is one line.
fn event(message: &str) -> String {
    format!("event: message\ndata: {message}\n\n")
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    answer(status, "application/json", Body::from(text))
}

fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The status under which an answer of the child goes out.
fn status_of(era: Era, text: &str) -> StatusCode {
    let error = Members::parse(text).ok().and_then(|message| message.get("error"));
    let code = error.and_then(|error| Members::parse(error.get()).ok()?.get("code"));
    let code: Option<i64> = code.and_then(|code| code.get().parse().ok());
    match code.filter(|_| era == Era::Modern) {
        Some(CODE_METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Some(code) if CODES_BAD_REQUEST.contains(&code) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn busy() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, CODE_SERVER, "busy: too many requests run at once, try again later")
}

/// In band, like the next one: the HTTP exchange itself went well.
fn stopped() -> Problem {
    Problem::new(StatusCode::OK, CODE_SERVER, "the bridged server stopped while the request ran; it is started again")
}

fn timed_out() -> Problem {
    Problem::new(StatusCode::OK, CODE_SERVER, "the bridged server did not answer in time")
}
