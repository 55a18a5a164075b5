//! What was read from one company and is about to be told another.

use anyhow::Result;
use serde_json::{Value, json};
use tenant_store::{AuditContent, FlowPolicy, Level, TenantSpec};

use crate::audit_content::{calls, record};
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say, Seen};

const TOOLS: &str = r#"[{"name":"go","inputSchema":{}}]"#;
const LETTER: &str = "Our buyer is Brightwater Analytics, order BW-20417.";

/// Acme, whose upstream answers with a letter, and globex, with what reaches its upstream.
async fn bed(name: &str, policy: FlowPolicy) -> Result<(TestServer, Seen)> {
    let answers = |text: &str| {
        let result = json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
        ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result(result.to_string()))
    };
    let (acme, _) = answers(LETTER).serve().await?;
    let (globex, seen) = answers("noted").serve().await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "crm", url: &acme, key: None, level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: None, level },
    ];
    let server = TestServer::start(name, &setups).await?;
    let change = server.app.store().begin().await?;
    change.put_tenant(&"acme".parse()?, &TenantSpec { flow_policy: policy, ..TenantSpec::named("acme") }).await?;
    change.commit().await?;
    server.app.follow().await?;
    Ok((server, seen))
}

/// Reads acme's letter.
async fn read(client: &Http) -> Result<()> {
    let read = client.call("acme__go", json!({})).await?;
    assert_eq!(says(&read), LETTER);
    Ok(())
}

