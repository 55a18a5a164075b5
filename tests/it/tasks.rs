//! Tasks: whose they are, for how long, and what of them passes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::support::client::{Answer, Http};
use crate::support::conformance::ConformanceServer;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const TASKS: &str = "io.modelcontextprotocol/tasks";
/// How long a task may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn can() -> Value {
    json!({"elicitation": {}, "extensions": {TASKS: {}}})
}

/// Two tenants, each with an upstream that makes tasks.
async fn bed(name: &str) -> Result<TestServer> {
    let (acme, globex) =
        (ConformanceServer::speaking(|_| true).serve().await?, ConformanceServer::speaking(|_| true).serve().await?);
    let level = Level::Admin;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: None, level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: None, level },
    ];
    TestServer::start(name, &setups).await
}

/// Begins a task and answers its id.
async fn begin(client: &Http, tool: &str, arguments: Value) -> Result<String> {
    let params = json!({"name": tool, "arguments": arguments});
    let begun = client.modern_that_can(&can(), "tools/call", params).await?.json()?;
    ensure!(begun["result"]["resultType"] == "task", "{begun}");
    Ok(begun["result"]["taskId"].as_str().with_context(|| begun.to_string())?.to_owned())
}

async fn ask(client: &Http, method: &str, id: &str) -> Result<Answer> {
    client.modern_that_can(&can(), method, json!({"taskId": id, "inputResponses": {}})).await
}

/// The state of a task as soon as it is one of these.
async fn becomes(client: &Http, id: &str, statuses: &[&str]) -> Result<Value> {
    let becoming = async {
        loop {
            let state = ask(client, "tasks/get", id).await?.json()?["result"].clone();
            ensure!(state["taskId"] == id, "{state}");
            if statuses.iter().any(|status| state["status"] == *status) {
                return Ok(state);
            }
        }
    };
    tokio::time::timeout(PATIENCE, becoming).await?
}

/// The state of a task that is over.
async fn done(client: &Http, id: &str) -> Result<Value> {
    becomes(client, id, &["completed", "failed", "cancelled"]).await
}

#[tokio::test]
async fn a_task_is_asked_for_and_answered_through_the_mux() -> Result<()> {
    let server = bed("tasks_through").await?;
    let alice = server.client("alice", &["acme", "globex"])?;
    let id = begin(&alice, "acme__confirm_delete", json!({})).await?;
    assert!(uuid::Uuid::parse_str(&id).is_err(), "it is not what the upstream knows it by: {id}");
    let state = becomes(&alice, &id, &["input_required"]).await?;
    assert_eq!(state["inputRequests"]["sure"]["method"], "elicitation/create", "{state}");
    let answers = json!({"sure": {"action": "accept", "content": {"confirm": true}}});
    let params = json!({"taskId": id, "inputResponses": answers});
    let taken = alice.modern_that_can(&can(), "tasks/update", params).await?.json()?;
    assert_eq!(taken["result"], json!({"resultType": "complete"}));
    let state = done(&alice, &id).await?;
    let said = state["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(said.contains(r#""confirm":true"#), "{state}");
    assert_eq!(state["resultType"], "complete");

    let id = begin(&alice, "globex__slow_compute", json!({"seconds": 600})).await?;
    assert_eq!(ask(&alice, "tasks/cancel", &id).await?.json()?["result"], json!({"resultType": "complete"}));
    assert_eq!(done(&alice, &id).await?["status"], "cancelled");
    Ok(())
}

#[tokio::test]
async fn a_task_is_nobody_elses_and_nothing_tells_that_it_exists() -> Result<()> {
    let server = bed("tasks_of_others").await?;
    let alice = server.client("alice", &["acme"])?;
    let id = begin(&alice, "acme__confirm_delete", json!({})).await?;
    let strangers = [
        ("the same grants", server.client("bob", &["acme"])?),
        ("another tenant", server.client("carol", &["globex"])?),
        ("another endpoint", server.client_at("/t/acme/mcp", "alice", &["acme"])?),
    ];
    let forged = id.chars().rev().collect::<String>();
    for (who, client) in &strangers {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let theirs = ask(client, method, &id).await?;
            assert_eq!(theirs.json()?["error"], json!({"code": -32602, "message": "unknown task"}), "{who} {method}");
            assert_eq!(theirs.all(), ask(client, method, &forged).await?.all(), "{who} {method}");
        }
    }
    becomes(&alice, &id, &["input_required"]).await?;
    let at_tenant = begin(&strangers[2].1, "confirm_delete", json!({})).await?;
    for client in [&alice, &server.client_at("/t/globex/mcp", "alice", &["acme", "globex"])?] {
        assert_eq!(ask(client, "tasks/get", &at_tenant).await?.code()?, Some(-32602));
    }
    Ok(())
}

