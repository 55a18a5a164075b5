//! What `/metrics` says of requests: the names, labels and buckets of OpenTelemetry's conventions for MCP, and never who called.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use insta::assert_snapshot;
use mcp_mux::App;
use serde_json::json;
use tenant_store::{Level, Revoked};

use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const USERS: usize = 10_000;
const AT_ONCE: usize = 8;

const TOOLS: &str = r#"[{"name":"works","inputSchema":{}},{"name":"fails","inputSchema":{}}]"#;

/// A server with one tenant whose team may read and write, and its upstream.
async fn measured(name: &str) -> Result<(TestServer, ByteUpstream)> {
    let upstream = ByteUpstream::with_tools(TOOLS);
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.admin.listen = Some("127.0.0.1:0".parse()?);
        Ok(())
    })
    .await?;
    Ok((server, upstream))
}

fn error(code: i32) -> Say {
    let error = format!(r#"{{"jsonrpc":"2.0","id":{{id}},"error":{{"code":{code},"message":"no"}}}}"#);
    Say::Events(vec![error])
}

async fn exposed(app: &App) -> Result<String> {
    let address = app.admin_address().context("it answers operators")?;
    Ok(Http::new(&format!("http://{address}/metrics"), None)?.request(reqwest::Method::GET).await?.text)
}

/// The lines that begin so, sorted by what is behind the name.
fn lines(text: &str, begin: &str) -> String {
    let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(begin)).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test]