fn says(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

fn told() -> Value {
    json!({"note": "call Brightwater Analytics back"})
}

#[tokio::test]
async fn what_came_from_one_company_does_not_go_to_another_where_that_is_forbidden() -> Result<()> {
    let (server, seen) = bed("flow_block", FlowPolicy::Block).await?;
    record(&server, "globex", AuditContent::All, true).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    // Before it was read, it is her own word.
    assert_eq!(says(&carol.call("globex__go", json!({"note": "call Initrode Systems back"})).await?), "noted");
    read(&carol).await?;
    let before = seen.text();
    let refused = carol.call("globex__go", told()).await?;
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(
        says(&refused),
        "these arguments hold text that came from tenant `acme` a short time ago, which does not go to tenant `globex`: leave it out"
    );
    // At the tenant's own endpoint, and in the other era, it is the same, but nobody learns there of another.
    let own = server.client_at("/t/globex/mcp", "carol", &["acme", "globex"])?;
    let refused = own.call("go", told()).await?;
    assert!(says(&refused).contains("came from another tenant a short time ago"), "{refused}");
    // Nor does what a parser stumbles over hide what comes behind it.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"go","arguments":{"n":1e999,"s":"\ud800","t":"Brightwater Analytics"}}}"#;
    let hidden = own.post(body).await?.json()?;
    assert!(!says(&hidden).contains("noted"), "{hidden}");
    let legacy = own.legacy("tools/call", &json!({"name": "go", "arguments": told()})).await?.json()?;
    assert_eq!(legacy["result"]["isError"], true, "{legacy}");
    assert_eq!(seen.text(), before, "nothing reached it");
    // What is not acme's goes; and acme hears its own.
    assert_eq!(says(&carol.call("globex__go", json!({"note": "call somebody back"})).await?), "noted");
    assert_eq!(says(&carol.call("acme__go", told()).await?), LETTER);
    // Another person has read nothing.
    let dora = server.client("dora", &["acme", "globex"])?;
    assert_eq!(says(&dora.call("globex__go", told()).await?), "noted");
    // Nor does it come into the record of whoever would have got it.
    let left = super::audit::stopped(server).await?;
    let calls = calls(&left.store, "globex").await?;
    assert!(calls.iter().all(|call| call["content"].is_string() == (call["outcome"] == "ok")), "{calls:#?}");
    assert_eq!(calls.iter().filter(|call| call["outcome"] == "refused").count(), 4, "{calls:#?}");
    Ok(())
}

#[tokio::test]
async fn a_modern_client_asks_its_user_and_the_answer_is_for_these_arguments_only() -> Result<()> {
    let (server, seen) = bed("flow_ask", FlowPolicy::Ask).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    read(&carol).await?;
    let before = seen.text();
    // Who cannot be asked is refused.
    assert_eq!(carol.call("globex__go", told()).await?["result"]["isError"], true);
    let can = json!({"elicitation": {}});
    let ask = async |params: &Value| carol.modern_that_can(&can, "tools/call", params.clone()).await?.json();
    let mut params = json!({"name": "globex__go", "arguments": told()});
    let asked = ask(&params).await?;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let question = &asked["result"]["inputRequests"]["send"];
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(
        question["params"]["message"],
        "What is about to be sent to tenant `globex` by `globex__go` holds text that came from tenant `acme` a short time ago. Send it?"
    );
    assert_eq!(seen.text(), before, "nobody agreed yet");

    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = json!({"send": {"action": "decline"}});
    assert_eq!(ask(&params).await?["result"]["isError"], true);
    params["inputResponses"] = json!({"send": {"action": "accept", "content": {}}});
    let mut other = params.clone();
    other["arguments"] = json!({"note": "order BW-20417"});
    assert_eq!(ask(&other).await?["error"]["code"], -32602, "it was asked about other arguments");
    let dora = server.client("dora", &["acme", "globex"])?;
    let others = dora.modern_that_can(&can, "tools/call", params.clone()).await?.json()?;
    assert_eq!(others["error"]["code"], -32602, "it was asked of carol");
    // An answer to a question that nobody asked is none.
    let mut invented = params.clone();
    invented.as_object_mut().into_iter().for_each(|params| drop(params.remove("requestState")));
    assert_eq!(ask(&invented).await?["result"]["resultType"], "input_required");
    assert_eq!(seen.text(), before, "nobody agreed to any of that");

    assert_eq!(says(&ask(&params).await?), "noted");
    assert!(seen.text().contains("Brightwater") && !seen.text().contains("inputResponses"), "{}", seen.text());
    // What globex has heard is no news to it.
    assert_eq!(says(&carol.call("globex__go", told()).await?), "noted");
    Ok(())
}

#[tokio::test]
async fn a_legacy_client_is_asked_in_the_stream_of_its_call() -> Result<()> {
    let (server, seen) = bed("flow_ask_legacy", FlowPolicy::Ask).await?;
    record(&server, "globex", AuditContent::All, true).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    let session = carol.begin_session_that_can(&json!({"elicitation": {}})).await?;
    let carol = carol.with("mcp-session-id", &session)?;
    read(&server.client("carol", &["acme", "globex"])?).await?;
    for (action, is_sent) in [("decline", false), ("accept", true)] {
        let params = json!({"name": "globex__go", "arguments": told()});
        let mut events = carol.legacy_stream(7, "tools/call", &params).await?;
        let asked = events.next().await?;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": action, "content": {}}});
        assert_eq!(carol.post(answer.to_string()).await?.status, 202);
        let answer = events.next().await?;
        assert_eq!((answer["id"].clone(), answer["result"]["isError"] != true), (json!(7), is_sent), "{answer}");
        assert_eq!(seen.text().contains("Brightwater"), is_sent);
    }
    // Whoever goes away instead of answering sends nothing either.
    read(&server.client("carol", &["acme", "globex"])?).await?;
    let params = json!({"name": "globex__go", "arguments": {"note": "order BW-20417"}});
    let mut events = carol.legacy_stream(8, "tools/call", &params).await?;
    assert_eq!(events.next().await?["method"], "elicitation/create");
    drop(events);
    // What was not sent is in no record of whoever would have got it.
    let left = super::audit::stopped(server).await?;
    let calls = calls(&left.store, "globex").await?;
    let recorded: Vec<_> = calls.iter().map(|call| (call["outcome"].clone(), call["content"].is_string())).collect();
    let wanted = [(json!("refused"), false), (json!("ok"), true), (json!("gone"), false)];
    assert_eq!(recorded, wanted, "{calls:#?}");
    Ok(())
}

#[tokio::test]
async fn what_goes_from_one_company_to_another_is_in_the_platforms_record_only() -> Result<()> {
    let (server, _) = bed("flow_log", FlowPolicy::Log).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    read(&carol).await?;
    assert_eq!(says(&carol.call("globex__go", told()).await?), "noted");
    server.until_logged("text of one tenant stands in a call to another").await?;
    let mut ids = Vec::new();
    for slug in ["acme", "globex"] {
        let tenant = server.app.store().find_tenant(&slug.parse()?).await?;
        ids.extend(tenant.map(|tenant| tenant.id.to_string()));
    }
    let left = super::audit::stopped(server).await?;
    let platform = super::audit::events(&left.store, None).await?;
    let [flow] = super::audit::of(&platform, "flow")[..] else { anyhow::bail!("{platform:#?}") };
    assert_eq!((&flow["from"], &flow["to"]), (&json!([ids[0]]), &json!(ids[1])));
    let said = [&flow["policy"], &flow["became"], &flow["who"]["subject"]];
    assert_eq!(said, ["log", "logged", "carol"]);
    assert!(!flow.to_string().contains("Brightwater"), "never the text");
    for (tenant, other) in [("acme", &ids[1]), ("globex", &ids[0])] {
        let events = super::audit::events(&left.store, Some(tenant)).await?;
        assert!(!format!("{events:?}").contains(other.as_str()), "{tenant} learns of another: {events:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_resource_or_a_prompt_that_is_asked_for_tells_as_much_as_a_tool() -> Result<()> {
    let (server, seen) = bed("flow_uri", FlowPolicy::Block).await?;
    let carol = server.client_at("/t/globex/mcp", "carol", &["acme", "globex"])?;
    read(&server.client("carol", &["acme", "globex"])?).await?;
    let before = seen.text();
    let uri = "note://orders/BW-20417";
    let refused = carol.modern("resources/read", json!({"uri": uri})).await?.json()?;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("came from another tenant") || refused["error"]["code"] == -32602, "{refused}");
    assert_eq!(seen.text(), before, "nothing reached it");
    Ok(())
}
