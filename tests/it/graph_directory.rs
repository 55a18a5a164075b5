//! The directory of Entra ID, read from Microsoft Graph: a stub of what of it is asked, by its documentation.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use mcp_mux::auth::{GraphDirectory, NamedGroups, PullError};
use mcp_mux::config::{Config, IssuerConfig};
use mcp_mux::egress::Egress;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tenant_store::{Clock, GrantSpec, Group, Leavers, Level, SystemClock, TenantSpec};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::audit::{Left, events, of, stopped};
use crate::support::canary;
use crate::support::client::Http;
use crate::support::process::program;
use crate::support::server::{Setup, TestServer, scope, serve};
use crate::support::upstreams::RealUpstream;

const TENANT: &str = "7f9c1b0e-6d35-4c1e-8a53-0b2f6a4f5d11";
const STAFF: &str = "22222222-0f55-4a8e-9f5e-2f6f1c7b9d02";
const ALICE: &str = "0c5a1e34-0f55-4a8e-9f5e-2f6f1c7b9d02";
const BOB: &str = "11111111-0f55-4a8e-9f5e-2f6f1c7b9d02";

/// What the stub says, and to which address the list of users goes on.
#[derive(Clone, Default)]
struct Graph(Arc<watch::Sender<Said>>);

#[derive(Clone, Default)]
struct Said {
    users: Vec<Value>,
    members: Vec<&'static str>,
    next: Option<String>,
    url: String,
}

impl Graph {
    async fn start(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = Router::new()
            .route("/token", post(|| async { Json(json!({"expires_in": 3599, "access_token": "graph-token"})) }))
            .route("/v1.0/users", get(users))
            .route("/v1.0/groups/{id}", get(group))
            .route("/v1.0/groups/{id}/transitiveMembers", get(members))
            .with_state(self.clone());
        serve(listener, routes);
        self.says(|said| said.url.clone_from(&url));
        Ok(url)
    }

    fn says(&self, change: impl FnOnce(&mut Said)) {
        self.0.send_modify(change);
    }
}

