//! The isolation table: each route and each MCP method, with what tenant B's caller gets when it asks for tenant A's thing.
//! The table compares itself with the routes and methods that exist, so that a new one without a row fails here. What the admin listener
//! answers has a table of its own in `probes`.

use std::collections::BTreeSet;

use anyhow::Result;
use mcp_mux::config::LoginConfig;
use reqwest::header::HeaderValue;
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::Level;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{RealUpstream, serve_handler};

/// What bob, who serves globex only, does to reach acme's things.
enum Attempt {
    /// Any method on the route without a token: 401 with a challenge.
    NeedsToken,
    /// A public document, which is the same for a tenant that exists and for one that does not.
    SameForAnyTenant,
    /// A page for somebody who is signed in: 303 to the identity provider.
    SignsIn,
    /// What only a browser may do that was here before: 403.
    Refused,
}

const ROUTES: [(&str, &str, Attempt); 36] = [
    ("POST", "/mcp", Attempt::NeedsToken),
    ("GET", "/mcp", Attempt::NeedsToken),
    ("DELETE", "/mcp", Attempt::NeedsToken),
    ("POST", "/t/{tenant}/mcp", Attempt::NeedsToken),
    ("GET", "/t/{tenant}/mcp", Attempt::NeedsToken),
    ("DELETE", "/t/{tenant}/mcp", Attempt::NeedsToken),
    ("GET", "/.well-known/oauth-protected-resource", Attempt::SameForAnyTenant),
    ("GET", "/.well-known/oauth-protected-resource/mcp", Attempt::SameForAnyTenant),
    ("GET", "/.well-known/oauth-protected-resource/t/{tenant}/mcp", Attempt::SameForAnyTenant),
    ("GET", "/connect", Attempt::SignsIn),
    ("GET", "/sign-in/{issuer}/callback", Attempt::Refused),
    ("POST", "/connect/sign-out", Attempt::Refused),
    ("GET", "/connect/{tenant}/{upstream}", Attempt::SignsIn),
    ("POST", "/connect/{tenant}/{upstream}", Attempt::Refused),
    ("POST", "/connect/{tenant}/{upstream}/disconnect", Attempt::Refused),
    ("GET", "/connect/{tenant}/{upstream}/callback", Attempt::Refused),
    ("GET", "/connect/{tenant}/{upstream}/client.json", Attempt::SameForAnyTenant),
    // What another directory's token does there is in `scim`.
    ("GET", "/scim/v2/{issuer}/ServiceProviderConfig", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/ResourceTypes", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/ResourceTypes/{id}", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Schemas", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Schemas/{id}", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Users", Attempt::NeedsToken),
    ("POST", "/scim/v2/{issuer}/Users", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Users/{id}", Attempt::NeedsToken),
    ("PUT", "/scim/v2/{issuer}/Users/{id}", Attempt::NeedsToken),
    ("PATCH", "/scim/v2/{issuer}/Users/{id}", Attempt::NeedsToken),
    ("DELETE", "/scim/v2/{issuer}/Users/{id}", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Groups", Attempt::NeedsToken),
    ("POST", "/scim/v2/{issuer}/Groups", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/Groups/{id}", Attempt::NeedsToken),
    ("PUT", "/scim/v2/{issuer}/Groups/{id}", Attempt::NeedsToken),
    ("PATCH", "/scim/v2/{issuer}/Groups/{id}", Attempt::NeedsToken),
    ("DELETE", "/scim/v2/{issuer}/Groups/{id}", Attempt::NeedsToken),
    ("GET", "/scim/v2/{issuer}/{*rest}", Attempt::NeedsToken),
    ("POST", "/scim/v2/{issuer}/{*rest}", Attempt::NeedsToken),
];

/// Each MCP method with the parameters of an attempt on acme's things, and on things that nobody has.
fn methods() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("initialize", initialize(), initialize()),
        ("server/discover", json!({}), json!({})),
        ("ping", json!({}), json!({})),
        ("tools/list", json!({}), json!({})),
        ("tools/call", json!({"name": "acme__whoami"}), json!({"name": "nobody__whoami"})),
        ("prompts/list", json!({}), json!({})),
        ("prompts/get", json!({"name": "acme__brief"}), json!({"name": "nobody__brief"})),
        ("resources/list", json!({}), json!({})),
        ("resources/templates/list", json!({}), json!({})),
        ("resources/read", json!({"uri": note("acme")}), json!({"uri": note("nobody")})),
        ("completion/complete", completion("acme"), completion("nobody")),
        ("skills/list", json!({}), json!({})),
        ("skills/get", json!({"uri": skill("acme")}), json!({"uri": skill("nobody")})),
        // What those get who ask for others' real ones is in `tasks`.
        ("tasks/get", json!({"taskId": "acme"}), json!({"taskId": "nobody"})),
        ("tasks/update", json!({"taskId": "acme"}), json!({"taskId": "nobody"})),
        ("tasks/cancel", json!({"taskId": "acme"}), json!({"taskId": "nobody"})),
        ("resources/subscribe", json!({"uri": note("acme")}), json!({"uri": note("nobody")})),
        ("resources/unsubscribe", json!({"uri": note("acme")}), json!({"uri": note("nobody")})),
        ("logging/setLevel", json!({"level": "info"}), json!({"level": "debug"})),
        // What is heard there is told of in `listen`; here, it must be the same refusal.
        ("subscriptions/listen", json!({"notifications": []}), json!({"notifications": 1})),
    ]
}

fn note(tenant: &str) -> String {
    format!("mcp-mux://{tenant}/files/note://one")
}

fn skill(tenant: &str) -> String {
    format!("mcp-mux://{tenant}/files/skill://one/SKILL.md")
}

fn completion(tenant: &str) -> Value {
    json!({"ref": {"type": "ref/resource", "uri": note(tenant)}, "argument": {"name": "a", "value": "b"}})
}

fn initialize() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}})
}

