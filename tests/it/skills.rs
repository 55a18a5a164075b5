//! Skills: at a tenant's own endpoint, under URIs that lead to their upstream and keep a skill's files together.

use anyhow::{Context as _, Result};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::{GrantSpec, Level, UpstreamAuth};

use crate::support::client::Http;
use crate::support::conformance::ConformanceServer;
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say, serve_handler};

const SKILLS: &str = "io.modelcontextprotocol/skills";

async fn bed(name: &str) -> Result<TestServer> {
    let url = ConformanceServer::speaking(|_| true).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Read };
    TestServer::start(name, &[setup]).await
}

async fn listed(client: &Http) -> Result<Vec<Value>> {
    let answer = client.modern("skills/list", json!({})).await?.json()?;
    answer["result"]["skills"].as_array().cloned().with_context(|| answer.to_string())
}

async fn get(client: &Http, uri: &str) -> Result<Value> {
    client.modern("skills/get", json!({"uri": uri})).await?.json()
}

/// Reads every file of a skill, which must lie below it and be as long as it says.
async fn read_all(client: &Http, skill: &Value) -> Result<usize> {
    let folder = skill["uri"].as_str().and_then(|uri| uri.strip_suffix("SKILL.md")).context("a SKILL.md")?;
    let files = skill["resources"].as_array().context("files")?;
    for file in files {
        let uri = file["uri"].as_str().context("a URI")?;
        assert!(uri.starts_with(folder), "{skill}");
        let read = client.modern("resources/read", json!({"uri": uri})).await?.json()?;
        let contents = &read["result"]["contents"][0];
        assert_eq!(contents["uri"], uri, "{read}");
        assert_eq!(json!(contents["text"].as_str().unwrap_or_default().len()), file["size"], "{read}");
    }
    Ok(files.len())
}

#[tokio::test]
async fn skills_of_the_only_upstream_with_resources_pass_as_they_are() -> Result<()> {
    let server = bed("skills_own").await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let found = alice.modern("server/discover", json!({})).await?.json()?;
    assert_eq!(found["result"]["capabilities"]["extensions"][SKILLS], json!({}), "{found}");
    let skills = listed(&alice).await?;
    assert_eq!(skills.len(), 1);
    assert_eq!(skills[0]["uri"], "skill://git-workflow/SKILL.md");
    assert_eq!(skills[0].get("_meta"), None);
    assert_eq!(read_all(&alice, &skills[0]).await?, 2);

    let described = get(&alice, "skill://git-workflow/SKILL.md").await?;
    assert_eq!(described["result"]["skill"], skills[0]);
    assert_eq!(
        (&described["result"]["cacheScope"], &described["result"]["resultType"]),
        (&json!("private"), &json!("complete"))
    );
    // What is not listed is described to who knows it.
    let unlisted = get(&alice, "skill://teams/release/SKILL.md").await?["result"]["skill"].clone();
    assert_eq!(read_all(&alice, &unlisted).await?, 1);
    // By the other name, all of it has that.
    let carried = get(&alice, "mcp-mux://acme/desk/skill://git-workflow/SKILL.md").await?["result"]["skill"].clone();
    assert_eq!(carried["uri"], "mcp-mux://acme/desk/skill://git-workflow/SKILL.md");
    assert_eq!(read_all(&alice, &carried).await?, 2);
    Ok(())
}

