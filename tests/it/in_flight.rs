//! How many bytes of an upstream's and a tenant's calls are held at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tenant_store::{FlowPolicy, Level, TenantSpec};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const TOOLS: &str = r#"[{"name":"run","inputSchema":{"type":"object"}}]"#;
const NO_ROOM: &str = "is busy: too many bytes are on their way at once; try again";
const NO_ROOM_TO_READ: &str = "gave an answer for which there is no room: too many bytes are on their way at once";
const MIB: usize = 1024 * 1024;

/// A server with these upstreams: tenant, name and address.
async fn server(name: &str, upstreams: &[(&str, &str, &str)], limits: Value) -> Result<TestServer> {
    let level = Level::Write;
    let setups: Vec<_> =
        upstreams.iter().map(|&(tenant, upstream, url)| Setup { tenant, upstream, url, key: None, level }).collect();
    TestServer::start_with(name, &setups, |config| {
        config.limits = serde_json::from_value(limits)?;
        Ok(())
    })
    .await
}

/// A result of that many bytes and a few.
fn result(bytes: usize) -> String {
    format!(r#"{{"resultType":"complete","content":[{{"type":"text","text":"{}"}}]}}"#, "x".repeat(bytes))
}

/// The text of a result that says that a call failed.
fn failure(answer: &Value) -> &str {
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    if answer["result"]["isError"] == true { text } else { "" }
}

fn big() -> Value {
    json!({"text": "x".repeat(3 * MIB / 2)})
}

#[tokio::test]
async fn what_is_sent_is_held_until_it_is_answered_and_others_are_refused_at_that_upstream_only() -> Result<()> {
    let go = Arc::new(Notify::new());
    let slow = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Late(Arc::clone(&go), result(1)));
    let (desk, seen) = slow.serve().await?;
    let (store, _) = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result(result(1))).serve().await?;
    let upstreams = [("acme", "desk", desk.as_str()), ("globex", "store", store.as_str())];
    let server = server("in_flight_sent", &upstreams, json!({"upstream_mib_in_flight": 2})).await?;
    let (alice, carol) = (server.client("alice", &["acme"])?, server.client("carol", &["acme", "globex"])?);
    let first = alice.call("acme__run", big());
    let meanwhile = async {
        seen.until("tools/call").await;
        let refused = carol.call("acme__run", big()).await?;
        assert!(failure(&refused).ends_with(NO_ROOM), "{refused}");
        let other = carol.call("globex__run", big()).await?;
        assert!(other["result"].is_object() && failure(&other).is_empty(), "{other}");
        go.notify_one();
        anyhow::Ok(())
    };
    let (first, meanwhile) = tokio::join!(first, meanwhile);
    meanwhile?;
    assert_eq!(failure(&first?), "");
    go.notify_one();
    assert_eq!(failure(&carol.call("acme__run", big()).await?), "", "its room is free again");
    Ok(())
}

#[tokio::test]
async fn what_one_upstream_holds_of_its_tenants_room_is_missing_there_and_to_no_other_tenant() -> Result<()> {
    let go = Arc::new(Notify::new());
    let slow = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Late(Arc::clone(&go), result(1)));
    let (desk, seen) = slow.serve().await?;
    let files = TOOLS.replace("run", "file");
    let (quick, _) = ByteUpstream::with_tools(&files).on("tools/call", Say::Result(result(1))).serve().await?;
    let upstreams =
        [("acme", "desk", desk.as_str()), ("globex", "store", quick.as_str()), ("acme", "crm", quick.as_str())];
    let limits = json!({"upstream_mib_in_flight": 0, "tenant_mib_in_flight": 2});
    let server = server("in_flight_tenant", &upstreams, limits).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    let first = carol.call("acme__run", big());
    let meanwhile = async {
        seen.until("tools/call").await;
        let refused = carol.call("acme__file", big()).await?;
        assert!(failure(&refused).ends_with(NO_ROOM), "{refused}");
        assert_eq!(failure(&carol.call("acme__file", json!({})).await?), "", "there is room for less");
        assert_eq!(failure(&carol.call("globex__file", big()).await?), "");
        go.notify_one();
        anyhow::Ok(())
    };
    let (first, meanwhile) = tokio::join!(first, meanwhile);
    meanwhile?;
    assert_eq!(failure(&first?), "");
    assert_eq!(failure(&carol.call("acme__file", big()).await?), "");
    Ok(())
}

