//! Where connections may lead: forbidden addresses in many spellings, redirects and a tenant's own hosts, on each kind of
//! connection.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use mcp_mux::auth::doctor::{self, Finding};
use mcp_mux::config::{
    Config, DatabaseConfig, EgressConfig, FrontConfig, GraphConfig, IntrospectionConfig, IssuerConfig, KeysConfig,
    Ports, TokenMode, VaultConfig,
};
use mcp_mux::{Egress, open_store};
use serde_json::{Value, json};
use tenant_store::{AuthorizationServer, ClientProof, Clock, Level, SystemClock, TenantSpec, UpstreamAuth};
use tokio::net::TcpListener;

use crate::support::canary;
use crate::support::server::{Setup, TestServer, install_with, serve};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// Hosts that nobody may call who was allowed nothing, as somebody would write them who hopes that they are not recognised.
const SPELLINGS: [&str; 51] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0x0.1",
    "127.0.0.1.",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "localhost",
    "LOCALHOST",
    "ｌocalhost",
    "%6c%6fcalhost",
    "0.0.0.0",
    "0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
];

/// Nothing but public addresses, so that ports decide nothing.
fn public_only() -> EgressConfig {
    EgressConfig { ports: Ports::Any, ..EgressConfig::default() }
}

/// What must not be reached: it listens on all addresses of this machine and counts who connects, whatever they speak.
#[expect(clippy::disallowed_methods, reason = "what a test serves ends with the test")]
async fn trap() -> Result<(u16, Arc<AtomicUsize>)> {
    let visits = Arc::new(AtomicUsize::new(0));
    let listener = match TcpListener::bind("[::]:0").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("0.0.0.0:0").await?,
    };
    let (port, counted) = (listener.local_addr()?.port(), Arc::clone(&visits));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    Ok((port, visits))
}

/// What the log says where the address itself is why, and not how it is called.
const INSIDE: &str = "is not public, and `egress.private_networks` does not list it";

async fn examined(config: &Config) -> Result<Vec<Finding>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(doctor::examine(config, &json!({}), &Egress::new(&config.egress)?, &clock).await)
}

fn found<'f>(findings: &'f [Finding], subject: &str, what: &str) -> Result<&'f Finding> {
    let mut fitting = findings.iter().filter(|finding| finding.subject == subject && finding.what == what);
    fitting.next().with_context(|| format!("nothing was found about {subject}: {what}: {findings:?}"))
}

