//! A request to an upstream: its JSON text and the headers that repeat parts of it, by the rules of each era.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use url::Url;

use super::answer::ANSWER_BYTES_MAX;
use super::in_flight::Load;
use super::peer::LogLevel;
use crate::audit::Shown;
use crate::json::{self, Members};
use crate::protocol::{METHOD, MODERN_VERSION, NAME, PARAM_PREFIX, PROTOCOL_VERSION};
use crate::telemetry::{Origin, SpanContext, as_headers, written};

/// Every version of the legacy era that an upstream may choose.
pub(super) const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Keys of `_meta` that carry a trace across hops (W3C Trace Context, SEP-414); nothing else of a caller's `_meta` travels on.
/// `baggage` does not: what a client notes there for one tenant's servers is not for another's.
const TRACE_KEYS: [&str; 2] = ["traceparent", "tracestate"];
const TRACE_VALUE_BYTES_MAX: usize = 8 * 1024;
/// What a message has around what is said, roughly: enough for a text to be put together without being moved.
const FRAME_BYTES: usize = 128;

/// Trace context for an upstream's `_meta`: as it came, or of our own span where there are spans.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    came: String,
    /// The span of the client's request.
    within: Option<SpanContext>,
    /// The span of ours to the upstream, as it is written.
    ours: Option<String>,
}

impl Trace {
    /// Picks the trace keys out of a caller's `_meta`.
    pub fn from_meta(meta: Option<&Members<'_>>) -> Self {
        let mut members = String::new();
        for key in TRACE_KEYS {
            let value = meta.and_then(|meta| meta.get(key));
            if let Some(value) =
                value.filter(|raw| raw.get().starts_with('"') && raw.get().len() <= TRACE_VALUE_BYTES_MAX)
            {
                members = members + "," + &json::quote(key) + ":" + value.get();
            }
        }
        Self { came: members, within: None, ours: None }
    }

    /// What is asked is a part of that.
    pub(crate) fn is_within(&mut self, span: Option<SpanContext>) {
        self.within = span;
    }

    /// What our own span is a part of.
    pub(super) fn origin(&self) -> Origin {
        Origin::within(self.within.clone())
    }

    /// The upstream is told of that span of ours, rather than of what came.
    pub(super) fn goes_on_in(&mut self, span: Option<&SpanContext>) {
        self.ours = span.map(written);
    }

    /// The same as headers, for an upstream that is no MCP server.
    pub(super) fn headers(&self) -> HeaderMap {
        let meta = format!("{{{}}}", self.members().trim_start_matches(','));
        Members::parse(&meta).map(|meta| as_headers(&meta)).unwrap_or_default()
    }

    fn members(&self) -> &str {
        self.ours.as_deref().unwrap_or(&self.came)
    }
}

/// An HTTP request that is complete, and not yet proved. It is never printed: its address may come to hold a secret.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Outgoing {
    /// A message to `url`.
    pub(super) fn message(url: Url, mut headers: HeaderMap, body: String) -> Self {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, url, headers, body }
    }

    /// A question for a stream of events.
    pub(super) fn for_events(url: Url) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/event-stream"))]);
        Self { method: Method::GET, url, headers, body: String::new() }
    }
}

/// What runs at an upstream at once, each kind in places of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What callers wait for. The operator says how many.
    Calls,
    /// What the catalog listens to.
    Catalog,
    /// What callers listen to.
    Listeners,
}

/// What is asked of an upstream.
#[derive(Debug)]
pub struct Rpc<'r> {
    /// The JSON-RPC method.
    pub method: &'r str,
    /// The name that `Mcp-Name` repeats, for methods that have one.
    pub name: Option<&'r str>,
    /// `"key":value,…`: the members of `params` besides `_meta`.
    pub params: String,
    /// The trace that this is a part of.
    pub trace: Trace,
    /// `"key":value,…`: what the client behind us can be asked for, where the protocol says that with each request.
    pub capabilities: String,
    /// From which level on log messages are wanted, where the protocol says that with each request.
    pub log: Option<LogLevel>,
    /// Ask for progress notifications; they carry our own request id as their token.
    pub progress: bool,
    /// Among what it takes its place.
    pub lane: Lane,
    /// By what it and its answer are held.
    pub load: Load,
    /// Where it is noted that it was sent.
    pub shown: Option<Shown>,
    /// Largest answer that is taken, in bytes, unless it is streamed.
    pub answer_bytes_max: usize,
    /// The called tool's definition, as it was listed.
    pub definition: Option<&'r RawValue>,
    /// The called tool's parameters that the protocol repeats as headers, with their values.
    pub param_headers: Vec<(String, String)>,
}

