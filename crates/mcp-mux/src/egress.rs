//! Connections that we open: the one place that builds HTTP clients, and the guard in front of them.
//!
//! An address that a tenant or a remote document chose is vetted on every request, and what its name resolves to is vetted as it
//! is looked up; the connection goes to exactly the addresses that were vetted. What the process configuration names is the
//! operator's own word: that origin is allowed to the client made for it, and no other.
//!
//! Clients follow no redirect, so that a credential goes only where it was meant to go; they read no proxy from the environment;
//! and they decode no compression, so that a small answer cannot grow.

mod address;
mod resolver;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::dns::Resolve;
use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::EgressHosts;
use url::{Host, Origin, Url};

use self::resolver::{System, Vetted};
use crate::config::EgressConfig;

/// How long a connection may take to be made, the look-up of its name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const RESPONSE_HEADERS_MAX: usize = 100;

/// How many TLS sessions a pool resumes that has one origin. (The others have what rustls gives them.)
const TLS_SESSIONS_MAX: usize = 8;

/// The HTTP stack could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No client.
    #[error("an HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// No root certificates.
    #[error("what the machine believes in TLS handshakes cannot be set up")]
    Roots(#[source] rustls::Error),
}

/// Why an address is not called. The end of a sentence that begins with the address, which is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another scheme.
    #[error("is neither https nor http")]
    Scheme,
    /// `user:password@`.
    #[error("holds a user name or a password")]
    UserInfo,
    /// A port that was not allowed.
    #[error("has a port that `egress.ports` does not list")]
    Port,
    /// An address inside.
    #[error("is not public, and `egress.private_networks` does not list it")]
    Address,
    /// An address that the operator left out.
    #[error("is in one of `egress.denied_networks`")]
    Denied,
    /// Plain http to somewhere outside.
    #[error("is plain http, which only what `egress.private_networks` lists may speak")]
    PlainHttp,
    /// A host that the tenant's operator left out.
    #[error("has a host that the tenant's `egress.hosts` does not list")]
    Host,
    /// Another origin than the one that the connection was made for.
    #[error("is at another origin than this connection is for")]
    Origin,
}

impl Refused {
    /// Whether the address itself was looked at, and not only how it is written.
    pub fn is_about_addresses(self) -> bool {
        matches!(self, Self::Address | Self::Denied | Self::PlainHttp)
    }
}

/// Why there is no response. What it says holds no address.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The guard stood in the way.
    #[error("its address may not be called: it {0}")]
    Refused(Refused),
    /// The time was over.
    #[error("it did not answer in time")]
    TimedOut,
    /// No connection, or it broke.
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
}

/// Where the connections of a pool may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destinations {
    /// Wherever the name leads: an operator wrote it down.
    Any,
    /// To public addresses and to listed networks.
    PublicOrListed,
    /// To listed networks only.
    Listed,
}

/// The guard of the process, and the connections that all share who have no pool of their own.
#[derive(Clone)]
pub struct Egress {
    rules: Arc<EgressConfig>,
    resolvers: Resolvers,
    /// What all pools believe that prove themselves by no certificate. To read the machine's root certificates for each costs time and
    /// memory.
    tls: ClientConfig,
    pools: Pools,
}

/// Makes the resolver of each pool, so that names that are slow to look up hold up nobody else's.
type Resolvers = Arc<dyn Fn() -> Arc<dyn Resolve> + Send + Sync>;

#[derive(Clone)]
struct Pools {
    named: reqwest::Client,
    https: reqwest::Client,
    http: reqwest::Client,
}

/// What makes requests, to wherever the guard lets it.
#[derive(Clone)]
pub struct Client {
    rules: Arc<EgressConfig>,
    /// The origins that the process configuration names for this client.
    named: Arc<[Origin]>,
    /// The one origin that it is for.
    origin: Option<Origin>,
    /// The hosts that a tenant's operator narrows the tenant's connections to.
    hosts: Option<EgressHosts>,
    pools: Pools,
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
enum Handshake<'t> {
    Anonymous(Box<ClientConfig>),
    Proven(ClientTls<'t>),
}

/// A request to an address that was vetted.
#[derive(Debug)]
pub struct Request(reqwest::RequestBuilder);

impl Egress {
    /// A guard by the rules of the process.
    pub fn new(config: &EgressConfig) -> Result<Self, EgressError> {
        Self::with_resolvers(config, Arc::new(|| Arc::new(System::default())))
    }

    #[cfg(test)]
    fn with_resolver(config: &EgressConfig, resolver: Arc<dyn Resolve>) -> Result<Self, EgressError> {
        Self::with_resolvers(config, Arc::new(move || Arc::clone(&resolver)))
    }

    fn with_resolvers(config: &EgressConfig, resolvers: Resolvers) -> Result<Self, EgressError> {
        let (rules, tls) = (Arc::new(config.clone()), machine_tls()?);
        let shared =
            |destinations| pool(&rules, resolvers(), destinations, Handshake::Anonymous(Box::new(tls.clone())));
        let pools = Pools {
            named: shared(Destinations::Any)?,
            https: shared(Destinations::PublicOrListed)?,
            http: shared(Destinations::Listed)?,
        };
        Ok(Self { rules, resolvers, tls, pools })
    }

    /// A client that also reaches the origins of `named`, which must come from the process configuration.
    pub fn client<'u>(&self, named: impl IntoIterator<Item = &'u Url>) -> Client {
        let named = named.into_iter().map(Url::origin).collect();
        Client { rules: Arc::clone(&self.rules), named, origin: None, hosts: None, pools: self.pools.clone() }
    }

