//! What upstreams ask while a call runs, and what they log, between clients and upstreams of either era.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::support::client::{Answer, Events, Http};
use crate::support::conformance::ConformanceServer;
use crate::support::server::{Setup, TestServer};

const LEGACY: fn(&str) -> bool = |version| version < "2026";
const MODERN: fn(&str) -> bool = |version| version > "2026";

/// A server in front of one that asks, which speaks these versions.
async fn bed(name: &str, speaks: fn(&str) -> bool) -> Result<TestServer> {
    let url = ConformanceServer::speaking(speaks).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Admin };
    TestServer::start(name, &[setup]).await
}

fn can() -> Value {
    json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}})
}

/// A legacy client in a session, at the tenant's own endpoint.
async fn in_session(server: &TestServer, subject: &str, can: &Value) -> Result<Http> {
    let client = server.client_at("/t/acme/mcp", subject, &["acme"])?;
    let id = client.begin_session_that_can(can).await?;
    client.with("mcp-session-id", &id)
}

fn call(name: &str) -> Value {
    json!({"name": name, "arguments": {"message": "Who?", "prompt": "Say!"}})
}

fn says(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

fn accept(content: &Value) -> Value {
    json!({"action": "accept", "content": content})
}

async fn reply(client: &Http, question: &Value, result: &Value) -> Result<Answer> {
    client.post(json!({"jsonrpc": "2.0", "id": question["id"], "result": result}).to_string()).await
}

/// The next message, which must be a request of this method.
async fn question(events: &mut Events, method: &str) -> Result<Value> {
    let question = events.next().await?;
    ensure!(question["method"] == method && question["id"].is_string(), "{question}");
    Ok(question)
}

#[tokio::test]
async fn a_legacy_client_is_asked_in_its_stream_whatever_the_upstream_speaks() -> Result<()> {
    for speaks in [LEGACY, MODERN] {
        let server = bed("dialogue_legacy", speaks).await?;
        let (alice, bob) = (in_session(&server, "alice", &can()).await?, in_session(&server, "bob", &can()).await?);
        let mut events = alice.legacy_stream(7, "tools/call", &call("test_elicitation")).await?;
        let asked = question(&mut events, "elicitation/create").await?;
        assert_eq!(asked["params"]["requestedSchema"]["required"], json!(["username", "email"]));

        let content = json!({"username": "al", "email": "al@acme.example"});
        assert_eq!(reply(&bob, &asked, &accept(&content)).await?.status, 400, "it is nobody else's to answer");
        assert_eq!(reply(&alice, &json!({"id": "7"}), &accept(&content)).await?.status, 400);
        assert_eq!(reply(&alice, &asked, &accept(&content)).await?.status, 202);
        let answer = events.next().await?;
        assert_eq!(answer["id"], 7, "{answer}");
        assert!(says(&answer).contains("al@acme.example"), "{answer}");
        assert_eq!(reply(&alice, &asked, &accept(&content)).await?.status, 400, "it was answered already");

        let mut events = alice.legacy_stream(8, "tools/call", &call("test_sampling")).await?;
        let asked = question(&mut events, "sampling/createMessage").await?;
        let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Hello"}});
        reply(&alice, &asked, &said).await?;
        assert_eq!(says(&events.next().await?), "LLM response: Hello");
    }
    Ok(())
}

#[tokio::test]
async fn a_modern_upstream_may_ask_in_rounds_and_several_things_at_once() -> Result<()> {
    let server = bed("dialogue_rounds", MODERN).await?;
    let alice = in_session(&server, "alice", &can()).await?;
    let name = "test_input_required_result_multi_round";
    let mut events = alice.legacy_stream(1, "tools/call", &call(name)).await?;
    for content in [json!({"name": "Al"}), json!({"color": "blue"})] {
        let asked = question(&mut events, "elicitation/create").await?;
        reply(&alice, &asked, &accept(&content)).await?;
    }
    assert!(says(&events.next().await?).contains("blue"));

    let name = "test_input_required_result_multiple_inputs";
    let mut events = alice.legacy_stream(2, "tools/call", &call(name)).await?;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(events.next().await?);
    }
    for question in asked.iter().rev() {
        let answer = match question["method"].as_str() {
            Some("elicitation/create") => accept(&json!({"name": "Al"})),
            Some("roots/list") => json!({"roots": [{"uri": "file:///work"}]}),
            _ => json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Hi"}}),
        };
        reply(&alice, question, &answer).await?;
    }
    assert!(says(&events.next().await?).contains("file:///work"));
    Ok(())
}

