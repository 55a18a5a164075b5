//! The composition root: the only place where long-lived parts are built and joined.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::KeyRing;
use futures::future::join_all;
use tenant_store::{Clock, Follower, Group, ReplicaId, Store, StoreError, SystemClock};
use tokio::net::TcpListener;

use crate::allowance::{self, Allowances};
use crate::audit::{Audit, Retention, SecretUses};
use crate::auth::{ApiKeys, Authenticator, Directories, GraphDirectory, Login, NamedGroups};
use crate::caller::{Bounds, Caller, Principal};
use crate::catalog::{Catalog, Face, Refresher};
use crate::config::{AuditConfig, Config, ConfigError, PublicUrl};
use crate::egress::{Egress, EgressError};
use crate::gateway::{ConnectLinks, Gateway};
use crate::http::{Connect, Probed, ProtectedResources, Scim, Server, admin_router, router, serve};
use crate::keys::{KeyProviders, KeysError};
use crate::lifecycle::Tasks;
use crate::limits::Limits;
use crate::mux::{Handles, Mux, OwnAccounts};
use crate::policy::Administration;
use crate::replicas::{self, Heart};
use crate::telemetry::{Metrics, MetricsError, Operations, tracer};
use crate::upstream::{Accounts, Pool};
use crate::usage::Usage;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot work.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The keys cannot be used.
    #[error("the keys cannot be used")]
    Keys(#[from] KeysError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: set `{setting}` to a free address")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Where it is configured.
        setting: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP stack could not be set up.
    #[error("cannot open connections")]
    Egress(#[from] EgressError),
    /// Nothing could be measured.
    #[error("cannot keep metrics")]
    Metrics(#[from] MetricsError),
}

/// A server that runs.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    /// Where operators' own programs are answered.
    admin: Option<SocketAddr>,
    public_url: PublicUrl,
    store: Store,
    catalog: Arc<Catalog>,
    refresher: Arc<Refresher>,
    api_keys: Arc<ApiKeys>,
    accounts: Accounts,
    counted: (Allowances, Usage),
    tasks: Tasks,
    /// How long it serves after it was told to stop, and how long it then waits for what runs.
    drain: (Duration, Duration),
}

/// What somebody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The slugs of the tenants in reach.
    pub tenants: Vec<String>,
    /// The exposed names, as listed.
    pub tools: Vec<String>,
}

/// Opens the database that the configuration names, brings it up to date and proves the keys. A tenant whose key is missing is not
/// served, and the log says so.
pub async fn open_store(config: &Config) -> Result<Store, StartError> {
    let store = open_unproved(config).await?;
    store.platform_keys().await?;
    for (tenant, kek) in store.locked_tenants().await? {
        tracing::error!(
            tenant.id = %tenant, %kek,
            "a tenant's secrets do not open: its key is wrapped under a key-encryption key that is not configured"
        );
    }
    Ok(store)
}

/// The same without asking whether the keys are those of the database.
pub(crate) async fn open_unproved(config: &Config) -> Result<Store, StartError> {
    let store = connect(config).await?;
    if let Some(owner) = owner(config, &store).await? {
        migrate(config, &owner).await?;
    }
    store.require_migrations().await?;
    store.check_role().await?;
    Ok(store)
}

/// The database as it is, for whoever only looks: neither is anything migrated, nor a key asked for.
pub(crate) async fn look_into(config: &Config) -> Result<Store, StartError> {
    let store = connect(config).await?;
    store.require_migrations().await?;
    store.check_role().await?;
    Ok(store)
}

/// The database as it is.
pub(crate) async fn connect(config: &Config) -> Result<Store, StartError> {
    let kek = Arc::new(KeyProviders::new(config)?);
    Ok(Store::open(&config.database.resolve()?, kek, Arc::new(SystemClock)).await?)
}

/// The same as whoever may migrate it, if that is not somebody else.
pub(crate) async fn owner(config: &Config, store: &Store) -> Result<Option<Store>, StartError> {
    Ok(match config.database.resolve_owner()? {
        Some(url) => Some(Store::open(&url, store.key_encryption(), Arc::new(SystemClock)).await?),
        None => (!store.has_roles()).then(|| store.clone()),
    })
}

