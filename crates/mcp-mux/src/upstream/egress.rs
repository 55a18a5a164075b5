//! The one place that builds HTTP clients. They follow no redirect, so that a credential goes only where it was meant to go;
//! they read no proxy from the environment; and they decode no compression, so that a small answer cannot grow.

use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, Identity};
use secrecy::{ExposeSecret as _, SecretString};

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const RESPONSE_HEADERS_MAX: usize = 100;

/// The HTTP stack could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("an HTTP client cannot be built")]
pub struct EgressError(#[source] reqwest::Error);

/// What a client shows and believes in the TLS handshake.
#[derive(Debug)]
pub(super) struct ClientTls<'t> {
    /// Its certificates and private key, as PEM.
    pub(super) pair: &'t SecretString,
    /// The certificates that vouch for the other side, as PEM, in place of the machine's own.
    pub(super) ca: Option<&'t str>,
}

/// A new client with a connection pool of its own.
pub fn client() -> Result<reqwest::Client, EgressError> {
    builder().build().map_err(EgressError)
}

/// A new client that proves itself in the TLS handshake.
pub(super) fn client_with(tls: &ClientTls<'_>) -> Result<reqwest::Client, EgressError> {
    let pair = Identity::from_pem(tls.pair.expose_secret().as_bytes()).map_err(EgressError)?;
    let mut builder = builder().identity(pair).https_only(true);
    if let Some(ca) = tls.ca {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca.as_bytes()).map_err(EgressError)?);
    }
    builder.build().map_err(EgressError)
}

fn builder() -> ClientBuilder {
    // One TLS library for the process; whoever embeds us may have installed it already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    #[expect(clippy::disallowed_methods, reason = "this is the place that builds clients")]
    let builder = reqwest::Client::builder();
    builder
        .user_agent(concat!("mcp-mux/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .tcp_nodelay(true)
}
