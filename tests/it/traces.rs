//! Traces: what a client, mcp-mux and an upstream do for one call is one trace, as a collector of OTLP sees it; and nothing secret is in it.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use mcp_mux::config::OtlpConfig;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags};
use prost::Message as _;
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};
use tokio::net::TcpListener;
use url::Url;

use crate::support::api::Api;
use crate::support::canary;
use crate::support::server::{Setup, TestServer, serve};
use crate::support::upstreams::{ByteUpstream, Say, Seen};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

/// A collector, and what it was given.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn serve(&self) -> Result<Url> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1/traces", listener.local_addr()?);
        serve(listener, Router::new().route("/v1/traces", post(collect)).with_state(self.clone()));
        Ok(url.parse()?)
    }

    fn spans(&self, kind: SpanKind) -> Vec<Span> {
        let spans = self.0.lock().expect("no collector panics");
        spans.iter().filter(|span| span.kind == kind as i32).cloned().collect()
    }
}

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let is_protobuf = headers.get("content-type").is_some_and(|kind| kind == "application/x-protobuf");
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    if !is_protobuf {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    collector.0.lock().expect("no collector panics").extend(scopes.flat_map(|scope| scope.spans));
    StatusCode::OK
}

/// A server that exports traces to `collector`, and what its upstream sees.
async fn traced(name: &str, collector: Option<&Collector>) -> Result<(TestServer, ByteUpstream, Seen)> {
    let upstream = ByteUpstream::with_tools(r#"[{"name":"find","inputSchema":{}}]"#);
    let (url, seen) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let collector = match collector {
        Some(collector) => Some(OtlpConfig::at(collector.serve().await?)),
        None => None,
    };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.telemetry.traces = collector;
        Ok(())
    })
    .await?;
    Ok((server, upstream, seen))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An attribute that is a text.
fn text(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    if let Any::StringValue(text) = value { Some(text.clone()) } else { None }
}

/// What the upstream was told in `_meta` of the call whose arguments hold that.
fn told(seen: &Seen, mark: &str) -> Result<Value> {
    let text = seen.text();
    let line = text.lines().find(|line| line.contains(mark)).context("it was called")?;
    let body = line.find("{\"jsonrpc\"").and_then(|at| line.get(at..)).context("a message")?;
    let message = serde_json::Deserializer::from_str(body).into_iter::<Value>().next().context("JSON")??;
    Ok(message["params"]["_meta"].clone())
}

fn parameters(mark: &str) -> Value {
    let meta = json!({
        "traceparent": format!("00-{TRACE}-{CLIENTS_SPAN}-01"), "tracestate": "vendor=1", "baggage": "person=alice",
    });
    json!({"name": "acme__find", "arguments": {"mark": mark}, "_meta": meta})
}

#[tokio::test]
async fn client_mux_and_upstream_are_one_trace() -> Result<()> {
    let (collector, mark) = (Collector::default(), canary("argument"));
    let (server, upstream, seen) = traced("traces", Some(&collector)).await?;
    upstream.says("tools/call", Say::Result(format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{mark}\"}}]}}")));
    let around = format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16));
    let alice = server.client("alice", &["acme"])?.with("traceparent", &around)?;
    assert!(alice.modern("tools/call", parameters(&mark)).await?.json()?["result"].is_object());
    // What fails is in it, too; what somebody made up has no name there.
    assert!(alice.call(&mark, json!({})).await?["error"].is_object());
    let meta = told(&seen, &mark)?;
    assert!(server.app.stop().await, "something was left behind");

    let servers = collector.spans(SpanKind::Server);
    let [ours, refused] = &servers[..] else { anyhow::bail!("{servers:#?}") };
    assert_eq!((ours.name.as_str(), hex(&ours.trace_id)), ("tools/call acme__find", TRACE.to_owned()));
    assert_eq!((hex(&ours.parent_span_id), ours.trace_state.as_str()), (CLIENTS_SPAN.to_owned(), "vendor=1"));
    assert_ne!(ours.flags & SpanFlags::ContextIsRemoteMask as u32, 0, "its parent is elsewhere");
    assert_eq!(ours.links.iter().map(|link| hex(&link.span_id)).collect::<Vec<_>>(), ["2".repeat(16)]);
    let clients = collector.spans(SpanKind::Client);
    let theirs = clients.iter().find(|span| hex(&span.trace_id) == TRACE).context("a span to the upstream")?;
    assert_eq!((theirs.name.as_str(), &theirs.parent_span_id), ("tools/call find", &ours.span_id));
    assert_eq!(meta["traceparent"], json!(format!("00-{TRACE}-{}-01", hex(&theirs.span_id))));
    assert_eq!((&meta["tracestate"], &meta["baggage"]), (&json!("vendor=1"), &Value::Null));
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.operation.name", "execute_tool"),
        ("mcp.protocol.version", "2026-07-28"),
        ("mcp_mux.tenant.name", "acme"),
        ("mcp_mux.upstream.name", "desk"),
    ] {
        assert_eq!([text(ours, key).as_deref(), text(theirs, key).as_deref()], [Some(value); 2], "{key}");
    }
    assert_eq!(text(theirs, "gen_ai.tool.name").as_deref(), Some("find"));
    // Without a context of its own, the headers' is what it is a part of.
    assert_eq!((refused.name.as_str(), hex(&refused.parent_span_id)), ("tools/call", "2".repeat(16)));
    assert_eq!(text(refused, "error.type").as_deref(), Some("-32602"));
    let all = format!("{:?}", collector.0.lock().expect("no collector panics"));
    assert!(!all.contains("CANARY") && !all.contains("alice"), "{all}");
    Ok(())
}

