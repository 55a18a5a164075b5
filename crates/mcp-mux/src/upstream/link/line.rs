//! What all links of one upstream share: its connections, its places for calls, its authorization server. It holds nothing that
//! proves anybody but the tenant itself, and nothing of another upstream.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenant_store::{Clock, EgressHosts, IssuerName, SecretForm, TenantSlug, Timestamp, Upstream, UpstreamAuth};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::super::breaker::{Breaker, CallerMark, Pass, Turned};
use super::super::credential::Proofs;
use super::super::error::UpstreamError;
use super::super::oauth::{Http, Server};
use super::super::openapi::Described;
use super::super::pool::Pool;
use super::super::request::{Lane, Rpc};
use crate::audit::SecretUses;
use crate::caller::Principal;
use crate::config::Exchangers;
use crate::egress::{Client, ClientTls, Egress, EgressError};
use crate::lifecycle::Tasks;
use crate::limits;
use crate::telemetry::{Operation, Operations, Place, Side};

/// How many streams the catalog may listen to beside an upstream's calls.
const CATALOG_MAX: usize = 2;
/// How many callers may listen to an upstream at once.
const LISTENERS_MAX: usize = 256;

/// What a line is made under, beside its upstream. Under another condition it is another line, and so are its connections, session
/// and access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::upstream) struct Conditions {
    /// Versions of the stored credentials.
    pub(in crate::upstream) versions: Vec<u32>,
    /// The hosts that the tenant's connections are narrowed to.
    pub(in crate::upstream) hosts: Option<EgressHosts>,
}

/// One upstream's connections, and what is configured for it.
pub(in crate::upstream) struct Line {
    tenant: TenantSlug,
    upstream: Arc<Upstream>,
    conditions: Conditions,
    egress: Egress,
    /// Made when it is first needed, for it may hold a private key that must be opened.
    http: OnceCell<Client>,
    server: Option<Arc<Server>>,
    places: Arc<Semaphore>,
    catalog: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    breaker: Arc<Breaker>,
    exchangers: Exchangers,
    /// What is known of it, if it is an API.
    described: Described,
    operations: Operations,
    uses: SecretUses,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    /// Whether the log knows that the upstream repeats its secret.
    repeats_secrets: AtomicBool,
    /// Whether nothing may be sent but what is being asked.
    is_silent: AtomicBool,
}

impl Line {
    pub(in crate::upstream) fn new(
        (tenant, upstream): (TenantSlug, Arc<Upstream>),
        conditions: Conditions,
        pool: &Pool,
    ) -> Arc<Self> {
        let http = || pool.egress.tenant(conditions.hosts.clone());
        let request = upstream.spec.auth.token_request();
        let server = request.map(|request| Server::new(&request.server, http()));
        Arc::new(Self {
            catalog: Arc::new(Semaphore::new(CATALOG_MAX)),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            places: Arc::new(Semaphore::new(upstream.spec.concurrency as usize)),
            breaker: Breaker::new(),
            tenant,
            upstream,
            conditions,
            egress: pool.egress.clone(),
            http: OnceCell::new(),
            server: server.map(Arc::new),
            exchangers: Arc::clone(&pool.exchangers),
            described: Described::default(),
            operations: pool.operations.clone(),
            uses: pool.uses().clone(),
            tasks: pool.tasks.clone(),
            clock: Arc::clone(&pool.clock),
            repeats_secrets: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
        })
    }

    /// Whether it still fits what is configured. One that has fallen silent stays so.
    pub(in crate::upstream) fn fits(&self, upstream: &Arc<Upstream>, conditions: &Conditions) -> bool {
        // Until the next snapshot it is the very same one.
        let is_same = Arc::ptr_eq(&self.upstream, upstream) || *self.upstream == **upstream;
        is_same && self.conditions == *conditions && !self.is_silent()
    }

    /// Whether what was begun under these conditions may be ended under those, in words: at the same address, to the same hosts.
    pub(in crate::upstream) fn may_end_under(&self, upstream: &Upstream, conditions: &Conditions) -> bool {
        self.is_still_at(upstream, conditions.hosts.as_ref())
    }

    /// The same for these hosts.
    pub(super) fn is_still_at(&self, upstream: &Upstream, hosts: Option<&EgressHosts>) -> bool {
        let is_there = upstream.spec.enabled && upstream.spec.url == self.upstream.spec.url;
        is_there && self.conditions.hosts.as_ref() == hosts
    }

    /// From here on nothing is sent of our own accord: the upstream is not to be called any more.
    pub(in crate::upstream) fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    pub(in crate::upstream) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    pub(in crate::upstream) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The tenant whose upstream it is.
    pub(in crate::upstream) fn tenant(&self) -> &TenantSlug {
        &self.tenant
    }

    /// Whether its calls are made.
    pub(in crate::upstream) fn is_well(&self) -> bool {
        self.breaker.is_closed()
    }

