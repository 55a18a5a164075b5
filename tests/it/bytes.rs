//! What an upstream says arrives unchanged.

use anyhow::{Context as _, Result, ensure};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
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
    let answer = alice.modern("tools/call", json!({"name": "acme__go", "arguments": {"a": 1, "b": 2}})).await?;
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

/// How many texts each method is tried with, in each era.
const TEXTS: usize = 100;

/// JSON in all its spellings: white space, escapes, numbers that no program holds, keys in any order.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        r#""([ !#-\[\]-~é日😀]|\\["\\/bfnrt]|\\u00[0-9a-f]{2}){0,12}""#,
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let space = "[ \t\n\r]{0,2}";
        let items = prop::collection::vec((space, inner.clone(), space), 0..4);
        let array = items.prop_map(|items| {
            let items: Vec<_> = items.into_iter().map(|(before, item, after)| before + &item + &after).collect();
            format!("[{}]", items.join(","))
        });
        prop_oneof![array, any_object(inner)]
    })
}

/// An object of such values, in which no key occurs twice.
fn any_object(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = ("[a-zA-Zé_/. -]{0,8}", "[ \t\n\r]{0,2}", inner, "[ \t\n\r]{0,2}");
    prop::collection::vec(member, 0..5).prop_map(|members| {
        let members = members.into_iter().enumerate().map(|(index, (key, before, value, after))| {
            format!("{before}\"{key}{index}\"{after}:{before}{value}{after}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

#[tokio::test]
async fn whatever_json_is_said_and_asked_arrives_byte_for_byte_by_every_method_in_both_eras() -> Result<()> {
    let prompt = r#"[{"name":"brief"}]"#;
    let resource = r#"[{"uri":"note://one","name":"one"}]"#;
    let has = r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"prompts":{},"resources":{}}}"#;
    // It takes whatever it is told.
    let upstream = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#)
        .on("server/discover", Say::Result(has.to_owned()))
        .on("prompts/list", Say::Result(format!(r#"{{"prompts":{prompt}}}"#)))
        .on("resources/list", Say::Result(format!(r#"{{"resources":{resource}}}"#)));
    let (url, seen) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("any_bytes", &[setup]).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let mut runner = TestRunner::deterministic();
    let mut any =
        || Ok::<_, anyhow::Error>(any_object(any_json()).new_tree(&mut runner).map_err(anyhow::Error::msg)?.current());
    let modern = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    for _ in 0..TEXTS {
        let (said, asked) = (any()?, any()?);
        for (method, name, params) in [
            ("tools/call", Some("go"), format!(r#""name":"go","arguments":{asked}"#)),
            ("prompts/get", Some("brief"), format!(r#""name":"brief","arguments":{asked}"#)),
            ("resources/read", Some("note://one"), r#""uri":"note://one""#.to_owned()),
            (
                "completion/complete",
                None,
                format!(r#""ref":{{"type":"ref/prompt","name":"brief"}},"argument":{asked}"#),
            ),
        ] {
            let inner = said.strip_prefix('{').context("an object")?;
            let comma = if inner.trim() == "}" { "" } else { "," };
            let whole = format!(r#"{{"resultType":"complete","ttlMs":1,"cacheScope":"private"{comma}{inner}"#);
            for (result, meta) in [(&said, ""), (&whole, modern)] {
                upstream.says(method, Say::Result(result.clone()));
                let comma = if meta.is_empty() { "" } else { "," };
                let body =
                    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}{meta}}}}}"#);
                let answer = if meta.is_empty() {
                    alice.post(body).await?
                } else {
                    alice.modern_text((method, name), body).await?
                };
                ensure!(
                    answer.text == format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#),
                    "{method}: {} is not {result}",
                    answer.text
                );
                ensure!(method == "resources/read" || seen.text().contains(&asked), "{method}: {asked} did not arrive");
            }
        }
    }
    Ok(())
}