#[tokio::test]
async fn a_task_stays_where_it_is_when_its_upstream_moves() -> Result<()> {
    let server = bed("tasks_moved").await?;
    let alice = server.client("alice", &["acme"])?;
    let id = begin(&alice, "acme__confirm_delete", json!({})).await?;
    becomes(&alice, &id, &["input_required"]).await?;
    let rows = server.rows("acme").await?;
    let upstream = rows.upstreams().await?.pop().context("an upstream")?;
    let tools = r#"[{"name":"confirm_delete","inputSchema":{"type":"object"}}]"#;
    let (elsewhere, seen) = ByteUpstream::with_tools(tools).serve().await?;
    let spec = tenant_store::UpstreamSpec { url: elsewhere.parse()?, ..upstream.spec.clone() };
    rows.put_upstream(&upstream.slug, &spec).await?;
    server.app.follow().await?;
    let answers = json!({"sure": {"action": "accept", "content": {"confirm": true}}});
    let update = json!({"taskId": id, "inputResponses": answers});
    let gone = alice.modern_that_can(&can(), "tasks/update", update).await?.json()?;
    assert_eq!(gone["error"], json!({"code": -32602, "message": "unknown task"}));
    assert!(!seen.text().contains("tasks/update"), "nobody took it for a task of the new place");
    rows.put_upstream(&upstream.slug, &upstream.spec).await?;
    server.app.follow().await?;
    becomes(&alice, &id, &["input_required"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_task_goes_on_when_its_tool_gets_another_name() -> Result<()> {
    let server = bed("tasks_renamed").await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let id = begin(&alice, "confirm_delete", json!({})).await?;
    let url = ConformanceServer::speaking(|_| true).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "wiki", url: &url, key: None, level: Level::Admin };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    assert!(!alice.tools().await?.contains(&"confirm_delete".to_owned()), "the name is nobody's any more");
    becomes(&alice, &id, &["input_required"]).await?;
    Ok(())
}

#[tokio::test]
async fn an_upstream_says_of_a_task_what_belongs_there_and_nothing_else() -> Result<()> {
    let task = |id: &str, more: &str| {
        let text = format!(
            r#"{{"resultType":"KIND","taskId":"{id}","status":"working","createdAt":"then","ttlMs":null{more}}}"#
        );
        move |kind: &str| Say::Result(text.replace("KIND", kind))
    };
    let upstream = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{"type":"object"}}]"#);
    let (url, seen) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Admin };
    let server = TestServer::start("tasks_said", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;

    for more in [r#","inputRequests":{"r":{"method":"roots/list"}}"#, r#","result":{"content":[]}"#] {
        upstream.says("tools/call", task("own-7", more)("task"));
        let refused = alice.modern_that_can(&can(), "tools/call", json!({"name": "acme__go"})).await?.json()?;
        assert_eq!(refused["result"]["isError"], json!(true), "{more}");
    }
    upstream.says("tools/call", task("own-7", "")("task"));
    let id = begin(&alice, "acme__go", json!({})).await?;
    upstream.says("tasks/get", task("own-7", "")("complete"));
    assert_eq!(ask(&alice, "tasks/get", &id).await?.json()?["result"]["taskId"], id);
    let sent = seen.text();
    let asked = sent.rsplit_once("mcp-method: tasks/get").context("it was asked")?.1;
    assert!(
        asked.contains(r#""taskId":"own-7""#) && asked.contains(r#""io.modelcontextprotocol/tasks":{}"#),
        "{asked}"
    );
    assert!(!sent.contains(&id), "what the caller knows it by is nobody else's");
    for (what, say) in [
        ("another task", task("own-8", "")("complete")),
        (
            "a question in the place of a state",
            task("own-7", r#","inputRequests":{},"requestState":"s""#)("input_required"),
        ),
        ("a task of a task", task("own-7", "")("task")),
        (
            "what the client cannot be asked",
            task("own-7", r#","inputRequests":{"r":{"method":"roots/list"}}"#)("complete"),
        ),
    ] {
        upstream.says("tasks/get", say);
        let answer = ask(&alice, "tasks/get", &id).await?;
        assert!(answer.code()? == Some(-32603) && !answer.text.contains("own-"), "{what}: {}", answer.text);
    }
    // One that counts its tasks anew has another one under the id: it is neither answered nor called off.
    let later = r#"{"resultType":"complete","taskId":"own-7","status":"working","createdAt":"later","ttlMs":null}"#;
    upstream.says("tasks/get", Say::Result(later.to_owned()));
    for method in ["tasks/update", "tasks/cancel"] {
        upstream.says(method, Say::Result(r#"{"resultType":"complete"}"#.to_owned()));
        assert_eq!(ask(&alice, method, &id).await?.code()?, Some(-32603), "{method}");
        assert!(!seen.text().contains(&format!("mcp-method: {method}")), "{method}");
    }
    upstream.says("tasks/get", task("own-7", "")("complete"));
    assert_eq!(ask(&alice, "tasks/cancel", &id).await?.json()?["result"], json!({"resultType": "complete"}));
    let no_tasks = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"what?"}}"#;
    upstream.says("tasks/get", Say::Http(200, "application/json", no_tasks.into()));
    assert_eq!(ask(&alice, "tasks/get", &id).await?.code()?, Some(-32602), "who knows no tasks has none");
    Ok(())
}

#[tokio::test]
async fn a_task_ends_for_its_caller_with_the_grant_and_with_the_upstream() -> Result<()> {
    let server = bed("tasks_decided").await?;
    let alice = server.client("alice", &["acme", "globex"])?;
    let (at_acme, at_globex) = (
        begin(&alice, "acme__confirm_delete", json!({})).await?,
        begin(&alice, "globex__confirm_delete", json!({})).await?,
    );
    for grant in server.rows("acme").await?.grants().await? {
        server.rows("acme").await?.remove_grant(grant.id).await?;
    }
    // Another upstream takes the place of the first one, and its tools the names.
    let rows = server.rows("globex").await?;
    let upstream = rows.upstreams().await?.pop().context("an upstream")?;
    rows.remove_upstream(upstream.id).await?;
    let url = ConformanceServer::speaking(|_| true).serve().await?;
    let setup = Setup { tenant: "globex", upstream: "desk", url: &url, key: None, level: Level::Admin };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    assert!(alice.tools().await?.contains(&"globex__confirm_delete".to_owned()));
    for id in [at_acme, at_globex] {
        let gone = ask(&alice, "tasks/get", &id).await?.json()?;
        assert_eq!(gone["error"], json!({"code": -32602, "message": "unknown task"}));
    }
    Ok(())
}

#[tokio::test]
async fn who_does_not_know_tasks_gets_none() -> Result<()> {
    let server = bed("tasks_undeclared").await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let call = json!({"name": "slow_compute", "arguments": {"seconds": 0}});
    let whole = alice.modern("tools/call", call.clone()).await?.json()?;
    assert_eq!(whole["result"]["resultType"], "complete", "{whole}");
    assert_eq!(alice.legacy("tools/call", &call).await?.json()?["result"]["isError"], json!(false));
    let needs = alice.modern("tools/call", json!({"name": "failing_job"})).await?;
    assert_eq!((needs.status, needs.code()?), (400, Some(-32021)));

    let id = begin(&alice, "slow_compute", json!({"seconds": 600})).await?;
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let refused = alice.modern(method, json!({"taskId": id})).await?;
        assert_eq!(refused.status, 400, "{method}");
        let error = refused.json()?["error"].clone();
        assert_eq!(error["code"], -32021, "{method}");
        assert_eq!(error["data"]["requiredCapabilities"]["extensions"], json!({TASKS: {}}), "{method}");
        assert_eq!(alice.legacy(method, &json!({"taskId": id})).await?.code()?, Some(-32601), "{method}");
    }
    let wanted = json!({"notifications": {"taskIds": [id]}});
    assert_eq!(alice.modern("subscriptions/listen", wanted).await?.code()?, Some(-32021));
    ask(&alice, "tasks/cancel", &id).await?;

    let legacy =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let hello = alice.legacy("initialize", &legacy).await?.json()?;
    assert_eq!(hello["result"]["capabilities"]["extensions"], Value::Null, "{hello}");
    let found = alice.modern("server/discover", json!({})).await?.json()?;
    assert_eq!(found["result"]["capabilities"]["extensions"][TASKS], json!({}), "{found}");
    Ok(())
}
