//! Pools of connections: hyper's client over rustls, to wherever a pool's resolver lets it.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use super::resolver::Vetted;

/// How long a connection may take to be made, the look-up of its name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const RESPONSE_HEADERS_MAX: usize = 100;

/// After how long the other side is asked whether it is there, how often, and how long what was sent may stay unacknowledged.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE_TRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// How many TLS sessions a pool resumes that has one origin, and one that has many.
pub(super) const TLS_SESSIONS_OF_ONE: usize = 8;
pub(super) const TLS_SESSIONS_OF_MANY: usize = 256;

/// Connections that are used again.
pub(super) type Pool = Arc<Client<Connector, Full<Bytes>>>;

type BoxError = Box<dyn Error + Send + Sync>;

/// What cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The machine's root certificates, or a key that does not belong to its certificate.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// A text that is no PEM.
    #[error("a certificate or a key is not PEM")]
    Pem,
}

/// What a client shows and believes in the TLS handshake.
#[derive(Debug, Clone, Copy)]
pub struct ClientTls<'t> {
    /// Its certificates and private key, as PEM.
    pub pair: &'t SecretString,
    /// The certificates that vouch for the other side, as PEM, in place of the machine's own.
    pub ca: Option<&'t str>,
}

/// How a pool shakes hands.
pub(super) enum Handshake<'t> {
    /// As nobody.
    Anonymous(Box<ClientConfig>),
    /// With a certificate of its own, and always.
    Proven(ClientTls<'t>),
}

/// Makes connections, each in its time.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector<Vetted>>);

/// A new pool.
pub(super) fn pool(vetted: Vetted, handshake: Handshake<'_>) -> Result<Pool, TlsError> {
    let mut http = HttpConnector::new_with_resolver(vetted);
    // Both schemes come here; TLS is put above it.
    http.enforce_http(false);
    http.set_nodelay(true);
    // Shared among the addresses of a name, so that one that is silent leaves time for the next.
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_keepalive(Some(ALIVE_EVERY));
    http.set_keepalive_interval(Some(ALIVE_EVERY));
    http.set_keepalive_retries(Some(ALIVE_TRIES));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    let tls = HttpsConnectorBuilder::new();
    let schemes = match handshake {
        Handshake::Anonymous(config) => tls.with_tls_config(*config).https_or_http(),
        Handshake::Proven(proof) => tls.with_tls_config(proven(proof)?).https_only(),
    };
    let connector = Connector(schemes.enable_all_versions().wrap_connector(http));
    #[expect(clippy::disallowed_methods, reason = "this is the place that builds clients")]
    let pool = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .build(connector);
    Ok(Arc::new(pool))
}

/// A handshake in which nobody proves who they are, but the other side to the machine's own root certificates.
pub(super) fn machine_tls() -> Result<ClientConfig, TlsError> {
    // One TLS library for the process; whoever embeds us may have installed it already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Ok(ClientConfig::builder().with_platform_verifier()?.with_no_client_auth())
}

/// The same for one pool. What it resumes nobody else does.
pub(super) fn own_tls(machine: &ClientConfig, sessions_max: usize) -> ClientConfig {
    let mut own = machine.clone();
    own.resumption = Resumption::in_memory_sessions(sessions_max);
    own
}

fn proven(ClientTls { pair, ca }: ClientTls<'_>) -> Result<ClientConfig, TlsError> {
    let pair = pair.expose_secret().as_bytes();
    let key = PrivateKeyDer::from_pem_slice(pair).map_err(|_| TlsError::Pem)?;
    let roots = match ca {
        None => ClientConfig::builder().with_platform_verifier()?,
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca.as_bytes())? {
                roots.add(certificate)?;
            }
            ClientConfig::builder().with_root_certificates(roots)
        }
    };
    let mut config = roots.with_client_auth_cert(certificates(pair)?, key)?;
    config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_OF_ONE);
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Pem)
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(CONNECT_TIMEOUT, self.0.call(uri));
        Box::pin(async move {
            connecting.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        })
    }
}