#[tokio::test]
async fn an_answer_is_read_as_far_as_there_is_room_and_nothing_of_it_is_left_behind() -> Result<()> {
    let upstream = ByteUpstream::with_tools(TOOLS);
    let (url, _) = upstream.clone().serve().await?;
    let limits = json!({"upstream_mib_in_flight": 2});
    let server = server("in_flight_read", &[("acme", "desk", url.as_str())], limits).await?;
    let alice = server.client("alice", &["acme"])?;
    let event = |bytes: usize| format!(r#"{{"jsonrpc":"2.0","id":{{id}},"result":{}}}"#, result(bytes));
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x".repeat(MIB)}});
    for _ in 0..3 {
        upstream.says("tools/call", Say::Result(result(3 * MIB)));
        let refused = alice.call("acme__run", json!({})).await?;
        assert!(failure(&refused).ends_with(NO_ROOM_TO_READ), "{}", failure(&refused));
        upstream.says("tools/call", Say::Events(vec![event(3 * MIB)]));
        let refused = alice.call("acme__run", json!({})).await?;
        assert!(failure(&refused).ends_with(NO_ROOM_TO_READ), "{}", failure(&refused));
        // What has room comes, as often as it likes: also more of it in all, if it goes on its way.
        upstream.says("tools/call", Say::Result(result(3 * MIB / 2)));
        assert_eq!(failure(&alice.call("acme__run", json!({})).await?), "");
        upstream.says("tools/call", Say::Events(vec![log.to_string(), log.to_string(), log.to_string(), event(MIB)]));
        assert_eq!(failure(&alice.call("acme__run", json!({})).await?), "");
    }
    Ok(())
}

#[tokio::test]
async fn what_waits_for_a_users_word_is_held_until_that_is_said() -> Result<()> {
    let letter = json!({"resultType": "complete", "content": [{"type": "text", "text": "Our buyer is Brightwater Analytics, order BW-20417."}]});
    let upstream = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result(letter.to_string()));
    let (url, _) = upstream.serve().await?;
    let upstreams = [("acme", "desk", url.as_str()), ("globex", "store", url.as_str())];
    let server = server("in_flight_asked", &upstreams, json!({"upstream_mib_in_flight": 2})).await?;
    let change = server.app.store().begin().await?;
    let spec = TenantSpec { flow_policy: FlowPolicy::Ask, ..TenantSpec::named("acme") };
    change.put_tenant(&"acme".parse()?, &spec).await?;
    change.commit().await?;
    server.app.follow().await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    assert_eq!(failure(&carol.call("acme__run", json!({})).await?), "");
    let session = carol.begin_session_that_can(&json!({"elicitation": {}})).await?;
    let asked = carol.with("mcp-session-id", &session)?;
    let mut arguments = big();
    arguments["note"] = json!("call Brightwater Analytics back");
    let params = json!({"name": "globex__run", "arguments": arguments});
    for id in [7, 9] {
        let mut waiting = asked.legacy_stream(id, "tools/call", &params).await?;
        let question = waiting.next().await?;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let refused = asked.legacy("tools/call", &params).await?.json()?;
        assert!(failure(&refused).ends_with(NO_ROOM), "{refused}");
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}});
        assert_eq!(asked.post(answer.to_string()).await?.status, 202);
        assert_eq!(waiting.next().await?["result"]["isError"], true, "it is not sent");
    }
    Ok(())
}

#[tokio::test]
async fn what_nobody_takes_is_held_be_it_a_result_or_an_error() -> Result<()> {
    let upstream = ByteUpstream::with_tools(TOOLS);
    let (url, _) = upstream.clone().serve().await?;
    let limits = json!({"upstream_mib_in_flight": 16});
    let server = server("in_flight_waits", &[("acme", "desk", url.as_str())], limits).await?;
    let (alice, bob) = (server.client("alice", &["acme"])?, server.client("bob", &["acme"])?);
    // More than a connection holds by itself.
    let error = json!({"code": -32099, "message": "no", "data": "x".repeat(12 * MIB)});
    let elicitation =
        json!({"mode": "url", "elicitationId": "e1", "url": "https://a.example/", "message": "x".repeat(12 * MIB)});
    let page = json!({"code": -32042, "message": "sign in", "data": {"elicitations": [elicitation]}});
    for say in [Say::Result(result(12 * MIB)), Say::Error(error.to_string()), Say::Error(page.to_string())] {
        upstream.says("tools/call", say);
        let params = json!({"name": "acme__run", "arguments": {}});
        let untaken = alice.legacy_stream(7, "tools/call", &params).await?;
        let refused = bob.call("acme__run", json!({})).await?;
        assert!(failure(&refused).ends_with(NO_ROOM_TO_READ), "{}", failure(&refused));
        drop(untaken);
        upstream.says("tools/call", Say::Result(result(12 * MIB)));
        let freed = async {
            while !failure(&bob.call("acme__run", json!({})).await?).is_empty() {}
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(30), freed).await??;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_takes_no_answers_is_refused_before_their_colleagues_are() -> Result<()> {
    let upstream = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result(result(12 * MIB)));
    let (url, _) = upstream.serve().await?;
    let limits = json!({"upstream_mib_in_flight": 64});
    let server = server("in_flight_shares", &[("acme", "desk", url.as_str())], limits).await?;
    let (alice, bob) = (server.client("alice", &["acme"])?, server.client("bob", &["acme"])?);
    let mut untaken = Vec::new();
    for id in 1..=3 {
        untaken.push(alice.legacy_stream(id, "tools/call", &json!({"name": "acme__run", "arguments": {}})).await?);
    }
    let refused = alice.call("acme__run", json!({})).await?;
    assert!(failure(&refused).ends_with(NO_ROOM), "{}", failure(&refused));
    assert_eq!(failure(&bob.call("acme__run", json!({})).await?), "");
    drop(untaken);
    Ok(())
}