#[tokio::test]
async fn a_modern_client_is_asked_in_the_answer_of_a_legacy_upstream() -> Result<()> {
    let server = bed("dialogue_parked", LEGACY).await?;
    let client = |subject: &str| server.client_at("/t/acme/mcp", subject, &["acme"]);
    let (alice, bob) = (client("alice")?, client("bob")?);
    let mut params = call("test_elicitation");
    let asked = alice.modern_that_can(&can(), "tools/call", params.clone()).await?.json()?;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let question = &asked["result"]["inputRequests"]["question"];
    assert_eq!(question["method"], "elicitation/create", "{asked}");

    params["requestState"] = asked["result"]["requestState"].clone();
    let no_answer = alice.modern_that_can(&can(), "tools/call", params.clone()).await?.json()?;
    assert_eq!(no_answer["error"]["code"], -32602, "{no_answer}");
    params["inputResponses"] = json!({"question": accept(&json!({"username": "al", "email": "al@acme.example"}))});
    let others = bob.modern_that_can(&can(), "tools/call", params.clone()).await?.json()?;
    assert_eq!(others["error"]["code"], -32602, "{others}");
    let mut another = params.clone();
    another["arguments"]["message"] = json!("Another question");
    let another = alice.modern_that_can(&can(), "tools/call", another).await?.json()?;
    assert_eq!(another["error"]["code"], -32602, "{another}");

    let answer = alice.modern_that_can(&can(), "tools/call", params.clone()).await?.json()?;
    assert!(says(&answer).contains("al@acme.example"), "{answer}");
    let again = alice.modern_that_can(&can(), "tools/call", params).await?.json()?;
    let message = again["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("does not wait here any more"), "{again}");
    Ok(())
}

#[tokio::test]
async fn what_a_user_says_goes_only_to_the_upstream_that_asked() -> Result<()> {
    let server = bed("dialogue_moved", LEGACY).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let mut params = call("test_elicitation");
    let asked = alice.modern_that_can(&can(), "tools/call", params.clone()).await?.json()?;
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = json!({"question": accept(&json!({"username": "al", "email": "al@acme.example"}))});

    let elsewhere = ConformanceServer::speaking(LEGACY).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &elsewhere, key: None, level: Level::Admin };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    let answer = alice.modern_that_can(&can(), "tools/call", params).await?.json()?;
    assert!(says(&answer).contains("broke off"), "{answer}");
    assert!(!answer.to_string().contains("al@acme.example"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn an_upstream_has_sessions_for_a_few_kinds_of_one_principals_clients() -> Result<()> {
    let server = bed("dialogue_kinds", LEGACY).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let sampling = [json!({}), json!({"tools": {}}), json!({"context": {}}), json!({"tools": {}, "context": {}})];
    let kinds = sampling.iter().flat_map(|sampling| {
        let mut roots = json!({"elicitation": {"form": {}}, "sampling": sampling});
        let without = roots.clone();
        roots["roots"] = json!({});
        [without, roots]
    });
    for can in kinds {
        let answer = alice.modern_that_can(&can, "tools/call", call("test_elicitation")).await?.json()?;
        assert_eq!(answer["result"]["resultType"], "input_required", "{can}: {answer}");
    }
    let ninth = json!({"elicitation": {"form": {}}});
    let answer = alice.modern_that_can(&ninth, "tools/call", call("test_elicitation")).await?.json()?;
    assert!(says(&answer).contains("cannot answer"), "{answer}");
    let bob = server.client_at("/t/acme/mcp", "bob", &["acme"])?;
    let answer = bob.modern_that_can(&ninth, "tools/call", call("test_elicitation")).await?.json()?;
    assert_eq!(answer["result"]["resultType"], "input_required", "others have their own: {answer}");
    Ok(())
}

#[tokio::test]
async fn who_cannot_be_asked_is_not_asked() -> Result<()> {
    for speaks in [LEGACY, MODERN] {
        let server = bed("dialogue_cannot", speaks).await?;
        let silent = in_session(&server, "alice", &json!({})).await?;
        let answer = silent.legacy("tools/call", &call("test_elicitation")).await?;
        assert!(says(&answer.json()?).contains("cannot answer"), "{}", answer.text);
        // Where all tenants' tools are listed together, a client's folders are not for one tenant's upstream.
        let among = server.client("alice", &["acme"])?;
        let params = json!({"name": "acme__test_input_required_result_list_roots"});
        let answer = among.modern_that_can(&can(), "tools/call", params).await?.json()?;
        assert!(says(&answer).contains("cannot answer"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_hears_of_a_call_what_it_wants_to_hear() -> Result<()> {
    let server = bed("dialogue_logging", MODERN).await?;
    let alice = in_session(&server, "alice", &json!({})).await?;
    let mut events = alice.legacy_stream(1, "tools/call", &call("test_tool_with_logging")).await?;
    let first = events.next().await?;
    assert_eq!((&first["method"], &first["params"]["level"]), (&json!("notifications/message"), &json!("info")));
    for _ in 0..2 {
        assert_eq!(events.next().await?["method"], "notifications/message");
    }
    assert_eq!(events.next().await?["id"], 1);

    let set = alice.legacy("logging/setLevel", &json!({"level": "error"})).await?.json()?;
    assert_eq!(set["result"], json!({}));
    let mut events = alice.legacy_stream(2, "tools/call", &call("test_tool_with_logging")).await?;
    assert_eq!(events.next().await?["id"], 2, "nothing so little grave is said any more");
    assert_eq!(alice.legacy("logging/setLevel", &json!({"level": "loud"})).await?.code()?, Some(-32602));

    let modern = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let text = modern.modern("tools/call", call("test_tool_with_logging")).await?.text;
    assert!(!text.contains("notifications/message"), "nobody asked: {text}");
    Ok(())
}

#[tokio::test]
async fn a_call_that_its_client_cancels_ends_in_that_session_only() -> Result<()> {
    let server = bed("dialogue_cancelled", LEGACY).await?;
    let alice = in_session(&server, "alice", &can()).await?;
    let other = in_session(&server, "alice", &can()).await?;
    let mut events = alice.legacy_stream(5, "tools/call", &call("test_elicitation")).await?;
    let asked = question(&mut events, "elicitation/create").await?;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}).to_string();
    assert_eq!(other.post(cancel.clone()).await?.status, 202);
    // It still waits, for it was another session's call 5 that was cancelled.
    assert_eq!(reply(&other, &asked, &accept(&json!({}))).await?.status, 202);
    assert_eq!(events.next().await?["id"], 5);

    let mut events = alice.legacy_stream(6, "tools/call", &call("test_elicitation")).await?;
    let asked = question(&mut events, "elicitation/create").await?;
    assert_eq!(alice.post(cancel.replace('5', "6")).await?.status, 202);
    events.end().await?;
    assert_eq!(reply(&alice, &asked, &accept(&json!({}))).await?.status, 400, "nobody waits any more");
    Ok(())
}
