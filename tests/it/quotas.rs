//! What a day and a month have is used up by all replicas together, and in one tenant only.

use std::time::Duration;

use anyhow::Result;
use mcp_mux::App;
use serde_json::{Value, json};
use tenant_store::{FlowPolicy, Level, TenantSpec};
use tokio::time::timeout;

use crate::audit::{events, of, stopped};
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const TOOLS: &str =
    r#"[{"name":"find","inputSchema":{}},{"name":"add","inputSchema":{"type":"object","required":["to"]}}]"#;
/// Longer than the time between two readings of what others used.
const PATIENCE: Duration = Duration::from_secs(20);

/// More calls than can be made before a sum is read that is wanted.
const SHARE: usize = 300;

/// A server with two tenants that share an upstream.
async fn limited(name: &str, limits: Value) -> Result<(TestServer, ByteUpstream)> {
    let upstream = ByteUpstream::with_tools(TOOLS);
    upstream.says("tools/call", Say::Result(r#"{"resultType":"complete","content":[]}"#.to_owned()));
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

/// Somebody who calls another replica.
fn at(app: &App, server: &TestServer, (subject, groups): (&str, &[&str])) -> Result<Http> {
    let token = server.idp.sign(&server.idp.claims(subject, groups, &app.endpoint()))?;
    Http::new(&app.endpoint(), Some(&token))
}

/// Calls until that is refused, and says after how many calls and how.
async fn until_refused(client: &Http, tool: &str) -> Result<(usize, Value)> {
    let calling = async {
        for count in 0.. {
            let answer = client.call(tool, json!({})).await?;
            if answer.get("error").is_some() {
                return anyhow::Ok((count, answer));
            }
        }
        unreachable!("there is no last number")
    };
    timeout(PATIENCE, calling).await?
}

#[tokio::test]
async fn who_has_used_up_a_month_reads_when_the_next_one_begins_and_it_is_recorded() -> Result<()> {
    let (server, upstream) = limited("quotas_month", json!({"principal_calls_per_month": 2})).await?;
    let (alice, bob) = (server.client("alice", &["acme", "globex"])?, server.client("bob", &["acme"])?);
    // What is never sent counts for nothing: what does not exist, or does not fit.
    for name in ["acme__nothing", "other__find"] {
        assert_eq!(alice.call(name, json!({})).await?["error"]["code"], -32602);
    }
    assert_eq!(alice.call("acme__add", json!({})).await?["result"]["isError"], true);
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object());
    upstream.says("tools/call", Say::Result(r#"{"resultType":"complete","content":[],"isError":true}"#.to_owned()));
    assert!(alice.call("acme__find", json!({})).await?["result"].is_object(), "what fails there was sent");

    let refused = alice.call("acme__find", json!({})).await?;
    let seconds = refused["error"]["data"]["retryAfter"].as_u64().unwrap_or_default();
    assert!((1..=31 * 24 * 3_600).contains(&seconds), "{refused}");
    assert_eq!(refused["error"]["code"], -32000);
    let text = format!("you have used up your calls there for this month: try again in {seconds} s");
    assert_eq!(refused["error"]["message"], text);
    let legacy = alice.legacy("tools/call", &json!({"name": "acme__find", "arguments": {}})).await?.json()?;
    assert_eq!(legacy["error"]["code"], -32000, "{legacy}");
    // Lists are no calls, others have their own share, and so has she elsewhere.
    assert!(!alice.tools().await?.is_empty());
    assert!(bob.call("acme__find", json!({})).await?["result"].is_object());
    assert!(alice.call("globex__find", json!({})).await?["result"].is_object());

    let left = stopped(server).await?;
    let of_acme = events(&left.store, Some("acme")).await?;
    let calls = of(&of_acme, "call");
    let refused: Vec<_> = calls.iter().filter(|call| call["name"] == "find" && call["outcome"] == "refused").collect();
    assert_eq!(refused.len(), 2, "{calls:#?}");
    assert!(refused.iter().all(|call| call["decision"] == "allow" && call["who"]["subject"] == "alice"));
    Ok(())
}

#[tokio::test]
async fn replicas_use_up_one_share_together_and_nothing_of_another_tenants() -> Result<()> {
    let limits = json!({"tenants": {"acme": {"tenant_calls_per_month": SHARE}, "globex": {"tenant_calls_per_month": 2}, "acmee": {}}});
    let (server, _) = limited("quotas_replicas", limits).await?;
    let logged = server.logged()?;
    let warned = |slug: &str| logged.lines().any(|line| line.contains("limits.tenants") && line.contains(slug));
    assert!(warned("acmee") && !warned("globex"), "{logged}");
    let other = server.replica().await?;
    let both: &[&str] = &["acme", "globex"];
    let (here, there) = (server.client("alice", both)?, at(&other, &server, ("bob", both))?);
    for _ in 0..SHARE {
        assert!(here.call("acme__find", json!({})).await?["result"].is_object());
    }
    server.app.allowances().wake();
    let (passed, refused) = until_refused(&there, "acme__find").await?;
    assert!(passed < SHARE, "it has read what was used elsewhere: {passed}");
    let text = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(text.starts_with("all together have used up the calls there for this month: try again in "), "{refused}");
    assert_eq!(here.call("acme__find", json!({})).await?["error"]["code"], -32000);
    // Whatever was used there, the other company has all of its own.
    for client in [&here, &there] {
        assert!(client.call("globex__find", json!({})).await?["result"].is_object());
    }
    // A replica that starts now reads what was used before it was there.
    drop(there);
    assert!(other.stop().await, "something was left behind");
    let server = server.restart().await?;
    let (passed, refused) = until_refused(&server.client("dave", both)?, "acme__find").await?;
    assert!(passed < SHARE && refused["error"]["code"] == -32000, "{passed}: {refused}");
    assert!(server.app.stop().await, "something was left behind");
    Ok(())
}

#[tokio::test]
async fn what_was_asked_about_first_counts_when_it_is_sent() -> Result<()> {
    let (server, upstream) =
        limited("quotas_asked", json!({"tenants": {"globex": {"tenant_calls_per_month": 1}}})).await?;
    let change = server.app.store().begin().await?;
    let spec = TenantSpec { flow_policy: FlowPolicy::Ask, ..TenantSpec::named("acme") };
    change.put_tenant(&"acme".parse()?, &spec).await?;
    change.commit().await?;
    server.app.follow().await?;
    let letter = "Our buyer is Brightwater Analytics, order BW-20417.";
    let result = json!({"resultType": "complete", "content": [{"type": "text", "text": letter}]});
    upstream.says("tools/call", Say::Result(result.to_string()));
    let carol = server.client("carol", &["acme", "globex"])?;
    assert!(carol.call("acme__find", json!({})).await?["result"].is_object());
    // Nobody can be asked here, so it is not sent, however often it is tried.
    let told = json!({"note": "call Brightwater Analytics back"});
    for _ in 0..3 {
        let kept = carol.call("globex__find", told.clone()).await?;
        assert_eq!(kept["result"]["isError"], true, "{kept}");
    }
    let session = carol.begin_session_that_can(&json!({"elicitation": {}})).await?;
    let asked = server.client("carol", &["acme", "globex"])?.with("mcp-session-id", &session)?;
    for (action, is_sent) in [("decline", false), ("accept", true)] {
        let params = json!({"name": "globex__find", "arguments": told});
        let mut events = asked.legacy_stream(7, "tools/call", &params).await?;
        let question = events.next().await?;
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": action, "content": {}}});
        assert_eq!(asked.post(answer.to_string()).await?.status, 202);
        let answer = events.next().await?;
        assert_eq!(answer["result"].is_object() && answer["result"]["isError"] != true, is_sent, "{answer}");
    }
    assert_eq!(carol.call("globex__find", json!({})).await?["error"]["code"], -32000);
    Ok(())
}