#[tokio::test]
async fn skills_of_two_upstreams_say_whose_they_are() -> Result<()> {
    let server = bed("skills_two").await?;
    let url = ConformanceServer::speaking(|_| true).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "wiki", url: &url, key: None, level: Level::Read };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    // One that has resources, and no skills.
    let rich = Rich { name: "acme".to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
    let (url, _) = serve_handler(rich, false).await?;
    server
        .add(
            &Setup { tenant: "acme", upstream: "files", url: &url, key: None, level: Level::Read },
            UpstreamAuth::None,
            &[],
        )
        .await?;

    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let skills = listed(&alice).await?;
    let uris: Vec<&str> = skills.iter().filter_map(|skill| skill["uri"].as_str()).collect();
    let expected = ["desk", "wiki"].map(|upstream| format!("mcp-mux://acme/{upstream}/skill://git-workflow/SKILL.md"));
    assert_eq!(uris, expected);
    for skill in &skills {
        assert_eq!(skill["_meta"]["mcp-mux/tenant"], "acme");
        assert_eq!(read_all(&alice, skill).await?, 2);
        let described = get(&alice, skill["uri"].as_str().unwrap_or_default()).await?["result"]["skill"].clone();
        assert_eq!(described["resources"], skill["resources"]);
    }
    // Desk lists it as a resource, too, but whose skill it would be, nobody can tell; and an upstream without skills has none, which is not the client's mistake.
    for uri in [
        "skill://git-workflow/SKILL.md",
        "mcp-mux://acme/files/note://one/SKILL.md",
        "mcp-mux://globex/desk/skill://git-workflow/SKILL.md",
    ] {
        assert_eq!(get(&alice, uri).await?["error"]["code"], -32602, "{uri}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tenants_skills_are_its_own_and_no_entry_leads_elsewhere() -> Result<()> {
    let server = bed("skills_of_tenants").await?;
    let entry = r#"{"uri":"skill://x/SKILL.md","frontmatter":{"name":"x","description":"x"},"_meta":{"ui":{}},"resources":[FILES]}"#;
    let file = |uri: &str| format!(r#"{{"uri":"{uri}","digest":"sha256:00","size":1}}"#);
    let listing = |files: &str| format!(r#"{{"resultType":"complete","skills":[{}]}}"#, entry.replace("FILES", files));
    let discover = json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"], "serverInfo": {"name": "x", "version": "1"},
        "capabilities": {"tools": {}, "resources": {}, "extensions": {SKILLS: {}}}, "ttlMs": 0, "cacheScope": "private",
    });
    let upstream = ByteUpstream::with_tools("[]")
        .on("server/discover", Say::Result(discover.to_string()))
        .on(
            "resources/list",
            Say::Result(r#"{"resultType":"complete","resources":[{"uri":"note://x","name":"x"}]}"#.to_owned()),
        )
        .on("skills/list", Say::Result(listing(&file("skill://x/SKILL.md"))));
    let (url, _) = upstream.clone().serve().await?;
    for (tenant, slug) in [("globex", "desk"), ("acme", "evil")] {
        let setup = Setup { tenant, upstream: slug, url: &url, key: None, level: Level::Read };
        server.add(&setup, UpstreamAuth::None, &[]).await?;
    }
    let (alice, carol) = (
        server.client_at("/t/acme/mcp", "alice", &["acme"])?,
        server.client_at("/t/globex/mcp", "carol", &["globex"])?,
    );
    let uris = |skills: Vec<Value>| skills.iter().map(|skill| skill["uri"].clone()).collect::<Vec<_>>();
    assert_eq!(uris(listed(&carol).await?), ["skill://x/SKILL.md"]);
    let evil = "mcp-mux://acme/evil/skill://x/SKILL.md";
    assert_eq!(uris(listed(&alice).await?), ["mcp-mux://acme/desk/skill://git-workflow/SKILL.md", evil]);
    // What ties it to an app changes nothing about its files.
    assert_eq!(listed(&alice).await?[1]["resources"][0]["uri"], evil);
    for uri in [evil, "mcp-mux://acme/desk/skill://git-workflow/SKILL.md"] {
        assert_eq!(get(&carol, uri).await?["error"], json!({"code": -32602, "message": "resource not found"}), "{uri}");
    }
    assert_eq!(listed(&server.client_at("/t/acme/mcp", "carol", &["globex"])?).await?, Vec::<Value>::new());

    // Another skill than the one that was asked for is none.
    let other = r#"{"resultType":"complete","skill":{"uri":"skill://y/SKILL.md","frontmatter":{},"resources":[]}}"#;
    upstream.says("skills/get", Say::Result(other.to_owned()));
    assert_eq!(get(&carol, "skill://x/SKILL.md").await?["error"]["code"], -32603);
    // Files that lie elsewhere make it no skill.
    upstream.says("skills/list", Say::Result(listing(&file("mcp-mux://acme/desk/note://one"))));
    server.app.refresher().refresh_all().await;
    assert_eq!(listed(&carol).await?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn skills_are_for_modern_clients_at_a_tenants_own_endpoint() -> Result<()> {
    let server = bed("skills_where").await?;
    let (everywhere, at_acme) =
        (server.client("alice", &["acme"])?, server.client_at("/t/acme/mcp", "alice", &["acme"])?);
    let found = everywhere.modern("server/discover", json!({})).await?.json()?;
    assert_eq!(found["result"]["capabilities"]["extensions"].get(SKILLS), None, "{found}");
    let uri = json!({"uri": "mcp-mux://acme/desk/skill://git-workflow/SKILL.md"});
    for (method, params) in [("skills/list", json!({})), ("skills/get", uri.clone())] {
        assert_eq!(everywhere.modern(method, params.clone()).await?.code()?, Some(-32601), "{method}");
        assert_eq!(at_acme.legacy(method, &params).await?.code()?, Some(-32601), "{method}");
    }
    // The files are resources like others.
    let read = everywhere.modern("resources/read", uri).await?.json()?;
    assert!(read["result"]["contents"][0]["text"].as_str().unwrap_or_default().contains("git-workflow"), "{read}");
    Ok(())
}

#[tokio::test]
async fn a_skill_that_no_grant_allows_is_neither_listed_nor_described() -> Result<()> {
    let server = bed("skills_denied").await?;
    let rows = server.rows("acme").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["acme".parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["*".parse()?],
        deny: vec!["desk/skill://git-workflow/*".parse()?],
    };
    rows.put_grant(&"team".parse()?, &grant).await?;
    server.app.follow().await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    assert_eq!(listed(&alice).await?, Vec::<Value>::new());
    let denied = get(&alice, "skill://git-workflow/SKILL.md").await?;
    assert_eq!(denied["error"], json!({"code": -32602, "message": "resource not found"}));
    assert_eq!(
        get(&alice, "skill://teams/release/SKILL.md").await?["result"]["skill"]["frontmatter"]["name"],
        "release"
    );
    Ok(())
}
