//! The audit record: calls that were refused, of each kind of thing, and how those went that were never made.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::{Level, Revoked, UpstreamAuth};
use tokio::time::timeout;

use crate::audit::{events, of, stopped};
use crate::support::client::Http;
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say, serve_handler};

/// How long a change takes at most until it is in force.
const PATIENCE: Duration = Duration::from_secs(30);
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Asks until there is no such thing any more.
async fn until_refused(client: &Http, method: &str, params: &Value) -> Result<()> {
    let can = json!({"extensions": {TASKS: {}}});
    let asking = async {
        // A call that runs when something is taken away is taken back, and was not refused.
        for _ in 0..2 {
            while client.modern_that_can(&can, method, params.clone()).await?.code()? != Some(-32602) {}
        }
        Ok(())
    };
    timeout(PATIENCE, asking).await?
}

/// What the last event says of a refused call: reason, name, upstream, and whether there is a digest in the place of a name.
fn told<'e>(event: &'e Value, named: &str) -> (&'e str, &'e str, &'e str, bool) {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    (text("reason"), text(named), text("upstream"), event["nameSha256"].is_string())
}

#[tokio::test]
async fn a_resource_that_is_refused_is_in_the_record_of_the_tenant_that_its_uri_leads_to() -> Result<()> {
    let server = TestServer::start("audit_resources", &[]).await?;
    for tenant in ["acme", "globex"] {
        let rich = Rich { name: tenant.to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
        let (url, _) = serve_handler(rich, false).await?;
        let setup = Setup { tenant, upstream: "files", url: &url, key: None, level: Level::Write };
        server.add(&setup, UpstreamAuth::None, &[]).await?;
    }
    let alice = server.client("alice", &["acme"])?;
    let read = |uri: &str| json!({"uri": uri});
    // One that climbs out of what it names, one of another company, and one of an upstream that is taken away.
    for uri in ["mcp-mux://acme/files/note://a/../CANARY", "mcp-mux://globex/files/note://one"] {
        assert_eq!(alice.modern("resources/read", read(uri)).await?.code()?, Some(-32602), "{uri}");
    }
    let acme = server.rows("acme").await?;
    let upstream = acme.upstreams().await?.pop().context("an upstream")?.id;
    server.app.store().revoke(&Revoked::Upstream { tenant: acme.id(), upstream }, "a test").await?;
    until_refused(&alice, "resources/read", &read("mcp-mux://acme/files/note://one")).await?;

    let left = stopped(server).await?;
    let (acme, platform) = (events(&left.store, Some("acme")).await?, events(&left.store, None).await?);
    let refused: Vec<_> = acme.iter().filter(|event| event["outcome"] == "refused").collect();
    let (Some(climbs), Some(revoked)) = (refused.first(), refused.last()) else { bail!("{acme:#?}") };
    assert_eq!(told(climbs, "name"), ("notHere", "", "files", true));
    assert_eq!(told(revoked, "name"), ("revoked", "note://one", "files", false));
    let [stranger] = of(&platform, "call")[..] else { bail!("{platform:#?}") };
    assert_eq!(told(stranger, "name"), ("unknown", "", "", true));
    assert!(of(&events(&left.store, Some("globex")).await?, "call").is_empty());
    assert!(!format!("{acme:?}").contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn a_task_is_recorded_as_often_as_it_is_asked_for_and_refused_where_it_began() -> Result<()> {
    let task = |kind: &str| {
        let text = r#"{"resultType":"KIND","taskId":"own-7","status":"working","createdAt":"then","ttlMs":null}"#;
        Say::Result(text.replace("KIND", kind))
    };
    let upstream = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{"type":"object"}}]"#);
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Admin };
    let server = TestServer::start("audit_tasks", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let can = json!({"extensions": {TASKS: {}}});
    upstream.says("tools/call", task("task"));
    upstream.says("tasks/get", task("complete"));
    upstream.says("tasks/cancel", Say::Result(r#"{"resultType":"complete"}"#.to_owned()));
    let begun = alice.modern_that_can(&can, "tools/call", json!({"name": "acme__go"})).await?.json()?;
    let id = begun["result"]["taskId"].as_str().with_context(|| begun.to_string())?;
    alice.modern_that_can(&can, "tasks/cancel", json!({"taskId": id})).await?;
    let acme = server.rows("acme").await?;
    let upstream = acme.upstreams().await?.pop().context("an upstream")?.id;
    let tool = Revoked::Tool { tenant: acme.id(), upstream, local: "go".parse()? };
    server.app.store().revoke(&tool, "a test").await?;
    until_refused(&alice, "tasks/get", &json!({"taskId": id})).await?;

    let left = stopped(server).await?;
    let acme = events(&left.store, Some("acme")).await?;
    let calls = of(&acme, "call");
    let methods: Vec<_> = calls.iter().take(2).map(|call| &call["method"]).collect();
    assert_eq!(methods, ["tools/call", "tasks/cancel"], "{acme:#?}");
    let last = calls.last().context("it was refused")?;
    assert_eq!((&last["method"], told(last, "name")), (&json!("tasks/get"), ("revoked", "go", "desk", false)));
    Ok(())
}

#[tokio::test]
async fn what_is_refused_before_the_upstream_is_asked_is_recorded_as_refused() -> Result<()> {
    let upstream = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#);
    let (url, _) = upstream.clone().on("tools/call", Say::Http(503, "text/plain", "away".into())).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("audit_resting", &[setup]).await?;
    let (alice, bob) = (server.client("alice", &["acme"])?, server.client("bob", &["acme"])?);
    // What one of them alone brings about closes it to nobody.
    let resting = async {
        while !alice.call("acme__go", json!({})).await?.to_string().contains("left alone for a while") {
            bob.call("acme__go", json!({})).await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, resting).await??;
    let left = stopped(server).await?;
    let acme = events(&left.store, Some("acme")).await?;
    let calls = of(&acme, "call");
    let how = |call: &Value| (call["outcome"].clone(), call["fault"].clone(), call["decision"].clone());
    let (first, last) = (calls.first().context("calls")?, calls.last().context("calls")?);
    assert_eq!(how(first), (json!("upstreamFailure"), json!("upstream"), json!("allow")));
    assert_eq!(how(last), (json!("refused"), json!("upstream"), json!("allow")));
    Ok(())
}
