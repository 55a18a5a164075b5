//! Upstreams in the transport of 2024-11-05: published servers as processes of their own, and one that puts into its streams
//! whatever a test wants.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener as StdListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};

use super::bridge::{file, node};
use super::upstreams::{Calls, Guard, RunningCall, Seen, judge};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A published server that runs.
pub(crate) struct Published {
    /// The address of its stream.
    pub url: String,
    port: u16,
    process: Child,
}

impl Published {
    /// The server made with Python's SDK, on a free port, for whoever shows `key`.
    pub(crate) async fn python(key: &str) -> Result<Self> {
        Self::python_at(0, key).await
    }

    async fn python_at(port: u16, key: &str) -> Result<Self> {
        let mut process = Command::new(file("target/venv/bin/python"))
            .arg(file("tests/old_sse/server.py"))
            .arg(port.to_string())
            .env("KEY", key)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("`tests/run.sh --install` installs what the tests need")?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let ready = line_with("READY ", stdout).await?;
        let port = ready.trim_start_matches("READY ").parse()?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/sse"), port, process })
    }

    /// The server in which everything can be tried, on a free port, for everybody.
    pub(crate) async fn everything() -> Result<Self> {
        let port = StdListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = node("server-everything", &["sse"]).into_iter();
        let mut process = Command::new(command.next().context("a program")?)
            .args(command)
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("`tests/run.sh --install` installs what the tests need")?;
        let stderr = process.stderr.take().context("stderr is piped")?;
        line_with("Server is running", stderr).await?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/sse"), port, process })
    }

    /// Kills Python's server and starts it again where it was.
    pub(crate) async fn restart(mut self, key: &str) -> Result<Self> {
        self.process.kill().await?;
        Self::python_at(self.port, key).await
    }
}

/// The line that begins so. What is written after it is read and forgotten, so that the writer is not held up.
#[expect(clippy::disallowed_methods, reason = "a test's own servers end with its process")]
async fn line_with(begin: &str, output: impl AsyncRead + Unpin + Send + 'static) -> Result<String> {
    let mut lines = BufReader::new(output).lines();
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??.context("the server ended")?;
        if line.starts_with(begin) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(line);
        }
    }
}

/// What a call of a tool does: text that goes into the stream of its session, with `{id}` for the id of the request.
pub(crate) type Says = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// An upstream that says whatever a test wants in its streams.
#[derive(Clone)]
pub(crate) struct RawOldSse {
    says: Says,
    state: Arc<Mutex<RawState>>,
    changed: Arc<Notify>,
    /// The calls that were not cancelled yet.
    pub calls: Calls,
    /// A post of a call is held until this.
    pub go: Option<Arc<Notify>>,
}

struct RawState {
    endpoint: String,
    post_status: StatusCode,
    begun: usize,
    streams: BTreeMap<usize, mpsc::UnboundedSender<String>>,
    forgotten: Vec<mpsc::UnboundedSender<String>>,
    /// By the number of their stream and their id.
    running: HashMap<(usize, String), RunningCall>,
}

impl RawOldSse {
    /// One whose tools `go` and `quick` say what `says` makes of their names. `quick` is meant to answer at once.
    pub(crate) fn new(says: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let state = RawState {
            endpoint: "/messages?s={n}".to_owned(),
            post_status: StatusCode::ACCEPTED,
            begun: 0,
            streams: BTreeMap::new(),
            forgotten: Vec::new(),
            running: HashMap::new(),
        };
        let (says, state) = (Arc::new(says), Arc::new(Mutex::new(state)));
        Self { says, state, changed: Arc::default(), calls: Calls::default(), go: None }
    }

    /// A result with one text, as an event.
    pub(crate) fn result(text: &str) -> String {
        format!(
            "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{{id}},\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]}}}}\n\n"
        )
    }

    /// From now on a stream names `endpoint`, with `{n}` for the number of the stream.
    pub(crate) fn names(&self, endpoint: &str) {
        endpoint.clone_into(&mut self.state().endpoint);
    }

    /// From now on a post is answered with that status, and nothing else happens.
    pub(crate) fn answers_posts_with(&self, status: u16) {
        self.state().post_status = StatusCode::from_u16(status).unwrap_or_default();
    }