async fn requests_are_measured_by_method_tenant_upstream_decision_and_outcome() -> Result<()> {
    let (server, upstream) = measured("metrics").await?;
    let alice = server.client("alice", &["acme"])?;
    upstream.says("tools/call", Say::Result(r#"{"content":[]}"#.to_owned()));
    alice.call("acme__works", json!({})).await?;
    upstream.says("tools/call", Say::Result(r#"{"content":[],"isError":true}"#.to_owned()));
    alice.call("acme__fails", json!({})).await?;
    upstream.says("tools/call", error(-32_000));
    alice.call("acme__fails", json!({})).await?;
    upstream.says("tools/call", error(4_711));
    alice.call("acme__fails", json!({})).await?;
    let guess = canary("guess");
    assert_eq!(alice.call(&guess, json!({})).await?["error"]["code"], -32602);
    assert_eq!(alice.modern(&format!("acme/{guess}"), json!({})).await?.status, 404);
    alice.tools().await?;
    alice.legacy("ping", &json!({})).await?;

    let text = exposed(&server.app).await?;
    assert_snapshot!(lines(&text, "mcp_server_operation_duration_seconds_count"), @r#"
    {error_type="-32000",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_decision="allow",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="-32000"} 1
    {error_type="-32601",mcp_method_name="_OTHER",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="-32601"} 1
    {error_type="-32602",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_decision="deny",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="-32602"} 1
    {error_type="_OTHER",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_decision="allow",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="_OTHER"} 1
    {error_type="tool_error",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_decision="allow",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp"} 1
    {gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_decision="allow",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp"} 1
    {mcp_method_name="ping",mcp_protocol_version="2025-03-26",network_transport="tcp"} 1
    {mcp_method_name="tools/list",mcp_protocol_version="2026-07-28",network_transport="tcp"} 1
    "#);
    let client = lines(&text, "mcp_client_operation_duration_seconds_count");
    let calls: Vec<&str> = client.lines().filter(|line| line.contains("tools/call")).collect();
    assert_snapshot!(calls.join("\n"), @r#"
    {error_type="-32000",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="-32000"} 1
    {error_type="_OTHER",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp",rpc_response_status_code="_OTHER"} 1
    {error_type="tool_error",gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp"} 1
    {gen_ai_operation_name="execute_tool",mcp_method_name="tools/call",mcp_mux_tenant_name="acme",mcp_mux_upstream_name="desk",mcp_protocol_version="2026-07-28",network_transport="tcp"} 1
    "#);
    let ping = "mcp_server_operation_duration_seconds_bucket{mcp_method_name=\"ping\"";
    let pings = text.lines().filter(|line| line.starts_with(ping));
    let buckets: Vec<&str> = pings.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()).collect();
    assert_snapshot!(buckets.join(" "), @"0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10 30 60 120 300 +Inf");
    assert_snapshot!(lines(&text, "# TYPE mcp_"), @"
    client_operation_duration_seconds histogram
    mux_audit_backlog gauge
    mux_audit_lost_total counter
    mux_config_revision gauge
    mux_upstream_healthy gauge
    mux_usage_lost_total counter
    server_operation_duration_seconds histogram
    ");
    assert!(
        text.contains("\nmcp_mux_upstream_healthy{mcp_mux_tenant_name=\"acme\",mcp_mux_upstream_name=\"desk\"} 1\n")
    );
    assert!(!text.contains(&guess) && !text.contains("alice") && !text.contains("works"), "{text}");
    Ok(())
}

#[tokio::test]
async fn ten_thousand_users_leave_as_many_series_as_one() -> Result<()> {
    let (server, upstream) = measured("metrics_users").await?;
    upstream.says("tools/call", Say::Result(r#"{"content":[]}"#.to_owned()));
    let alice = server.client("alice", &["acme"])?;
    let ask = async |client: &Http| {
        client.call("acme__nothing", json!({})).await?;
        anyhow::Ok(())
    };
    alice.call("acme__works", json!({})).await?;
    ask(&alice).await?;
    let before = exposed(&server.app).await?;
    let others = (0..USERS).map(|number| {
        let token = server.token(&format!("user-{number}"), &["acme"]);
        async { ask(&alice.as_bearer(&token?)?).await }
    });
    iter(others).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let after = exposed(&server.app).await?;
    ensure!(after.contains(" 10001\n"), "they were counted: {after}");
    let series = |text: &str| {
        let names = text.lines().filter(|line| line.starts_with("mcp_server_operation"));
        names.filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name.to_owned())).collect::<Vec<_>>()
    };
    let (mut before, mut after) = (series(&before), series(&after));
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
    assert!(!before.is_empty());
    Ok(())
}

/// What operators are given to look at these metrics with.
const GIVEN: [(&str, &str); 2] = [
    ("grafana/mcp-mux.json", include_str!("../../deploy/grafana/mcp-mux.json")),
    ("prometheus/rules.yml", include_str!("../../deploy/prometheus/rules.yml")),
];

/// The words that could be a metric of ours, and are no label.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let labels = ["mcp_method_name", "mcp_mux_tenant_name", "mcp_mux_upstream_name", "mcp_mux_decision"];
    words.filter(|word| word.starts_with("mcp_") && !labels.contains(word)).collect()
}

#[tokio::test]
async fn dashboards_and_alerts_use_metrics_and_labels_that_there_are() -> Result<()> {
    let (server, upstream) = measured("metrics_given").await?;
    upstream.says("tools/call", Say::Result(r#"{"content":[]}"#.to_owned()));
    let alice = server.client("alice", &["acme"])?;
    alice.call("acme__works", json!({})).await?;
    alice.call("acme__nothing", json!({})).await?;
    let bob = Revoked::Principal { issuer: "corp".parse()?, subject: "bob".parse()? };
    server.app.store().revoke(&bob, "a test").await?;
    server.app.follow().await?;
    let text = exposed(&server.app).await?;
    let there = metrics_in(&text);
    for (file, given) in GIVEN {
        let used = metrics_in(given);
        let missing: Vec<_> = used.difference(&there).collect();
        assert!(!used.is_empty() && missing.is_empty(), "{file} uses {missing:?}, and there are {there:?}");
    }
    for label in ["mcp_method_name", "mcp_mux_tenant_name", "mcp_mux_upstream_name", "mcp_mux_decision", "error_type"] {
        assert!(text.contains(&format!("{label}=\"")), "{label}");
    }
    serde_json::from_str::<serde_json::Value>(GIVEN[0].1)?;
    Ok(())
}
