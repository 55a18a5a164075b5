//! An upstream of the legacy era that keeps a session and puts into its own stream whatever a test wants.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::upstreams::{Seen, judge};

/// The upstream.
#[derive(Clone, Default)]
pub(crate) struct RawSession {
    streams: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>>,
    begun: watch::Sender<usize>,
    /// How many are read.
    read: watch::Sender<usize>,
}

impl RawSession {
    /// Puts this into all streams.
    pub(crate) fn say(&self, message: &Value) {
        for stream in self.streams().iter() {
            drop(stream.send(format!("data: {message}\n\n")));
        }
    }

    /// Ends all streams, and no session.
    pub(crate) fn hang_up(&self) {
        self.streams().clear();
    }

    /// Waits until so many streams have begun.
    pub(crate) async fn until_begun(&self, count: usize) {
        drop(self.begun.subscribe().wait_for(|begun| *begun >= count).await);
    }

    /// Waits until nobody reads any stream.
    pub(crate) async fn until_nobody_reads(&self) {
        drop(self.read.subscribe().wait_for(|read| *read == 0).await);
    }

    /// Serves it on a free port to everybody.
    pub(crate) async fn serve(&self) -> Result<(String, Seen)> {
        let seen = Seen::default();
        let guard: super::upstreams::Guard = Arc::new(|_, _| true);
        let routes = Router::new()
            .route("/mcp", get(stream).post(message).delete(|| async { StatusCode::NO_CONTENT }))
            .layer(axum::middleware::from_fn_with_state((guard, seen.clone()), judge))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        super::server::serve(listener, routes);
        Ok((url, seen))
    }

    fn streams(&self) -> MutexGuard<'_, Vec<mpsc::UnboundedSender<String>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells when a stream is not read any more.
struct Read(watch::Sender<usize>);

impl Drop for Read {
    fn drop(&mut self) {
        self.0.send_modify(|read| *read -= 1);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test says no more than a test says")]
async fn stream(State(upstream): State<RawSession>) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel();
    upstream.streams().push(sender);
    upstream.read.send_modify(|read| *read += 1);
    upstream.begun.send_modify(|begun| *begun += 1);
    let text = unfold((receiver, Read(upstream.read.clone())), async |(mut receiver, read)| {
        let next = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(next), (receiver, read)))
    });
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(text.boxed())).into_response()
}

async fn message(body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "resources": {"subscribe": true}},
            "serverInfo": {"name": "raw", "version": "1"},
        }),
        "tools/list" => json!({"tools": []}),
        "resources/list" => json!({"resources": [{"uri": "note://one", "name": "one"}]}),
        "resources/templates/list" => json!({"resourceTemplates": []}),
        "resources/subscribe" | "resources/unsubscribe" | "ping" => json!({}),
        method if method.starts_with("notifications/") => return StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}});
            return ([("content-type", "application/json")], error.to_string()).into_response();
        }
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    ([("content-type", "application/json"), ("mcp-session-id", "session-of-a-test")], answer.to_string())
        .into_response()
}