fn sentence(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

fn introspection(url: Option<&str>) -> Result<IntrospectionConfig> {
    let mut settings = json!({ "client_id": "mux", "client_secret": canary("introspection") });
    settings["url"] = json!(url);
    Ok(serde_json::from_value(settings)?)
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_makes_an_upstream() -> Result<()> {
    let (port, visits) = trap().await?;
    let urls: Vec<String> = SPELLINGS.iter().map(|host| format!("https://{host}:{port}/mcp")).collect();
    let slugs: Vec<String> = (0..urls.len()).map(|number| format!("u{number}")).collect();
    let setups = urls.iter().zip(&slugs).map(|(url, slug)| Setup {
        tenant: "acme",
        upstream: slug.as_str(),
        url: url.as_str(),
        key: None,
        level: Level::Write,
    });
    let setups: Vec<Setup<'_>> = setups.collect();
    let server = TestServer::start_with("spellings", &setups, |config| {
        config.egress = public_only();
        Ok(())
    })
    .await?;
    let log = server.logged()?;
    let refusals = log.lines().filter(|line| line.contains("an upstream is not called") && line.contains(INSIDE));
    let refused: HashSet<&str> =
        refusals.filter_map(|line| line.split("upstream.id=").nth(1)?.split_whitespace().next()).collect();
    for upstream in server.rows("acme").await?.upstreams().await? {
        assert!(refused.contains(upstream.id.to_string().as_str()), "{}", upstream.spec.url);
    }
    assert_eq!(refused.len(), SPELLINGS.len());
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_asked_for_tokens() -> Result<()> {
    let (port, visits) = trap().await?;
    let server = TestServer::start_with("spellings_of_token_endpoints", &[], |config| {
        config.egress = public_only();
        Ok(())
    })
    .await?;
    // An address in a setting is ASCII; what else there is cannot even be written.
    let writable: Vec<_> = SPELLINGS.iter().filter(|host| host.is_ascii()).collect();
    assert!(writable.len() > 40);
    for (number, host) in writable.iter().enumerate() {
        for (kind, place) in [("t", "token"), ("i", "issuer")] {
            let address = format!("https://{host}:{port}/{place}");
            let place = if kind == "t" {
                AuthorizationServer::TokenUrl(address.parse()?)
            } else {
                AuthorizationServer::Issuer(address.parse()?)
            };
            let proof = ClientProof::Basic { secret: "client".parse()? };
            let auth = UpstreamAuth::ClientCredentials(Box::new(crate::oauth::request(place, "mux", proof)?));
            let slug = format!("{kind}{number}");
            let url = "https://upstream.example/mcp";
            let setup = Setup { tenant: "acme", upstream: &slug, url, key: None, level: Level::Write };
            let secret = canary("client");
            install_with(server.app.store(), &setup, auth, &[("client", &secret)]).await?;
        }
    }
    server.app.refresher().refresh_all().await;
    let log = server.logged()?;
    let refusals = log.lines().filter(|line| line.contains("an authorization server gave no response"));
    assert_eq!(refusals.filter(|line| line.contains(INSIDE)).count(), 2 * writable.len());
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_in_a_discovery_document_is_asked() -> Result<()> {
    let (port, visits) = trap().await?;
    let server = TestServer::start("spellings_of_endpoints", &[]).await?;
    for host in SPELLINGS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let issuer = format!("http://{}", listener.local_addr()?);
        let document = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
            "jwks_uri": format!("https://{host}:{port}/jwks"),
            "introspection_endpoint": format!("https://{host}:{port}/introspect"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        serve(
            listener,
            Router::new().route("/.well-known/openid-configuration", get(move || async { Json(document) })),
        );
        let keys = IssuerConfig::new("keys".parse()?, &issuer);
        let asked = IssuerConfig {
            mode: TokenMode::Introspect,
            introspection: Some(introspection(None)?),
            ..IssuerConfig::new("asked".parse()?, &issuer)
        };
        let config = Config { issuers: vec![keys, asked], egress: public_only(), ..server.config.clone() };
        let findings = examined(&config).await?;
        let keys = found(&findings, "keys", "keys")?;
        let inside = keys.found.contains("its address may not be called") && keys.found.contains(INSIDE);
        assert!(inside, "{host}: {}", keys.found);
        assert!(found(&findings, "asked", "introspection")?.mend.is_some(), "{host}");
    }
    let log = server.logged()?;
    let unasked = log.lines().filter(|line| line.contains("could not be asked") && line.contains(INSIDE));
    assert_eq!(unasked.count(), SPELLINGS.len());
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    Ok(())
}

/// Answers everything with a redirect to the trap, and counts the questions.
async fn redirecting_to(port: u16) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&questions);
    let redirect = move |uri: Uri| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        (StatusCode::TEMPORARY_REDIRECT, [("location", format!("http://127.0.0.1:{port}{uri}"))]).into_response()
    };
    serve(listener, Router::new().fallback(redirect));
    Ok((url, questions))
}

#[tokio::test]
async fn a_redirect_is_followed_on_no_kind_of_connection() -> Result<()> {
    let (port, visits) = trap().await?;
    let (url, questions) = redirecting_to(port).await?;
    let asked = |before: usize, kind: &str| {
        assert!(questions.load(Ordering::SeqCst) > before, "{kind} was asked");
        assert_eq!(visits.load(Ordering::SeqCst), 0, "{kind} followed a redirect");
    };
    let key = canary("key");
    let setup =
        Setup { tenant: "acme", upstream: "desk", url: &format!("{url}/mcp"), key: Some(&key), level: Level::Write };
    let server = TestServer::start("redirects", &[setup]).await?;
    asked(0, "an upstream");

    let named = |name: &str| Ok::<_, anyhow::Error>(IssuerConfig::new(name.parse()?, &url));
    let graph = json!({
        "tenant_id": uuid::Uuid::new_v4(), "client_id": "mux", "client_secret": canary("graph"), "url": url, "token_url": url,
    });
    let graph: GraphConfig = serde_json::from_value(graph)?;
    let front: FrontConfig = serde_json::from_value(json!({ "name": "webui", "mode": "session", "url": url }))?;
    let issuers = [
        ("discovery", named("discovery")?),
        ("keys", IssuerConfig { jwks_url: Some(format!("{url}/jwks").parse()?), ..named("keys")? }),
        (
            "introspection",
            IssuerConfig {
                mode: TokenMode::Introspect,
                introspection: Some(introspection(Some(&url))?),
                ..named("introspection")?
            },
        ),
        ("graph", IssuerConfig { graph: Some(graph), ..named("graph")? }),
    ];
    for (kind, issuer) in issuers {
        let before = questions.load(Ordering::SeqCst);
        let config = Config { issuers: vec![issuer], ..server.config.clone() };
        let findings = examined(&config).await?;
        assert!(found(&findings, kind, kind)?.mend.is_some(), "{kind}");
        asked(before, kind);
    }
    let before = questions.load(Ordering::SeqCst);
    let config = Config { issuers: Vec::new(), fronts: vec![front], ..server.config.clone() };
    assert!(found(&examined(&config).await?, "webui", "front")?.mend.is_some());
    asked(before, "a front");

    for (slug, kind, place) in [
        ("t", "a token endpoint", AuthorizationServer::TokenUrl(format!("{url}/token").parse()?)),
        ("m", "an authorization server's metadata", AuthorizationServer::Issuer(url.parse()?)),
    ] {
        let before = questions.load(Ordering::SeqCst);
        let proof = ClientProof::Basic { secret: "client".parse()? };
        let auth = UpstreamAuth::ClientCredentials(Box::new(crate::oauth::request(place, "mux", proof)?));
        let upstream = "http://127.0.0.1:9/mcp";
        let setup = Setup { tenant: "globex", upstream: slug, url: upstream, key: None, level: Level::Write };
        install_with(server.app.store(), &setup, auth, &[("client", &canary("client"))]).await?;
        server.app.refresher().refresh_all().await;
        asked(before, kind);
    }

    let before = questions.load(Ordering::SeqCst);
    let vault = json!({ "address": url, "key": "mcp-mux", "token": canary("vault") });
    let vault: VaultConfig = serde_json::from_value(vault)?;
    let keys = KeysConfig { vault: Some(vault), ..KeysConfig::default() };
    let database = DatabaseConfig::at("sqlite::memory:");
    assert!(open_store(&Config { keys, database, ..server.config.clone() }).await.is_err());
    asked(before, "Vault");
    Ok(())
}

#[tokio::test]
async fn a_tenants_hosts_count_for_each_call() -> Result<()> {
    let key = canary("key");
    let (url, seen) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start("narrowed", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let narrow = async |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| host.parse()).collect::<Result<Vec<_>, _>>()?;
        let change = server.app.store().begin().await?;
        let spec = TenantSpec { egress_hosts: Some(hosts.try_into()?), ..TenantSpec::named("acme") };
        change.put_tenant(&"acme".parse()?, &spec).await?;
        change.commit().await?;
        anyhow::Ok(server.app.follow().await?)
    };
    narrow(&["*.acme.example"]).await?;
    let before = seen.text();
    let answer = alice.call("acme__whoami", json!({})).await?;
    assert_eq!(
        sentence(&answer),
        "upstream `desk` of tenant `acme` has an address that mcp-mux may not call: an operator must look at it"
    );
    assert_eq!(seen.text(), before, "nothing was sent there");
    assert!(alice.tools().await?.contains(&"acme__whoami".to_owned()), "it stays listed");
    narrow(&["*.acme.example", "127.0.0.1"]).await?;
    assert_eq!(sentence(&alice.call("acme__whoami", json!({})).await?), "whoami at acme with {}");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_an_upstream_repeats_reaches_nobody() -> Result<()> {
    let key = canary("key");
    let escaped = key.replacen('C', "\\u0043", 1);
    let tools = format!(r#"[{{"name":"go","inputSchema":{{}},"description":"call me with {key}"}}]"#);
    let text = |said: &str| format!(r#"{{"content":[{{"type":"text","text":"{said}"}}]}}"#);
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{{id}},"progress":1,"message":"{key}"}}}}"#
    );
    let answer = |said: &str| format!(r#"{{"jsonrpc":"2.0","id":{{id}},"result":{}}}"#, text(said));
    let error = format!(
        r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":-32000,"message":"bad token {key}","data":"{escaped}"}}}}"#
    );
    let upstream = ByteUpstream::with_tools(&tools);
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start("repeated", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let mut heard = vec![alice.modern("tools/list", json!({})).await?.text];
    for say in [
        Say::Result(text(&format!("sent: Bearer {key}"))),
        Say::Result(text(&escaped)),
        Say::Result(text(&format!(r#"{{\"authorization\":\"Bearer {key}\"}}"#))),
        Say::Http(200, "application/json", error.into()),
        Say::Events(vec![progress, answer(&key)]),
    ] {
        upstream.says("tools/call", say);
        let params = json!({ "name": "acme__go", "_meta": { "progressToken": "mine" } });
        heard.push(alice.legacy("tools/call", &params).await?.text);
    }
    for answer in &heard {
        assert!(answer.contains("[redacted]"), "{answer}");
        assert!(!answer.contains("CANARY") && !answer.contains("0043ANARY"), "{answer}");
    }
    assert_eq!(heard.last().map(|stream| stream.matches("[redacted]").count()), Some(2), "in both events");
    // What a caller sends itself is no news to it: to replace it would say that the guess is right.
    upstream.says("tools/call", Say::Result(text(&format!("you said {key}"))));
    let answer = alice.call("acme__go", json!({ "guess": format!("key or {key}?") })).await?;
    assert_eq!(sentence(&answer), format!("you said {key}"));
    let log = server.logged()?;
    assert_eq!(log.matches("an upstream repeats the secret that it is called with").count(), 1);
    Ok(())
}
