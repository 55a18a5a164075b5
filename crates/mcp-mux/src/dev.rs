//! `mcp-mux dev`: everything in one process, on loopback only. A server, an authorization server with four people, and four
//! upstreams of three tenants. Not for production, and absent from builds without the feature `dev`.

mod authorization_server;
mod people;
mod upstreams;

pub use people::{PEOPLE, Person};

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{
    Change, Clock, GrantSpec, Group, Level, OnArguments, OnNewTool, OnToolChange, Store, SystemClock, TenantSlug,
    TenantSpec, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};
use tokio::net::TcpListener;
use url::Url;
use uuid::Uuid;

use self::authorization_server::AuthorizationServer;
use self::upstreams::{DemoUpstream, SECRET_NAME, UPSTREAMS};
use crate::app::{App, Seen, open_store};
use crate::caller::Principal;
use crate::config::{
    AdminConfig, AuditConfig, CatalogConfig, Config, DatabaseConfig, EgressConfig, HttpConfig, IssuerConfig,
    KeysConfig, LimitsConfig, PublicUrl, TelemetryConfig, TokenType,
};
use crate::lifecycle::Tasks;
use crate::policy::Administration;

/// For how long the ready-made tokens are good.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(12);

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONCURRENCY: u32 = 64;

/// Where the demonstration listens and keeps its state.
#[derive(Debug, Clone)]
pub struct DevSettings {
    /// The port of the endpoint on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The folder of the database and of its key; made if it is missing, for its owner only.
    pub folder: PathBuf,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

/// The demonstration, as it runs.
#[derive(Debug)]
pub struct Dev {
    app: App,
    authorization_server: AuthorizationServer,
    tasks: Tasks,
}

/// Who belongs to which tenant, and with what level: tenant, display name, group, level.
const TEAMS: [(&str, &str, &str, Level); 4] = [
    ("acme", "Acme Corp", "acme", Level::Write),
    ("globex", "Globex Corporation", "globex", Level::Write),
    ("shared", "Shared Services", "shared", Level::Read),
    ("shared", "Shared Services", "shared-editors", Level::Write),
];

impl Dev {
    /// Starts everything and lists every upstream once.
    pub async fn start(settings: &DevSettings) -> Result<Self> {
        let listener = listen(settings.port).await?;
        let public_url = public_url(&listener)?;
        let tasks = Tasks::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let issuer_listener = listen(0).await?;
        let issuer = format!("http://{}", issuer_listener.local_addr()?);
        let authorization_server = AuthorizationServer::new(issuer, resources(&public_url), clock)?;
        serve(&tasks, issuer_listener, authorization_server.router());

        let config = config(settings, &public_url, authorization_server.issuer())?;
        let store = open_store(&config).await?;
        let mut running = Vec::new();
        for upstream in UPSTREAMS {
            let key = SecretString::from(format!("demo-{}", Uuid::new_v4().simple()));
            let listener = listen(0).await?;
            let url = Url::parse(&format!("http://{}/mcp", listener.local_addr()?))?;
            serve(&tasks, listener, upstream.router(&key, tasks.shutdown()));
            running.push((upstream, url, key));
        }
        install(&store, &running).await?;
        let app = App::start_with(&config, store, listener, public_url).await?;
        app.refresher().refresh_all().await;
        Ok(Self { app, authorization_server, tasks })
    }

    /// The URL of the aggregate endpoint.
    pub fn endpoint(&self) -> String {
        self.app.endpoint()
    }

    /// The issuer of the tokens.
    pub fn issuer(&self) -> &str {
        self.authorization_server.issuer()
    }

    /// A ready-made token for `person`.
    pub fn token_for(&self, person: &Person) -> Result<SecretString> {
        Ok(self.authorization_server.token_for(person, TOKEN_LIFETIME)?)
    }

    /// What `person` sees.
    pub fn seen_by(&self, person: &Person) -> Result<Seen> {
        let principal = Principal { issuer: "dev".parse()?, subject: person.name.parse()? };
        let groups: Result<Arc<[Group]>, _> = person.groups.iter().map(|group| group.parse()).collect();
        Ok(self.app.seen_by(&principal, groups?))
    }

    /// Stops everything: the server first, so that running calls still find their upstreams.
    pub async fn stop(self) -> bool {
        let finished = self.app.stop().await;
        self.tasks.stop().await && finished
    }
}

/// Loopback only: the demonstration's people need no password.
async fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}: choose another --port"))
}

