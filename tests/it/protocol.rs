//! Bad input and the rules of both eras: each gets a clear answer.

use anyhow::Result;
use serde_json::json;
use tenant_store::Level;

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

async fn server(name: &str) -> Result<(TestServer, Http)> {
    let (url, _) = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start(name, &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    Ok((server, alice))
}

#[tokio::test]
async fn both_eras_are_spoken_on_one_endpoint() -> Result<()> {
    let (_server, alice) = server("both_eras").await?;
    let discover = alice.modern("server/discover", json!({})).await?.json()?;
    let versions = discover["result"]["supportedVersions"].as_array().cloned().unwrap_or_default();
    assert!(versions.contains(&json!("2026-07-28")), "{discover}");
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let params =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let initialize = alice.legacy("initialize", &params).await?.json()?;
        assert_eq!(initialize["result"]["protocolVersion"], version, "{initialize}");
    }
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    assert_eq!(alice.post(notification).await?.status, 202);
    assert_eq!(alice.legacy("ping", &json!({})).await?.json()?["result"], json!({}));
    Ok(())
}

#[tokio::test]
async fn a_modern_list_is_private_to_its_caller() -> Result<()> {
    let (_server, alice) = server("private_list").await?;
    let list = alice.modern("tools/list", json!({})).await?.json()?;
    assert_eq!(list["result"]["cacheScope"], "private");
    assert_eq!(list["result"]["resultType"], "complete");
    assert!(list["result"]["ttlMs"].is_u64());
    Ok(())
}

