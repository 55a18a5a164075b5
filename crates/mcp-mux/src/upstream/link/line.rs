//! What all links of one upstream share: its connections, its places for calls, its authorization server. It holds nothing that
//! proves anybody but the tenant itself, and nothing of another upstream.

use std::fmt;
use std::sync::Arc;

use tenant_store::{Clock, SecretForm, Timestamp, Upstream, UpstreamAuth};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::super::credential::Proofs;
use super::super::egress::{self, ClientTls};
use super::super::error::UpstreamError;
use super::super::oauth::Server;
use crate::lifecycle::Tasks;

/// One upstream's connections, and what is configured for it.
pub(in crate::upstream) struct Line {
    upstream: Arc<Upstream>,
    /// Versions of the credentials that it was made with: a new secret gets a new line, and so a new session and token.
    credential_versions: Vec<u32>,
    /// Made when it is first needed, for it may hold a private key that must be opened.
    http: OnceCell<reqwest::Client>,
    server: Option<Arc<Server>>,
    places: Arc<Semaphore>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
}

impl Line {
    pub(in crate::upstream) fn new(
        upstream: Arc<Upstream>,
        versions: Vec<u32>,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let server = upstream.spec.auth.token_request().map(|request| Server::new(&request.server)).transpose()?;
        Ok(Arc::new(Self {
            places: Arc::new(Semaphore::new(upstream.spec.concurrency as usize)),
            upstream,
            credential_versions: versions,
            http: OnceCell::new(),
            server: server.map(Arc::new),
            tasks,
            clock,
        }))
    }

    /// Whether it still fits what is configured.
    pub(in crate::upstream) fn fits(&self, upstream: &Upstream, versions: &[u32]) -> bool {
        *self.upstream == *upstream && self.credential_versions == versions
    }

    pub(in crate::upstream) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(in crate::upstream) fn versions(&self) -> &[u32] {
        &self.credential_versions
    }

    /// Who issues the access tokens that the upstream takes.
    pub(super) fn server(&self) -> Option<&Arc<Server>> {
        self.server.as_ref()
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A place among the calls that may run at once, waited for until `patience` ends.
    pub(super) async fn place(&self, patience: Instant) -> Result<Arc<OwnedSemaphorePermit>, UpstreamError> {
        let wait = timeout_at(patience, Arc::clone(&self.places).acquire_owned());
        Ok(Arc::new(wait.await.ok().and_then(Result::ok).ok_or(UpstreamError::Busy)?))
    }

    /// The client whose connections the upstream is called over. One with a certificate of the tenant's is nobody else's.
    pub(super) async fn http(&self, proofs: &Proofs<'_>) -> Result<reqwest::Client, UpstreamError> {
        let make = || async {
            let UpstreamAuth::Mtls { secret, ca, .. } = &self.upstream.spec.auth else {
                return egress::client().map_err(|_| UpstreamError::Setup);
            };
            let pair = proofs.open_as(&self.upstream, secret, SecretForm::CertificatePair).await?;
            let tls = ClientTls { pair: &pair, ca: ca.as_deref() };
            egress::client_with(&tls).map_err(|_| UpstreamError::CredentialUnusable(secret.clone()))
        };
        self.http.get_or_try_init(make).await.cloned()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("upstream", &self.upstream.id).finish_non_exhaustive()
    }
}
