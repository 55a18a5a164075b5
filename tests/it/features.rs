//! Prompts, resources, templates and completion through the mux: whose they are stands in names and URIs, nobody gets anybody else's,
//! and what upstreams say arrives as they say it.

use anyhow::{Context as _, Result};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::{GrantSpec, Level};

use crate::support::client::{Answer, Http};
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say, serve_handler};

/// Two tenants with an upstream each, which say the same of themselves; and people as elsewhere.
async fn bed(name: &str, versions: &[ProtocolVersion]) -> Result<TestServer> {
    let server = TestServer::start(name, &[]).await?;
    for tenant in ["acme", "globex"] {
        add(&server, tenant, "files", versions).await?;
    }
    Ok(server)
}

async fn add(server: &TestServer, tenant: &str, upstream: &str, versions: &[ProtocolVersion]) -> Result<()> {
    let rich = Rich { name: format!("{upstream} of {tenant}"), versions: versions.to_vec() };
    let (url, _) = serve_handler(rich, false).await?;
    let setup = Setup { tenant, upstream, url: &url, key: None, level: Level::Write };
    server.add(&setup, tenant_store::UpstreamAuth::None, &[]).await
}

fn result(answer: &Answer) -> Result<Value> {
    let answer = answer.json()?;
    answer.get("result").cloned().with_context(|| format!("a result: {answer}"))
}

/// The values of `key` in a list.
async fn listed(client: &Http, method: &str, key: &str) -> Result<Vec<String>> {
    let result = result(&client.modern(method, json!({})).await?)?;
    let list = result.as_object().context("an object")?.values().find_map(Value::as_array).context("a list")?;
    Ok(list.iter().filter_map(|item| Some(item[key].as_str()?.to_owned())).collect())
}

#[tokio::test]
async fn lists_of_all_tenants_say_whose_each_thing_is() -> Result<()> {
    let server = bed("features_lists", ProtocolVersion::KNOWN_VERSIONS).await?;
    let (alice, carol) = (server.client("alice", &["acme"])?, server.client("carol", &["acme", "globex"])?);
    assert_eq!(listed(&alice, "prompts/list", "name").await?, ["acme__brief"]);
    assert_eq!(listed(&carol, "prompts/list", "name").await?, ["acme__brief", "globex__brief"]);
    let notes = |tenant: &str| ["one", "two", "three"].map(|note| format!("mcp-mux://{tenant}/files/note://{note}"));
    assert_eq!(listed(&alice, "resources/list", "uri").await?, notes("acme"));
    assert_eq!(listed(&carol, "resources/list", "uri").await?, [notes("acme"), notes("globex")].concat());
    let template = "mcp-mux://acme/files/note://{name}";
    assert_eq!(listed(&alice, "resources/templates/list", "uriTemplate").await?, [template]);
    let nobody = server.client("nobody", &[])?;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        assert!(listed(&nobody, method, "name").await?.is_empty(), "{method}");
        let result = result(&alice.modern(method, json!({})).await?)?;
        assert_eq!((&result["cacheScope"], &result["resultType"]), (&json!("private"), &json!("complete")), "{method}");
    }
    // At the tenant's own endpoint, everything is called as the upstream calls it.
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    assert_eq!(listed(&alice, "prompts/list", "name").await?, ["brief"]);
    assert_eq!(listed(&alice, "resources/list", "uri").await?, ["note://one", "note://two", "note://three"]);
    assert_eq!(listed(&alice, "resources/templates/list", "uriTemplate").await?, ["note://{name}"]);
    Ok(())
}