#[tokio::test]
async fn what_is_no_message_is_answered_with_the_reason() -> Result<()> {
    let (_server, alice) = server("no_message").await?;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        (deep.as_str(), -32700),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/list"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#, -32600),
    ] {
        let answer = alice.post(body.to_owned()).await?;
        let start: String = body.chars().take(40).collect();
        assert_eq!((answer.status, answer.code()?), (400, Some(code)), "{start}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() -> Result<()> {
    let (_server, alice) = server("body_limit").await?;
    assert_eq!(alice.post(vec![b' '; 5 * 1024 * 1024]).await?.status, 413);
    Ok(())
}

#[tokio::test]
async fn another_content_type_is_refused() -> Result<()> {
    let (_server, alice) = server("content_type").await?;
    let alice = alice.with("content-type", "text/plain")?;
    assert_eq!(alice.legacy("ping", &json!({})).await?.status, 415);
    Ok(())
}

#[tokio::test]
async fn headers_must_agree_with_the_body() -> Result<()> {
    let (_server, alice) = server("headers_agree").await?;
    let modern = |name: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }}})
        .to_string()
    };
    let alice = alice.with("mcp-protocol-version", "2026-07-28")?.with("mcp-method", "tools/call")?;
    let answer = alice.post(modern("acme__go")).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32020)), "the name header is missing");
    let alice = alice.with("mcp-name", "acme__harmless")?;
    let answer = alice.post(modern("acme__go")).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32020)), "the name differs");
    let alice = alice.with("mcp-name", "acme__go")?.with("mcp-method", "tools/list")?;
    let answer = alice.post(modern("acme__go")).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32020)), "the method differs");
    let alice = alice.with("mcp-method", "tools/call")?.with("mcp-protocol-version", "2025-11-25")?;
    let answer = alice.post(modern("acme__go")).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32020)), "the version differs");
    Ok(())
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_those_that_are_known() -> Result<()> {
    let (_server, alice) = server("unknown_version").await?;
    let alice = alice.with("mcp-protocol-version", "1999-01-01")?;
    let answer = alice.legacy("tools/list", &json!({})).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32022)));
    assert!(answer.json()?["error"]["data"]["supported"].is_array());
    let alice = alice.with("mcp-protocol-version", "2030-01-01")?.with("mcp-method", "tools/list")?;
    let params = json!({"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2030-01-01", "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let answer = alice.legacy("tools/list", &params).await?;
    assert_eq!((answer.status, answer.code()?), (400, Some(-32022)));
    Ok(())
}

#[tokio::test]
async fn other_hosts_and_origins_are_refused() -> Result<()> {
    let (server, _) = server("hosts_and_origins").await?;
    let ping = json!({});
    let evil = server.client("alice", &["acme"])?.with("host", "evil.example.com")?;
    assert_eq!(evil.legacy("ping", &ping).await?.status, 403);
    for origin in ["https://evil.example.com", "null"] {
        let evil = server.client("alice", &["acme"])?.with("origin", origin)?;
        assert_eq!(evil.legacy("ping", &ping).await?.status, 403);
    }
    Ok(())
}

#[tokio::test]
async fn a_method_that_nobody_serves_is_unknown() -> Result<()> {
    let (_server, alice) = server("unknown_method").await?;
    for method in ["resources/List", "tools/List", "tasks/list", "admin/delete"] {
        let answer = alice.legacy(method, &json!({})).await?;
        assert_eq!((answer.status, answer.code()?), (200, Some(-32601)), "{method}");
        let answer = alice.modern(method, json!({})).await?;
        assert_eq!((answer.status, answer.code()?), (404, Some(-32601)), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn an_argument_that_is_repeated_as_a_header_must_agree_and_is_repeated_upstream() -> Result<()> {
    let tools = r#"[{"name":"go","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]"#;
    let done = Say::Result(r#"{"resultType":"complete","content":[]}"#.to_owned());
    let (url, seen) = ByteUpstream::with_tools(tools).on("tools/call", done).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("param_headers", &[setup]).await?;
    let call = json!({"name": "acme__go", "arguments": {"region": "zürich"}});
    for (header, status) in [(None, 400), (Some("bern"), 400), (Some("=?base64?esO8cmljaA==?="), 200)] {
        let mut alice = server.client("alice", &["acme"])?;
        if let Some(header) = header {
            alice = alice.with("mcp-param-region", header)?;
        }
        assert_eq!(alice.modern("tools/call", call.clone()).await?.status, status, "{header:?}");
    }
    assert!(seen.text().contains("mcp-param-region: =?base64?esO8cmljaA==?="), "{}", seen.text());
    let legacy = server.client("alice", &["acme"])?.legacy("tools/call", &call).await?;
    assert_eq!(legacy.status, 200, "the legacy era has no such headers");
    Ok(())
}

#[tokio::test]
async fn an_argument_or_its_header_that_is_there_twice_is_refused() -> Result<()> {
    let tools = r#"[{"name":"go","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]"#;
    let (url, seen) = ByteUpstream::with_tools(tools).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("param_twice", &[setup]).await?;
    let modern = |arguments: &str| {
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"acme__go","arguments":{arguments},"_meta":{meta}}}}}"#
        )
    };
    let alice = || {
        let alice = server.client("alice", &["acme"])?.with("mcp-protocol-version", "2026-07-28")?;
        alice.with("mcp-method", "tools/call")?.with("mcp-name", "acme__go")?.with("mcp-param-region", "b")
    };
    let twice = alice()?.post(modern(r#"{"region":"a","region":"b"}"#)).await?;
    assert_eq!(twice.code()?, Some(-32602), "{}", twice.text);
    let twice = alice()?.and("mcp-param-region", "b")?.post(modern(r#"{"region":"b"}"#)).await?;
    assert_eq!((twice.status, twice.code()?), (400, Some(-32020)), "{}", twice.text);
    assert!(!seen.text().contains("tools/call"), "nothing of it reached the upstream");
    Ok(())
}

#[tokio::test]
async fn what_a_modern_request_must_carry_has_its_type() -> Result<()> {
    let (_server, alice) = server("meta_types").await?;
    let alice = alice.with("mcp-protocol-version", "2026-07-28")?.with("mcp-method", "tools/list")?;
    for meta in [
        json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": 5}),
        json!({"io.modelcontextprotocol/protocolVersion": 5, "io.modelcontextprotocol/clientCapabilities": {}}),
    ] {
        let answer = alice.legacy("tools/list", &json!({"_meta": meta})).await?;
        assert_eq!((answer.status, answer.code()?), (400, Some(-32602)), "{}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_in_our_words() -> Result<()> {
    let (server, alice) = server("our_words").await?;
    let surrogate = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\ud800"}}"#;
    let nested = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(126),
        "]".repeat(126)
    );
    for body in [surrogate, nested.as_str()] {
        let answer = alice.post(body.to_owned()).await?;
        assert_eq!((answer.status, answer.code()?), (400, Some(-32700)), "{}", answer.text);
    }
    // A path that does not decode is judged no sooner than its caller.
    let stranger = Http::new(&server.url("/t/%ff/mcp"), None)?.legacy("ping", &json!({})).await?;
    assert_eq!(stranger.status, 401);
    assert!(stranger.headers.contains_key("www-authenticate"));
    Ok(())
}

#[tokio::test]
async fn what_a_client_lacks_for_an_upstream_is_in_the_status_of_the_modern_era() -> Result<()> {
    for (code, modern) in [(-32021, 400), (-32000, 200)] {
        let error =
            format!(r#"{{"code":{code},"message":"no","data":{{"requiredCapabilities":{{"sampling":{{}}}}}}}}"#);
        let refusal = Say::Http(400, "application/json", format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#).into());
        let upstream = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#).on("tools/call", refusal);
        let (url, _) = upstream.serve().await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
        let server = TestServer::start("lacking", &[setup]).await?;
        let alice = server.client("alice", &["acme"])?;
        let params = json!({"name": "acme__go"});
        let (modern_answer, legacy_answer) =
            (alice.modern("tools/call", params.clone()).await?, alice.legacy("tools/call", &params).await?);
        assert_eq!(modern_answer.text, format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#));
        assert_eq!((modern_answer.status, legacy_answer.status), (modern, 200), "{code}");
    }
    Ok(())
}
