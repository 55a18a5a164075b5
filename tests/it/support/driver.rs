//! mcp-mux as the client of a server that the conformance suite starts: whatever that server lists is used once, through the mux.

use anyhow::{Context as _, Result};
use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Map, Value, json};
use tenant_store::Level;
use tokio::net::TcpListener;

use super::client::Http;
use super::server::{Setup, TestServer};

/// Starts what `tests/conformance/client.mjs` reports to, and returns its URL.
pub(crate) async fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    super::server::serve(listener, Router::new().route("/", post(report)));
    Ok(url)
}

async fn report(Json(task): Json<Value>) -> (StatusCode, String) {
    match drive(&task).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
    }
}

/// Puts a whole server in front of the suite's, and uses everything that is listed.
async fn drive(task: &Value) -> Result<()> {
    let url = task["url"].as_str().context("the URL of a server")?;
    let setup = Setup { tenant: "acme", upstream: "suite", url, key: None, level: Level::Admin };
    let server = TestServer::start("conformance_client", &[setup]).await?;
    use_everything(&server.client_at("/t/acme/mcp", "alice", &["acme"])?, &task["context"]).await?;
    // The suite waits until nobody is connected to its server any more.
    server.app.stop().await;
    Ok(())
}

async fn use_everything(alice: &Http, context: &Value) -> Result<()> {
    let tools = listed(alice, "tools/list", "tools").await?;
    for tool in &tools {
        let params = json!({"name": tool["name"], "arguments": arguments(tool, &tools, context)});
        // In the legacy era a client does not repeat parameters as headers, so that it is the mux which does.
        if tool["inputSchema"]["properties"].to_string().contains("x-mcp-header") {
            alice.legacy("tools/call", &params).await?;
        } else {
            use_tool(alice, params).await?;
        }
    }
    for prompt in listed(alice, "prompts/list", "prompts").await? {
        alice.modern("prompts/get", json!({"name": prompt["name"]})).await?;
    }
    for resource in listed(alice, "resources/list", "resources").await? {
        alice.modern("resources/read", json!({"uri": resource["uri"]})).await?;
    }
    Ok(())
}

async fn listed(client: &Http, method: &str, member: &str) -> Result<Vec<Value>> {
    let list = client.modern(method, json!({})).await?.json()?;
    list["result"][member].as_array().cloned().with_context(|| format!("no list: {list}"))
}

/// Calls a tool, and answers what it asks.
async fn use_tool(client: &Http, mut params: Value) -> Result<()> {
    let can = json!({"elicitation": {}});
    let answer = client.modern_that_can(&can, "tools/call", params.clone()).await?.json()?;
    let result = &answer["result"];
    if result["resultType"] == "input_required" {
        let questions = result["inputRequests"].as_object().context("questions")?;
        let answers = questions.iter().map(|(key, question)| (key.clone(), yes(question)));
        params["inputResponses"] = answers.collect::<Map<_, _>>().into();
        if let Some(state) = result.get("requestState") {
            params["requestState"] = state.clone();
        }
        client.modern_that_can(&can, "tools/call", params).await?;
    }
    Ok(())
}

/// Yes, with whatever the question has as a default.
fn yes(question: &Value) -> Value {
    let properties = question["params"]["requestedSchema"]["properties"].as_object().into_iter().flatten();
    let mut content: Map<_, _> =
        properties.filter_map(|(name, schema)| Some((name.clone(), schema.get("default")?.clone()))).collect();
    if content.is_empty() {
        content.insert("confirmed".to_owned(), json!(true));
    }
    json!({"action": "accept", "content": content})
}

/// The arguments that the suite wants, or some that fit.
fn arguments(tool: &Value, tools: &[Value], context: &Value) -> Value {
    let wanted = context["toolCalls"].as_array().into_iter().flatten().find(|call| call["name"] == tool["name"]);
    if let Some(call) = wanted {
        return call["arguments"].clone();
    }
    let properties = tool["inputSchema"]["properties"].as_object().into_iter().flatten();
    let some = |(name, schema): (&String, &Value)| {
        let value = match schema["type"].as_str() {
            Some("number" | "integer") => json!(1),
            // The suite wants to see the schema of another tool as it arrived.
            Some("object") => tools.first().map_or(Value::Null, |first| first["inputSchema"].clone()),
            _ => json!("text"),
        };
        (name.clone(), value)
    };
    properties.map(some).collect::<Map<_, _>>().into()
}