    /// Puts this into all streams.
    pub(crate) fn say(&self, message: &Value) {
        for stream in self.state().streams.values() {
            drop(stream.send(format!("data: {message}\n\n")));
        }
    }

    /// Forgets all sessions, and leaves their streams open.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        let streams = std::mem::take(&mut state.streams);
        state.forgotten.extend(streams.into_values());
    }

    /// Ends all streams.
    pub(crate) fn hang_up(&self) {
        self.state().streams.clear();
    }

    /// How many streams have begun.
    pub(crate) fn begun(&self) -> usize {
        self.state().begun
    }

    /// How many streams are read.
    pub(crate) fn read(&self) -> usize {
        self.state().streams.values().filter(|stream| !stream.is_closed()).count()
    }

    /// Waits until nobody reads any stream.
    pub(crate) async fn until_nobody_reads(&self) -> Result<()> {
        let nobody = async {
            loop {
                let changed = self.changed.notified();
                if self.state().streams.values().all(mpsc::UnboundedSender::is_closed) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, nobody).await.context("somebody still reads")
    }

    /// Serves it on a free port to everybody.
    pub(crate) async fn serve(self) -> Result<(String, Seen)> {
        self.serve_to(Arc::new(|_, _| true)).await
    }

    /// The same for whoever `guard` lets in.
    pub(crate) async fn serve_to(self, guard: Guard) -> Result<(String, Seen)> {
        let seen = Seen::default();
        let routes = Router::new()
            .route("/sse", get(stream))
            .route("/messages", post(message))
            .layer(axum::middleware::from_fn_with_state((guard, seen.clone()), judge))
            .with_state(self);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/sse", listener.local_addr()?);
        super::server::serve(listener, routes);
        Ok((url, seen))
    }

    fn state(&self) -> MutexGuard<'_, RawState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells when a stream is not read any more.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test says no more than a test says")]
async fn stream(State(upstream): State<RawOldSse>) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut state = upstream.state();
    let number = state.begun;
    let endpoint = state.endpoint.replace("{n}", &number.to_string());
    state.begun += 1;
    drop(sender.send(format!("event: endpoint\ndata: {endpoint}\n\n")));
    state.streams.insert(number, sender);
    drop(state);
    let gone = Gone(Arc::clone(&upstream.changed));
    let text = unfold((receiver, gone), async |(mut receiver, gone)| {
        let next = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(next), (receiver, gone)))
    });
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(text.boxed())).into_response()
}

async fn message(State(upstream): State<RawOldSse>, uri: Uri, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = message["method"].as_str().unwrap_or_default();
    let status = upstream.state().post_status;
    if status != StatusCode::ACCEPTED {
        return status.into_response();
    }
    let result = |result: Value| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{{id}},\"result\":{result}}}\n\n");
    let tools = ["go", "quick"].map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
    let text = match method {
        "initialize" => result(json!({
            "protocolVersion": "2024-11-05", "capabilities": {"tools": {}, "resources": {"subscribe": true}},
            "serverInfo": {"name": "raw", "version": "1"},
        })),
        "tools/list" => result(json!({"tools": tools})),
        "resources/list" => result(json!({"resources": [{"uri": "note://one", "name": "one"}]})),
        "resources/templates/list" => result(json!({"resourceTemplates": []})),
        "resources/subscribe" | "resources/unsubscribe" => result(json!({})),
        "tools/call" => (upstream.says)(message["params"]["name"].as_str().unwrap_or_default()),
        _ => String::new(),
    };
    let text = text.replace("{id}", &message["id"].to_string());
    let number = uri.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("s=")?.parse().ok()));
    {
        let mut state = upstream.state();
        let number: usize = number.unwrap_or(usize::MAX);
        let Some(sender) = state.streams.get(&number) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        drop(sender.send(text));
        let call = |id: &Value| (number, id.to_string());
        match method {
            "tools/call" => drop(state.running.insert(call(&message["id"]), upstream.calls.begin())),
            "notifications/cancelled" => drop(state.running.remove(&call(&message["params"]["requestId"]))),
            _ => {}
        }
    }
    if let Some(go) = upstream.go.as_ref().filter(|_| method == "tools/call") {
        go.notified().await;
    }
    StatusCode::ACCEPTED.into_response()
}
