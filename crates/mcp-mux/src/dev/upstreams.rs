//! The demonstration's upstreams: real MCP servers, each of which answers only to its tenant's key.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

/// The name under which each upstream's key is stored.
pub(super) const SECRET_NAME: &str = "demo-key";
/// The header in which the wiki wants its key; the others want a bearer token.
const KEY_HEADER: &str = "x-api-key";
/// Most tickets that are kept.
const TICKETS_MAX: usize = 1_000;

/// One upstream of the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DemoUpstream {
    /// Whose it is.
    pub tenant: &'static str,
    /// Its slug.
    pub upstream: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tickets,
    Wiki,
    Orders,
    Rates,
}

/// All of them.
pub(super) const UPSTREAMS: [DemoUpstream; 4] = [
    DemoUpstream { tenant: "acme", upstream: "tickets", kind: Kind::Tickets },
    DemoUpstream { tenant: "acme", upstream: "wiki", kind: Kind::Wiki },
    DemoUpstream { tenant: "globex", upstream: "orders", kind: Kind::Orders },
    DemoUpstream { tenant: "shared", upstream: "rates", kind: Kind::Rates },
];

impl DemoUpstream {
    /// The header in which it wants its key, if it is not a bearer token.
    pub(super) fn key_header(self) -> Option<&'static str> {
        (self.kind == Kind::Wiki).then_some(KEY_HEADER)
    }

    /// The MCP server, at `/mcp`, for whoever shows `key`.
    pub(super) fn router(self, key: &SecretString, shutdown: CancellationToken) -> Router {
        let server = DemoServer { kind: self.kind, records: Arc::new(Mutex::new(records(self.kind))) };
        // Globex's is an old server: legacy versions and sessions only.
        let sessions = self.kind == Kind::Orders;
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(sessions)
            .with_json_response(true)
            .with_cancellation_token(shutdown);
        let sessions = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
        let guard = middleware::from_fn_with_state((self.kind, key.clone()), require_key);
        Router::new().route_service("/mcp", service).layer(guard)
    }
}

async fn require_key(State((kind, key)): State<(Kind, SecretString)>, request: Request, next: Next) -> Response {
    let (header, expected) = match kind {
        Kind::Wiki => (HeaderName::from_static(KEY_HEADER), key.expose_secret().to_owned()),
        _ => (AUTHORIZATION, format!("Bearer {}", key.expose_secret())),
    };
    let shown = request.headers().get(header).map(HeaderValue::as_bytes).unwrap_or_default();
    if bool::from(shown.ct_eq(expected.as_bytes())) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "show this tenant's key").into_response()
}

/// What each of the four holds when it starts.
fn records(kind: Kind) -> Vec<Value> {
    let all = match kind {
        Kind::Tickets => json!([
            {"id": "ACME-1", "title": "The anvil order arrives late", "state": "open"},
            {"id": "ACME-2", "title": "Rocket skates pull to the left", "state": "open"},
            {"id": "ACME-3", "title": "Reprint the catalogue", "state": "closed"},
        ]),
        Kind::Wiki => json!([
            {"id": "returns", "title": "How returns work", "text": "Anvils are returned by freight, within 30 days."},
            {"id": "oncall", "title": "On call", "text": "The pager goes to logistics first."},
        ]),
        Kind::Orders => json!([
            {"id": "GLX-100", "item": "Hammocks", "quantity": 40, "state": "shipped"},
            {"id": "GLX-101", "item": "Desk lamps", "quantity": 12, "state": "open"},
        ]),
        Kind::Rates => json!([
            {"id": "USD", "rate": 1.09}, {"id": "GBP", "rate": 0.85}, {"id": "JPY", "rate": 163.2},
        ]),
    };
    all.as_array().cloned().unwrap_or_default()
}

/// One tool: its name, what it is for, and whether it changes anything.
type ToolRow = (&'static str, &'static str, Effect, &'static [(&'static str, &'static str)]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
    Destroys,
}

const TEXT: &str = "string";
const NUMBER: &str = "number";

