//! The main job: two tenants behind one endpoint.

use anyhow::Result;
use serde_json::json;
use tenant_store::Level;

use crate::support::canary;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// acme speaks the modern era, globex only the legacy one with sessions.
async fn two_tenants(name: &str, level: Level) -> Result<TestServer> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").legacy().serve(&globex_key, true).await?;
    TestServer::start(
        name,
        &[
            Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
            Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
        ],
    )
    .await
}

#[tokio::test]
async fn each_caller_sees_the_tools_of_its_tenants() -> Result<()> {
    let server = two_tenants("each_caller_sees", Level::Write).await?;
    assert_eq!(server.client("alice", &["acme"])?.tools().await?, ["acme__whoami", "acme__change", "acme__wait"]);
    assert_eq!(
        server.client("carol", &["acme", "globex"])?.tools().await?,
        ["acme__whoami", "acme__change", "acme__wait", "globex__whoami", "globex__change", "globex__wait"]
    );
    assert!(server.client("dave", &[])?.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_call_reaches_the_tenants_own_upstream_in_either_era() -> Result<()> {
    let server = two_tenants("a_call_reaches", Level::Write).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    for tenant in ["acme", "globex"] {
        let answer = carol.call(&format!("{tenant}__whoami"), json!({"b": 1, "a": 2})).await?;
        assert_eq!(answer["result"]["content"][0]["text"], format!("whoami at {tenant} with {{\"b\":1,\"a\":2}}"));
        assert_eq!(answer["result"]["resultType"], "complete");
        let params = json!({"name": format!("{tenant}__whoami")});
        let legacy = carol.legacy("tools/call", &params).await?.json()?;
        assert_eq!(legacy["result"]["content"][0]["text"], format!("whoami at {tenant} with null"), "{legacy}");
    }
    Ok(())
}

#[tokio::test]
async fn a_grant_of_level_read_shows_no_tool_that_writes() -> Result<()> {
    let server = two_tenants("level_read", Level::Read).await?;
    let alice = server.client("alice", &["acme"])?;
    assert_eq!(alice.tools().await?, ["acme__whoami", "acme__wait"]);
    assert_eq!(alice.call("acme__change", json!({})).await?["error"]["code"], -32602);
    Ok(())
}

#[tokio::test]
async fn a_tenants_own_endpoint_shows_the_upstreams_own_names() -> Result<()> {
    let server = two_tenants("own_endpoint", Level::Write).await?;
    let carol = server.client_at("/t/acme/mcp", "carol", &["acme", "globex"])?;
    assert_eq!(carol.tools().await?, ["whoami", "change", "wait"]);
    let answer = carol.call("whoami", json!({})).await?;
    assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}");
    assert_eq!(carol.call("globex__whoami", json!({})).await?["error"]["code"], -32602);
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() -> Result<()> {
    for legacy in [false, true] {
        let real = RealUpstream::named("acme");
        let real = if legacy { real.legacy() } else { real };
        let (waiting, cancelled) = (real.waiting.clone(), real.cancelled.clone());
        let key = canary("key");
        let (url, _) = real.serve(&key, legacy).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
        let server = TestServer::start("goes_away", &[setup]).await?;
        let alice = server.client("alice", &["acme"])?;
        tokio::select! {
            answer = alice.call("acme__wait", json!({})) => anyhow::bail!("it answered: {answer:?}"),
            () = waiting.notified() => {}
        }
        tokio::time::timeout(std::time::Duration::from_secs(10), cancelled.notified()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_upstreams_stream_is_streamed_with_ids_and_tokens_put_back() -> Result<()> {
    let events = vec![
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"somebody else's"}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{id},"progress":1}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":999999,"progress":2}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","id":2,"result":{"forged":1},"method":"notifications/progress","params":{"progressToken":{id},"progress":3}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","id":{id},"result":{"resultType":"complete","content":[]}}"#.to_owned(),
    ];
    let upstream =
        ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#).on("tools/call", Say::Events(events));
    let (url, _) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("streamed", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let params = json!({"name": "acme__go", "_meta": {"progressToken": "mine"}});
    let answer = alice.legacy("tools/call", &params).await?;
    insta::assert_snapshot!(answer.text, @r#"
    event: message
    data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":1}}

    event: message
    data: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}
    "#);
    let alice = alice.with("accept", "application/json")?;
    let answer = alice.legacy("tools/call", &params).await?.json()?;
    assert_eq!(answer["result"], json!({"content": []}), "the legacy era has no `resultType`");
    Ok(())
}
