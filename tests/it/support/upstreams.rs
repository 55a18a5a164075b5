//! Upstreams: a real rmcp server that notes what reached it, and one that says whatever bytes a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures::StreamExt as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// What reached an upstream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    requests: Arc<Mutex<Vec<String>>>,
    came: Arc<Notify>,
}

impl Seen {
    /// Notes a request.
    pub(crate) fn note(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) {
        // As bytes: what is marked as sensitive is shown here, of all places.
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let headers: Vec<String> = headers.iter().map(line).collect();
        let line = format!("{uri}\n{}\n{}", headers.join("\n"), String::from_utf8_lossy(body));
        self.requests.lock().expect("no test panics while it notes").push(line);
        self.came.notify_waiters();
    }

    /// Waits until something with `text` in it has come.
    pub(crate) async fn until(&self, text: &str) {
        self.times(text, 1).await;
    }

    /// Waits until that many requests with `text` in them have come.
    pub(crate) async fn times(&self, text: &str, count: usize) {
        loop {
            let next = self.came.notified();
            let come = self
                .requests
                .lock()
                .expect("no test panics while it notes")
                .iter()
                .filter(|request| request.contains(text))
                .count();
            if come >= count {
                return;
            }
            next.await;
        }
    }

    /// Everything so far: headers and bodies as text.
    pub(crate) fn text(&self) -> String {
        self.requests.lock().expect("no test panics while it notes").join("\n")
    }
}

/// The calls that an upstream was asked for and that nobody ended yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<watch::Sender<Count>>);

/// How many calls there were, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Those that were begun.
    pub begun: usize,
    /// Those that run.
    pub running: usize,
}

/// A call that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningCall(Calls);

impl Calls {
    /// One more begins.
    pub(crate) fn begin(&self) -> RunningCall {
        self.0.send_modify(|count| {
            count.begun += 1;
            count.running += 1;
        });
        RunningCall(self.clone())
    }

    /// How many there are now.
    pub(crate) fn count(&self) -> Count {
        *self.0.borrow()
    }

    /// Waits until there are as many as wanted.
    pub(crate) async fn until(&self, is_wanted: impl FnMut(&Count) -> bool) {
        // Its sender is held here.
        drop(self.0.subscribe().wait_for(is_wanted).await);
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| count.running -= 1);
    }
}

/// A real MCP server with the tools `whoami` (reads), `change` (writes) and `wait` (answers when it is cancelled or told to go on).
#[derive(Debug, Clone)]
pub(crate) struct RealUpstream {
    name: String,
    versions: Vec<ProtocolVersion>,
    /// The sessions that it holds.
    pub sessions: Arc<LocalSessionManager>,
    /// A call of `wait` has arrived.
    pub waiting: Arc<Notify>,
    /// A call of `wait` was cancelled.
    pub cancelled: Arc<Notify>,
    /// Lets a call of `wait` go on.
    pub go_on: Arc<Notify>,
    /// The calls of `wait`.
    pub calls: Calls,
}

impl RealUpstream {
    /// One that calls itself `name` and speaks all versions.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            versions: ProtocolVersion::KNOWN_VERSIONS.to_vec(),
            sessions: Arc::default(),
            waiting: Arc::default(),
            cancelled: Arc::default(),
            go_on: Arc::default(),
            calls: Calls::default(),
        }
    }

    /// The same, but only of the legacy era.
    pub(crate) fn legacy(mut self) -> Self {
        self.versions.retain(|version| version.as_str() < "2026-07-28");
        self
    }

    /// Serves it on a free port to whoever shows `Authorization: Bearer key`.
    pub(crate) async fn serve(self, key: &str, sessions: bool) -> Result<(String, Seen)> {
        let expected = format!("Bearer {key}");
        let guard: Guard = Arc::new(move |parts, _| {
            let shown = parts.headers.get("authorization");
            shown.is_some_and(|value| value.as_bytes() == expected.as_bytes())
        });
        self.serve_to(guard, sessions).await
    }

    /// Serves it on a free port to whoever `guard` lets in; the others get a 401.
    pub(crate) async fn serve_to(self, guard: Guard, sessions: bool) -> Result<(String, Seen)> {
        let (routes, seen) = self.routes(guard, sessions);
        Ok((start(routes).await?, seen))
    }

    /// What it serves.
    pub(crate) fn routes(self, guard: Guard, sessions: bool) -> (Router, Seen) {
        let held = Arc::clone(&self.sessions);
        routes(self, held, guard, sessions)
    }
}