    /// A client for what a tenant's upstreams need beside themselves, such as an authorization server: at one of `hosts`.
    pub fn tenant(&self, hosts: Option<EgressHosts>) -> Client {
        Client { hosts, ..self.client([]) }
    }

    /// A client with connections of its own that reaches the origin of `url` and no other, and only if `hosts` cover it. One that
    /// proves itself by `tls` speaks nothing but https.
    pub fn upstream(
        &self,
        url: &Url,
        hosts: Option<EgressHosts>,
        tls: Option<ClientTls<'_>>,
    ) -> Result<Client, EgressError> {
        let handshake = tls.map_or_else(|| Handshake::Anonymous(Box::new(self.own_tls())), Handshake::Proven);
        let pool = pool(&self.rules, (self.resolvers)(), destinations(url), handshake)?;
        let pools = Pools { named: pool.clone(), https: pool.clone(), http: pool };
        Ok(Client { origin: Some(url.origin()), hosts, pools, ..self.client([]) })
    }

    /// For one pool. What it resumes nobody else does.
    fn own_tls(&self) -> ClientConfig {
        let mut own = self.tls.clone();
        own.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
        own
    }
}

impl Client {
    /// A request to `url`, if that may be called.
    pub fn request(&self, method: Method, url: &Url) -> Result<Request, SendError> {
        let pool = self.pool(url).map_err(SendError::Refused)?;
        Ok(Request(pool.request(method, url.clone())))
    }

    fn pool(&self, url: &Url) -> Result<&reqwest::Client, Refused> {
        let origin = url.origin();
        if self.named.contains(&origin) {
            return anonymous(url).map(|()| &self.pools.named);
        }
        if self.origin.as_ref().is_some_and(|own| *own != origin) {
            return Err(Refused::Origin);
        }
        if self.hosts.as_ref().is_some_and(|hosts| !hosts.cover(url)) {
            return Err(Refused::Host);
        }
        vet(&self.rules, url)?;
        Ok(if url.scheme() == "https" { &self.pools.https } else { &self.pools.http })
    }
}

impl Request {
    /// With one more header.
    #[must_use]
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self(self.0.header(name, value))
    }

    /// With more headers.
    #[must_use]
    pub fn headers(self, headers: HeaderMap) -> Self {
        Self(self.0.headers(headers))
    }

    /// With a body.
    #[must_use]
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Ended, with its response, after `time`.
    #[must_use]
    pub fn timeout(self, time: Duration) -> Self {
        Self(self.0.timeout(time))
    }

    /// Sends it and waits for the head of the response.
    pub async fn send(self) -> Result<reqwest::Response, SendError> {
        self.0.send().await.map_err(SendError::from)
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        if let Some(refused) = refusal(&error) {
            Self::Refused(refused)
        } else if error.is_timeout() {
            Self::TimedOut
        } else {
            Self::Unreachable(error.without_url())
        }
    }
}

/// What the resolver said, if it was the resolver.
fn refusal(error: &reqwest::Error) -> Option<Refused> {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.find_map(|cause| cause.downcast_ref::<Refused>()).copied()
}

/// Whether `url` may be called, as far as that can be told before its name is looked up.
fn vet(rules: &EgressConfig, url: &Url) -> Result<(), Refused> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(Refused::Scheme);
    }
    anonymous(url)?;
    if !url.port_or_known_default().is_some_and(|port| rules.ports.include(port)) {
        return Err(Refused::Port);
    }
    // Where a host is an address, nobody looks up its name.
    match url.host() {
        Some(Host::Domain(_)) => Ok(()),
        Some(Host::Ipv4(address)) => destinations(url).judge(rules, address.into()),
        Some(Host::Ipv6(address)) => destinations(url).judge(rules, address.into()),
        None => Err(Refused::Scheme),
    }
}

fn anonymous(url: &Url) -> Result<(), Refused> {
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if is_anonymous { Ok(()) } else { Err(Refused::UserInfo) }
}

fn destinations(url: &Url) -> Destinations {
    if url.scheme() == "https" { Destinations::PublicOrListed } else { Destinations::Listed }
}

/// A new pool of connections.
fn pool(
    rules: &Arc<EgressConfig>,
    names: Arc<dyn Resolve>,
    destinations: Destinations,
    handshake: Handshake<'_>,
) -> Result<reqwest::Client, EgressError> {
    let vetted = Vetted { destinations, rules: Arc::clone(rules), names };
    #[expect(clippy::disallowed_methods, reason = "this is the place that builds clients")]
    let mut builder = reqwest::Client::builder();
    builder = match handshake {
        Handshake::Anonymous(tls) => builder.tls_backend_preconfigured(*tls),
        Handshake::Proven(tls) => proven(builder, tls).map_err(EgressError::Client)?,
    };
    builder
        .user_agent(concat!("mcp-mux/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .dns_resolver(vetted)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .tcp_nodelay(true)
        .build()
        .map_err(EgressError::Client)
}

fn proven(builder: ClientBuilder, ClientTls { pair, ca }: ClientTls<'_>) -> Result<ClientBuilder, reqwest::Error> {
    let builder = builder.identity(Identity::from_pem(pair.expose_secret().as_bytes())?).https_only(true);
    match ca {
        Some(ca) => Ok(builder.tls_certs_only(Certificate::from_pem_bundle(ca.as_bytes())?)),
        None => Ok(builder),
    }
}

/// A handshake in which nobody proves who they are, but the other side to the machine's own root certificates.
fn machine_tls() -> Result<ClientConfig, EgressError> {
    // One TLS library for the process; whoever embeds us may have installed it already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let config = ClientConfig::builder().with_platform_verifier().map_err(EgressError::Roots)?;
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("rules", &self.rules).finish_non_exhaustive()
    }
}

// By hand: a URL in it may have a query.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
