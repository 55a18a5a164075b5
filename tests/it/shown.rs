//! What clients are shown of definitions: nothing hidden, wherever and in whichever era they are listed.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tenant_store::Level;

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

/// Says something that nobody sees.
const HIDDEN: &str = "Searches.\u{e0049}\u{e0067}\u{202e}\u{200b} All of it.";
const PLAIN: &str = "Searches. All of it.";

fn tools(hidden: &str) -> Say {
    let tool = json!({
        "name": "search", "title": hidden, "description": hidden, "annotations": {"title": hidden},
        "inputSchema": {"type": "object", "description": hidden, "properties": {
            "q\u{200b}": {"description": hidden, "enum": ["a\u{200b}b"]}, "long": {"description": "é".repeat(5000)},
        }},
        "outputSchema": {"type": "object", "properties": {"n": {"title": hidden}}},
    });
    Say::Result(json!({"resultType": "complete", "tools": [tool]}).to_string())
}

fn upstream() -> ByteUpstream {
    let discover = json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
        "capabilities": {"tools": {}, "prompts": {}, "resources": {}}, "serverInfo": {"name": "bytes", "version": "1"},
    });
    let says = |list: Value| Say::Result(list.to_string());
    let argument = json!({"name": "a\u{200b}b", "description": HIDDEN});
    let prompt = json!({"name": "brief", "title": HIDDEN, "description": HIDDEN, "arguments": [argument]});
    let resource = json!({"uri": "note://one", "name": HIDDEN, "description": HIDDEN});
    let template = json!({"uriTemplate": "note://{n}", "name": HIDDEN, "description": HIDDEN});
    ByteUpstream::default()
        .on("server/discover", says(discover))
        .on("tools/list", tools(HIDDEN))
        .on("prompts/list", says(json!({"resultType": "complete", "prompts": [prompt]})))
        .on("resources/list", says(json!({"resultType": "complete", "resources": [resource]})))
        .on("resources/templates/list", says(json!({"resultType": "complete", "resourceTemplates": [template]})))
}

/// The only entry of a list, which is the same in both eras.
async fn only(client: &Http, method: &str) -> Result<Value> {
    let lists = [client.modern(method, json!({})).await?.json()?, client.legacy(method, &json!({})).await?.json()?];
    let entry = |answer: &Value| -> Option<Value> {
        let list = answer["result"].as_object()?.values().find_map(Value::as_array)?;
        list.first().filter(|_| list.len() == 1).cloned()
    };
    let [modern, legacy] = lists.each_ref().map(|answer| entry(answer).with_context(|| format!("{method}: {answer}")));
    let modern = modern?;
    assert_eq!(modern, legacy?, "{method}");
    Ok(modern)
}

#[tokio::test]
async fn nothing_that_clients_are_shown_of_a_definition_is_hidden() -> Result<()> {
    let upstream = upstream();
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("shown", &[setup]).await?;
    for path in ["/mcp", "/t/acme/mcp"] {
        let alice = server.client_at(path, "alice", &["acme"])?;
        let tool = only(&alice, "tools/list").await?;
        for at in [
            "/title",
            "/description",
            "/annotations/title",
            "/inputSchema/description",
            "/outputSchema/properties/n/title",
        ] {
            assert_eq!(tool.pointer(at), Some(&json!(PLAIN)), "{path} {at}");
        }
        // What a call depends on is as it was.
        let held = &tool["inputSchema"]["properties"]["q\u{200b}"];
        assert_eq!(held, &json!({"description": PLAIN, "enum": ["a\u{200b}b"]}), "{path}");
        let long = tool["inputSchema"]["properties"]["long"]["description"].as_str().context("a text")?;
        assert!(long.len() <= 4096 && long.ends_with("é […]"), "{path}: {} bytes", long.len());
        let prompt = only(&alice, "prompts/list").await?;
        let argument = json!({"name": "a\u{200b}b", "description": PLAIN});
        assert_eq!((&prompt["title"], &prompt["arguments"][0]), (&json!(PLAIN), &argument), "{path}");
        for method in ["resources/list", "resources/templates/list"] {
            let entry = only(&alice, method).await?;
            assert_eq!((&entry["name"], &entry["description"]), (&json!(PLAIN), &json!(PLAIN)), "{path} {method}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_hidden_character_that_changes_is_a_change_though_clients_see_none() -> Result<()> {
    let upstream = upstream();
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("shown_pinned", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let rows = server.rows("acme").await?;
    let before = (only(&alice, "tools/list").await?, rows.tools().await?.pop().context("a tool")?);
    assert!(before.1.definition.get().contains(HIDDEN), "what is kept is what the upstream said");
    upstream.says("tools/list", tools(&HIDDEN.replace('\u{e0067}', "\u{e0068}")));
    server.app.refresher().refresh_all().await;
    let after = (only(&alice, "tools/list").await?, rows.tools().await?.pop().context("a tool")?);
    assert_eq!(before.0, after.0);
    assert_ne!(before.1.digest, after.1.digest);
    Ok(())
}