/// Brings the database up to date as its owner, and lets the role in that serves. Says how many migrations that took.
pub(crate) async fn migrate(config: &Config, owner: &Store) -> Result<u32, StartError> {
    Ok(owner.migrate_for(Some(&config.database.resolve()?)).await?)
}

/// For the background work of a server.
#[expect(clippy::disallowed_methods, reason = "the composition root hands it to what works in the background")]
fn administration() -> Administration {
    Administration::for_the_platform()
}

/// Wakes those who read the database, as often as something may have changed there.
async fn follow(mut follower: Follower, refresher: Arc<Refresher>, api_keys: Arc<ApiKeys>) {
    let mut is_told = false;
    loop {
        let heard = follower.next().await;
        if let (Err(error), false) = (&heard, is_told) {
            tracing::warn!(error = error as &dyn std::error::Error, "changes are looked for, and not heard of at once");
        }
        is_told = heard.is_err();
        refresher.wake();
        api_keys.wake();
    }
}

/// The directories that are asked, for what the grants of the catalog name.
fn asked(
    config: &Config,
    egress: &Egress,
    with: (&Arc<dyn Clock>, &Store),
    catalog: &Arc<Catalog>,
) -> Result<Vec<GraphDirectory>, ConfigError> {
    let catalog = Arc::clone(catalog);
    let named: NamedGroups = Arc::new(move |issuer| catalog.snapshot().grants().groups_of(issuer));
    GraphDirectory::all(config, egress, with, &named)
}

/// What one replica is enough for.
async fn lead(
    store: Store,
    clock: Arc<dyn Clock>,
    refresher: Arc<Refresher>,
    (directories, audit, retention): (Vec<GraphDirectory>, Audit, Retention),
) {
    let work = || async {
        let asked = join_all(directories.iter().map(|directory| directory.keep(&audit)));
        let old =
            async { tokio::join!(allowance::forget_old(&store, &*clock), retention.keep(&store, administration())) };
        tokio::join!(refresher.work(), asked, old);
        // Without a directory that is asked, listing is all, and never ends.
    };
    replicas::lead(&store, work).await;
}

/// What goes on beside requests from the start to the end.
fn go_on_in_background(
    (clock, tasks): (&Arc<dyn Clock>, &Tasks),
    store: &Store,
    (refresher, api_keys): (&Arc<Refresher>, &Arc<ApiKeys>),
    (asked, audit, kept): (Vec<GraphDirectory>, Audit, &AuditConfig),
) {
    let kek = store.key_encryption();
    tasks.spawn(async move { kek.keep_alive().await });
    let retention = Retention::new(audit.clone(), kept, Arc::clone(clock));
    tasks.spawn(lead(store.clone(), Arc::clone(clock), Arc::clone(refresher), (asked, audit, retention)));
    // What is revoked holds for calls too that are still being finished.
    tasks.spawn_beside(Arc::clone(refresher).follow());
    tasks.spawn_beside(Arc::clone(api_keys).keep_fresh());
    tasks.spawn_beside(follow(store.follow(), Arc::clone(refresher), Arc::clone(api_keys)));
}

/// Where it is noted how requests go: in metrics, and in spans where the configuration names a collector.
fn operations(config: &Config, metrics: &Metrics, (egress, tasks): (&Egress, &Tasks)) -> Operations {
    let collector = config.telemetry.traces.as_ref();
    metrics.operations(collector.map(|collector| tracer(collector, egress, tasks)))
}

/// The audit record, with what writers left that were killed or ended while the database was away.
async fn recording(
    store: &Store,
    keys: &KeyRing,
    config: &AuditConfig,
    (clock, tasks): (&Arc<dyn Clock>, &Tasks),
) -> Result<Audit, StoreError> {
    let audit = Audit::start(store, keys, config, (Arc::clone(clock), tasks)).await?;
    Audit::take_up_spools(store, administration(), config, (keys, tasks));
    audit.sign_for_the_killed(store, administration(), config.checkpoint_every(), (Arc::clone(clock), tasks));
    Ok(audit)
}

/// What directories push, and where that is kept and recorded.
fn scim(
    config: &Config,
    store: &Store,
    audit: &Audit,
    (clock, public_url): (&Arc<dyn Clock>, &PublicUrl),
) -> Result<Scim, ConfigError> {
    let (store, audit, clock, public_url) = (store.clone(), audit.clone(), Arc::clone(clock), public_url.clone());
    Ok(Scim { directories: Directories::new(config)?, store, audit, clock, public_url })
}

