//! Who calls too often waits, and nobody else does.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use tenant_store::Level;
use tokio::sync::Notify;

use crate::audit::{events, of, stopped};
use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// A server with two tenants and these limits, by the minute.
async fn limited(name: &str, limits: Value) -> Result<TestServer> {
    let key = canary("key");
    let (acme, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&key), level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&key), level },
    ];
    TestServer::start_with(name, &setups, |config| {
        config.limits = serde_json::from_value(limits)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_shows_one_bad_token_after_the_other_is_looked_at_no_more_and_nobody_else_is_shut_out() -> Result<()> {
    let key = canary("key");
    let (acme, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&key), level: Level::Read };
    let server = TestServer::start_with("limits_address", &[setup], |config| {
        config.limits = serde_json::from_value(json!({"address_failures_per_minute": 3}))?;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().map_err(anyhow::Error::msg)?];
        Ok(())
    })
    .await?;
    let (robot, _) = server.robot("acme", Level::Read).await?;
    let from = |client: Http, address: &str| client.with("x-forwarded-for", address);
    let (here, there) = ("198.51.100.7", "203.0.113.4, 198.51.100.8");
    let alice = from(server.client("alice", &[])?, here)?;
    assert_eq!(alice.modern("tools/list", json!({})).await?.status, 200);
    let good = server.token("bob", &[])?;
    let bad = |number: usize| Http::new(&server.url("/mcp"), Some(&format!("{good}{number}")));
    for number in 0..3 {
        assert_eq!(from(bad(number)?, here)?.modern("tools/list", json!({})).await?.status, 401);
    }
    let refused = from(bad(3)?, here)?.modern("tools/list", json!({})).await?;
    let seconds: u64 = refused.headers["retry-after"].to_str()?.parse()?;
    assert!(refused.status == 429 && (1..=20).contains(&seconds), "{refused:?}");
    // A good one that nobody has seen yet waits, too; one that was seen, and a key, do not. That of an ended sign-in is no attempt.
    let bob = server.client("bob", &[])?;
    assert_eq!(from(bob, here)?.modern("tools/list", json!({})).await?.status, 429);
    assert_eq!(alice.modern("tools/list", json!({})).await?.status, 200);
    assert_eq!(from(robot, here)?.modern("tools/list", json!({})).await?.status, 200);
    // Elsewhere nobody notices, whatever the client itself adds.
    assert_eq!(from(server.client("bob", &[])?, there)?.modern("tools/list", json!({})).await?.status, 200);
    assert_eq!(from(bad(4)?, "203.0.113.4, 198.51.100.7")?.modern("tools/list", json!({})).await?.status, 429);
    Ok(())
}

#[tokio::test]
async fn as_many_calls_run_in_a_tenant_as_may_and_elsewhere_nobody_waits_for_them() -> Result<()> {
    let (go, result) = (Arc::new(Notify::new()), r#"{"resultType":"complete","content":[]}"#.to_owned());
    let slow = ByteUpstream::with_tools(r#"[{"name":"run","inputSchema":{"type":"object"}}]"#);
    let (acme, seen) = slow.on("tools/call", Say::Late(Arc::clone(&go), result.clone())).serve().await?;
    let quick = ByteUpstream::with_tools(r#"[{"name":"run","inputSchema":{"type":"object"}}]"#);
    let (globex, _) = quick.on("tools/call", Say::Result(result)).serve().await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: None, level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: None, level },
    ];
    let server = TestServer::start_with("limits_at_once", &setups, |config| {
        config.limits = serde_json::from_value(json!({"tenant_calls_at_once": 1}))?;
        Ok(())
    })
    .await?;
    let (alice, carol) = (server.client("alice", &["acme"])?, server.client("carol", &["acme", "globex"])?);
    let first = alice.call("acme__run", json!({}));
    let meanwhile = async {
        seen.until("tools/call").await;
        let refused = carol.call("acme__run", json!({})).await?;
        assert_eq!(refused["error"]["message"], "too many calls run there at once: try again in 1 s", "{refused}");
        assert_eq!(refused["error"]["data"]["retryAfter"], 1);
        assert!(carol.call("globex__run", json!({})).await?["result"].is_object());
        go.notify_one();
        anyhow::Ok(())
    };
    let (first, meanwhile) = tokio::join!(first, meanwhile);
    meanwhile?;
    assert!(first?["result"].is_object());
    go.notify_one();
    assert!(carol.call("acme__run", json!({})).await?["result"].is_object(), "its place is free again");
    Ok(())
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_again_and_nobody_else_waits() -> Result<()> {
    let server = limited("limits_principal", json!({"principal_calls_per_minute": 3})).await?;
    let (alice, bob) = (server.client("alice", &["acme", "globex"])?, server.client("bob", &["acme"])?);
    for tool in ["acme__whoami", "globex__whoami", "acme__whoami"] {
        assert!(alice.call(tool, json!({})).await?.get("error").is_none(), "{tool}");
    }
    let refused = alice.call("acme__whoami", json!({})).await?;
    let seconds = refused["error"]["data"]["retryAfter"].as_u64().unwrap_or_default();
    assert!((1..=20).contains(&seconds), "{refused}");
    assert_eq!(refused["error"]["code"], -32000);
    assert_eq!(refused["error"]["message"], format!("you make too many calls: try again in {seconds} s"));
    // In either era, and lists are no calls.
    let legacy = alice.legacy("tools/call", &json!({"name": "acme__whoami"})).await?;
    assert_eq!((legacy.status, legacy.json()?["error"]["code"].clone()), (200, json!(-32000)));
    assert!(!alice.tools().await?.is_empty());
    assert!(bob.call("acme__whoami", json!({})).await?.get("error").is_none());
    // What does not exist for somebody counts for nothing and says nothing.
    assert_eq!(bob.call("globex__whoami", json!({})).await?["error"]["code"], -32602);
    // Over the limit nobody learns whether there is something, and that somebody tried is recorded all the same.
    assert_eq!(alice.call("nobody__knows", json!({})).await?["error"]["code"], -32000);
    let left = stopped(server).await?;
    let by_alice = |events: &[Value]| {
        let calls = of(events, "call").into_iter();
        calls.filter(|call| call["who"]["subject"] == "alice" && call["outcome"] == "refused").count()
    };
    assert_eq!(by_alice(&events(&left.store, Some("acme")).await?), 2, "in either era");
    assert_eq!(by_alice(&events(&left.store, None).await?), 1, "of what nobody has");
    Ok(())
}

#[tokio::test]
async fn what_all_may_make_in_a_tenant_is_nothing_to_other_tenants() -> Result<()> {
    let server = limited("limits_tenant", json!({"tenant_calls_per_minute": 2, "tool_calls_per_minute": 2})).await?;
    let (alice, bob) = (server.client("alice", &["acme", "globex"])?, server.client("bob", &["acme"])?);
    for _ in 0..2 {
        assert!(alice.call("acme__whoami", json!({})).await?.get("error").is_none());
    }
    let own = alice.call("acme__whoami", json!({})).await?;
    assert!(own["error"]["message"].as_str().is_some_and(|text| text.starts_with("you call this too often")), "{own}");
    let shared = bob.call("acme__whoami", json!({})).await?;
    let text = shared["error"]["message"].as_str().unwrap_or_default();
    assert!(text.starts_with("too many calls are made there by all together"), "{shared}");
    assert!(alice.call("globex__whoami", json!({})).await?.get("error").is_none());
    Ok(())
}
