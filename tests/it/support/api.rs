//! APIs that are no MCP servers: one that says what a test wants, and a real `mcpo`.

use std::net::TcpListener as StdListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::bridge::{file, python};
use super::server::serve;
use super::upstreams::{Calls, Seen};

/// What an API answers to a request: its status, media type and body.
pub(crate) type Said = (u16, &'static str, Vec<u8>);

type Handler = Arc<dyn Fn(&Method, &Uri, &HeaderMap, &str) -> Said + Send + Sync>;

/// An API with a document at `/openapi.json`, which tests may replace.
#[derive(Clone)]
pub(crate) struct Api {
    /// Its base.
    pub url: String,
    /// What reached it.
    pub seen: Seen,
    /// The requests at `/wait`, which is answered never.
    pub calls: Calls,
    document: Arc<Mutex<String>>,
    handler: Handler,
}

impl Api {
    /// Serves `document`; everything else but `/wait` is answered by `handler`.
    pub(crate) async fn serve(
        document: &Value,
        handler: impl Fn(&Method, &Uri, &HeaderMap, &str) -> Said + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = Self {
            url: format!("http://{}", listener.local_addr()?),
            seen: Seen::default(),
            calls: Calls::default(),
            document: Arc::new(Mutex::new(document.to_string())),
            handler: Arc::new(handler),
        };
        serve(listener, Router::new().fallback(answer).with_state(api.clone()));
        Ok(api)
    }

    /// Where its document is.
    pub(crate) fn document(&self) -> String {
        format!("{}/openapi.json", self.url)
    }

    /// Serves another document from now on.
    pub(crate) fn describes(&self, document: impl Into<String>) {
        *self.document.lock().expect("no test panics while it says something") = document.into();
    }
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    api.seen.note(&uri, &headers, &body);
    if uri.path() == "/wait" {
        // It ends with its connection.
        let _running = api.calls.begin();
        return std::future::pending().await;
    }
    let (status, kind, body) = if uri.path() == "/openapi.json" {
        let document = api.document.lock().expect("no test panics while it says something").clone();
        (200, "application/json", document.into_bytes())
    } else {
        (api.handler)(&method, &uri, &headers, &String::from_utf8_lossy(&body))
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A real `mcpo` in front of an MCP server of the tests'. It ends with the test.
pub(crate) struct Mcpo {
    /// Its base.
    pub url: String,
    _child: Child,
}

impl Mcpo {
    /// Starts one that wants `key`, and waits until it describes its tools.
    pub(crate) async fn start(key: &str) -> Result<Self> {
        // It wants to be told a port, so one is found that is free now.
        let port = StdListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new(file("target/mcpo/bin/mcpo"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--api-key", key, "--strict-auth", "--"])
            .args(python("modern.py", &[]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("`tests/run.sh --install` installs what the tests need")?;
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(child.try_wait()?.is_none(), "mcpo does not start");
            ticks.tick().await;
        }
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _child: child })
    }
}
