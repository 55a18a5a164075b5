//! What tenants use: calls of their tools, added up in the database, and none lost while that takes nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tenant_store::{Level, TenantStore};

use crate::support::canary;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const TOOLS: &str =
    r#"[{"name":"find","inputSchema":{}},{"name":"add","inputSchema":{"type":"object","required":["to"]}}]"#;

/// Calls and failed calls, by upstream and tool.
type Counts = BTreeMap<(String, String), (u64, u64)>;

/// A server with two tenants that share an upstream.
async fn using(name: &str, limits: Value) -> Result<(TestServer, ByteUpstream)> {
    let upstream = ByteUpstream::with_tools(TOOLS);
    let (url, _) = upstream.clone().serve().await?;
    let acme = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let globex = Setup { tenant: "globex", upstream: "store", ..acme };
    let server = TestServer::start_with(name, &[acme, globex], |config| {
        config.limits = serde_json::from_value(limits)?;
        Ok(())
    })
    .await?;
    Ok((server, upstream))
}

/// This month in UTC, as the server says itself.
async fn month(server: &TestServer) -> Result<String> {
    let answer = server.client("alice", &["acme"])?.request(reqwest::Method::GET).await?;
    let date = answer.headers.get("date").context("it says when")?.to_str()?;
    let [_, _, month, year, ..] = date.split(' ').collect::<Vec<_>>()[..] else { bail!("{date}") };
    let number = MONTHS.iter().position(|known| *known == month).context("a month")? + 1;
    Ok(format!("{year}-{number:02}"))
}

/// What was counted in these months.
async fn counted(rows: &TenantStore, months: [&String; 2]) -> Result<Counts> {
    let mut counts = Counts::new();
    for month in BTreeSet::from(months) {
        for used in rows.usage(&month.parse()?).await? {
            assert!(used.day.starts_with(month), "{used:?}");
            let count = counts.entry((used.upstream.to_string(), used.tool.to_string())).or_default();
            *count = (count.0 + used.calls, count.1 + used.errors);
        }
    }
    Ok(counts)
}

fn counts<const N: usize>(counts: [(&str, &str, (u64, u64)); N]) -> Counts {
    counts.map(|(upstream, tool, count)| ((upstream.to_owned(), tool.to_owned()), count)).into()
}

fn works() -> Say {
    Say::Result(r#"{"content":[]}"#.to_owned())
}

fn fails() -> Say {
    Say::Result(r#"{"content":[],"isError":true}"#.to_owned())
}

fn breaks() -> Say {
    Say::Events(vec![r#"{"jsonrpc":"2.0","id":{id},"error":{"code":-32000,"message":"no"}}"#.to_owned()])
}

#[tokio::test]
async fn calls_of_two_tenants_are_counted_apart_and_are_there_after_a_stop() -> Result<()> {
    let (server, upstream) = using("usage", json!({})).await?;
    let before = month(&server).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    upstream.says("tools/call", works());
    for name in ["acme__find", "acme__find", "globex__find"] {
        assert!(carol.call(name, json!({})).await?["result"].is_object());
    }
    assert!(carol.call("globex__add", json!({"to": 1})).await?["result"].is_object());
    upstream.says("tools/call", fails());
    assert_eq!(carol.call("acme__find", json!({})).await?["result"]["isError"], true);
    upstream.says("tools/call", breaks());
    assert_eq!(carol.call("acme__find", json!({})).await?["error"]["code"], -32000);
    let after = month(&server).await?;

    let (acme, globex) = (server.rows("acme").await?, server.rows("globex").await?);
    assert!(server.app.stop().await, "something was left behind");
    assert_eq!(counted(&acme, [&before, &after]).await?, counts([("desk", "find", (4, 2))]));
    let of_globex = counts([("store", "add", (1, 0)), ("store", "find", (1, 0))]);
    assert_eq!(counted(&globex, [&before, &after]).await?, of_globex);
    Ok(())
}

#[tokio::test]
async fn what_is_refused_does_not_count() -> Result<()> {
    let (server, upstream) = using("usage_refused", json!({"tool_calls_per_minute": 1})).await?;
    let before = month(&server).await?;
    let alice = server.client("alice", &["acme"])?;
    upstream.says("tools/call", works());
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object());
    // One too many, one that there is not, one of somebody else, and one that does not fit the tool.
    assert_eq!(alice.call("acme__find", json!({})).await?["error"]["code"], -32000);
    for name in [canary("acme__guess"), "globex__find".to_owned()] {
        assert_eq!(alice.call(&name, json!({})).await?["error"]["code"], -32602);
    }
    assert_eq!(alice.call("acme__add", json!({})).await?["result"]["isError"], true);
    let after = month(&server).await?;

    let (acme, globex) = (server.rows("acme").await?, server.rows("globex").await?);
    assert!(server.app.stop().await, "something was left behind");
    assert_eq!(counted(&acme, [&before, &after]).await?, counts([("desk", "find", (1, 0))]));
    assert!(counted(&globex, [&before, &after]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn while_the_database_takes_no_usage_it_waits_and_no_call_does() -> Result<()> {
    let (server, upstream) = using("usage_away", json!({})).await?;
    let before = month(&server).await?;
    let (acme, alice) = (server.rows("acme").await?, server.client("alice", &["acme"])?);
    upstream.says("tools/call", works());
    server.refuse_usage(true).await?;
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object());
    server.app.usage().wake();
    server.until_logged("usage waits in memory").await?;
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object());
    let after = month(&server).await?;
    assert!(counted(&acme, [&before, &after]).await?.is_empty());

    server.refuse_usage(false).await?;
    server.app.usage().wake();
    server.until_logged("usage is written again").await?;
    let both = counts([("desk", "find", (2, 0))]);
    assert_eq!(counted(&acme, [&before, &after]).await?, both);
    assert!(server.app.stop().await, "something was left behind");
    assert_eq!(counted(&acme, [&before, &after]).await?, both, "nothing is counted twice");
    Ok(())
}