#[tokio::test]
async fn an_api_is_told_of_the_trace_in_its_headers() -> Result<()> {
    let collector = Collector::default();
    let operation = json!({"get": {"operationId": "find", "parameters": [
        {"name": "mark", "in": "query", "schema": {"type": "string"}},
        {"name": "traceparent", "in": "header", "schema": {"type": "string"}},
    ]}});
    let document = json!({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/find": operation}});
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    let api = Api::serve(&document, move |_, uri, headers, _| {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let all = ["traceparent", "tracestate", "baggage"].map(text);
        noted.lock().expect("nobody panics").push((uri.path_and_query().map(ToString::to_string), all));
        (200, "text/plain", b"fine".to_vec())
    })
    .await?;
    let url = collector.serve().await?;
    let server = TestServer::start_with("traces_api", &[], |config| {
        config.telemetry.traces = Some(OtlpConfig::at(url));
        Ok(())
    })
    .await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &api.url, key: None, level: Level::Write };
    server.add_api(&setup, &api.document(), UpstreamAuth::None, &[]).await?;
    let mut parameters = parameters("a-mark");
    // What an argument says of it does not count.
    parameters["arguments"]["traceparent"] = json!(format!("00-{}-{}-01", "3".repeat(32), "4".repeat(16)));
    let answer = server.client("alice", &["acme"])?.modern("tools/call", parameters).await?;
    assert!(answer.text.contains("fine"), "{}", answer.text);
    assert!(server.app.stop().await, "something was left behind");
    let clients = collector.spans(SpanKind::Client);
    let theirs = clients.iter().find(|span| hex(&span.trace_id) == TRACE).context("a span to the upstream")?;
    let traceparent = format!("00-{TRACE}-{}-01", hex(&theirs.span_id));
    let told = told.lock().expect("nobody panics").clone();
    assert_eq!(told, [(Some("/find?mark=a-mark".to_owned()), [Some(traceparent), Some("vendor=1".to_owned()), None])]);
    Ok(())
}

#[tokio::test]
async fn what_a_client_does_not_want_traced_is_not() -> Result<()> {
    let collector = Collector::default();
    let (server, upstream, seen) = traced("traces_unsampled", Some(&collector)).await?;
    upstream.says("tools/call", Say::Result("{\"content\":[]}".to_owned()));
    let mut parameters = parameters("a-mark");
    parameters["_meta"]["traceparent"] = json!(format!("00-{TRACE}-{CLIENTS_SPAN}-00"));
    server.client("alice", &["acme"])?.modern("tools/call", parameters).await?;
    let traceparent = told(&seen, "a-mark")?["traceparent"].as_str().context("it is passed on")?.to_owned();
    assert!(traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-00"), "{traceparent}");
    assert!(server.app.stop().await);
    assert!(collector.spans(SpanKind::Server).is_empty());
    Ok(())
}

#[tokio::test]
async fn without_a_collector_a_clients_trace_passes_through_as_it_came() -> Result<()> {
    let (server, upstream, seen) = traced("traces_off", None).await?;
    upstream.says("tools/call", Say::Result("{\"content\":[]}".to_owned()));
    server.client("alice", &["acme"])?.modern("tools/call", parameters("a-mark")).await?;
    let meta = told(&seen, "a-mark")?;
    assert_eq!(meta["traceparent"], json!(format!("00-{TRACE}-{CLIENTS_SPAN}-01")));
    assert_eq!((&meta["tracestate"], &meta["baggage"]), (&json!("vendor=1"), &Value::Null));
    Ok(())
}

#[tokio::test]
async fn a_collector_that_does_not_answer_delays_nobody() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let nobody = Url::parse(&format!("http://{}/v1/traces", listener.local_addr()?))?;
    let upstream = ByteUpstream::with_tools(r#"[{"name":"find","inputSchema":{}}]"#);
    let (url, _) = upstream.clone().serve().await?;
    upstream.says("tools/call", Say::Result("{\"content\":[]}".to_owned()));
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start_with("traces_silence", &[setup], |config| {
        config.telemetry.traces = Some(OtlpConfig::at(nobody));
        Ok(())
    })
    .await?;
    let alice = server.client("alice", &["acme"])?;
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object());
    assert!(server.app.stop().await, "nothing that a caller waits for was left behind");
    Ok(())
}
