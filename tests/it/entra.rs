//! Tokens as Entra ID makes them: who the user is, roles, and groups that are too many for the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Form, Json, Router};
use mcp_mux::auth::doctor;
use mcp_mux::config::{AppOnly, Config, IssuerConfig};
use serde_json::{Value, json};
use tenant_store::{Clock, Level, SystemClock};
use tokio::net::TcpListener;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer, serve};
use crate::support::upstreams::RealUpstream;

const DIRECTORY: &str = "7f9c1b0e-6d35-4c1e-8a53-0b2f6a4f5d11";
const ALICE: &str = "0c5a1e34-0f55-4a8e-9f5e-2f6f1c7b9d02";
const BOB: &str = "11111111-0f55-4a8e-9f5e-2f6f1c7b9d02";

/// A server whose issuer `corp` is a directory of Entra ID; acme's grant is for the group or role `acme`.
async fn server(name: &str, change: impl FnOnce(&mut IssuerConfig) -> Result<()>) -> Result<TestServer> {
    let key = canary("upstream");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    TestServer::start_with(name, &[setup], |config: &mut Config| {
        let url = config.issuers[0].url.clone();
        // The directory signs with RS256; the keys of this test are on a curve.
        let settings = json!({
            "name": "corp", "url": url, "preset": "entra", "algorithms": ["ES256"],
            "audiences": ["3d2f7c9a-client"], "required_scopes": ["mcp.access"],
        });
        let mut issuer: IssuerConfig = serde_json::from_value(settings)?;
        change(&mut issuer)?;
        config.issuers = vec![issuer];
        Ok(())
    })
    .await
}

/// Claims of a v2.0 access token of alice's, changed: null leaves one out.
fn claims(server: &TestServer, changes: &Value) -> Value {
    let mut claims = server.idp.claims("pairwise", &["acme"], "3d2f7c9a-client");
    claims["ver"] = json!("2.0");
    claims["tid"] = json!(DIRECTORY);
    claims["oid"] = json!(ALICE);
    claims["azp"] = json!("5c0d-open-webui");
    claims["scp"] = json!("mcp.access openid");
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    if let Some(claims) = claims.as_object_mut() {
        claims.retain(|_, value| !value.is_null());
    }
    claims
}

/// The status of a list, and how many tools it has.
async fn sees(server: &TestServer, changes: Value) -> Result<(u16, usize)> {
    let token = server.idp.sign(&claims(server, &changes))?;
    let answer = Http::new(&server.url("/mcp"), Some(&token))?.modern("tools/list", json!({})).await?;
    let tools = answer.json().ok().and_then(|list| list["result"]["tools"].as_array().map(Vec::len));
    Ok((answer.status, tools.unwrap_or_default()))
}

const ALL: (u16, usize) = (200, 3);
const NOTHING: (u16, usize) = (200, 0);