async fn two_tenants(name: &str) -> Result<TestServer> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
    ];
    let server = TestServer::start_with(name, &setups, |config| {
        config.issuers[0].login = Some(LoginConfig::new("login"));
        Ok(())
    })
    .await?;
    for tenant in ["acme", "globex"] {
        let rich = Rich { name: tenant.to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
        let (url, _) = serve_handler(rich, false).await?;
        let setup = Setup { tenant, upstream: "files", url: &url, key: None, level };
        server.add(&setup, tenant_store::UpstreamAuth::None, &[]).await?;
    }
    Ok(server)
}

#[test]
fn every_route_and_method_has_its_row() {
    let rows: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| ((*path).to_owned(), (*method).to_owned())).collect();
    let registered: BTreeSet<(String, String)> = mcp_mux::http::ROUTES
        .iter()
        .flat_map(|route| route.methods.iter().map(|method| (route.path.to_owned(), (*method).to_owned())))
        .collect();
    assert_eq!(registered, rows, "each route has its row in the isolation table");

    let rows: BTreeSet<&str> = methods().into_iter().map(|(method, ..)| method).collect();
    let served: BTreeSet<&str> = mcp_mux::gateway::METHODS.iter().map(|(method, _)| *method).collect();
    assert_eq!(served, rows, "each MCP method has its row in the isolation table");
}