fn is_us(headers: &HeaderMap) -> Result<(), StatusCode> {
    let known = headers.get("authorization").is_some_and(|value| value == "Bearer graph-token");
    if known { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}

/// One user a page.
async fn users(
    State(graph): State<Graph>,
    headers: HeaderMap,
    Query(query): Query<Value>,
) -> Result<Json<Value>, StatusCode> {
    is_us(&headers)?;
    let said = graph.0.borrow().clone();
    let page: usize = query["page"].as_str().map_or(Ok(0), str::parse).map_err(|_| StatusCode::BAD_REQUEST)?;
    if page == 0 && query["$select"] != "id,userPrincipalName,displayName,accountEnabled" {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut answer = json!({"value": said.users.get(page).into_iter().collect::<Vec<_>>()});
    if page + 1 < said.users.len() {
        let next = said.next.unwrap_or(said.url);
        answer["@odata.nextLink"] = json!(format!("{next}/v1.0/users?page={}", page + 1));
    }
    Ok(Json(answer))
}

async fn group(headers: HeaderMap, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    is_us(&headers)?;
    if id == STAFF { Ok(Json(json!({"id": STAFF, "displayName": "Staff"}))) } else { Err(StatusCode::NOT_FOUND) }
}

async fn members(
    State(graph): State<Graph>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    is_us(&headers)?;
    if id != STAFF {
        return Err(StatusCode::NOT_FOUND);
    }
    let members = graph.0.borrow().members.clone();
    let members: Vec<Value> =
        members.iter().map(|id| json!({"@odata.type": "#microsoft.graph.user", "id": id})).collect();
    Ok(Json(json!({"value": members})))
}

fn user(id: &str, enabled: Option<bool>) -> Value {
    json!({"id": id, "userPrincipalName": format!("{id}@corp.example"), "displayName": null, "accountEnabled": enabled})
}

/// A server whose directory Graph is asked for, and the one who asks.
async fn bed(name: &str, graph: &Graph) -> Result<(TestServer, GraphDirectory)> {
    let url = graph.start().await?;
    let key = canary("upstream");
    let (upstream, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &upstream, key: Some(&key), level: Level::Write };
    let mut written = None;
    let server = TestServer::start_with(name, &[setup], |config: &mut Config| {
        let mut issuer: IssuerConfig = serde_json::from_value(json!({
            "name": "corp", "url": config.issuers[0].url.clone(), "preset": "entra", "algorithms": ["ES256"],
            "audiences": ["3d2f7c9a-client"], "required_scopes": ["mcp.access"],
        }))?;
        issuer.graph = Some(serde_json::from_value(json!({
            "tenant_id": TENANT.to_uppercase(), "client_id": "mcp-mux", "client_secret": canary("graph-secret"),
            "url": format!("{url}/v1.0"), "token_url": format!("{url}/token"), "directory_every_seconds": 86_400,
        }))?);
        config.issuers = vec![issuer];
        written = Some(config.clone());
        Ok(())
    })
    .await?;
    let config = written.context("it was configured")?;
    let named: NamedGroups =
        Arc::new(|_| vec![STAFF, "acme", BOB].into_iter().filter_map(|name| name.parse::<Group>().ok()).collect());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let egress = Egress::new(&config.egress)?;
    let mut all = GraphDirectory::all(&config, &egress, (&clock, server.app.store()), &named)?;
    Ok((server, all.pop().context("it has a directory")?))
}

/// The status of a list for that person, whose token is good for an hour.
async fn status(server: &TestServer, oid: &str) -> Result<u16> {
    let mut claims = server.idp.claims("pairwise", &["acme"], "3d2f7c9a-client");
    for (name, value) in [("ver", "2.0"), ("tid", TENANT), ("oid", oid), ("azp", "webui"), ("scp", "mcp.access")] {
        claims[name] = json!(value);
    }
    let token = server.idp.sign(&claims)?;
    Ok(Http::new(&server.url("/mcp"), Some(&token))?.modern("tools/list", json!({})).await?.status)
}

#[tokio::test]
async fn whoever_is_disabled_or_gone_at_entra_is_revoked_and_groups_are_known_without_a_token() -> Result<()> {
    let graph = Graph::default();
    graph.says(|said| {
        said.users = vec![user(ALICE, Some(true)), user(BOB, Some(true)), user(STAFF, Some(true))];
        said.members = vec![ALICE, TENANT];
    });
    let (server, directory) = bed("graph_directory", &graph).await?;
    let corp = server.app.store().directory(&"corp".parse()?);
    directory.pull_users(Leavers::Few).await?;
    directory.pull_groups().await?;
    assert_eq!((status(&server, ALICE).await?, status(&server, BOB).await?), (200, 200));
    let groups = corp.groups_of(&format!("{TENANT}/{ALICE}").parse()?).await?;
    assert_eq!(
        groups.iter().map(|group| (group.name.as_str(), group.display_name.as_str())).collect::<Vec<_>>(),
        [(STAFF, "Staff")]
    );
    assert!(corp.groups_of(&format!("{TENANT}/{BOB}").parse()?).await?.is_empty());

    // Disabled, and gone.
    graph.says(|said| said.users = vec![user(ALICE, Some(false)), user(STAFF, Some(true))]);
    let pulled = directory.pull_users(Leavers::Few).await?;
    assert_eq!((pulled.changed, pulled.removed), (1, 1));
    server.app.follow().await?;
    assert_eq!((status(&server, ALICE).await?, status(&server, BOB).await?), (403, 403));
    assert_eq!(status(&server, "33333333-0f55-4a8e-9f5e-2f6f1c7b9d02").await?, 200, "nobody knows them");
    graph.says(|said| said.users = vec![user(ALICE, Some(true)), user(BOB, Some(true)), user(STAFF, Some(true))]);
    directory.pull_users(Leavers::Few).await?;
    server.app.follow().await?;
    assert_eq!((status(&server, ALICE).await?, status(&server, BOB).await?), (200, 200));
    Ok(())
}

#[tokio::test]
async fn what_graph_leaves_out_or_points_elsewhere_takes_nobody_away() -> Result<()> {
    let (graph, elsewhere) = (Graph::default(), Graph::default());
    graph.says(|said| said.users = vec![user(ALICE, Some(true)), user(BOB, Some(true))]);
    let (server, directory) = bed("graph_lies", &graph).await?;
    directory.pull_users(Leavers::Few).await?;
    // The application may not read that.
    graph.says(|said| said.users = vec![user(ALICE, None)]);
    assert!(matches!(directory.pull_users(Leavers::Few).await, Err(PullError::Unsaid)));
    // The rest of the list is to be read from somebody else.
    let url = elsewhere.start().await?;
    elsewhere.says(|said| said.users = vec![user(ALICE, Some(true)), user(STAFF, Some(true))]);
    graph.says(|said| (said.users, said.next) = (vec![user(ALICE, Some(true)), user(BOB, Some(true))], Some(url)));
    assert!(matches!(directory.pull_users(Leavers::Few).await, Err(PullError::Graph(_))));
    server.app.follow().await?;
    assert_eq!((status(&server, ALICE).await?, status(&server, BOB).await?), (200, 200));
    assert!(server.app.store().still().await?.revocations().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_an_answer_of_graphs_changed_is_in_the_platforms_record() -> Result<()> {
    let graph = Graph::default();
    graph.says(|said| said.users = vec![user(ALICE, Some(true)), user(BOB, Some(false))]);
    let (server, _) = bed("graph_recorded", &graph).await?;
    // One of the replicas asks as soon as it leads.
    let corp = server.app.store().directory(&"corp".parse()?);
    let asked = async {
        while corp.people(None).await?.is_empty() {}
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(30), asked).await??;
    let left = stopped(server).await?;
    let platform = events(&left.store, None).await?;
    let [event] = of(&platform, "directory")[..] else { anyhow::bail!("{platform:#?}") };
    assert_eq!([&event["issuer"], &event["through"], &event["outcome"]], ["corp", "graph", "done"]);
    let changes = json!([
        {"kind": "user", "name": format!("{TENANT}/{ALICE}"), "became": "created"},
        {"kind": "user", "name": format!("{TENANT}/{BOB}"), "became": "createdInactive"},
    ]);
    assert_eq!((&event["changeCount"], &event["changes"]), (&json!(2), &changes));
    assert!(of(&events(&left.store, Some("acme")).await?, "directory").is_empty());
    Ok(())
}

/// The settings of what that server left, for which Graph is the one at `url`.
fn settings(folder: &FilePath, left: &Left, url: &str) -> Result<PathBuf> {
    let (settings, key) = (folder.join("mcp-mux.toml"), folder.join("key"));
    fs::write(&key, left.config.keys.primary.as_ref().context("it has a key")?.expose_secret())?;
    let text = format!(
        "public_url = \"http://127.0.0.1:1\"\n[database]\nurl = \"{database}\"\n[keys]\nprimary_file = \"{key}\"\n\
         [egress]\nprivate_networks = [\"127.0.0.0/8\"]\nports = \"any\"\n\
         [[issuers]]\nname = \"corp\"\nurl = \"http://127.0.0.1:2\"\npreset = \"entra\"\n\
         audiences = [\"3d2f7c9a-client\"]\nrequired_scopes = [\"mcp.access\"]\n\
         [issuers.graph]\ntenant_id = \"{TENANT}\"\nclient_id = \"mcp-mux\"\nclient_secret = \"{secret}\"\n\
         url = \"{url}/v1.0\"\ntoken_url = \"{url}/token\"\ndirectory_every_seconds = 86400\n",
        database = left.database.url.expose_secret(),
        key = key.display(),
        secret = canary("graph-secret"),
    );
    fs::write(&settings, text)?;
    Ok(settings)
}

#[tokio::test]
async fn an_operator_asks_now_and_accepts_what_would_shut_out_everybody() -> Result<()> {
    let graph = Graph::default();
    let (server, directory) = bed("graph_asked", &graph).await?;
    drop(directory);
    let (left, url) = (stopped(server).await?, graph.0.borrow().url.clone());
    let change = left.store.begin().await?;
    let (tenant, _) = change.put_tenant(&"acme".parse()?, &TenantSpec::named("acme")).await?;
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec![STAFF.parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    };
    change.tenant(scope(tenant.id)).put_grant(&"staff".parse()?, &grant).await?;
    change.commit().await?;
    let folder = tempfile::tempdir()?;
    let settings = settings(folder.path(), &left, &url)?;
    let pull = async |more: &[&str]| {
        let mut command = Command::new(program()?);
        command.args(["directory", "-c"]).arg(&settings).args(["pull", "corp"]).args(more);
        let output = command.output().await?;
        anyhow::Ok((output.status.success(), String::from_utf8(output.stderr)?))
    };
    let users = [ALICE, BOB].map(|id| user(id, Some(true)));
    graph.says(|said| (said.users, said.members) = (users.to_vec(), vec![ALICE]));
    let (done, said) = pull(&[]).await?;
    assert!(done && said.contains("users: 2 added, 0 changed, 0 removed"), "{said}");
    assert!(said.contains("groups: 1 added, 0 changed, 0 removed"), "{said}");
    let corp = left.store.directory(&"corp".parse()?);
    let state = async || {
        let people = corp.people(None).await?;
        anyhow::Ok(people.iter().filter(|user| user.is_away()).count())
    };
    assert_eq!((corp.people(Some(&STAFF.parse()?)).await?.len(), state().await?), (1, 0));

    graph.says(|said| said.users = [ALICE, BOB].map(|id| user(id, Some(false))).to_vec());
    let (done, said) = pull(&[]).await?;
    assert!(!done && said.contains("mcp-mux directory pull ISSUER --accept"), "{said}");
    assert_eq!(state().await?, 0);
    let (done, said) = pull(&["--accept"]).await?;
    assert!(done && said.contains("users: 0 added, 2 changed, 0 removed"), "{said}");
    assert_eq!(state().await?, 2);
    let platform = events(&left.store, None).await?;
    let counts = of(&platform, "directory").into_iter().filter(|event| event["operator"].is_string());
    assert_eq!(counts.map(|event| event["changeCount"].clone()).collect::<Vec<_>>(), [2, 1, 2], "{platform:#?}");
    Ok(())
}