/// Becomes one of the replicas, and reads then what there is.
async fn join_in(
    store: &Store,
    clock: &dyn Clock,
    (catalog, api_keys): (&Catalog, &ApiKeys),
    tasks: &Tasks,
) -> Result<ReplicaId, StoreError> {
    let mut heart = Heart::new(store.clone(), clock, [catalog.changes(), api_keys.changes()]);
    let replica = heart.id();
    // Whoever revokes something waits for this replica, or did so before what is read now.
    heart.begin().await;
    catalog.reload().await?;
    api_keys.reload().await?;
    tasks.spawn_last(|over| heart.run(over));
    Ok(replica)
}

/// What bounds calls, and where they are counted.
async fn counting(
    config: &Config,
    store: &Store,
    (clock, tasks): (&Arc<dyn Clock>, &Tasks),
) -> (Limits, (Allowances, Usage)) {
    for slug in config.limits.tenants.keys() {
        if let Ok(None) = store.find_tenant(slug).await {
            tracing::warn!(tenant = %slug, "`limits.tenants` has limits for a tenant that is not there: look at its slug");
        }
    }
    let allowances = Allowances::start(&config.limits, store, (clock, tasks));
    (Limits::new(&config.limits), (allowances, Usage::start(store, tasks)))
}

/// What is looked up when somebody asks for the metrics.
fn show(metrics: &Metrics, pool: &Pool, (audit, usage): (&Audit, &Usage)) {
    metrics.show_upstreams(Box::new(pool.healths()));
    let pressure = audit.pressure();
    metrics.show_audit(pressure.waiting(), pressure.lost());
    metrics.show_usage(usage.lost());
}

/// A listener, and where it is: not where it was configured if that was port 0.
async fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, setting, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Answers probes until nothing else runs any more.
fn answer_probes(listener: TcpListener, probed: Probed) {
    probed.tasks.clone().spawn_last(|over| async move {
        let served = axum::serve(listener, admin_router(probed)).with_graceful_shutdown(over.cancelled_owned());
        if let Err(error) = served.into_future().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the admin listener ended");
        }
    });
}