#[tokio::test]
async fn no_route_answers_a_stranger() -> Result<()> {
    let server = two_tenants("no_route_answers").await?;
    for (method, path, attempt) in &ROUTES {
        let ask = async |tenant: &str| {
            // Nor does it show whether there is an issuer of that name.
            let path = path.replace("{tenant}", tenant).replace("{upstream}", "desk").replace("{issuer}", tenant);
            let answer = Http::new(&server.url(&path), None)?.request(method.parse()?).await?;
            let (status, text, mut headers) = answer.all();
            // What is random tells nothing but its length.
            for random in ["location", "set-cookie"] {
                if let Some(value) = headers.get_mut(random) {
                    *value = HeaderValue::from(value.len());
                }
            }
            let headers = format!("{headers:?}").replace(tenant, "T");
            Ok::<_, anyhow::Error>((status, text.replace(tenant, "T"), headers))
        };
        // Two names of the same length, because the length of a document is a header too.
        let (status, text, headers) = ask("acme").await?;
        assert_eq!((status, text, headers.clone()), ask("void").await?, "{method} {path}");
        match attempt {
            Attempt::NeedsToken => {
                assert_eq!(status, 401, "{method} {path}");
                assert!(headers.contains("www-authenticate"), "{method} {path}");
            }
            Attempt::SameForAnyTenant => assert_eq!(status, 200, "{method} {path}"),
            Attempt::SignsIn => assert_eq!(status, 303, "{method} {path}"),
            Attempt::Refused => assert_eq!(status, 403, "{method} {path}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn forbidden_and_unknown_are_the_same_answer_to_the_byte() -> Result<()> {
    let server = two_tenants("forbidden_and_unknown").await?;
    for path in ["/mcp", "/t/acme/mcp", "/t/nobody/mcp"] {
        let bob = server.client_at(path, "bob", &["globex"])?;
        let session = bob.begin_session().await?;
        let in_session = server.client_at(path, "bob", &["globex"])?.with("mcp-session-id", &session)?;
        let can = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
        for (method, forbidden, unknown) in methods() {
            let ask = |params: &Value| bob.modern_that_can(&can, method, params.clone());
            let (theirs, nobodys) = (ask(&forbidden).await?, ask(&unknown).await?);
            assert_eq!(theirs.all(), nobodys.all(), "{path} {method}");
            assert!(!theirs.text.contains("acme"), "{path} {method}: {}", theirs.text);
            for client in [&bob, &in_session] {
                let theirs = client.legacy(method, &forbidden).await?;
                assert_eq!(theirs.all(), client.legacy(method, &unknown).await?.all(), "{path} {method}");
                assert!(!theirs.text.contains("acme"), "{path} {method}: {}", theirs.text);
            }
        }
    }
    let call = server.client("bob", &["globex"])?.call("acme__whoami", json!({})).await?;
    assert_eq!(call["error"], json!({"code": -32602, "message": "unknown tool"}));
    Ok(())
}

#[tokio::test]
async fn a_tenants_endpoint_looks_the_same_to_outsiders_whether_it_exists_or_not() -> Result<()> {
    let server = two_tenants("looks_the_same").await?;
    for method in ["tools/list", "tools/call"] {
        let params = json!({"name": "whoami"});
        let theirs = server.client_at("/t/acme/mcp", "bob", &["globex"])?.modern(method, params.clone()).await?;
        let nobodys = server.client_at("/t/nobody/mcp", "bob", &["globex"])?.modern(method, params).await?;
        assert_eq!(theirs.all(), nobodys.all(), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn two_tenants_that_use_the_same_names_never_meet() -> Result<()> {
    let server = two_tenants("same_names").await?;
    let alice = server.client("alice", &["acme"])?;
    let bob = server.client("bob", &["globex"])?;
    for _ in 0..20 {
        let (theirs, ours) = tokio::join!(alice.call("acme__whoami", json!({})), bob.call("globex__whoami", json!({})));
        assert_eq!(theirs?["result"]["content"][0]["text"], "whoami at acme with {}");
        assert_eq!(ours?["result"]["content"][0]["text"], "whoami at globex with {}");
    }
    Ok(())
}

#[tokio::test]
async fn a_group_of_another_issuer_opens_nothing() -> Result<()> {
    let other = crate::support::identity::Idp::start().await?;
    let key = canary("acme-key");
    let (acme, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with("another_issuer", &[setup], |config| {
        config.issuers.push(mcp_mux::config::IssuerConfig::new("partner".parse()?, &other.url));
        Ok(())
    })
    .await?;
    // The same subject and the same group, vouched for by somebody who is trusted, but not with acme's groups.
    let claims = other.claims("alice", &["acme"], &server.app.endpoint());
    let mallory = Http::new(&server.url("/mcp"), Some(&other.sign(&claims)?))?;
    assert_eq!(mallory.modern("tools/list", json!({})).await?.status, 200);
    assert!(mallory.tools().await?.is_empty());
    assert!(!server.client("alice", &["acme"])?.tools().await?.is_empty());
    Ok(())
}
