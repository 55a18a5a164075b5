//! HTTP: every route on one page, every layer on one page. What enters here leaves as a verified caller and a request without
//! any credential, or does not get further.

mod accept;
mod address;
mod connect;
mod cross_origin;
mod holding;
mod identified;
mod origin;
mod probes;
mod problem;
mod scim;
mod watch;
mod well_known;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Uri;
use axum::http::header::{AUTHORIZATION, CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, any, get, post};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

pub use self::accept::serve;
use self::address::Peer;
pub use self::connect::Connect;
use self::identified::Identified;
use self::origin::{Guarded, OriginGuard};
use self::probes::Asks;
pub use self::probes::{Probe, Probed, admin_router};
use self::scim::About;
pub use self::scim::Scim;
use self::watch::Watch;
pub use self::well_known::ProtectedResources;
use crate::auth::{self, AuthError, Authenticator, Identity};
use crate::caller::{Caller, RequestId};
use crate::config::{Network, PublicUrl};
use crate::gateway::Gateway;
use crate::lifecycle::Tasks;
use crate::mux::Endpoint;

/// After this long the answer to any request is of no use; upstreams have shorter deadlines of their own.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(5);

/// What must never travel beyond this module.
const CREDENTIAL_HEADERS: [HeaderName; 4] =
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HeaderName::from_static("dpop")];

/// How the headers begin in which fronts name their users, and proxies theirs.
const CREDENTIAL_PREFIXES: [&str; 3] = ["x-openwebui-", "x-user-", "x-forwarded-"];

/// One route: its path, the methods that mean something on it, and who answers.
#[derive(Debug)]
pub struct Route {
    /// The path, with axum's `{parameters}`.
    pub path: &'static str,
    /// The methods that mean something.
    pub methods: &'static [&'static str],
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Aggregate,
    Tenant,
    AggregateMetadata,
    TenantMetadata,
    Accounts,
    SignedIn,
    SignOut,
    Account,
    Disconnect,
    Consented,
    ClientDocument,
    Scim(About),
}

/// Every route there is. The router is built from this list, and a test compares it with the isolation table.
pub const ROUTES: [Route; 22] = [
    Route { path: "/mcp", methods: &["POST", "GET", "DELETE"], kind: Kind::Aggregate },
    Route { path: "/t/{tenant}/mcp", methods: &["POST", "GET", "DELETE"], kind: Kind::Tenant },
    Route { path: "/.well-known/oauth-protected-resource", methods: &["GET"], kind: Kind::AggregateMetadata },
    Route { path: "/.well-known/oauth-protected-resource/mcp", methods: &["GET"], kind: Kind::AggregateMetadata },
    Route {
        path: "/.well-known/oauth-protected-resource/t/{tenant}/mcp",
        methods: &["GET"],
        kind: Kind::TenantMetadata,
    },
    Route { path: "/connect", methods: &["GET"], kind: Kind::Accounts },
    Route { path: "/sign-in/{issuer}/callback", methods: &["GET"], kind: Kind::SignedIn },
    Route { path: "/connect/sign-out", methods: &["POST"], kind: Kind::SignOut },
    Route { path: "/connect/{tenant}/{upstream}", methods: &["GET", "POST"], kind: Kind::Account },
    Route { path: "/connect/{tenant}/{upstream}/disconnect", methods: &["POST"], kind: Kind::Disconnect },
    Route { path: "/connect/{tenant}/{upstream}/callback", methods: &["GET"], kind: Kind::Consented },
    Route { path: "/connect/{tenant}/{upstream}/client.json", methods: &["GET"], kind: Kind::ClientDocument },
    scim("/scim/v2/{issuer}/ServiceProviderConfig", &["GET"], About::Config),
    scim("/scim/v2/{issuer}/ResourceTypes", &["GET"], About::ResourceTypes),
    scim("/scim/v2/{issuer}/ResourceTypes/{id}", &["GET"], About::ResourceType),
    scim("/scim/v2/{issuer}/Schemas", &["GET"], About::Schemas),
    scim("/scim/v2/{issuer}/Schemas/{id}", &["GET"], About::Schema),
    scim("/scim/v2/{issuer}/Users", &["GET", "POST"], About::Users),
    scim("/scim/v2/{issuer}/Users/{id}", &["GET", "PUT", "PATCH", "DELETE"], About::User),
    scim("/scim/v2/{issuer}/Groups", &["GET", "POST"], About::Groups),
    scim("/scim/v2/{issuer}/Groups/{id}", &["GET", "PUT", "PATCH", "DELETE"], About::Group),
    scim("/scim/v2/{issuer}/{*rest}", &["GET", "POST"], About::Nothing),
];