fn routes<H: ServerHandler + Clone>(
    handler: H,
    held: Arc<LocalSessionManager>,
    guard: Guard,
    sessions: bool,
) -> (Router, Seen) {
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(sessions).with_json_response(true);
    let service = StreamableHttpService::new(move || Ok(handler.clone()), held, config);
    let seen = Seen::default();
    let routes = Router::new()
        .route_service("/mcp", service)
        .layer(axum::middleware::from_fn_with_state((guard, seen.clone()), judge));
    (routes, seen)
}

/// Serves any server of rmcp's on a free port to everybody.
pub(crate) async fn serve_handler<H: ServerHandler + Clone>(handler: H, sessions: bool) -> Result<(String, Seen)> {
    serve_held(handler, Arc::default(), sessions).await
}

/// The same with sessions that the test holds.
pub(crate) async fn serve_held<H: ServerHandler + Clone>(
    handler: H,
    held: Arc<LocalSessionManager>,
    sessions: bool,
) -> Result<(String, Seen)> {
    let (routes, seen) = routes(handler, held, Arc::new(|_, _| true), sessions);
    Ok((start(routes).await?, seen))
}

/// Whether a request is let in, by its head and body.
pub(crate) type Guard = Arc<dyn Fn(&Parts, &[u8]) -> bool + Send + Sync>;