impl App {
    /// Starts a server on its own listener.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        config.check()?;
        let store = open_store(config).await?;
        let (listener, _) = listen("http.listen", config.http.listen).await?;
        Self::start_with(config, store, listener, config.public_url.clone()).await
    }

    /// Starts a server on `listener`, known to clients as `public_url`.
    pub async fn start_with(
        config: &Config,
        store: Store,
        listener: TcpListener,
        public_url: PublicUrl,
    ) -> Result<Self, StartError> {
        let (setting, address) = ("http.listen", config.http.listen);
        let address = listener.local_addr().map_err(|source| StartError::Listen { address, setting, source })?;
        let admin = match config.admin.listen {
            Some(address) => Some(listen("admin.listen", address).await?),
            None => None,
        };
        let tasks = Tasks::default();
        let metrics = Metrics::new()?;
        let catalog = Catalog::open(store.clone(), administration()).await?.measured(metrics.clone());
        let catalog = Arc::new(catalog);
        let egress = Egress::new(&config.egress)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let operations = operations(config, &metrics, (&egress, &tasks));
        let opens = (egress.clone(), config.exchangers());
        let keys = store.platform_keys().await?;
        let audit = recording(&store, &keys, &config.audit, (&clock, &tasks)).await?;
        let uses = SecretUses::start(&audit, &clock, &tasks);
        let pool = Pool::new(opens, operations.clone(), (tasks.clone(), Arc::clone(&clock)));
        let pool = pool.bounded(&config.limits).recording(uses);
        let every = config.catalog.refresh_every();
        let refresher =
            Arc::new(Refresher::new(Arc::clone(&catalog), pool.clone(), every, config.catalog.name_chars_max));
        let authenticator = Authenticator::new(config, &egress, Arc::clone(&clock), &tasks)?;
        let api_keys = Arc::new(ApiKeys::open(store.clone()).await?);
        let authenticator = authenticator.with_api_keys(Arc::clone(&api_keys));
        let accounts = Accounts::new(store.clone(), pool.clone(), public_url.clone());
        let handles = Handles::new(keys.clone());
        let (limits, counted) = counting(config, &store, (&clock, &tasks)).await;
        show(&metrics, &pool, (&audit, &counted.1));
        let mux = Mux::new(
            (Arc::clone(&catalog), pool, store.clone(), audit.clone()),
            (handles.clone(), Arc::clone(&clock), tasks.clone()),
            (limits, counted.clone()),
            config.http.recheck_every(),
            config.catalog.page_items,
        );
        let login = Login::new(config, &egress, &clock, &public_url)?;
        let links = ConnectLinks::new(&public_url, login.issuers());
        let own = OwnAccounts::new(mux.clone(), accounts.clone());
        let connect = Connect::new(login, own, keys.clone(), &public_url, Arc::clone(&clock));
        let gateway = Gateway::new((mux, handles), links, operations, (Arc::clone(&clock), tasks.clone()));
        let resources = ProtectedResources::new(config, &public_url);
        let scim = scim(config, &store, &audit, (&clock, &public_url))?;
        let server = Server {
            authenticator,
            gateway,
            resources,
            connect,
            scim,
            trusted_proxies: config.http.trusted_proxies.clone(),
            tasks: tasks.clone(),
            recheck_every: config.http.recheck_every(),
        };
        let routes = router(server, &public_url, &config.http.allowed_hosts, &config.http.allowed_origins);

        let asked = asked(config, &egress, (&clock, &store), &catalog)?;
        go_on_in_background((&clock, &tasks), &store, (&refresher, &api_keys), (asked, audit, &config.audit));
        let replica = join_in(&store, &*clock, (&catalog, &api_keys), &tasks).await?;
        let (http, accepting) = (config.http.clone(), tasks.clone());
        tasks.spawn_draining(async move { serve(listener, routes, &http, &accepting).await });
        let probed = Probed { catalog: Arc::clone(&catalog), metrics, tasks: tasks.clone() };
        let admin = admin.map(|(listener, address)| {
            answer_probes(listener, probed);
            tracing::info!(%address, "probes are answered");
            address
        });
        let drain = (config.http.drain_delay(), config.http.drain_timeout());
        tracing::info!(%address, public_url = %public_url, %replica, "mcp-mux serves");
        Ok(Self { address, admin, public_url, store, catalog, refresher, api_keys, accounts, counted, tasks, drain })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The URL of the aggregate endpoint.
    pub fn endpoint(&self) -> String {
        self.public_url.join("/mcp")
    }

    /// The store, for whoever started the server.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What a caller with this identity would see on the aggregate endpoint.
    pub fn seen_by(&self, principal: &Principal, groups: Arc<[Group]>) -> Seen {
        let caller = Caller::supposed(principal.clone(), groups, Bounds::Everything);
        let snapshot = self.catalog.snapshot();
        let reach = snapshot.grants().reach(&caller);
        let tenants = reach.accesses().iter().map(|access| access.tenant_slug().to_string()).collect();
        let tools = snapshot.view(Face::Aggregate, &reach).tools.names().map(ToOwned::to_owned).collect();
        Seen { tenants, tools }
    }

    /// The refresher of the catalog, for whoever started the server.
    pub fn refresher(&self) -> &Refresher {
        &self.refresher
    }

    /// The callers' own accounts at upstreams, for whoever started the server.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What tenants use, for whoever started the server.
    pub fn usage(&self) -> &Usage {
        &self.counted.1
    }

    /// What may be used in a day and in a month, for whoever started the server.
    pub fn allowances(&self) -> &Allowances {
        &self.counted.0
    }

    /// Takes over what changed in the database now rather than at the next look.
    pub async fn follow(&self) -> Result<(), StoreError> {
        self.catalog.reload().await?;
        self.api_keys.reload().await
    }

    /// The tasks of the server.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Stops: says that it is not ready any more and serves for a while nevertheless, then accepts nothing new and finishes what runs.
    /// `false` if something had to be left behind.
    pub async fn stop(self) -> bool {
        let (delay, timeout) = self.drain;
        self.tasks.drain();
        tokio::time::sleep(delay).await;
        self.tasks.stop_within(timeout).await
    }
}