impl<'r> Rpc<'r> {
    /// A request without parameters.
    pub fn new(method: &'r str) -> Self {
        Self {
            method,
            name: None,
            params: String::new(),
            trace: Trace::default(),
            capabilities: String::new(),
            log: None,
            progress: false,
            lane: Lane::Calls,
            load: Load::default(),
            shown: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            definition: None,
            param_headers: Vec::new(),
        }
    }

    /// It is sent now.
    pub(super) fn goes(&self) {
        self.shown.iter().for_each(Shown::goes);
    }

    /// The message under request id `id`, with the `_meta` that the modern era demands and the legacy era ignores.
    pub(super) fn body(&self, id: u64, modern: bool) -> String {
        let mut meta = String::new();
        if modern {
            meta.push_str(
                ",\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientInfo\":",
            );
            meta.push_str(&client_info());
            meta = meta + ",\"io.modelcontextprotocol/clientCapabilities\":{" + &self.capabilities + "}";
            if let Some(level) = self.log {
                meta = meta + ",\"io.modelcontextprotocol/logLevel\":\"" + level.as_str() + "\"";
            }
        }
        meta.push_str(self.trace.members());
        if self.progress {
            meta = meta + ",\"progressToken\":" + &id.to_string();
        }
        let meta = meta.strip_prefix(',').map(|meta| format!("\"_meta\":{{{meta}}}")).unwrap_or_default();
        let comma = if meta.is_empty() || self.params.is_empty() { "" } else { "," };
        let mut body = String::with_capacity(self.params.len() + meta.len() + FRAME_BYTES);
        body.extend(["{\"jsonrpc\":\"2.0\",\"id\":", &id.to_string(), ",\"method\":", &json::quote(self.method)]);
        body.extend([",\"params\":{", &self.params, comma, &meta, "}}"]);
        body
    }

    /// The headers of the modern era (SEP-2243).
    pub(super) fn modern_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(MODERN_VERSION));
        insert(&mut headers, METHOD, self.method);
        if let Some(name) = self.name {
            insert(&mut headers, NAME, name);
        }
        for (header, value) in &self.param_headers {
            if let Ok(header) = HeaderName::from_bytes(format!("{PARAM_PREFIX}{header}").as_bytes()) {
                insert(&mut headers, header, value);
            }
        }
        headers
    }
}

/// What we say about ourselves.
pub(super) fn client_info() -> String {
    format!("{{\"name\":\"mcp-mux\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(&header_text(value)) {
        headers.insert(name, value);
    }
}

/// The header form of a value: as it is where that is safe, else wrapped as `=?base64?…?=`.
fn header_text(value: &str) -> String {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && value.trim() == value
        && !(value.starts_with("=?base64?") && value.ends_with("?="));
    if plain { value.to_owned() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_travel_byte_for_byte() {
        let params = r#""name":"find \"x\"","arguments":{ "b" : 1.50, "a":123456789012345678901234567890 }"#.to_owned();
        let body = Rpc { params, ..Rpc::new("tools/call") }.body(7, false);
        assert_eq!(
            body,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"find \"x\"","arguments":{ "b" : 1.50, "a":123456789012345678901234567890 }}}"#
        );
    }

    #[test]
    fn only_trace_keys_of_a_callers_meta_travel_on() {
        let text = r#"{"traceparent":"00-a","baggage":"tenant=globex","secret":"s","progressToken":"mine","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}"#;
        let meta = Members::parse(text).unwrap();
        let rpc = Rpc { trace: Trace::from_meta(Some(&meta)), progress: true, ..Rpc::new("tools/call") };
        let body: serde_json::Value = serde_json::from_str(&rpc.body(9, true)).unwrap();
        assert_eq!(
            body["params"]["_meta"],
            serde_json::json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "mcp-mux", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {},
                "traceparent": "00-a",
                "progressToken": 9,
            })
        );
    }

    #[test]
    fn a_name_that_is_no_header_is_wrapped() {
        for (name, header) in [("search", "search"), ("grüße", "=?base64?Z3LDvMOfZQ==?="), (" x", "=?base64?IHg=?=")]
        {
            assert_eq!(header_text(name), header);
        }
    }
}
