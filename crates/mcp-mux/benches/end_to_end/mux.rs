//! mcp-mux as it is run: callers with signed tokens of a company's size, tenants with sealed keys and grants, a database, a log.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Result;
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::Algorithm;
use mcp_mux::config::{
    AdminConfig, AuditConfig, CatalogConfig, Config, DatabaseConfig, EgressConfig, HttpConfig, IssuerConfig,
    KeysConfig, LimitsConfig, PublicUrl, TelemetryConfig,
};
use mcp_mux::lifecycle::Tasks;
use mcp_mux::{App, open_store, telemetry};
use serde::Deserialize;
use serde_json::{Map, json};
use tenant_store::Store;
use tokio::net::TcpListener;
use url::Url;

use super::child;
use crate::signer::{Holder, Signer};
use crate::tenants;

const ISSUER: &str = "https://idp.example.com";
/// How many connections there are at most, each with a caller of its own.
const CALLERS: usize = 64;
/// How many tenants are added in one transaction.
const BATCH: usize = 500;
/// How many tools each of the many tenants has.
const TOOLS_OF_MANY: usize = 5;

/// What is to be set up.
#[derive(Debug, Deserialize)]
struct Settings {
    /// The address of the upstream.
    upstream: String,
    /// How many tenants there are besides the two that are called.
    tenants: usize,
    /// For each of these numbers, callers who together have so many views.
    views: Vec<usize>,
    /// How many callers those are.
    callers: usize,
}

/// Plays the role. Callers of the group `acme` have 20 tools, those of `globex` 1,000.
pub(crate) async fn serve(settings: &str) -> Result<()> {
    let settings: Settings = serde_json::from_str(settings)?;
    let folder = tempfile::tempdir()?;
    let tasks = Tasks::default();
    let signer = Signer::new(Algorithm::RS256)?;
    let config = config(folder.path(), key_set(&signer, &tasks).await?)?;
    // Logged as by default, to where nobody reads it: writing a line costs what it costs.
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    telemetry::init_with_writer(&config.telemetry, nowhere)?;
    let store = open_store(&config).await?;
    install(&store, &settings).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = App::start_with(&config, store, listener, public_url(&address.to_string())?).await?;
    app.refresher().refresh_all().await;
    let endpoint = app.endpoint();
    let tokens = |group: &str| callers(&signer, &endpoint, CALLERS, |_| vec![group.to_owned()]);
    let mut hello = Map::from_iter([
        ("address".to_owned(), json!(address.to_string())),
        ("acme".to_owned(), json!(tokens("acme")?)),
        ("globex".to_owned(), json!(tokens("globex")?)),
    ]);
    for count in settings.views {
        let groups = |caller| vec!["acme".to_owned(), many(caller % count)];
        let tokens = callers(&signer, &endpoint, settings.callers, groups)?;
        hello.insert(format!("views {count}"), json!(tokens));
    }
    child::ready(&hello.into()).await?;
    app.stop().await;
    Ok(())
}

/// The name of one of the many tenants, and of its group.
fn many(number: usize) -> String {
    format!("t{number}")
}

/// Tokens of callers, each in its groups.
fn callers(
    signer: &Signer,
    audience: &str,
    count: usize,
    groups: impl Fn(usize) -> Vec<String>,
) -> Result<Vec<String>> {
    let token = |caller: usize| {
        let groups = groups(caller);
        let subject = format!("{}-{caller}", groups.join("-"));
        signer.token(Holder { issuer: ISSUER, audience, subject: &subject, groups: &groups, number: 0 })
    };
    (0..count).map(token).collect()
}

/// Serves the public key, and says where.
async fn key_set(signer: &Signer, tasks: &Tasks) -> Result<Url> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (url, keys) = (format!("http://{}/jwks", listener.local_addr()?), json!({ "keys": [signer.jwk()?] }));
    let routes = Router::new().route("/jwks", get(move || async move { Json(keys) }));
    tasks.spawn(async move { drop(axum::serve(listener, routes).await) });
    Ok(url.parse()?)
}

fn public_url(address: &str) -> Result<PublicUrl> {
    PublicUrl::try_from(Url::parse(&format!("http://{address}"))?).map_err(anyhow::Error::msg)
}

fn config(folder: &Path, jwks_url: Url) -> Result<Config> {
    let database = format!("sqlite://{}?mode=rwc", folder.join("mcp-mux.db").display());
    Ok(Config {
        public_url: public_url("127.0.0.1")?,
        // No load balancer takes it out, so none is waited for.
        http: HttpConfig { drain_delay_seconds: 0, ..HttpConfig::default() },
        admin: AdminConfig::default(),
        database: DatabaseConfig::at(database),
        keys: KeysConfig { primary: Some(crypto::Key::generate()?.encode()), ..KeysConfig::default() },
        issuers: vec![IssuerConfig { jwks_url: Some(jwks_url), ..IssuerConfig::new("corp".parse()?, ISSUER) }],
        fronts: Vec::new(),
        directories: Vec::new(),
        limits: LimitsConfig::default(),
        egress: EgressConfig::this_machine(),
        catalog: CatalogConfig::default(),
        audit: AuditConfig::default(),
        telemetry: TelemetryConfig::default(),
    })
}

async fn install(store: &Store, settings: &Settings) -> Result<()> {
    let url = |tools: usize| format!("http://{}/{tools}/mcp", settings.upstream);
    let change = store.begin().await?;
    tenants::add(&change, "acme", &url(20), 0).await?;
    tenants::add(&change, "globex", &url(1_000), 0).await?;
    change.commit().await?;
    let numbers: Vec<usize> = (0..settings.tenants).collect();
    for batch in numbers.chunks(BATCH) {
        let change = store.begin().await?;
        for number in batch {
            tenants::add(&change, &many(*number), &url(TOOLS_OF_MANY), TOOLS_OF_MANY).await?;
        }
        change.commit().await?;
    }
    Ok(())
}
