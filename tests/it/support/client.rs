//! A client that sends exactly what a test says, for what well-behaved clients never send.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// An HTTP client of one endpoint.
pub(crate) struct Http {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
}

/// An answer that streams.
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
    /// The id of the last event that had one.
    pub id: Option<String>,
    /// After how long the client is to come back, if the stream said so, in milliseconds.
    pub retry: Option<u32>,
}

impl Events {
    fn of(response: reqwest::Response) -> Self {
        Self { response, text: String::new(), id: None, retry: None }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().filter_map(move |line| line.strip_prefix(name)).collect::<Vec<_>>();
                let (message, id, retry) = (field("data: ").join("\n"), field("id: "), field("retry: "));
                self.id = id.first().map(|id| (*id).to_owned()).or(self.id.take());
                self.retry = retry.first().and_then(|wait| wait.parse().ok()).or(self.retry);
                let rest = rest.to_owned();
                self.text = rest;
                if !message.is_empty() {
                    return Ok(serde_json::from_str(&message)?);
                }
                continue;
            }
            let chunk = tokio::time::timeout(EVENT_TIMEOUT, self.response.chunk()).await??;
            self.text.push_str(std::str::from_utf8(&chunk.context("the stream ended")?)?);
        }
    }

    /// Waits for the end; no message may come before it.
    pub(crate) async fn end(mut self) -> Result<()> {
        while let Some(chunk) = tokio::time::timeout(EVENT_TIMEOUT, self.response.chunk()).await?? {
            self.text.push_str(std::str::from_utf8(&chunk)?);
        }
        anyhow::ensure!(!self.text.contains("data: "), "{}", self.text);
        Ok(())
    }
}

/// How long a test waits for an event that must come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The message: the body, or the data of the last event if the answer was streamed.
    pub(crate) fn json(&self) -> Result<Value> {
        let last = self.text.lines().rev().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(last.unwrap_or(&self.text))
            .with_context(|| format!("not JSON: {} {}", self.status, self.text))
    }

    /// All that a client could tell two answers apart by: status, body and headers, but for the id and the time of the answer and
    /// the sealed id of a session, which are new each time.
    pub(crate) fn all(&self) -> (u16, String, HeaderMap) {
        let mut headers = self.headers.clone();
        for each_its_own in ["x-request-id", "date", "mcp-session-id"] {
            headers.remove(each_its_own);
        }
        (self.status, self.text.clone(), headers)
    }

    /// The code of the JSON-RPC error.
    pub(crate) fn code(&self) -> Result<Option<i64>> {
        Ok(self.json()?["error"]["code"].as_i64())
    }
}

/// What every modern request must carry.
fn meta(can: &Value) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": can,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    })
}