#[tokio::test]
async fn groups_and_roles_of_the_directory_open_what_grants_name() -> Result<()> {
    let server = server("entra_groups", |_| Ok(())).await?;
    assert_eq!(sees(&server, json!({})).await?, ALL);
    assert_eq!(sees(&server, json!({"groups": null})).await?, NOTHING);
    assert_eq!(sees(&server, json!({"groups": null, "roles": ["acme"]})).await?, NOTHING, "a role is no group");
    let rows = server.rows("acme").await?;
    let mut grant = rows.grants().await?.remove(0).spec;
    grant.groups = vec!["role:acme".parse()?];
    rows.put_grant(&"role".parse()?, &grant).await?;
    grant.groups = Vec::new();
    grant.subjects = vec![format!("{DIRECTORY}/{ALICE}").parse()?];
    rows.put_grant(&"alice".parse()?, &grant).await?;
    server.app.follow().await?;
    assert_eq!(sees(&server, json!({"oid": BOB, "groups": null, "roles": ["acme"]})).await?, ALL, "by role");
    assert_eq!(sees(&server, json!({"groups": null})).await?, ALL, "by directory and object id");
    assert_eq!(sees(&server, json!({"oid": BOB, "groups": null})).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn what_is_no_access_token_of_a_user_is_refused() -> Result<()> {
    let server = server("entra_refused", |_| Ok(())).await?;
    for (what, changes, status) in [
        ("an ID token: neither scope nor role", json!({"scp": null}), 401),
        ("a program's own", json!({"scp": null, "roles": ["acme"]}), 401),
        ("a program's own, as it says", json!({"idtyp": "app", "roles": ["acme"]}), 401),
        ("no object id", json!({"oid": null}), 401),
        ("no directory", json!({"tid": null}), 401),
        ("a directory with a slash in it", json!({"tid": "a/b"}), 401),
        ("another scope", json!({"scp": "other.access"}), 403),
    ] {
        assert_eq!(sees(&server, changes).await?.0, status, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn a_program_is_told_from_an_id_token_where_programs_are_allowed() -> Result<()> {
    let server = server("entra_programs", |issuer| {
        issuer.app_only = AppOnly::Allow;
        issuer.required_scopes = Vec::new();
        Ok(())
    })
    .await?;
    for (what, changes, status) in [
        ("an ID token with app roles", json!({"scp": null, "roles": ["acme"]}), 401),
        ("a program's own, as it says", json!({"scp": null, "roles": ["acme"], "idtyp": "app"}), 200),
        ("a program's own, by its subject", json!({"scp": null, "roles": ["acme"], "sub": ALICE}), 200),
        ("a user's", json!({"roles": ["acme"]}), 200),
    ] {
        assert_eq!(sees(&server, changes).await?.0, status, "{what}");
    }
    Ok(())
}

/// A stub of the two endpoints of Microsoft that are asked, by their documentation.
#[derive(Clone, Default)]
struct Graph {
    tokens: Arc<AtomicUsize>,
    questions: Arc<AtomicUsize>,
    /// It gives out no token.
    is_down: Arc<AtomicBool>,
    /// Its tokens may not read groups.
    forbids: Arc<AtomicBool>,
}

impl Graph {
    async fn start(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = Router::new()
            .route("/token", post(token))
            .route("/v1.0/users/{person}/getMemberObjects", post(member_objects))
            .with_state(self.clone());
        serve(listener, routes);
        Ok(url)
    }
}

async fn token(
    State(graph): State<Graph>,
    headers: HeaderMap,
    Form(form): Form<Value>,
) -> Result<Json<Value>, StatusCode> {
    graph.tokens.fetch_add(1, Ordering::SeqCst);
    if graph.is_down.load(Ordering::SeqCst) {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let is_us = headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
    let is_asked_well = form["grant_type"] == "client_credentials"
        && form["scope"].as_str().is_some_and(|scope| scope.ends_with("/.default"));
    if !is_us || !is_asked_well {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Json(json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "graph-token"})))
}

async fn member_objects(
    State(graph): State<Graph>,
    Path(person): Path<String>,
    headers: HeaderMap,
    Json(question): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    graph.questions.fetch_add(1, Ordering::SeqCst);
    if headers.get("authorization").is_none_or(|value| value != "Bearer graph-token") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if question != json!({"securityEnabledOnly": false}) {
        return Err(StatusCode::BAD_REQUEST);
    }
    if graph.forbids.load(Ordering::SeqCst) {
        return Err(StatusCode::FORBIDDEN);
    }
    let groups = match person.as_str() {
        ALICE => json!(["acme", "other"]),
        BOB => json!([]),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    Ok(Json(
        json!({"@odata.context": "https://graph.microsoft.com/v1.0/$metadata#Collection(Edm.String)", "value": groups}),
    ))
}

fn overage(endpoint: &str) -> Value {
    json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": endpoint}}})
}

fn ask_graph(issuer: &mut IssuerConfig, url: &str) -> Result<()> {
    issuer.graph = Some(serde_json::from_value(json!({
        "tenant_id": DIRECTORY, "client_id": "mcp-mux", "client_secret": canary("graph-secret"),
        "url": format!("{url}/v1.0"), "token_url": format!("{url}/token"),
    }))?);
    Ok(())
}

#[tokio::test]
async fn groups_that_were_left_out_are_asked_for_where_the_configuration_says() -> Result<()> {
    let (graph, evil) = (Graph::default(), Graph::default());
    let (url, evil_url) = (graph.start().await?, evil.start().await?);
    let server = server("entra_graph", |issuer| ask_graph(issuer, &url)).await?;
    let endpoint = format!("{evil_url}/v1.0/users/{ALICE}/getMemberObjects");
    for jti in 0..3 {
        let mut changes = overage(&endpoint);
        changes["jti"] = json!(jti);
        assert_eq!(sees(&server, changes).await?, ALL);
    }
    assert_eq!(graph.questions.load(Ordering::SeqCst), 1, "the answer is remembered");
    assert_eq!(graph.tokens.load(Ordering::SeqCst), 1);
    assert_eq!(evil.questions.load(Ordering::SeqCst), 0, "never where the token says");

    let mut bob = overage(&endpoint);
    bob["oid"] = json!(BOB);
    assert_eq!(sees(&server, bob).await?, NOTHING, "his own groups, not alice's");
    let mut nobody = overage(&endpoint);
    nobody["oid"] = json!("me");
    assert_eq!(sees(&server, nobody).await?.0, 403, "only an object id is put into an address");
    Ok(())
}

#[tokio::test]
async fn groups_that_cannot_be_asked_for_are_not_no_groups() -> Result<()> {
    let unasked = server("entra_overage", |_| Ok(())).await?;
    assert_eq!(sees(&unasked, overage("https://graph.microsoft.com")).await?.0, 403);
    let roles = json!({"_claim_names": {"roles": "src1"}});
    assert_eq!(sees(&unasked, roles).await?.0, 403, "nor are roles no roles");
    let down = server("entra_graph_down", |issuer| ask_graph(issuer, "http://127.0.0.1:9")).await?;
    assert_eq!(sees(&down, overage("https://graph.microsoft.com")).await?.0, 503);
    let roles_only = server("entra_roles_only", |issuer| {
        issuer.group_claims = Some(Vec::new());
        Ok(())
    });
    assert_eq!(sees(&roles_only.await?, overage("x")).await?, NOTHING, "who reads no groups misses none");
    Ok(())
}

#[tokio::test]
async fn a_directory_that_gives_no_token_is_asked_once_for_all_who_wait() -> Result<()> {
    let graph = Graph::default();
    graph.is_down.store(true, Ordering::SeqCst);
    let url = graph.start().await?;
    let server = server("entra_graph_fails", |issuer| ask_graph(issuer, &url)).await?;
    for person in [ALICE, BOB, DIRECTORY] {
        let mut changes = overage(&url);
        changes["oid"] = json!(person);
        assert_eq!(sees(&server, changes).await?.0, 503);
    }
    assert_eq!(graph.tokens.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test]
async fn a_permission_that_is_granted_later_counts_at_once() -> Result<()> {
    let graph = Graph::default();
    let url = graph.start().await?;
    let server = server("entra_graph_forbids", |issuer| ask_graph(issuer, &url)).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for forbids in [true, false] {
        graph.forbids.store(forbids, Ordering::SeqCst);
        let seen = sees(&server, overage(&url)).await?;
        assert_eq!(seen, if forbids { (503, 0) } else { ALL });
        let findings =
            doctor::examine(&server.config, &json!({}), &mcp_mux::Egress::new(&server.config.egress)?, &clock).await;
        let finding = findings.iter().find(|finding| finding.what == "graph");
        let mend = finding.and_then(|finding| finding.mend);
        assert_eq!(mend.is_some_and(|mend| mend.contains("User.ReadBasic.All")), forbids, "{finding:?}");
    }
    assert_eq!(graph.tokens.load(Ordering::SeqCst), 4, "the one that was no use is not kept; doctor has its own");
    Ok(())
}