#[tokio::test]
async fn what_is_used_goes_to_its_own_upstream_in_both_eras_on_both_sides() -> Result<()> {
    let legacy = [ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];
    for (name, versions) in
        [("features_modern", ProtocolVersion::KNOWN_VERSIONS), ("features_legacy", legacy.as_slice())]
    {
        let server = bed(name, versions).await?;
        let carol = server.client("carol", &["acme", "globex"])?;
        let at_tenant = server.client_at("/t/globex/mcp", "carol", &["acme", "globex"])?;
        for modern in [true, false] {
            let ask = async |client: &Http, method: &str, params: Value| {
                let answer =
                    if modern { client.modern(method, params).await? } else { client.legacy(method, &params).await? };
                result(&answer)
            };
            let uri = "mcp-mux://globex/files/note://any thing?a=%2F";
            let read = ask(&carol, "resources/read", json!({"uri": uri})).await?;
            assert_eq!(read["contents"][0]["uri"], uri, "{name} {modern}");
            assert_eq!(read["contents"][0]["text"], "note://any thing?a=%2F of files of globex");
            assert_eq!(read.get("cacheScope"), modern.then_some(&json!("private")), "{name} {read}");
            let read = ask(&at_tenant, "resources/read", json!({"uri": "note://any"})).await?;
            assert_eq!(read["contents"][0]["uri"], "note://any");

            let prompt = json!({"name": "acme__brief", "arguments": {"topic": "x"}});
            let got = ask(&carol, "prompts/get", prompt).await?;
            assert_eq!(got["messages"][0]["content"]["text"], "brief of files of acme with {\"topic\":\"x\"}");
            assert_eq!(got["messages"][1]["content"]["uri"], "mcp-mux://acme/files/note://one");
            let got = ask(&at_tenant, "prompts/get", json!({"name": "brief", "arguments": {"topic": "y"}})).await?;
            assert_eq!(got["messages"][1]["content"]["uri"], "note://one");

            let linked = ask(&carol, "tools/call", json!({"name": "acme__link"})).await?;
            let link = linked["content"][0]["uri"].as_str().context("a link")?.to_owned();
            assert_eq!(link, "mcp-mux://acme/files/note://unlisted");
            assert_eq!(linked["content"][1]["resource"]["uri"], "mcp-mux://acme/files/note://one");
            let read = ask(&carol, "resources/read", json!({"uri": link})).await?;
            assert_eq!(read["contents"][0]["text"], "note://unlisted of files of acme", "a link can be followed");

            let of_prompt = json!({"ref": {"type": "ref/prompt", "name": "globex__brief"}, "argument": {"name": "topic", "value": "x"}});
            let completed = ask(&carol, "completion/complete", of_prompt).await?;
            assert_eq!(completed["completion"]["values"], json!(["files of globex:brief:topic:x"]));
            let template = "mcp-mux://acme/files/note://{name}";
            let of_template =
                json!({"ref": {"type": "ref/resource", "uri": template}, "argument": {"name": "name", "value": "o"}});
            let completed = ask(&carol, "completion/complete", of_template).await?;
            assert_eq!(completed["completion"]["values"], json!(["files of acme:note://{name}:name:o"]));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_the_callers_looks_like_what_does_not_exist() -> Result<()> {
    let server = bed("features_isolation", ProtocolVersion::KNOWN_VERSIONS).await?;
    let alice = server.client("alice", &["acme"])?;
    let at_tenant = server.client_at("/t/globex/mcp", "alice", &["acme"])?;
    let read = |uri: &str| json!({"uri": uri});
    let complete = |of: Value| json!({"ref": of, "argument": {"name": "a", "value": ""}});
    let prompt = |name: &str| json!({"type": "ref/prompt", "name": name});
    let resource = |uri: &str| json!({"type": "ref/resource", "uri": uri});
    for (method, theirs, nobodys) in [
        ("prompts/get", json!({"name": "globex__brief"}), json!({"name": "globex__none"})),
        ("resources/read", read("mcp-mux://globex/files/note://one"), read("mcp-mux://nobody/files/note://one")),
        ("resources/read", read("mcp-mux://globex/files/note://x"), read("mcp-mux://acme/nothing/note://one")),
        ("resources/read", read("note://one"), read("")),
        ("completion/complete", complete(prompt("globex__brief")), complete(prompt("acme__none"))),
        (
            "completion/complete",
            complete(resource("mcp-mux://globex/files/note://{name}")),
            complete(resource("mcp-mux://nobody/files/note://{name}")),
        ),
    ] {
        for client in [&alice, &at_tenant] {
            let (theirs, nobodys) =
                (client.modern(method, theirs.clone()).await?, client.modern(method, nobodys.clone()).await?);
            assert_eq!(theirs.code()?, Some(-32602), "{method}: {}", theirs.text);
            assert_eq!(theirs.all(), nobodys.all(), "{method}");
        }
        let (theirs, nobodys) = (alice.legacy(method, &theirs).await?, alice.legacy(method, &nobodys).await?);
        assert_eq!(theirs.all(), nobodys.all(), "{method}");
    }
    let legacy = alice.legacy("resources/read", &read("mcp-mux://globex/files/note://one")).await?;
    assert_eq!(legacy.code()?, Some(-32002), "what the legacy era calls it");
    Ok(())
}

#[tokio::test]
async fn grants_decide_about_prompts_and_resources_by_name_and_uri() -> Result<()> {
    let server = bed("features_grants", ProtocolVersion::KNOWN_VERSIONS).await?;
    let rows = server.rows("acme").await?;
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["readers".parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["note:*".parse()?, "files/note:*".parse()?],
        deny: vec!["*two*".parse()?],
    };
    rows.put_grant(&"readers".parse()?, &grant).await?;
    server.app.follow().await?;
    let dave = server.client("dave", &["readers"])?;
    assert!(listed(&dave, "prompts/list", "name").await?.is_empty() && dave.tools().await?.is_empty());
    let own = |note: &str| format!("mcp-mux://acme/files/note://{note}");
    assert_eq!(listed(&dave, "resources/list", "uri").await?, [own("one"), own("three")]);
    let read = async |uri: &str| dave.modern("resources/read", json!({"uri": uri})).await;
    for uri in [own("one"), own("unlisted"), own("on%65")] {
        assert!(result(&read(&uri).await?).is_ok(), "{uri}");
    }
    for uri in [
        own("two"),
        own("TWO"),
        own("t%77o"),
        own("one/../two"),
        own("x/%2e%2e/one"),
        "mcp-mux://acme/files/file:///etc/passwd".to_owned(),
    ] {
        assert_eq!(read(&uri).await?.code()?, Some(-32602), "{uri}");
    }
    Ok(())
}

#[tokio::test]
async fn a_uri_that_is_denied_is_denied_under_each_of_its_names() -> Result<()> {
    let server = bed("features_denied", ProtocolVersion::KNOWN_VERSIONS).await?;
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["readers".parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["*".parse()?],
        deny: vec!["mcp-mux://acme/files/note://o*".parse()?],
    };
    server.rows("acme").await?.put_grant(&"readers".parse()?, &grant).await?;
    server.app.follow().await?;
    for (path, uri) in [
        ("/mcp", "mcp-mux://acme/files/note://"),
        ("/t/acme/mcp", "mcp-mux://acme/files/note://"),
        ("/t/acme/mcp", "note://"),
    ] {
        let dave = server.client_at(path, "dave", &["readers"])?;
        let read =
            async |name: &str| dave.modern("resources/read", json!({"uri": format!("{uri}{name}")})).await?.code();
        assert_eq!((read("one").await?, read("other").await?), (Some(-32602), Some(-32602)), "{path} {uri}");
        assert_eq!((read("two").await?, read("unlisted").await?), (None, None), "{path} {uri}");
    }
    Ok(())
}

#[tokio::test]
async fn two_upstreams_of_a_tenant_with_one_uri_are_told_apart() -> Result<()> {
    let server = bed("features_twins", ProtocolVersion::KNOWN_VERSIONS).await?;
    add(&server, "acme", "wiki", ProtocolVersion::KNOWN_VERSIONS).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let uris = listed(&alice, "resources/list", "uri").await?;
    assert_eq!(uris.len(), 6);
    assert!(uris.contains(&"mcp-mux://acme/wiki/note://one".to_owned()), "{uris:?}");
    let prompts = listed(&alice, "prompts/list", "name").await?;
    assert!(prompts.len() == 2 && !prompts.contains(&"brief".to_owned()), "{prompts:?}");
    for (uri, text) in
        uris.iter().map(|uri| (uri, if uri.contains("/wiki/") { "wiki of acme" } else { "files of acme" }))
    {
        let read = result(&alice.modern("resources/read", json!({"uri": uri})).await?)?;
        assert!(read["contents"][0]["text"].as_str().is_some_and(|read| read.ends_with(text)), "{uri} {read}");
    }
    let ambiguous = alice.modern("resources/read", json!({"uri": "note://one"})).await?;
    assert_eq!(ambiguous.code()?, Some(-32602), "which of the two?");
    Ok(())
}

#[tokio::test]
async fn apps_work_at_their_tenants_own_endpoint_and_nowhere_else() -> Result<()> {
    let tools = json!([
        {"name": "board", "inputSchema": {"type": "object"}, "_meta": {"ui": {"resourceUri": "ui://board/page"}, "kept": 1}},
        {"name": "move", "inputSchema": {"type": "object"}, "_meta": {"ui": {"visibility": ["app"]}}},
    ]);
    let discover = json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "resources": {}},
        "serverInfo": {"name": "apps", "version": "1"}, "ttlMs": 0, "cacheScope": "private",
    });
    let pages = json!({"resultType": "complete", "resources": [{"uri": "ui://board/page", "name": "page"}]});
    let upstream = ByteUpstream::with_tools(&tools.to_string())
        .on("server/discover", Say::Result(discover.to_string()))
        .on("resources/list", Say::Result(pages.to_string()))
        .on("tools/call", Say::Result(r#"{"resultType":"complete","content":[]}"#.to_owned()));
    let (url, _) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("features_apps", &[setup]).await?;
    let at_tenant = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    assert_eq!(listed(&at_tenant, "resources/list", "uri").await?, ["ui://board/page"]);
    let shown = result(&at_tenant.modern("tools/list", json!({})).await?)?;
    assert_eq!(shown["tools"], tools, "to the byte");
    assert!(result(&at_tenant.modern("tools/call", json!({"name": "move"})).await?).is_ok());

    let alice = server.client("alice", &["acme"])?;
    assert!(listed(&alice, "resources/list", "uri").await?.is_empty());
    let shown = result(&alice.modern("tools/list", json!({})).await?)?;
    let names: Vec<&Value> = shown["tools"].as_array().into_iter().flatten().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["acme__board"]);
    assert_eq!((&shown["tools"][0]["_meta"]["ui"], &shown["tools"][0]["_meta"]["kept"]), (&Value::Null, &json!(1)));
    let unknown = alice.modern("tools/call", json!({"name": "acme__move"})).await?;
    assert_eq!(unknown.code()?, Some(-32602), "{}", unknown.text);
    Ok(())
}

#[tokio::test]
async fn long_lists_come_in_pages_that_nobody_else_can_turn() -> Result<()> {
    let server = TestServer::start_with("features_pages", &[], |config| {
        config.catalog.page_items = 2;
        Ok(())
    })
    .await?;
    for tenant in ["acme", "globex"] {
        add(&server, tenant, "files", ProtocolVersion::KNOWN_VERSIONS).await?;
    }
    let carol = server.client("carol", &["acme", "globex"])?;
    let mut pages: Vec<Vec<String>> = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = result(&carol.modern("resources/list", json!({"cursor": cursor})).await?)?;
        let uris = page["resources"].as_array().context("a list")?;
        pages.push(uris.iter().filter_map(|item| Some(item["uri"].as_str()?.to_owned())).collect());
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
        for (who, path, method) in [
            ("bob", "/mcp", "resources/list"),
            ("carol", "/t/acme/mcp", "resources/list"),
            ("carol", "/mcp", "prompts/list"),
            ("carol", "/mcp", "resources/templates/list"),
        ] {
            let other = server.client_at(path, who, &["acme", "globex"])?;
            let refused = other.modern(method, json!({"cursor": cursor})).await?;
            assert_eq!(refused.code()?, Some(-32602), "{who} {path} {method}: {}", refused.text);
        }
        let other = server.replica().await?;
        let token = server.idp.sign(&server.idp.claims("carol", &["acme", "globex"], &other.endpoint()))?;
        let replica = Http::new(&format!("http://{}/mcp", other.address()), Some(&token))?;
        assert!(
            result(&replica.legacy("resources/list", &json!({"cursor": cursor})).await?).is_ok(),
            "any replica turns it"
        );
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(pages.concat(), {
        let notes =
            |tenant: &str| ["one", "two", "three"].map(|note| format!("mcp-mux://{tenant}/files/note://{note}"));
        [notes("acme"), notes("globex")].concat()
    });
    Ok(())
}

#[tokio::test]
async fn an_upstream_asks_its_caller_and_nobody_else_answers() -> Result<()> {
    let server = bed("features_input", ProtocolVersion::KNOWN_VERSIONS).await?;
    let can = json!({"elicitation": {"form": {}}, "secret": {"x": 1}});
    let alice = server.client("alice", &["acme"])?;
    let call = json!({"name": "acme__confirm", "arguments": {"n": 1}});
    let asked = result(&alice.modern_that_can(&can, "tools/call", call.clone()).await?)?;
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["sure"]["params"]["message"], "files of acme: are you sure?");
    let state = asked["requestState"].as_str().context("a state")?;
    assert!(!state.contains("state of"), "it is sealed: {state}");

    let with = |call: &Value, state: &str| {
        let mut again = call.clone();
        again["inputResponses"] = json!({"sure": {"action": "accept", "content": {"yes": true}}});
        again["requestState"] = json!(state);
        again
    };
    let done = result(&alice.modern_that_can(&can, "tools/call", with(&call, state)).await?)?;
    let text = done["content"][0]["text"].as_str().context("a text")?;
    assert!(text.starts_with("files of acme heard {\"action\":\"accept\""), "{text}");
    assert!(text.ends_with("with state of {\"n\":1}"), "{text}");

    // In other hands, for other arguments, for another tenant's tool of the same name, or altered, it is none.
    let carol = server.client("carol", &["acme", "globex"])?;
    let other_arguments = json!({"name": "acme__confirm", "arguments": {"n": 2}});
    let other_tenant = json!({"name": "globex__confirm", "arguments": {"n": 1}});
    for (client, call, state) in [
        (&carol, &call, state),
        (&alice, &other_arguments, state),
        (&carol, &other_tenant, state),
        (&alice, &call, "state of {\"n\":1}"),
        (&alice, &call, state.split_at(1).1),
    ] {
        let refused = client.modern_that_can(&can, "tools/call", with(call, state)).await?;
        assert_eq!(refused.code()?, Some(-32602), "{}", refused.text);
        assert!(refused.text.contains("does not belong to this request"), "{}", refused.text);
    }
    // Who cannot be asked is not asked.
    let told = result(&alice.modern("tools/call", call.clone()).await?)?;
    assert_eq!((&told["content"][0]["text"], &told["isError"]), (&json!("cannot ask"), &json!(true)));
    Ok(())
}