impl Http {
    /// A client that shows `token`, if any.
    #[expect(clippy::disallowed_methods, reason = "a test's client is not bound by our egress rules")]
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, url: url.to_owned(), headers })
    }

    /// The same over HTTP/2 alone, without TLS.
    #[expect(clippy::disallowed_methods, reason = "a test's client is not bound by our egress rules")]
    pub(crate) fn over_http2(self) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
        Ok(Self { client, ..self })
    }

    /// The same with one header more, or another value for one.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        Ok(self)
    }

    /// The same with a header once more.
    pub(crate) fn and(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        Ok(self)
    }

    /// The same connection with another token.
    pub(crate) fn as_bearer(&self, token: &str) -> Result<Self> {
        let mut headers = self.headers.clone();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
        Ok(Self { client: self.client.clone(), url: self.url.clone(), headers })
    }

    /// The same client at another address, which it calls over other connections.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self { client: self.client.clone(), url: url.to_owned(), headers: self.headers.clone() }
    }

    /// Posts a body as it is.
    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> Result<Answer> {
        self.send(self.client.post(&self.url).body(body)).await
    }

    /// Sends another method with a body.
    pub(crate) async fn send_as(&self, method: reqwest::Method, body: impl Into<reqwest::Body>) -> Result<Answer> {
        self.send(self.client.request(method, &self.url).body(body)).await
    }

    /// Sends another method without a body. Of a stream, which may have no end, only the head is read.
    pub(crate) async fn request(&self, method: reqwest::Method) -> Result<Answer> {
        let request = self.client.request(method, &self.url).headers(self.headers.clone());
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let streams = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let text = if streams { String::new() } else { response.text().await? };
        Ok(Answer { status, headers, text })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.headers(self.headers.clone()).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    /// The stream of a legacy session.
    pub(crate) async fn listen(&self) -> Result<Events> {
        let response = self.client.get(&self.url).headers(self.headers.clone()).send().await?;
        anyhow::ensure!(response.status() == 200, "{}", response.status());
        Ok(Events::of(response))
    }

    /// A modern request whose answer streams.
    pub(crate) async fn stream(&self, method: &str, mut params: Value) -> Result<Events> {
        params["_meta"] = meta(&json!({}));
        let body = json!({"jsonrpc": "2.0", "id": "s-1", "method": method, "params": params}).to_string();
        let request = self.client.post(&self.url).body(body).headers(self.headers.clone());
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        Ok(Events::of(request.send().await?.error_for_status()?))
    }

    /// A legacy request: the stream of its answer, or the answer if it came at once.
    pub(crate) async fn legacy_answer(
        &self,
        id: u64,
        method: &str,
        params: &Value,
    ) -> Result<std::result::Result<Events, Value>> {
        let events = self.legacy_stream(id, method, params).await?;
        let kind = events.response.headers().get("content-type").map(HeaderValue::as_bytes);
        if kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
            return Ok(Err(serde_json::from_slice(&events.response.bytes().await?)?));
        }
        Ok(Ok(events))
    }

    /// A legacy request whose answer streams.
    pub(crate) async fn legacy_stream(&self, id: u64, method: &str, params: &Value) -> Result<Events> {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let request = self.client.post(&self.url).body(body).headers(self.headers.clone());
        Ok(Events::of(request.send().await?.error_for_status()?))
    }

    /// A legacy request.
    pub(crate) async fn legacy(&self, method: &str, params: &Value) -> Result<Answer> {
        self.post(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()).await
    }

    /// Begins a legacy session and returns its id.
    pub(crate) async fn begin_session(&self) -> Result<String> {
        self.begin_session_that_can(&json!({})).await
    }

    /// The same of a client with these capabilities.
    pub(crate) async fn begin_session_that_can(&self, can: &Value) -> Result<String> {
        let hello =
            json!({"protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": {"name": "t", "version": "1"}});
        let answer = self.legacy("initialize", &hello).await?;
        let id = answer.headers.get("mcp-session-id").with_context(|| format!("no session: {}", answer.text))?;
        Ok(id.to_str()?.to_owned())
    }

    /// A modern request of which the test has written the body, with the headers that repeat parts of it.
    pub(crate) async fn modern_text(&self, (method, name): (&str, Option<&str>), body: String) -> Result<Answer> {
        let mut request = self.client.post(&self.url).body(body);
        request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        self.send(request).await
    }

    /// A modern request with everything that it must carry.
    pub(crate) async fn modern(&self, method: &str, params: Value) -> Result<Answer> {
        self.modern_that_can(&json!({}), method, params).await
    }

    /// The same of a client with these capabilities.
    pub(crate) async fn modern_that_can(&self, can: &Value, method: &str, mut params: Value) -> Result<Answer> {
        let more = params["_meta"].take();
        params["_meta"] = meta(can);
        for (key, value) in more.as_object().into_iter().flatten() {
            params["_meta"][key] = value.clone();
        }
        let key = match method {
            "resources/read" => "uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
            _ => "name",
        };
        let name = params[key].as_str().map(ToOwned::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        self.modern_text((method, name.as_deref()), body).await
    }

    /// The names of all tools that are listed.
    pub(crate) async fn tools(&self) -> Result<Vec<String>> {
        let list = self.modern("tools/list", json!({})).await?.json()?;
        let tools = list["result"]["tools"].as_array().with_context(|| format!("no list: {list}"))?;
        Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(ToOwned::to_owned)).collect())
    }

    /// Calls a tool in the modern era.
    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Result<Value> {
        self.modern("tools/call", json!({"name": name, "arguments": arguments})).await?.json()
    }
}