    /// A request to it begins.
    pub(super) fn operation(&self, rpc: &Rpc<'_>) -> Operation {
        let mut operation = self.operations.begin(Side::Client, rpc.method, || rpc.trace.origin());
        rpc.name.iter().for_each(|name| operation.is_about(name));
        operation.leads_to(Place { tenant: self.tenant.clone(), upstream: Arc::clone(&self.upstream) });
        operation
    }

    pub(in crate::upstream) fn upstream_shared(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(in crate::upstream) fn described(&self) -> &Described {
        &self.described
    }

    /// What whoever is at another origin than the upstream is asked over: nothing proves anybody there.
    pub(in crate::upstream) fn strangers_http(&self) -> Client {
        self.egress.tenant(self.conditions.hosts.clone())
    }

    /// What the authorization server of callers' accounts is asked over.
    pub(super) fn authorization_http(&self) -> Http {
        Http::new(self.egress.tenant(self.conditions.hosts.clone()))
    }

    /// Notes that the upstream repeated its secret; true for the first time.
    pub(in crate::upstream) fn notes_repetition(&self) -> bool {
        !self.repeats_secrets.swap(true, Ordering::Relaxed)
    }

    /// Who issues the access tokens that the upstream takes.
    pub(super) fn server(&self) -> Option<&Arc<Server>> {
        self.server.as_ref()
    }

    /// Whether a token of `issuer` may be shown to the upstream's authorization server. A manifest names the server, but who may see
    /// what proves a caller here is said by the process configuration.
    pub(super) fn may_exchange(&self, issuer: &IssuerName) -> bool {
        let server = self.upstream.spec.auth.authorization_server();
        let trusted = self.exchangers.get(issuer);
        server.zip(trusted).is_some_and(|(server, trusted)| trusted.contains(server))
    }

    /// Where it is counted what credentials are used for beside calls.
    pub(in crate::upstream) fn uses(&self) -> &SecretUses {
        &self.uses
    }

    pub(in crate::upstream) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether a caller's call may be made now, or the upstream is left alone for a while. The catalog has times of its own.
    pub(super) fn pass(&self, caller: &Principal) -> Result<Pass, UpstreamError> {
        let now = Instant::now();
        let pass = self.breaker.admit(CallerMark::of(caller), (now, now + self.upstream.spec.call_timeout));
        pass.map_err(|wait| UpstreamError::Resting(limits::whole_seconds(wait)))
    }

    /// A call's upstream says something, and has not answered yet.
    pub(super) fn stirs(&self, pass: &mut Pass) {
        self.tell(pass.stirs(Instant::now()), None);
    }

    /// What became of a call: an answer, or a failure.
    pub(super) fn ended(&self, pass: Pass, failure: Option<&UpstreamError>) {
        self.tell(pass.end(failure, Instant::now()), failure);
    }

    fn tell(&self, turned: Option<Turned>, failure: Option<&UpstreamError>) {
        let upstream = &self.upstream.id;
        match turned {
            Some(Turned::Open) => {
                let error = failure.map(tracing::field::display);
                tracing::warn!(upstream.id = %upstream, error, "an upstream failed too often, and is left alone for a while");
            }
            Some(Turned::Closed) => tracing::info!(upstream.id = %upstream, "an upstream answers again"),
            None => {}
        }
    }

    /// A place among what may run at once in that lane, waited for until `patience` ends.
    pub(in crate::upstream) async fn place(
        &self,
        lane: Lane,
        patience: Instant,
    ) -> Result<Arc<OwnedSemaphorePermit>, UpstreamError> {
        let places = match lane {
            Lane::Calls => &self.places,
            Lane::Catalog => &self.catalog,
            Lane::Listeners => &self.listeners,
        };
        let wait = timeout_at(patience, Arc::clone(places).acquire_owned());
        Ok(Arc::new(wait.await.ok().and_then(Result::ok).ok_or(UpstreamError::Busy)?))
    }

    /// The client whose connections the upstream is called over. One with a certificate of the tenant's is nobody else's.
    pub(super) async fn http(&self, proofs: &Proofs<'_>) -> Result<Client, UpstreamError> {
        let make = || async {
            let UpstreamAuth::Mtls { secret, ca, .. } = &self.upstream.spec.auth else {
                return self.client(None).map_err(|_| UpstreamError::Setup);
            };
            let pair = proofs.open_as(&self.upstream, secret, SecretForm::CertificatePair).await?;
            let tls = ClientTls { pair: &pair, ca: ca.as_deref() };
            self.client(Some(tls)).map_err(|_| UpstreamError::CredentialUnusable(secret.clone()))
        };
        match self.http.get() {
            Some(http) => Ok(http.clone()),
            None => Box::pin(self.http.get_or_try_init(make)).await.cloned(),
        }
    }

    fn client(&self, tls: Option<ClientTls<'_>>) -> Result<Client, EgressError> {
        self.egress.upstream(&self.upstream.spec.url, self.conditions.hosts.clone(), tls)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("upstream", &self.upstream.id).finish_non_exhaustive()
    }
}