fn tools(kind: Kind) -> &'static [ToolRow] {
    match kind {
        Kind::Tickets => &[
            ("search_tickets", "Find tickets whose title holds a word", Effect::Reads, &[("query", TEXT)]),
            ("get_ticket", "Read one ticket", Effect::Reads, &[("id", TEXT)]),
            ("create_ticket", "Open a new ticket", Effect::Writes, &[("title", TEXT)]),
        ],
        Kind::Wiki => &[
            ("search_pages", "Find pages whose title holds a word", Effect::Reads, &[("query", TEXT)]),
            ("get_page", "Read one page", Effect::Reads, &[("id", TEXT)]),
        ],
        Kind::Orders => &[
            ("list_orders", "List all orders", Effect::Reads, &[]),
            ("get_order", "Read one order", Effect::Reads, &[("id", TEXT)]),
            ("cancel_order", "Cancel an order", Effect::Destroys, &[("id", TEXT)]),
        ],
        Kind::Rates => &[
            ("exchange_rate", "How much of a currency one euro buys", Effect::Reads, &[("currency", TEXT)]),
            ("convert", "Convert euros", Effect::Reads, &[("currency", TEXT), ("amount", NUMBER)]),
            ("set_rate", "Set a currency's rate", Effect::Writes, &[("currency", TEXT), ("rate", NUMBER)]),
        ],
    }
}

/// One of the four as an MCP server.
#[derive(Debug, Clone)]
struct DemoServer {
    kind: Kind,
    records: Arc<Mutex<Vec<Value>>>,
}

impl ServerHandler for DemoServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.kind {
            Kind::Orders => ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25).into(),
            _ => ProtocolVersion::KNOWN_VERSIONS.into(),
        }
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools(self.kind).iter().map(definition).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let result = match self.answer(&request.name, &arguments) {
            Ok(value) => CallToolResult::structured(value),
            Err(sentence) => CallToolResult::error(vec![ContentBlock::text(sentence)]),
        };
        Ok(CallToolResponse::Complete(result))
    }
}

fn definition((name, title, effect, parameters): &ToolRow) -> Tool {
    let properties: JsonObject =
        parameters.iter().map(|(name, kind)| ((*name).to_owned(), json!({ "type": kind }))).collect();
    let required: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(required));
    let annotations = ToolAnnotations::with_title(*title)
        .read_only(*effect == Effect::Reads)
        .destructive(*effect == Effect::Destroys);
    Tool::new(*name, *title, Arc::new(schema)).with_annotations(annotations)
}

impl DemoServer {
    fn answer(&self, tool: &str, arguments: &JsonObject) -> Result<Value, String> {
        let mut records = self.records.lock().map_err(|_| "the records are out of order".to_owned())?;
        match tool {
            "search_tickets" | "search_pages" => {
                let query = text(arguments, "query")?.to_lowercase();
                let titled = |record: &&Value| field(record, "title").to_lowercase().contains(&query);
                Ok(json!({ "found": records.iter().filter(titled).collect::<Vec<_>>() }))
            }
            "list_orders" => Ok(json!({ "orders": *records })),
            "get_ticket" | "get_page" | "get_order" => find(&mut records, text(arguments, "id")?).cloned(),
            "create_ticket" if records.len() >= TICKETS_MAX => Err("the desk is full".to_owned()),
            "create_ticket" => {
                let id = format!("ACME-{}", records.len() + 1);
                let ticket = json!({ "id": id, "title": text(arguments, "title")?, "state": "open" });
                records.push(ticket.clone());
                Ok(ticket)
            }
            "cancel_order" => {
                let order = find(&mut records, text(arguments, "id")?)?;
                set(order, "state", json!("cancelled"));
                Ok(order.clone())
            }
            "exchange_rate" => find(&mut records, text(arguments, "currency")?).cloned(),
            "convert" => {
                let amount = number(arguments, "amount")?;
                let currency = text(arguments, "currency")?;
                let rate = find(&mut records, currency)?.get("rate").and_then(Value::as_f64).unwrap_or_default();
                Ok(json!({ "amount": amount * rate, "currency": currency }))
            }
            "set_rate" => {
                let rate = number(arguments, "rate")?;
                let record = find(&mut records, text(arguments, "currency")?)?;
                set(record, "rate", json!(rate));
                Ok(record.clone())
            }
            _ => Err(format!("there is no tool `{tool}`")),
        }
    }
}

fn text<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str, String> {
    arguments.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` must be a text"))
}

fn number(arguments: &JsonObject, name: &str) -> Result<f64, String> {
    arguments.get(name).and_then(Value::as_f64).ok_or_else(|| format!("`{name}` must be a number"))
}

fn field<'r>(record: &'r Value, name: &str) -> &'r str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn find<'r>(records: &'r mut [Value], id: &str) -> Result<&'r mut Value, String> {
    records.iter_mut().find(|record| field(record, "id") == id).ok_or_else(|| format!("there is nothing called `{id}`"))
}

fn set(record: &mut Value, name: &str, value: Value) {
    if let Some(record) = record.as_object_mut() {
        record.insert(name.to_owned(), value);
    }
}
