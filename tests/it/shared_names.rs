//! Upstreams of one tenant that say the same names: nobody takes another's prompts, pages of apps or lists away.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::support::client::{Answer, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

/// An upstream of `acme` with these tools, which has prompts and resources.
async fn add(server: &TestServer, upstream: &str, tools: &str) -> Result<ByteUpstream> {
    let bytes = ByteUpstream::with_tools(tools).on("server/discover", discover());
    let (url, _) = bytes.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream, url: &url, key: None, level: Level::Write };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    Ok(bytes)
}

fn discover() -> Say {
    let capabilities = json!({"tools": {}, "prompts": {}, "resources": {}});
    let discover = json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities,
        "serverInfo": {"name": "bytes", "version": "1"}, "ttlMs": 0, "cacheScope": "private",
    });
    Say::Result(discover.to_string())
}

fn prompts(names: &[&str]) -> Say {
    let prompts: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    Say::Result(json!({"resultType": "complete", "prompts": prompts}).to_string())
}

fn resource(uri: &str) -> Say {
    Say::Result(json!({"resultType": "complete", "resources": [{"uri": uri, "name": "page"}]}).to_string())
}

fn text(uri: &str, text: &str) -> Say {
    Say::Result(json!({"resultType": "complete", "contents": [{"uri": uri, "text": text}]}).to_string())
}

fn result(answer: &Answer) -> Result<Value> {
    let answer = answer.json()?;
    answer.get("result").cloned().with_context(|| format!("a result: {answer}"))
}

async fn names(client: &Http, method: &str, key: &str) -> Result<Vec<String>> {
    let result = result(&client.modern(method, json!({})).await?)?;
    let list = result.as_object().context("an object")?.values().find_map(Value::as_array).context("a list")?;
    Ok(list.iter().filter_map(|item| Some(item[key].as_str()?.to_owned())).collect())
}

#[tokio::test]
async fn nobody_takes_another_upstreams_prompt_or_its_name() -> Result<()> {
    let server = TestServer::start("shared_prompts", &[]).await?;
    let desk = add(&server, "desk", "[]").await?;
    desk.says("prompts/list", prompts(&["brief"]));
    server.app.refresher().refresh_all().await;
    let wiki = add(&server, "wiki", "[]").await?;
    wiki.says("prompts/list", prompts(&["brief", "acme__brief"]));
    server.app.refresher().refresh_all().await;
    for upstream in [(&desk, "desk"), (&wiki, "wiki")] {
        let told = json!({"resultType": "complete", "description": upstream.1, "messages": []});
        upstream.0.says("prompts/get", Say::Result(told.to_string()));
    }
    let whose = async |name: &str| -> Result<Value> {
        let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
        Ok(result(&alice.modern("prompts/get", json!({"name": name})).await?)?["description"].clone())
    };
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let listed = names(&alice, "prompts/list", "name").await?;
    assert!(listed.len() == 3 && listed.contains(&"acme__brief".to_owned()), "{listed:?}");
    assert_eq!(whose("acme__brief").await?, "desk");

    // While it is not listed, its name is nobody's.
    desk.says("prompts/list", prompts(&[]));
    server.app.refresher().refresh_all().await;
    let everywhere = server.client("alice", &["acme"])?;
    let listed = names(&everywhere, "prompts/list", "name").await?;
    assert!(listed.len() == 2 && !listed.contains(&"acme__brief".to_owned()), "{listed:?}");
    wiki.says("prompts/list", prompts(&["other", "acme.brief"]));
    server.app.refresher().refresh_all().await;
    desk.says("prompts/list", prompts(&["brief"]));
    server.app.refresher().refresh_all().await;
    assert_eq!(whose("brief").await?, "desk");
    assert!(names(&everywhere, "prompts/list", "name").await?.contains(&"acme__brief".to_owned()));
    Ok(())
}

#[tokio::test]
async fn an_app_gets_the_page_of_its_own_upstream_and_at_its_tenants_endpoint_only() -> Result<()> {
    let page = "ui://board/page";
    let tool =
        r#"[{"name":"TOOL","inputSchema":{"type":"object"},"_meta":{"\u0075i":{"resourceUri":"ui://board/page"}}}]"#;
    let server = TestServer::start("shared_apps", &[]).await?;
    for upstream in ["desk", "wiki"] {
        let bytes = add(&server, upstream, &tool.replace("TOOL", upstream)).await?;
        bytes.says("resources/list", resource(page));
        bytes.says("resources/read", text(page, upstream));
    }
    server.app.refresher().refresh_all().await;
    let at_tenant = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let shown = result(&at_tenant.modern("tools/list", json!({})).await?)?;
    let tools = shown["tools"].as_array().context("a list")?;
    assert_eq!(tools.len(), 2);
    for tool in tools {
        let uri = tool["_meta"]["ui"]["resourceUri"].as_str().context("a page")?;
        assert_eq!(uri, format!("mcp-mux://acme/{}/{page}", tool["name"].as_str().context("a name")?));
        let read = result(&at_tenant.modern("resources/read", json!({"uri": uri})).await?)?;
        assert_eq!(read["contents"][0]["text"], tool["name"], "its own upstream's page");
    }

    let everywhere = server.client("alice", &["acme"])?;
    let shown = everywhere.modern("tools/list", json!({})).await?;
    assert!(shown.text.contains("acme__desk") && !shown.text.contains("ui://"), "{}", shown.text);
    let read = everywhere.modern("resources/read", json!({"uri": format!("mcp-mux://acme/desk/{page}")})).await?;
    assert_eq!(read.code()?, Some(-32602), "{}", read.text);
    Ok(())
}

#[tokio::test]
async fn one_bad_list_costs_an_upstreams_other_lists_nothing() -> Result<()> {
    let server = TestServer::start("shared_bad_list", &[]).await?;
    let desk = add(&server, "desk", "[]").await?;
    desk.says("prompts/list", Say::Result(r#"{"prompts":7}"#.to_owned()));
    desk.says("resources/list", resource("note://one"));
    server.app.refresher().refresh_all().await;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    assert_eq!(names(&alice, "resources/list", "uri").await?, ["note://one"]);
    Ok(())
}
