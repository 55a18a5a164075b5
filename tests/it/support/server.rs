//! The whole server, on a free port, with a database of its own and its log in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use axum::Router;
use mcp_mux::config::{
    AdminConfig, AuditConfig, CatalogConfig, Config, DatabaseConfig, EgressConfig, HttpConfig, IssuerConfig,
    KeysConfig, LimitsConfig, LogFormat, PublicUrl, TelemetryConfig,
};
use mcp_mux::{App, open_store};
use secrecy::SecretString;
use tenant_store::testing::{TestDatabase, is_on_postgres};
use tenant_store::{
    ApiKeyDigest, ApiKeyId, GrantSpec, Level, NewApiKey, OnArguments, OnNewTool, OnToolChange, Store, TenantScope,
    TenantSpec, TenantStore, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};
use tokio::net::TcpListener;
use url::Url;

use super::client::Http;
use super::identity::Idp;

/// Serves `routes` for as long as the test runs.
pub(crate) fn serve(listener: TcpListener, routes: Router) {
    serve_on(listener, routes);
}

/// The same on any kind of listener.
#[expect(clippy::disallowed_methods, reason = "a test's own servers end with its process")]
pub(crate) fn serve_on<L: axum::serve::Listener<Addr: std::fmt::Debug>>(listener: L, routes: Router) {
    tokio::spawn(async move { axum::serve(listener, routes).await });
}

/// A server under test.
pub(crate) struct TestServer {
    /// The server.
    pub app: App,
    /// Who signs tokens.
    pub idp: Idp,
    /// What it was started with.
    pub config: Config,
    /// Its database.
    pub database: TestDatabase,
    /// Its log.
    pub log: PathBuf,
}

/// One upstream of one tenant, and what its tenant's team may do.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'s> {
    /// The tenant's slug; members of the group of the same name have the level in it.
    pub tenant: &'s str,
    /// The upstream's slug.
    pub upstream: &'s str,
    /// Its address.
    pub url: &'s str,
    /// Its bearer key, if it wants one.
    pub key: Option<&'s str>,
    /// The group's level.
    pub level: Level,
}

