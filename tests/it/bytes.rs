//! What an upstream says arrives unchanged.

use anyhow::Result;
use serde_json::json;
use tenant_store::Level;

use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const RESULT: &str = r#"{ "z":1, "content":[{"type":"video","uri":"v://1","futureField":{"b":1,"a":[ ]}},{"type":"text","text":"\u00fc"}],"structuredContent":{"big":123456789012345678901234567890,"small":1.50e+3},"resultType":"complete","_meta":{"y":null,"x":1}}"#;

const TOOL: &str = r#"{"zeta":1,"name":"go","inputSchema":{"type":"object","required":["b","a"],"properties":{"b":{"type":"number","maximum":123456789012345678901234567890},"a":{"x-future":[1.0]}}},"execution":{"taskSupport":"optional"},"annotations":{"futureHint":true}}"#;

async fn server(name: &str) -> Result<TestServer> {
    let upstream = ByteUpstream::with_tools(&format!("[{TOOL}]")).on("tools/call", Say::Result(RESULT.to_owned()));
    let (url, _) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    TestServer::start(name, &[setup]).await
}

#[tokio::test]
async fn a_result_arrives_byte_for_byte() -> Result<()> {
    let server = server("result_bytes").await?;
    let alice = server.client("alice", &["acme"])?;
    let answer = alice.modern("tools/call", json!({"name": "acme__go"})).await?;
    assert_eq!(answer.text, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{RESULT}}}"#));
    Ok(())
}

#[tokio::test]
async fn a_definition_arrives_byte_for_byte() -> Result<()> {
    let server = server("definition_bytes").await?;
    let own = server.client_at("/t/acme/mcp", "alice", &["acme"])?.legacy("tools/list", &json!({})).await?;
    assert_eq!(own.text, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{TOOL}]}}}}"#));

    let aggregate = server.client("alice", &["acme"])?.legacy("tools/list", &json!({})).await?;
    let notes = r#""_meta":{"mcp-mux/tenant":"acme","mcp-mux/localName":"go"},"#;
    let renamed = TOOL.replace(r#""name":"go""#, r#""name":"acme__go""#).replacen('{', &format!("{{{notes}"), 1);
    assert_eq!(aggregate.text, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{renamed}]}}}}"#));
    Ok(())
}

#[tokio::test]
async fn arguments_arrive_byte_for_byte() -> Result<()> {
    let upstream = ByteUpstream::with_tools(&format!("[{TOOL}]")).on("tools/call", Say::Result(RESULT.to_owned()));
    let (url, seen) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("argument_bytes", &[setup]).await?;
    let arguments = r#"{ "b" : 123456789012345678901234567890,"a":"\u00e9" , "c":[1.0]}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"acme__go","arguments":{arguments}}}}}"#
    );
    assert_eq!(server.client("alice", &["acme"])?.post(body).await?.status, 200);
    assert!(seen.text().contains(&format!(r#""arguments":{arguments}"#)), "{}", seen.text());
    Ok(())
}
