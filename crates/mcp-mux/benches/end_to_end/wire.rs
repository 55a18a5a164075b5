//! What is said on each leg: a client's requests in either era, and what the upstream answers.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Builder;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use serde_json::value::RawValue;

use crate::tenants;

/// How many tools the upstream can be asked to list.
pub(crate) const LISTS: [usize; 3] = [5, 20, 1_000];
/// What stands before the names of the upstream's tools, where a gateway shows them.
pub(crate) const PREFIX: &str = "acme__";

/// The upstream's answer to `server/discover`.
pub(crate) const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"},"ttlMs":0,"cacheScope":"private"}"#;
/// And to `initialize`.
pub(crate) const INITIALIZED: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#;

const ENDS: &str = "END OF TEXT";
const ID: u32 = 7;

/// The family of protocol versions that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// As whom a client asks, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'c> {
    pub(crate) address: &'c str,
    pub(crate) path: &'c str,
    pub(crate) token: &'c str,
    /// What stands before the names of tools there.
    pub(crate) prefix: &'c str,
    pub(crate) era: Era,
}

/// One request, ready to be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) request: Request<Full<Bytes>>,
    /// What a right answer holds.
    pub(crate) expected: String,
}

impl Client<'_> {
    /// Calls a tool with a text of that many bytes, which is what comes back.
    pub(crate) fn call(&self, bytes: usize) -> Result<Ask> {
        let name = format!("{}tool_0", self.prefix);
        let params = json!({ "name": name, "arguments": { "text": text(bytes) } });
        self.ask("tools/call", Some(&name), params, ENDS.to_owned())
    }

    /// Lists the tools, of which there are that many.
    pub(crate) fn list(&self, count: usize) -> Result<Ask> {
        self.ask("tools/list", None, json!({}), format!("tool_{}\"", count - 1))
    }

    /// What Open WebUI does before and while a model uses a tool: greets, lists, calls.
    pub(crate) fn turn(&self, count: usize, bytes: usize) -> Result<Vec<Ask>> {
        let mut asks = match self.era {
            Era::Modern => vec![self.ask("server/discover", None, json!({}), "2026-07-28".to_owned())?],
            Era::Legacy => {
                let who = json!({ "name": "Open WebUI", "version": "1" });
                let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": who });
                let initialize = self.ask("initialize", None, hello, "2025-11-25".to_owned())?;
                let done = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
                let request = self.post("notifications/initialized", None).body(Full::from(done.to_string()))?;
                vec![initialize, Ask { request, expected: String::new() }]
            }
        };
        asks.extend([self.list(count)?, self.call(bytes)?]);
        Ok(asks)
    }

    /// What opens a stream that tells of changed lists, as it is sent.
    pub(crate) fn listen(&self) -> Result<String> {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let Ask { request, .. } = self.ask("subscriptions/listen", None, params, String::new())?;
        let (head, body) = request.into_parts();
        let mut text = format!("POST {} HTTP/1.1\r\n", head.uri);
        for (name, value) in &head.headers {
            write!(text, "{name}: {}\r\n", value.to_str()?)?;
        }
        let body = body.collect().now_or_never().context("it is whole")??.to_bytes();
        write!(text, "content-length: {}\r\n\r\n{}", body.len(), std::str::from_utf8(&body)?)?;
        Ok(text)
    }

    fn ask(&self, method: &str, name: Option<&str>, mut params: serde_json::Value, expected: String) -> Result<Ask> {
        if let (Era::Modern, Some(params)) = (self.era, params.as_object_mut()) {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "Open WebUI", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            params.insert("_meta".to_owned(), meta);
        }
        let body = json!({ "jsonrpc": "2.0", "id": ID, "method": method, "params": params }).to_string();
        Ok(Ask { request: self.post(method, name).body(Full::from(body))?, expected })
    }

    fn post(&self, method: &str, name: Option<&str>) -> Builder {
        let (version, both) = (HeaderName::from_static("mcp-protocol-version"), "application/json, text/event-stream");
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.path)
            .header(HOST, self.address)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(ACCEPT, HeaderValue::from_static(both))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match (self.era, name) {
            (Era::Legacy, _) if method == "initialize" => request,
            (Era::Legacy, _) => request.header(version, "2025-11-25"),
            (Era::Modern, None) => request.header(version, "2026-07-28").header("mcp-method", method),
            (Era::Modern, Some(name)) => {
                request.header(version, "2026-07-28").header("mcp-method", method).header("mcp-name", name)
            }
        }
    }
}

/// Text of that many bytes, in lines as people and programs write it.
fn text(bytes: usize) -> String {
    const LINE: &str = "The quick brown fox jumps over the lazy dog, and 1234567890 more of its kind do.\n";
    let kept = bytes.saturating_sub(ENDS.len());
    let lines: String = LINE.chars().cycle().take(kept).collect();
    lines + ENDS
}

/// The upstream's result of a call with `text`.
pub(crate) fn called(text: &RawValue) -> String {
    format!("{{\"resultType\":\"complete\",\"content\":[{{\"type\":\"text\",\"text\":{text}}}]}}")
}

/// The upstream's result of a list.
pub(crate) fn listed(tools: &str) -> String {
    format!("{{\"resultType\":\"complete\",\"tools\":{tools},\"ttlMs\":0,\"cacheScope\":\"private\"}}")
}

/// The definitions of that many tools.
pub(crate) fn tools(count: usize) -> String {
    let tools: Vec<String> = (0..count).map(tenants::tool).collect();
    format!("[{}]", tools.join(","))
}