impl TestServer {
    /// Starts a server named like its test, with `setups`, and lists every upstream once.
    pub(crate) async fn start(name: &str, setups: &[Setup<'_>]) -> Result<Self> {
        Self::start_with(name, setups, |_| Ok(())).await
    }

    /// The same with another configuration.
    pub(crate) async fn start_with(
        name: &str,
        setups: &[Setup<'_>],
        change: impl FnOnce(&mut Config) -> Result<()>,
    ) -> Result<Self> {
        let idp = Idp::start().await?;
        let (database, log) = output_files(name)?;
        let database = TestDatabase::to_be_looked_at(&database).await;
        let mut config = config(&idp, &database)?;
        config.audit.spool_directory = spool_folder(&log);
        change(&mut config)?;
        start_log(&log, &config.telemetry)?;
        let store = open_store(&config).await?;
        for setup in setups {
            install(&store, setup).await?;
        }
        let app = launch(&config, store).await?;
        app.refresher().refresh_all().await;
        Ok(Self { app, idp, config, database, log })
    }

    /// Stops the server and starts another one on the same database, without waiting for any upstream.
    pub(crate) async fn restart(self) -> Result<Self> {
        let Self { app, idp, config, database, log } = self;
        drop(app.tasks().stop_on_drop());
        let store = open_store(&config).await?;
        let app = launch(&config, store).await?;
        Ok(Self { app, idp, config, database, log })
    }

    /// Another server on the same database.
    pub(crate) async fn replica(&self) -> Result<App> {
        launch(&self.config, open_store(&self.config).await?).await
    }

    /// Adds an upstream that wants to be shown something else than a key, and lists it.
    pub(crate) async fn add(&self, setup: &Setup<'_>, auth: UpstreamAuth, secrets: &[(&str, &str)]) -> Result<()> {
        install_with(self.app.store(), setup, auth, secrets).await?;
        self.app.follow().await?;
        self.app.refresher().refresh_all().await;
        Ok(())
    }

    /// Adds an API with that document, and lists it.
    pub(crate) async fn add_api(
        &self,
        setup: &Setup<'_>,
        document: &str,
        auth: UpstreamAuth,
        secrets: &[(&str, &str)],
    ) -> Result<()> {
        let protocol = UpstreamProtocol::OpenApi { document: Url::parse(document)? };
        install_as(self.app.store(), setup, (protocol, auth), secrets).await?;
        self.app.follow().await?;
        self.app.refresher().refresh_all().await;
        Ok(())
    }

    /// A client of the aggregate endpoint with a good token for `subject`.
    pub(crate) fn client(&self, subject: &str, groups: &[&str]) -> Result<Http> {
        self.client_at("/mcp", subject, groups)
    }

    /// A client of any endpoint.
    pub(crate) fn client_at(&self, path: &str, subject: &str, groups: &[&str]) -> Result<Http> {
        let token = self.token(subject, groups)?;
        Http::new(&self.url(path), Some(&token))
    }

    /// A good token.
    pub(crate) fn token(&self, subject: &str, groups: &[&str]) -> Result<String> {
        self.idp.sign(&self.idp.claims(subject, groups, &self.app.endpoint()))
    }

    /// A client with an API key, whose owner may do in `tenant` what the level allows, and the key's id.
    pub(crate) async fn robot(&self, tenant: &str, level: Level) -> Result<(Http, ApiKeyId)> {
        let grant = GrantSpec {
            issuer: "scripts".parse()?,
            groups: Vec::new(),
            subjects: vec!["robot".parse()?],
            level,
            allow: vec!["*".parse()?],
            deny: Vec::new(),
        };
        self.rows(tenant).await?.put_grant(&"scripts".parse()?, &grant).await?;
        let key = super::api_key("robot");
        let new = NewApiKey {
            name: "robot".parse()?,
            issuer: "scripts".parse()?,
            subject: "robot".parse()?,
            digest: ApiKeyDigest::of(&SecretString::from(key.as_str())),
            tenants: None,
            expires_at: None,
        };
        let id = self.app.store().add_api_key(&new).await?.id;
        self.app.follow().await?;
        Ok((Http::new(&self.url("/mcp"), Some(&key))?, id))
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.address())
    }

    /// A tenant's rows, as an operator would reach them.
    pub(crate) async fn rows(&self, tenant: &str) -> Result<TenantStore> {
        rows(self.app.store(), tenant).await
    }

    /// Alters rows as somebody with a database tool would.
    pub(crate) async fn alter(&self, sql: &str) -> Result<()> {
        anyhow::ensure!(self.database.alter(sql).await? > 0, "nothing was altered");
        Ok(())
    }

    /// From here on the database tells nobody of changes.
    pub(crate) async fn tell_nobody(&self) -> Result<()> {
        if is_on_postgres() {
            self.database.alter("DROP TRIGGER revision_told ON revision").await?;
        }
        Ok(())
    }

    /// Lets the database refuse, or take again, to store tokens in place of others.
    pub(crate) async fn refuse_renewals(&self, refuses: bool) -> Result<()> {
        let when = "BEFORE UPDATE OF sealed ON credential";
        if refuses { self.refuse("renewal", (when, "true")).await } else { self.refuse_no_more("renewal").await }
    }

    /// Lets the database refuse to store anything new of principals.
    pub(crate) async fn refuse_accounts(&self) -> Result<()> {
        self.refuse("account", ("BEFORE INSERT ON credential", "NEW.owner <> 'tenant'")).await
    }

    /// Lets the database refuse, or take again, to record anything.
    pub(crate) async fn refuse_audit(&self, refuses: bool) -> Result<()> {
        let when = "BEFORE INSERT ON audit_event";
        if refuses { self.refuse("audit", (when, "true")).await } else { self.refuse_no_more("audit").await }
    }

    /// Lets the database refuse, or take again, what was used.
    pub(crate) async fn refuse_usage(&self, refuses: bool) -> Result<()> {
        let when = "BEFORE INSERT ON usage_day";
        if refuses { self.refuse("usage", (when, "true")).await } else { self.refuse_no_more("usage").await }
    }

    /// Waits until that is in the log.
    pub(crate) async fn until_logged(&self, text: &str) -> Result<()> {
        let waiting = async {
            while !self.logged()?.contains(text) {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await?
    }

    async fn refuse(&self, what: &str, (event, condition): (&str, &str)) -> Result<()> {
        let sql = if is_on_postgres() {
            format!(
                "CREATE FUNCTION refuse_{what}() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
                 CREATE TRIGGER refuse_{what} {event} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse_{what}()"
            )
        } else {
            format!("CREATE TRIGGER refuse_{what} {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused'); END")
        };
        self.database.alter(&sql).await?;
        Ok(())
    }

    async fn refuse_no_more(&self, what: &str) -> Result<()> {
        let sql = if is_on_postgres() {
            format!("DROP FUNCTION refuse_{what} CASCADE")
        } else {
            format!("DROP TRIGGER refuse_{what}")
        };
        self.database.alter(&sql).await?;
        Ok(())
    }

    /// What was logged so far.
    pub(crate) fn logged(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

async fn launch(config: &Config, store: Store) -> Result<App> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let public_url = PublicUrl::try_from(Url::parse(&format!("http://{}", listener.local_addr()?))?);
    let public_url = public_url.map_err(anyhow::Error::msg)?;
    // Boxed: what starts a server holds much, and each test would hold it too.
    Ok(Box::pin(App::start_with(config, store, listener, public_url)).await?)
}

fn config(idp: &Idp, database: &TestDatabase) -> Result<Config> {
    let key = crypto::Key::generate()?;
    Ok(Config {
        public_url: PublicUrl::try_from(Url::parse("http://127.0.0.1")?).map_err(anyhow::Error::msg)?,
        // No load balancer takes it out, so none is waited for.
        http: HttpConfig { drain_delay_seconds: 0, ..HttpConfig::default() },
        admin: AdminConfig::default(),
        database: DatabaseConfig { owner_url: database.owner_url.clone(), ..DatabaseConfig::at(database.url.clone()) },
        keys: KeysConfig { primary: Some(key.encode()), ..KeysConfig::default() },
        issuers: vec![IssuerConfig {
            scopes: vec!["mcp:use".to_owned()],
            ..IssuerConfig::new("corp".parse()?, &idp.url)
        }],
        fronts: Vec::new(),
        directories: Vec::new(),
        limits: LimitsConfig::default(),
        egress: EgressConfig::this_machine(),
        catalog: CatalogConfig::default(),
        audit: AuditConfig::default(),
        telemetry: log_settings(),
    })
}

/// Adds a tenant, its upstream and its team's grant.
pub(crate) async fn install(store: &Store, setup: &Setup<'_>) -> Result<()> {
    let auth = match setup.key {
        Some(_) => UpstreamAuth::Bearer { secret: "key".parse()? },
        None => UpstreamAuth::None,
    };
    let secrets: Vec<(&str, &str)> = setup.key.map(|key| ("key", key)).into_iter().collect();
    install_with(store, setup, auth, &secrets).await
}

/// The same for an upstream that wants to be shown something else.
pub(crate) async fn install_with(
    store: &Store,
    setup: &Setup<'_>,
    auth: UpstreamAuth,
    secrets: &[(&str, &str)],
) -> Result<()> {
    install_as(store, setup, (UpstreamProtocol::Mcp, auth), secrets).await
}

async fn install_as(
    store: &Store,
    setup: &Setup<'_>,
    (protocol, auth): (UpstreamProtocol, UpstreamAuth),
    secrets: &[(&str, &str)],
) -> Result<()> {
    let change = store.begin().await?;
    let (tenant, _) = change.put_tenant(&setup.tenant.parse()?, &TenantSpec::named(setup.tenant)).await?;
    let rows = change.tenant(scope(tenant.id));
    let spec = UpstreamSpec {
        url: Url::parse(setup.url)?,
        protocol,
        prefix: None,
        auth,
        call_timeout: std::time::Duration::from_secs(5),
        concurrency: 8,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: std::collections::BTreeMap::new(),
        enabled: true,
    };
    let (upstream, _) = rows.put_upstream(&setup.upstream.parse()?, &spec).await?;
    for (name, value) in secrets {
        rows.put_credential(upstream.id, &name.parse()?, &SecretString::from(*value)).await?;
    }
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec![setup.tenant.parse()?],
        subjects: Vec::new(),
        level: setup.level,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    };
    rows.put_grant(&"team".parse()?, &grant).await?;
    change.commit().await?;
    Ok(())
}

pub(crate) async fn rows(store: &Store, tenant: &str) -> Result<TenantStore> {
    let tenant = store.find_tenant(&tenant.parse()?).await?.context("the tenant exists")?;
    Ok(store.tenant(scope(tenant.id)))
}

#[expect(clippy::disallowed_methods, reason = "a test prepares the database as an operator would")]
pub(crate) fn scope(tenant: tenant_store::TenantId) -> TenantScope {
    TenantScope::of(tenant)
}

/// Files that the scan for leaked secrets reads after the test run.
pub(crate) fn output_files(name: &str) -> Result<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-output");
    fs::create_dir_all(&folder)?;
    let stem = format!("{name}-{}", uuid::Uuid::new_v4().simple());
    Ok((folder.join(format!("{stem}.db")), folder.join(format!("{stem}.log"))))
}

/// Where what cannot be recorded waits, beside a log.
fn spool_folder(log: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-spool").join(log.file_stem().unwrap_or_default())
}

/// Everything that a server can be told to log.
fn log_settings() -> TelemetryConfig {
    TelemetryConfig { log_format: LogFormat::Text, log: "trace".to_owned(), traces: None }
}

/// Logs that.
fn start_log(path: &Path, settings: &TelemetryConfig) -> Result<()> {
    let file = Arc::new(Mutex::new(File::create(path)?));
    let writer = move || LogFile(Arc::clone(&file));
    // A second server in the same test writes to the first one's file.
    drop(mcp_mux::telemetry::init_with_writer(settings, writer));
    Ok(())
}

struct LogFile(Arc<Mutex<File>>);

impl std::io::Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().map_err(|_| std::io::Error::other("a writer panicked"))?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
