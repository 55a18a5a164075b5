//! Connections that we open: the one place that builds HTTP clients, and the guard in front of them.
//!
//! An address that a tenant or a remote document chose is vetted on every request, and what its name resolves to is vetted as it
//! is looked up; the connection goes to exactly the addresses that were vetted. What the process configuration names is the
//! operator's own word: that origin is allowed to the client made for it, and no other.
//!
//! Clients follow no redirect, so that a credential goes only where it was meant to go; they read no proxy from the environment;
//! and they decode no compression, so that a small answer cannot grow.

mod address;
mod pool;
mod resolver;
mod response;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body_util::Full;
use rustls::ClientConfig;
use tenant_store::EgressHosts;
use tokio::time::{Instant, timeout_at};
use url::{Host, Origin, Url};

pub use self::pool::{ClientTls, TlsError};
use self::pool::{Handshake, Pool, TLS_SESSIONS_OF_MANY, TLS_SESSIONS_OF_ONE, machine_tls, own_tls, pool};
use self::resolver::{Resolve, System, Vetted};
pub use self::response::Response;
use crate::config::EgressConfig;

/// Who we say we are.
const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!("mcp-mux/", env!("CARGO_PKG_VERSION")));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// The HTTP stack could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("an HTTP client cannot be built")]
pub struct EgressError(#[from] TlsError);

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
    Unreachable(#[source] Broken),
}

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// An address that HTTP has no way to write.
    #[error("its address cannot be written in a request")]
    Address(#[source] http::uri::InvalidUri),
    /// No connection, or it broke before the head of the response.
    #[error("there is no connection")]
    Connection(#[source] hyper_util::client::legacy::Error),
    /// It broke within the body.
    #[error("the body broke off")]
    Body(#[source] hyper::Error),
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
    named: Pool,
    https: Pool,
    http: Pool,
}

/// What makes requests, to wherever the guard lets it. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Guarded>);

/// Pools, and what is asked of an address before one of them is used.
struct Guarded {
    rules: Arc<EgressConfig>,
    /// The origins that the process configuration names for this client.
    named: Vec<Origin>,
    /// The one origin that it is for.
    origin: Option<Origin>,
    /// The hosts that a tenant's operator narrows the tenant's connections to.
    hosts: Option<EgressHosts>,
    /// The address that most requests go to, if it was vetted: by rules that are the client's for good.
    usual: Option<(Url, Uri)>,
    pools: Pools,
}

/// A request to an address that was vetted.
#[derive(Debug)]
pub struct Request {
    pool: Pool,
    message: http::Request<Full<Bytes>>,
    time: Option<Duration>,
}

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
        let shared = |destinations| {
            let vetted = Vetted { destinations, rules: Arc::clone(&rules), names: resolvers() };
            pool(vetted, Handshake::Anonymous(Box::new(own_tls(&tls, TLS_SESSIONS_OF_MANY))))
        };
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
        Client(Arc::new(Guarded { named, ..self.guarded(None) }))
    }

    /// A client for what a tenant's upstreams need beside themselves, such as an authorization server: at one of `hosts`.
    pub fn tenant(&self, hosts: Option<EgressHosts>) -> Client {
        Client(Arc::new(self.guarded(hosts)))
    }

    fn guarded(&self, hosts: Option<EgressHosts>) -> Guarded {
        let (rules, pools) = (Arc::clone(&self.rules), self.pools.clone());
        Guarded { rules, named: Vec::new(), origin: None, hosts, usual: None, pools }
    }

    /// A client with connections of its own that reaches the origin of `url` and no other, and only if `hosts` cover it. One that
    /// proves itself by `tls` speaks nothing but https.
    pub fn upstream(
        &self,
        url: &Url,
        hosts: Option<EgressHosts>,
        tls: Option<ClientTls<'_>>,
    ) -> Result<Client, EgressError> {
        let handshake = tls
            .map_or_else(|| Handshake::Anonymous(Box::new(own_tls(&self.tls, TLS_SESSIONS_OF_ONE))), Handshake::Proven);
        let (destinations, rules, names) = (destinations(url), Arc::clone(&self.rules), (self.resolvers)());
        let pool = pool(Vetted { destinations, rules, names }, handshake)?;
        let pools = Pools { named: pool.clone(), https: pool.clone(), http: pool };
        let guarded = Guarded { origin: Some(url.origin()), pools, ..self.guarded(hosts) };
        let usual = guarded.pool(url).ok().and_then(|_| Uri::try_from(url.as_str()).ok());
        Ok(Client(Arc::new(Guarded { usual: usual.map(|uri| (url.clone(), uri)), ..guarded })))
    }
}

impl Client {
    /// A request to `url`, if that may be called.
    pub fn request(&self, method: Method, url: &Url) -> Result<Request, SendError> {
        // Who has a usual address has one pool for all.
        let (pool, uri) = if let Some((_, uri)) = self.0.usual.as_ref().filter(|(usual, _)| usual == url) {
            (Arc::clone(&self.0.pools.https), uri.clone())
        } else {
            let pool = Arc::clone(self.0.pool(url).map_err(SendError::Refused)?);
            (pool, Uri::try_from(url.as_str()).map_err(|error| SendError::Unreachable(Broken::Address(error)))?)
        };
        let mut message = http::Request::new(Full::default());
        (*message.method_mut(), *message.uri_mut()) = (method, uri);
        Ok(Request { pool, message, time: None })
    }
}

impl Guarded {
    fn pool(&self, url: &Url) -> Result<&Pool, Refused> {
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
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.message.headers_mut().append(name, value);
        self
    }

    /// With these headers, in the place of those that it has of the same names.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.message.headers_mut().extend(headers);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.message.body_mut() = Full::new(body.into());
        self
    }

    /// Ended, with its response, after `time`.
    #[must_use]
    pub fn timeout(self, time: Duration) -> Self {
        Self { time: Some(time), ..self }
    }

    /// Sends it and waits for the head of the response.
    pub async fn send(mut self) -> Result<Response, SendError> {
        let headers = self.message.headers_mut();
        headers.entry(USER_AGENT).or_insert(OUR_NAME);
        headers.entry(ACCEPT).or_insert(ANYTHING);
        let ends_at = self.time.map(|time| Instant::now() + time);
        let response = self.pool.request(self.message);
        let response = match ends_at {
            Some(ends_at) => timeout_at(ends_at, response).await.map_err(|_| SendError::TimedOut)?,
            None => response.await,
        };
        Ok(Response::new(response?, ends_at))
    }
}

impl From<hyper_util::client::legacy::Error> for SendError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
        // What the resolver said, if it was the resolver.
        if let Some(refused) = causes().find_map(|cause| cause.downcast_ref::<Refused>()) {
            return Self::Refused(*refused);
        }
        let is_late = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::TimedOut;
        if causes().filter_map(|cause| cause.downcast_ref()).any(is_late) {
            return Self::TimedOut;
        }
        Self::Unreachable(Broken::Connection(error))
    }
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
