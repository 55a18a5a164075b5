//! A real MCP server that tells when its resources and lists change, in the way of either era.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents,
    ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter,
    Tool, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::upstreams::{Seen, serve_held};

/// Changes that a listener may be late by.
const CHANGES_MAX: usize = 16;

/// The server.
#[derive(Clone)]
pub(crate) struct Watched {
    versions: Vec<ProtocolVersion>,
    changes: broadcast::Sender<Change>,
    clients: Arc<Mutex<Clients>>,
    /// How many subscriptions there are.
    heard: watch::Sender<usize>,
    sessions: Arc<LocalSessionManager>,
    /// How many calls wait, and how many were cancelled.
    waiting: watch::Sender<usize>,
    cancelled: watch::Sender<usize>,
}

/// Those of the legacy era.
#[derive(Default)]
struct Clients {
    all: Vec<Peer<RoleServer>>,
    subscribed: Vec<(String, Peer<RoleServer>)>,
    relisted: usize,
}

#[derive(Debug, Clone)]
enum Change {
    Tools,
    Resource(String),
}

fn as_type<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// The page of a tool's app.
const PAGE: &str = "ui://structured/page";

/// A definition with everything that one can have.
pub(crate) fn structured() -> Value {
    json!({
        "name": "structured", "title": "Structured", "description": "Answers with data",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "properties": {"answer": {"type": "integer"}}},
        "annotations": {"title": "Structured", "readOnlyHint": true},
        "icons": [{"src": "https://acme.example/icon.png", "mimeType": "image/png"}],
        "_meta": {"acme.example/kind": "demo", "ui": {"resourceUri": PAGE}},
    })
}

impl Watched {
    /// One that speaks the versions for which `speaks` is true.
    pub(crate) fn speaking(speaks: impl Fn(&str) -> bool) -> Self {
        let mut versions = ProtocolVersion::KNOWN_VERSIONS.to_vec();
        versions.retain(|version| speaks(version.as_str()));
        Self {
            versions,
            changes: broadcast::channel(CHANGES_MAX).0,
            clients: Arc::default(),
            heard: watch::channel(0).0,
            sessions: Arc::default(),
            waiting: watch::channel(0).0,
            cancelled: watch::channel(0).0,
        }
    }

    /// Serves it on a free port, with sessions for clients of the legacy era.
    pub(crate) async fn serve(&self) -> Result<(String, Seen)> {
        self.serve_with(true).await
    }

    /// The same with or without them.
    pub(crate) async fn serve_with(&self, sessions: bool) -> Result<(String, Seen)> {
        serve_held(self.clone(), Arc::clone(&self.sessions), sessions).await
    }

    /// Waits until there are so many subscriptions.
    pub(crate) async fn until_heard(&self, count: usize) {
        drop(self.heard.subscribe().wait_for(|heard| *heard == count).await);
    }

    /// Waits until so many calls of `wait` run.
    pub(crate) async fn until_waiting(&self, count: usize) {
        drop(self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await);
    }

    /// Waits until so many calls were cancelled.
    pub(crate) async fn until_cancelled(&self, count: usize) {
        drop(self.cancelled.subscribe().wait_for(|cancelled| *cancelled >= count).await);
    }

    /// How many calls were cancelled.
    pub(crate) fn cancelled(&self) -> usize {
        *self.cancelled.borrow()
    }

    /// This resource is another one from now on. A legacy client hears of what lies below what it subscribed to, too.
    pub(crate) async fn touch(&self, uri: &str) -> Result<()> {
        drop(self.changes.send(Change::Resource(uri.to_owned())));
        let clients: Vec<_> = {
            let clients = self.clients();
            clients.subscribed.iter().filter(|(of, _)| uri.starts_with(of.as_str())).cloned().collect()
        };
        for (_, client) in clients {
            client.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await?;
        }
        Ok(())
    }

    /// There is one more tool from now on.
    pub(crate) async fn add_tool(&self) -> Result<()> {
        let clients = {
            let mut clients = self.clients();
            clients.relisted += 1;
            clients.all.clone()
        };
        drop(self.changes.send(Change::Tools));
        for client in clients {
            client.notify_tool_list_changed().await?;
        }
        Ok(())
    }

    /// Knows no session any more.
    pub(crate) async fn forget_sessions(&self) {
        self.sessions.sessions.write().await.clear();
        let gone = std::mem::take(&mut self.clients().subscribed).len();
        self.heard.send_modify(|heard| *heard -= gone);
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerHandler for Watched {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_subscribe();
        ServerConfig::new(capabilities.build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.versions.clone().into()
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.clients().all.push(context.peer);
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = Arc::new(json!({"type": "object"}).as_object().cloned().unwrap_or_default());
        let tool = |number| Tool::new(format!("tool-{number}"), "one of them", Arc::clone(&schema));
        let mut tools: Vec<Tool> = (0..=self.clients().relisted).map(tool).collect();
        tools.extend(["wait", "trace"].map(|name| Tool::new(name, name, Arc::clone(&schema))));
        tools.push(as_type(structured())?);
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
        let result = match &*request.name {
            "structured" => json!({"content": [], "structuredContent": {"answer": 42}}),
            "trace" => text(json!(context.meta)["traceparent"].as_str().unwrap_or("none")),
            "wait" => {
                self.waiting.send_modify(|waiting| *waiting += 1);
                context.ct.cancelled().await;
                self.cancelled.send_modify(|cancelled| *cancelled += 1);
                text("never")
            }
            _ => text("done"),
        };
        Ok(CallToolResponse::Complete(as_type(result)?))
    }

    /// Two pages.
    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let (uri, next) =
            if cursor.is_none() { ("note://one", Some("second".to_owned())) } else { ("note://two", None) };
        let mut page = ListResourcesResult::with_all_items(vec![Resource::new(uri, uri)]);
        page.next_cursor = next;
        Ok(page)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = if request.uri == PAGE { "<html></html>" } else { "a note" };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.clients().subscribed.push((request.uri, context.peer));
        self.heard.send_modify(|heard| *heard += 1);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let mut clients = self.clients();
        let place = clients.subscribed.iter().position(|(uri, _)| *uri == request.uri);
        place.map(|place| clients.subscribed.remove(place));
        self.heard.send_modify(|heard| *heard -= usize::from(place.is_some()));
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        let (accepted, sink) = (context.accepted(), context.sink());
        let uris = accepted.resource_subscriptions.clone().unwrap_or_default();
        self.heard.send_modify(|heard| *heard += uris.len());
        loop {
            let change = tokio::select! {
                () = context.cancelled() => break,
                change = changes.recv() => change,
            };
            let sent = match change {
                Ok(Change::Tools) if accepted.tools_list_changed == Some(true) => sink.notify_tool_list_changed().await,
                Ok(Change::Resource(uri)) if uris.contains(&uri) => sink.notify_resource_updated(uri).await,
                _ => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
        self.heard.send_modify(|heard| *heard -= uris.len());
        Ok(())
    }
}