/// A route of directories.
const fn scim(path: &'static str, methods: &'static [&'static str], about: About) -> Route {
    Route { path, methods, kind: Kind::Scim(about) }
}

/// Every route of the admin listener, which is another one than that of the clients. A test compares this list as well.
pub const PROBES: [Probe; 3] = [
    Probe { path: "/healthz", asks: Asks::Alive },
    Probe { path: "/readyz", asks: Asks::Ready },
    Probe { path: "/metrics", asks: Asks::Metrics },
];

/// What the routes share.
#[derive(Debug)]
pub struct Server {
    /// Verifies callers.
    pub authenticator: Authenticator,
    /// Answers MCP.
    pub gateway: Gateway,
    /// The protected-resource metadata.
    pub resources: ProtectedResources,
    /// The pages for people's own accounts.
    pub connect: Connect,
    /// What directories push.
    pub scim: Scim,
    /// Runs what watches over open streams.
    pub tasks: Tasks,
    /// The networks of the proxies before us.
    pub trusted_proxies: Vec<Network>,
    /// How often that looks.
    pub recheck_every: Duration,
}

/// The whole surface.
pub fn router(server: Server, public_url: &PublicUrl, hosts: &[String], origins: &[String]) -> Router {
    let guard = Arc::new(OriginGuard::new(public_url, hosts, origins));
    let tasks = server.tasks.clone();
    let layers = ServiceBuilder::new() // A request passes these lines top to bottom.
        .map_response(move |response| parting(&tasks, response)) // Whatever is answered.
        .layer_fn(Identified) // Before all others, so that everything below can name the request.
        .layer(CatchPanicLayer::custom(problem::panicked)) // A mistake of ours costs one answer, not the connection.
        .layer_fn(move |inner| Guarded::new(&guard, inner)) // Before auth: a page of another site learns nothing.
        .option_layer(cross_origin::layer(origins)); // Before auth: a browser's preflight shows no token; after `origin`.
    let routes = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, handler(route.kind)));
    routes.fallback(problem::not_found).layer(layers).with_state(Arc::new(server))
}

/// A client that is answered by a server which is about to stop asks its next question over another connection, which leads elsewhere.
fn parting<B>(tasks: &Tasks, mut response: http::Response<B>) -> http::Response<B> {
    if tasks.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn handler(kind: Kind) -> MethodRouter<Arc<Server>> {
    match kind {
        Kind::Aggregate => any(aggregate),
        Kind::Tenant => any(tenant),
        Kind::AggregateMetadata => get(well_known::aggregate),
        Kind::TenantMetadata => get(well_known::tenant),
        Kind::Accounts => in_browser(get(connect::overview)),
        Kind::SignedIn => in_browser(get(connect::signed_in)),
        Kind::SignOut => in_browser(post(connect::sign_out)),
        Kind::Account => in_browser(get(connect::account).post(connect::begin)),
        Kind::Disconnect => in_browser(post(connect::disconnect)),
        Kind::Consented => in_browser(get(connect::consented)),
        Kind::ClientDocument => get(connect::client_document),
        Kind::Scim(about) => any(move |state, path, request| scim::handle(about, state, path, request)),
    }
}

/// What people look at: whatever is answered there, the browser may do nothing else with it.
fn in_browser(routes: MethodRouter<Arc<Server>>) -> MethodRouter<Arc<Server>> {
    routes.layer(middleware::map_response(connect::guard))
}

async fn aggregate(State(server): State<Arc<Server>>, request: Request) -> Response {
    mcp(&server, Endpoint::Aggregate, request).await
}

/// A path that does not decode names no tenant; that is not judged before the caller is known.
async fn tenant(
    State(server): State<Arc<Server>>,
    tenant: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let tenant = tenant.map(|Path(tenant)| tenant).unwrap_or_default();
    mcp(&server, Endpoint::Tenant(tenant), request).await
}

/// Identity first: nothing else about a request is judged, and its body is not read, before it is known who asks.
async fn mcp(server: &Arc<Server>, endpoint: Endpoint, mut request: Request) -> Response {
    let resource = server.resources.of(&endpoint);
    let from = server.address(&request);
    let identity = match server.identify((request.uri(), request.headers()), &resource.audiences, from).await {
        Ok(identity) => identity,
        Err(error) => return problem::unauthorized(&error, &resource, request.method()),
    };
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let access_token = auth::access_token(&identity, &headers);
    strip_credentials(request.headers_mut(), server.authenticator.identity_headers());
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| RequestId::new("-"));
    let caller = Arc::new(Caller {
        deadline: Instant::now() + REQUEST_TIMEOUT.min(server.authenticator.remaining(&identity)),
        principal: identity.principal,
        client: identity.client,
        access_token,
        groups: identity.groups,
        bounds: identity.bounds,
        proof_ends_at: identity.expires_at,
        ended: CancellationToken::new(),
        request_id,
    });
    let watch = Watch { server: Arc::clone(server), uri, headers, resource, caller: Arc::clone(&caller) };
    let answer = std::pin::pin!(server.gateway.handle(&caller, &endpoint, request));
    watch.over(answer).await
}

impl Server {
    /// The address that it comes from.
    fn address(&self, request: &Request) -> Option<IpAddr> {
        let peer = request.extensions().get::<Peer>()?;
        Some(address::of(*peer, request.headers(), &self.trusted_proxies))
    }

    /// Who asks, if that is proved and not revoked.
    async fn identify(
        &self,
        (uri, headers): (&Uri, &HeaderMap),
        audiences: &[String],
        from: Option<IpAddr>,
    ) -> Result<Identity, AuthError> {
        let identity = self.authenticator.authenticate((uri, headers), audiences, from).await?;
        if self.gateway.is_revoked(&identity.principal) { Err(AuthError::Revoked) } else { Ok(identity) }
    }
}

/// Removes what proves or names the caller, also in the headers that the settings name (`configured`).
fn strip_credentials(headers: &mut HeaderMap, configured: &[HeaderName]) {
    let is_credential = |name: &HeaderName| {
        let named = CREDENTIAL_HEADERS.contains(name) || configured.contains(name);
        named || CREDENTIAL_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| is_credential(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_the_caller_goes_no_further() {
        let named =
            ["authorization", "cookie", "x-openwebui-user-jwt", "x-user-group-ids", "x-forwarded-user", "x-staff"];
        let mut headers: HeaderMap = named
            .into_iter()
            .chain(["accept", "mcp-method"])
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("value")))
            .collect();
        strip_credentials(&mut headers, &[HeaderName::from_static("x-staff")]);
        assert!(headers.len() == 2 && headers.contains_key("accept") && headers.contains_key("mcp-method"));
    }
}