pub(crate) async fn judge(
    State((guard, seen)): State<(Guard, Seen)>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    seen.note(&parts.uri, &parts.headers, &body);
    if guard(&parts, &body) {
        next.run(Request::from_parts(parts, Body::from(body))).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

impl ServerHandler for RealUpstream {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn supported_protocol_versions(&self) -> std::borrow::Cow<'static, [ProtocolVersion]> {
        self.versions.clone().into()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = || Arc::new(json!({"type": "object"}).as_object().cloned().unwrap_or_default());
        let tool = |name: &'static str, reads: bool| {
            let annotations = rmcp::model::ToolAnnotations::new().read_only(reads);
            Tool::new(name, format!("{name} of {}", self.name), schema()).with_annotations(annotations)
        };
        Ok(ListToolsResult::with_all_items(vec![tool("whoami", true), tool("change", false), tool("wait", true)]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name == "wait" {
            self.waiting.notify_one();
            let _running = self.calls.begin();
            tokio::select! {
                () = context.ct.cancelled() => self.cancelled.notify_one(),
                () = self.go_on.notified() => {}
            }
        }
        let _parts = context.extensions.get::<Parts>();
        let text = format!("{} at {} with {}", request.name, self.name, json!(request.arguments));
        Ok(CallToolResponse::Complete(CallToolResult::success(vec![ContentBlock::text(text)])))
    }
}

/// What an upstream of bytes answers to one JSON-RPC method.
#[derive(Clone)]
pub(crate) enum Say {
    /// A result, as raw JSON, under the request's own id.
    Result(String),
    /// An error, in the same way.
    Error(String),
    /// A whole HTTP response: status, content type, body.
    Http(u16, &'static str, Bytes),
    /// A result in JSON that says it is encoded so, with what that would be.
    Encoded(&'static str, Bytes),
    /// Events; `{id}` in them becomes the request's id.
    Events(Vec<String>),
    /// Events without end: a first one, and then nothing more.
    Held(String),
    /// The same event again and again, without end.
    Flood(String),
    /// Bytes without end.
    Endless,
    /// Nothing, ever.
    Silence,
    /// A result, after work that takes so long.
    Working(Duration, String),
    /// A result, once it is told to go on.
    Late(Arc<Notify>, String),
}

/// An upstream that says whatever bytes a test wants, by JSON-RPC method.
#[derive(Clone, Default)]
pub(crate) struct ByteUpstream(Arc<Mutex<HashMap<String, Say>>>);

impl ByteUpstream {
    /// A modern upstream with these tools, as a raw JSON array.
    pub(crate) fn with_tools(tools: &str) -> Self {
        let discover = json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "bytes", "version": "1"}, "ttlMs": 0, "cacheScope": "private",
        });
        Self::default()
            .on("server/discover", Say::Result(discover.to_string()))
            .on("tools/list", Say::Result(format!("{{\"resultType\":\"complete\",\"tools\":{tools}}}")))
    }

    /// Says `say` to `method`.
    pub(crate) fn on(self, method: &str, say: Say) -> Self {
        self.says(method, say);
        self
    }

    /// From now on says `say` to `method`, also where it is served already.
    pub(crate) fn says(&self, method: &str, say: Say) {
        self.0.lock().expect("no test panics while it changes its mind").insert(method.to_owned(), say);
    }

    /// Serves it on a free port.
    pub(crate) async fn serve(self) -> Result<(String, Seen)> {
        let seen = Seen::default();
        let routes = Router::new().route("/mcp", post(answer)).with_state((self, seen.clone()));
        Ok((start(routes).await?, seen))
    }
}

async fn answer(
    State((upstream, seen)): State<(ByteUpstream, Seen)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    seen.note(&uri, &headers, &body);
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = message["id"].to_string();
    let method = message["method"].as_str().unwrap_or_default();
    let json = [("content-type", "application/json")];
    let say = upstream.0.lock().expect("no test panics while it changes its mind").get(method).cloned();
    match say {
        None => {
            (json, format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no"}}}}"#)).into_response()
        }
        Some(Say::Result(result)) => {
            (json, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).into_response()
        }
        Some(Say::Error(error)) => (json, format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)).into_response(),
        Some(Say::Http(status, kind, body)) => {
            (StatusCode::from_u16(status).unwrap_or_default(), [("content-type", kind)], body).into_response()
        }
        Some(Say::Encoded(encoding, body)) => {
            ([("content-type", "application/json"), ("content-encoding", encoding)], body).into_response()
        }
        Some(Say::Events(events)) => {
            let events: Vec<String> = events.iter().map(|event| event.replace("{id}", &id)).collect();
            let text = format!("data: {}\n\n", events.join("\n\ndata: "));
            ([("content-type", "text/event-stream")], text).into_response()
        }
        Some(Say::Held(event)) => {
            let first = Ok::<_, std::convert::Infallible>(format!("data: {}\n\n", event.replace("{id}", &id)));
            let events = futures::stream::iter([first]).chain(futures::stream::pending());
            ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
        }
        Some(Say::Flood(event)) => {
            let chunk = Bytes::from(format!("data: {}\n\n", event.replace("{id}", &id)).repeat(100));
            let events = futures::stream::repeat_with(move || Ok::<_, std::convert::Infallible>(chunk.clone()));
            ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
        }
        Some(Say::Endless) => {
            let chunk = Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 64 * 1024]));
            (json, Body::from_stream(futures::stream::repeat_with(move || chunk.clone()))).into_response()
        }
        Some(Say::Silence) => std::future::pending().await,
        Some(Say::Working(long, result)) => {
            tokio::time::interval_at(tokio::time::Instant::now() + long, long).tick().await;
            (json, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).into_response()
        }
        Some(Say::Late(go, result)) => {
            go.notified().await;
            (json, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).into_response()
        }
    }
}

async fn start(routes: Router) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    super::server::serve(listener, routes);
    Ok(url)
}