/// What tokens can be for: the whole, and each tenant alone.
fn resources(public_url: &PublicUrl) -> Vec<String> {
    let tenants = TEAMS.iter().map(|(tenant, ..)| format!("/t/{tenant}/mcp"));
    std::iter::once("/mcp".to_owned()).chain(tenants).map(|path| public_url.join(&path)).collect()
}

fn public_url(listener: &TcpListener) -> Result<PublicUrl> {
    let url = Url::parse(&format!("http://{}", listener.local_addr()?))?;
    PublicUrl::try_from(url).map_err(anyhow::Error::msg)
}

fn serve(tasks: &Tasks, listener: TcpListener, routes: axum::Router) {
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a part of the demonstration ended");
        }
    });
}

fn config(settings: &DevSettings, public_url: &PublicUrl, issuer: &str) -> Result<Config> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let folder = &settings.folder;
    builder.create(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let database = format!("sqlite://{}?mode=rwc", folder.join("dev.db").display());
    Ok(Config {
        public_url: public_url.clone(),
        // No load balancer takes it out, so none is waited for.
        http: HttpConfig { drain_delay_seconds: 0, ..HttpConfig::default() },
        admin: AdminConfig::default(),
        database: DatabaseConfig::at(database),
        keys: KeysConfig { primary_file: Some(key_file(folder)?), ..KeysConfig::default() },
        issuers: vec![IssuerConfig {
            token_types: Some(vec![TokenType::AccessToken]),
            ..IssuerConfig::new("dev".parse()?, issuer)
        }],
        fronts: Vec::new(),
        directories: Vec::new(),
        limits: LimitsConfig::default(),
        egress: EgressConfig::this_machine(),
        catalog: CatalogConfig::default(),
        audit: AuditConfig::default(),
        telemetry: settings.telemetry.clone(),
    })
}

/// The key of the folder's database, made on the first start and readable by its owner only.
fn key_file(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("dev.key");
    if !path.exists() {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(crypto::Key::generate()?.encode().expose_secret().as_bytes())?;
    }
    Ok(path)
}

/// For the demonstration's own tenants.
#[expect(clippy::disallowed_methods, reason = "the demonstration installs itself as an operator would")]
fn administration() -> Administration {
    Administration::for_the_platform()
}

/// Brings the database to what the demonstration shows, whatever an earlier start left in it.
async fn install(store: &Store, running: &[(DemoUpstream, Url, SecretString)]) -> Result<()> {
    let change = store.begin().await?;
    for (slug, display_name, group, level) in TEAMS {
        let (tenant, _) = change.put_tenant(&slug.parse()?, &TenantSpec::named(display_name)).await?;
        let grant = GrantSpec {
            issuer: "dev".parse()?,
            groups: vec![group.parse()?],
            subjects: Vec::new(),
            level,
            allow: vec!["*".parse()?],
            deny: Vec::new(),
        };
        change.tenant(administration().scope(tenant.id)).put_grant(&group.parse()?, &grant).await?;
    }
    for (upstream, url, key) in running {
        install_upstream(&change, *upstream, url, key).await?;
    }
    change.commit().await?;
    Ok(())
}

async fn install_upstream(change: &Change, demo: DemoUpstream, url: &Url, key: &SecretString) -> Result<()> {
    let slug: TenantSlug = demo.tenant.parse()?;
    let tenant = change.find_tenant(&slug).await?.context("the tenant was made above")?;
    let rows = change.tenant(administration().scope(tenant.id));
    let spec = UpstreamSpec {
        url: url.clone(),
        protocol: UpstreamProtocol::Mcp,
        prefix: None,
        auth: demo.auth()?,
        call_timeout: CALL_TIMEOUT,
        concurrency: CONCURRENCY,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: true,
    };
    let (upstream, _) = rows.put_upstream(&demo.upstream.parse()?, &spec).await?;
    rows.put_credential(upstream.id, &SECRET_NAME.parse()?, key).await?;
    Ok(())
}

impl DemoUpstream {
    fn auth(self) -> Result<UpstreamAuth> {
        let secret = SECRET_NAME.parse()?;
        Ok(match self.key_header() {
            Some(header) => UpstreamAuth::Headers { headers: BTreeMap::from([(header.parse()?, secret)]) },
            None => UpstreamAuth::Bearer { secret },
        })
    }
}
