//! Hearing of changed lists: each caller of its own, in both eras, for as long as it may.

use anyhow::Result;
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::support::client::{Events, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

fn tools(names: &[&str]) -> String {
    let tools: Vec<Value> = names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
    json!(tools).to_string()
}

/// An upstream for each of two tenants, which says what a test wants.
async fn bed(name: &str) -> Result<(TestServer, [ByteUpstream; 2])> {
    let server = TestServer::start(name, &[]).await?;
    let upstreams = [ByteUpstream::with_tools(&tools(&["one"])), ByteUpstream::with_tools(&tools(&["one"]))];
    for (tenant, upstream) in ["acme", "globex"].into_iter().zip(&upstreams) {
        let (url, _) = upstream.clone().serve().await?;
        let setup = Setup { tenant, upstream: "desk", url: &url, key: None, level: Level::Write };
        server.add(&setup, UpstreamAuth::None, &[]).await?;
    }
    Ok((server, upstreams))
}

/// An upstream that tells of changed tools, in that way.
fn telling(say: impl FnOnce(String) -> Say) -> ByteUpstream {
    let discover = json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "tells", "version": "1"}, "ttlMs": 0, "cacheScope": "private",
    });
    let told = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}"#.to_owned();
    ByteUpstream::with_tools(&tools(&["one"]))
        .on("server/discover", Say::Result(discover.to_string()))
        .on("subscriptions/listen", say(told))
}

async fn change(server: &TestServer, upstream: &ByteUpstream, names: &[&str]) {
    upstream.says("tools/list", Say::Result(format!("{{\"resultType\":\"complete\",\"tools\":{}}}", tools(names))));
    server.app.refresher().refresh_all().await;
}

async fn listen(client: &Http, notifications: Value) -> Result<Events> {
    client.stream("subscriptions/listen", json!({"notifications": notifications})).await
}

fn about(method: &str) -> Value {
    let meta = json!({"io.modelcontextprotocol/subscriptionId": "s-1"});
    json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta}})
}

const TOOLS: &str = "notifications/tools/list_changed";

#[tokio::test]
async fn a_modern_listener_hears_of_its_own_lists_and_of_nobody_elses() -> Result<()> {
    let (server, [acme, globex]) = bed("listen_modern").await?;
    let alice = server.client("alice", &["acme"])?;
    let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": ["x:1"], "future": true});
    let mut heard = listen(&alice, wanted).await?;
    let mut acknowledged = about("notifications/subscriptions/acknowledged");
    acknowledged["params"]["notifications"] = json!({"toolsListChanged": true});
    assert_eq!(heard.next().await?, acknowledged, "what is not told of is not promised");
    let mut nothing = listen(&alice, json!({"promptsListChanged": true})).await?;
    nothing.next().await?;

    // Another tenant's change is none of hers; so the first that she hears of is her own.
    change(&server, &globex, &["one", "two"]).await;
    change(&server, &acme, &["one", "three"]).await;
    assert_eq!(heard.next().await?, about(TOOLS));
    assert!(alice.tools().await?.contains(&"acme__three".to_owned()));
    // A grant that is taken away changes lists too, of whom it covered.
    let rows = server.rows("acme").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    server.app.follow().await?;
    assert_eq!(heard.next().await?, about(TOOLS));
    assert!(alice.tools().await?.is_empty());

    // The server says goodbye to those who hear of nothing, too.
    server.app.tasks().stop().await;
    for mut stream in [heard, nothing] {
        let last = stream.next().await?;
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("s-1"), &json!("complete")), "{last}");
        stream.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_legacy_session_hears_of_its_lists_and_nobody_elses_session_does() -> Result<()> {
    let (server, [acme, _]) = bed("listen_legacy").await?;
    let alice = server.client("alice", &["acme"])?;
    let session = alice.begin_session().await?;
    let mut heard = server.client("alice", &["acme"])?.with("mcp-session-id", &session)?.listen().await?;
    let stranger = server.client("bob", &["acme"])?.with("mcp-session-id", &session)?;
    assert!(stranger.listen().await.is_err(), "her session is nobody else's");
    assert_eq!(
        server.client("alice", &["acme"])?.request(reqwest::Method::GET).await?.status,
        405,
        "without a session"
    );
    change(&server, &acme, &["two"]).await;
    assert_eq!(heard.next().await?, json!({"jsonrpc": "2.0", "method": TOOLS}));
    server.app.tasks().stop().await;
    heard.end().await
}

#[tokio::test]
async fn an_upstream_that_tells_of_a_change_is_listed_at_once() -> Result<()> {
    let upstream = telling(Say::Held);
    let (url, seen) = upstream.clone().serve().await?;
    // Nothing else would have it listed again within this test.
    let server = TestServer::start_with("listen_upstream", &[], |config| {
        config.catalog.refresh_seconds = 3_600;
        Ok(())
    })
    .await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    let mut heard = listen(&server.client("alice", &["acme"])?, json!({"toolsListChanged": true})).await?;
    heard.next().await?;
    upstream.says("tools/list", Say::Result(format!("{{\"resultType\":\"complete\",\"tools\":{}}}", tools(&["two"]))));
    seen.until("subscriptions/listen").await;
    assert_eq!(heard.next().await?, about(TOOLS));
    assert!(server.client("alice", &["acme"])?.tools().await?.contains(&"acme__two".to_owned()));
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_tells_of_changes_without_end_is_listed_ever_more_seldom() -> Result<()> {
    let upstream = telling(Say::Flood);
    let (url, seen) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let _server = TestServer::start("listen_flood", &[setup]).await?;
    seen.until("subscriptions/listen").await;
    let before = seen.text().matches("\"tools/list\"").count();
    // A few in a row are looked at at once.
    seen.times("\"tools/list\"", before + 7).await;
    let begin = std::time::Instant::now();
    seen.times("\"tools/list\"", before + 11).await;
    assert!(begin.elapsed().as_millis() > 2_500, "each time it is waited for twice as long");
    Ok(())
}

#[tokio::test]
async fn nobody_holds_more_streams_than_a_few() -> Result<()> {
    let (server, [acme, _]) = bed("listen_many").await?;
    let alice = server.client("alice", &["acme"])?;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(listen(&alice, json!({"toolsListChanged": true})).await?);
    }
    let refused = alice.modern("subscriptions/listen", json!({"notifications": {}})).await?;
    assert_eq!((refused.status, refused.code()?), (429, Some(-32000)), "{}", refused.text);
    assert!(listen(&server.client("bob", &["acme"])?, json!({})).await.is_ok(), "others have their own");
    change(&server, &acme, &["two"]).await;
    for stream in &mut streams {
        stream.next().await?;
        assert_eq!(stream.next().await?, about(TOOLS));
    }
    Ok(())
}

#[tokio::test]
async fn who_takes_no_stream_or_asks_for_nothing_sensible_is_told() -> Result<()> {
    let (server, _) = bed("listen_refused").await?;
    let alice = server.client("alice", &["acme"])?;
    for params in [json!({}), json!({"notifications": []}), json!({"notifications": 1})] {
        assert_eq!(alice.modern("subscriptions/listen", params.clone()).await?.code()?, Some(-32602), "{params}");
    }
    let legacy = alice.legacy("subscriptions/listen", &json!({"notifications": {}})).await?;
    assert_eq!(legacy.code()?, Some(-32601), "the legacy era has no such method");
    let json_only = server.client("alice", &["acme"])?.with("accept", "application/json")?;
    assert_eq!(json_only.modern("subscriptions/listen", json!({"notifications": {}})).await?.status, 406);
    Ok(())
}
