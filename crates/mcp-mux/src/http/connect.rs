//! `/connect`: where people connect accounts of their own at upstreams, in a browser.
//!
//! A link to an upstream holds no ticket. Whoever opens it signs in, and what is connected then is the account of whoever signed in; so
//! a link that was given to somebody else does that person no harm and its sender no good. What a browser must bring back lies in its
//! own sealed cookies. Nothing is changed but by a form of ours. An upstream that is out of reach looks like one that does not exist.

mod answers;
mod cookie;
mod page;
mod query;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Extensions, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use crypto::KeyRing;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tenant_store::{Clock, Group, IssuerName, Subject, TenantSlug, UpstreamSlug};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::answers::{account_page, failed_account, failed_login, left, list_page, nothing_here, refused, sign_in_page};
use self::cookie::{COOKIE_LIFE, Cookies, Purpose};
use self::page::{Html, see_other};
use self::query::Query;
use super::{REQUEST_TIMEOUT, Server, problem};
use crate::auth::{Begun, Login, LoginError, SignedIn};
use crate::caller::{Bounds, Caller, Principal, RequestId};
use crate::config::PublicUrl;
use crate::mux::OwnAccounts;
use crate::upstream::Flow;

/// Largest form, in bytes.
const FORM_BYTES_MAX: usize = 4_096;

/// What the pages need.
#[derive(Debug)]
pub struct Connect {
    login: Login,
    accounts: OwnAccounts,
    cookies: Cookies,
    origin: String,
    clock: Arc<dyn Clock>,
}

/// Which upstream an account is at, as a path names it.
type At = (TenantSlug, UpstreamSlug);
type Named = Result<Path<(String, String)>, PathRejection>;

/// A sign-in that runs, and where the browser goes after it.
#[derive(Serialize, Deserialize)]
struct SigningIn {
    begun: Begun,
    next: Option<At>,
}

/// Who signed in: what the cookie holds for ten minutes.
#[derive(Serialize, Deserialize)]
struct Visitor {
    issuer: IssuerName,
    subject: Subject,
    /// Those that some grant names.
    groups: Vec<Group>,
    shown: String,
    /// What our forms repeat: another site's page does not know it.
    token: String,
}

/// What a form of ours may do.
enum Posted {
    /// It is this person's.
    By(Visitor),
    /// It is nobody's.
    Refused(&'static str),
}

impl Visitor {
    fn principal(&self) -> Principal {
        Principal { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }
}

impl Connect {
    /// For the people who sign in by `login`; `keys` seal their cookies.
    pub fn new(
        login: Login,
        accounts: OwnAccounts,
        keys: KeyRing,
        public_url: &PublicUrl,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let cookies = Cookies::new(keys, public_url.is_https());
        Self { login, accounts, cookies, origin: public_url.origin(), clock }
    }

    fn visitor(&self, headers: &HeaderMap) -> Option<Visitor> {
        let visitor: Option<Visitor> = self.cookies.read(Purpose::Visitor, headers, self.clock.now());
        visitor.filter(|visitor| !self.accounts.is_revoked(&visitor.principal()))
    }

    fn caller(&self, visitor: &Visitor, request_id: RequestId) -> Caller {
        Caller {
            principal: visitor.principal(),
            client: None,
            access_token: None,
            groups: visitor.groups.clone().into(),
            bounds: Bounds::Everything,
            deadline: Instant::now() + REQUEST_TIMEOUT,
            proof_ends_at: self.clock.now().plus(COOKIE_LIFE),
            ended: CancellationToken::new(),
            request_id,
        }
    }

    /// Sends the browser to the only identity provider, or to the one that was chosen.
    async fn sign_in(&self, uri: &Uri, next: Option<At>) -> Response<Body> {
        let issuers = self.login.issuers();
        let chosen = Query::of(uri).and_then(|query| query.text("issuer"));
        let issuer = match (issuers.as_slice(), chosen) {
            ([], _) => return failed_login(&LoginError::UnknownIssuer),
            ([only], _) => *only,
            (several, chosen) => match several.iter().find(|name| chosen.as_deref() == Some(name.as_str())) {
                Some(chosen) => *chosen,
                None => return sign_in_page(uri.path(), several),
            },
        };
        match self.login.begin(issuer).await {
            Ok((url, begun)) => {
                let cookie = self.cookies.set(Purpose::SignIn, &SigningIn { begun, next }, self.clock.now());
                match (see_other(url.as_str()), cookie) {
                    (Some(response), Some(cookie)) => with_cookie(response, Some(cookie)),
                    _ => failed_login(&LoginError::Unusable),
                }
            }
            Err(error) => failed_login(&error),
        }
    }

    /// Ends a sign-in at the address of `issuer`: from now on the browser is somebody's, for ten minutes.
    async fn signed_in(&self, issuer: &str, headers: &HeaderMap, uri: &Uri) -> Response<Body> {
        let now = self.clock.now();
        let running: Option<SigningIn> = self.cookies.read(Purpose::SignIn, headers, now);
        let Some(SigningIn { begun, next }) = running.filter(|running| running.begun.issuer().as_str() == issuer)
        else {
            return failed_login(&LoginError::OtherAnswer);
        };
        let Some(returned) = Query::of(uri).map(Query::returned) else {
            return failed_login(&LoginError::OtherAnswer);
        };
        let SignedIn { principal, mut groups, shown } = match self.login.finish(&begun, &returned).await {
            Ok(signed_in) => signed_in,
            Err(error) => return with_cookie(failed_login(&error), self.cookies.clear(Purpose::SignIn)),
        };
        if self.accounts.is_revoked(&principal) {
            return with_cookie(
                refused("Your access was revoked: ask an operator."),
                self.cookies.clear(Purpose::SignIn),
            );
        }
        self.accounts.keep_named(&principal, &mut groups);
        tracing::info!(
            principal.issuer = %principal.issuer, principal.id = %principal.subject, "somebody signed in with a browser"
        );
        let token = Uuid::new_v4().simple().to_string();
        let visitor = Visitor { issuer: principal.issuer, subject: principal.subject, groups, shown, token };
        let Some(cookie) = self.cookies.set(Purpose::Visitor, &visitor, self.clock.now()) else {
            return refused(
                "Too many of your groups are named by grants for a browser to keep: ask an operator to name fewer.",
            );
        };
        let to = next.map_or_else(|| "/connect".to_owned(), |at| path(&at));
        let response = see_other(&to).unwrap_or_else(nothing_here);
        with_cookie(with_cookie(response, Some(cookie)), self.cookies.clear(Purpose::SignIn))
    }

    /// Whose form this is. It must come from a page of ours, as its browser says, and repeat what only that page knows.
    async fn posted(&self, request: Request) -> Posted {
        let (parts, body) = request.into_parts();
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        let is_ours = |origin: &HeaderValue| origin.as_bytes().eq_ignore_ascii_case(self.origin.as_bytes());
        let (Some(true), None) = (origins.next().map(is_ours), origins.next()) else {
            return Posted::Refused("This form was not sent from a page of this site.");
        };
        let Some(visitor) = self.visitor(&parts.headers) else {
            return Posted::Refused("You are not signed in here any more: go back to the list and sign in again.");
        };
        let form = axum::body::to_bytes(body, FORM_BYTES_MAX).await.unwrap_or_default();
        let token = Query::parse(&form).and_then(|form| form.text("token")).unwrap_or_default();
        if bool::from(token.as_bytes().ct_eq(visitor.token.as_bytes())) {
            Posted::By(visitor)
        } else {
            Posted::Refused("This form is not of your present sign-in: go back to the list and try again.")
        }
    }

    /// Ends a consent. Whatever comes of it, its cookie is not good for another try.
    async fn consented(&self, at: &At, request: &Parts) -> Response<Body> {
        let purpose = Purpose::Consent(&at.0, &at.1);
        let now = self.clock.now();
        let Some(visitor) = self.visitor(&request.headers) else {
            return refused("You are not signed in here any more: begin again.");
        };
        let flow: Option<Flow> = self.cookies.read(purpose, &request.headers, now);
        let (Some(flow), Some(query)) = (flow, Query::of(&request.uri)) else {
            return refused("This answer belongs to no consent that you began in this browser: begin again.");
        };
        let caller = self.caller(&visitor, id_of(&request.extensions));
        let response = match self.accounts.finish(&caller, (&at.0, &at.1), flow, query.callback()).await {
            Ok(()) => see_other(&path(at)).unwrap_or_else(nothing_here),
            Err(error) => failed_account(&error),
        };
        with_cookie(response, self.cookies.clear(purpose))
    }

    /// Begins a consent. The browser goes on by itself, or by a link.
    async fn begin(&self, at: &At, caller: &Caller) -> Response<Body> {
        let (account, consent) = match self.accounts.begin(caller, &at.0, &at.1).await {
            Ok(begun) => begun,
            Err(error) => return failed_account(&error),
        };
        let Some(cookie) = self.cookies.set(Purpose::Consent(&at.0, &at.1), &consent.flow, self.clock.now()) else {
            return refused("This consent holds more than a browser keeps: ask an operator to look at it.");
        };
        with_cookie(left(&account, &consent.url), Some(cookie))
    }
}

/// `GET /connect`
pub(super) async fn overview(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let connect = &server.connect;
    let Some(visitor) = connect.visitor(request.headers()) else { return connect.sign_in(request.uri(), None).await };
    let caller = connect.caller(&visitor, request_id(&request));
    match connect.accounts.list(&caller).await {
        Ok(accounts) => list_page(&visitor, &accounts),
        Err(error) => failed_account(&error),
    }
}

/// `GET /sign-in/{issuer}/callback`
pub(super) async fn signed_in(
    State(server): State<Arc<Server>>,
    issuer: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Response<Body> {
    let issuer = issuer.map(|Path(issuer)| issuer).unwrap_or_default();
    server.connect.signed_in(&issuer, &headers, &uri).await
}

/// `POST /connect/sign-out`
pub(super) async fn sign_out(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    match server.connect.posted(request).await {
        Posted::Refused(why) => refused(why),
        Posted::By(_) => {
            let page = Html::default().paragraph("You have signed out here. Your accounts stay connected.");
            let page = page.raw("<p>").link("/connect", "Sign in again").raw("</p>\n");
            with_cookie(page.page(StatusCode::OK, "Signed out"), server.connect.cookies.clear(Purpose::Visitor))
        }
    }
}

/// `GET /connect/{tenant}/{upstream}`
pub(super) async fn account(State(server): State<Arc<Server>>, named: Named, request: Request) -> Response<Body> {
    let (connect, Some(at)) = (&server.connect, parsed(named)) else { return nothing_here() };
    let Some(visitor) = connect.visitor(request.headers()) else {
        return connect.sign_in(request.uri(), Some(at)).await;
    };
    let caller = connect.caller(&visitor, request_id(&request));
    match connect.accounts.find(&caller, &at.0, &at.1).await {
        Ok(account) => account_page(&visitor, &account),
        Err(error) => failed_account(&error),
    }
}

/// `POST /connect/{tenant}/{upstream}`
pub(super) async fn begin(State(server): State<Arc<Server>>, named: Named, request: Request) -> Response<Body> {
    let request_id = request_id(&request);
    match (server.connect.posted(request).await, parsed(named)) {
        (Posted::Refused(why), _) => refused(why),
        (Posted::By(_), None) => nothing_here(),
        (Posted::By(visitor), Some(at)) => {
            server.connect.begin(&at, &server.connect.caller(&visitor, request_id)).await
        }
    }
}

/// `POST /connect/{tenant}/{upstream}/disconnect`
pub(super) async fn disconnect(State(server): State<Arc<Server>>, named: Named, request: Request) -> Response<Body> {
    let request_id = request_id(&request);
    let (visitor, at) = match (server.connect.posted(request).await, parsed(named)) {
        (Posted::Refused(why), _) => return refused(why),
        (Posted::By(_), None) => return nothing_here(),
        (Posted::By(visitor), Some(at)) => (visitor, at),
    };
    let caller = server.connect.caller(&visitor, request_id);
    match server.connect.accounts.disconnect(&caller, &at.0, &at.1).await {
        Ok(_) => see_other(&path(&at)).unwrap_or_else(nothing_here),
        Err(error) => failed_account(&error),
    }
}

/// `GET /connect/{tenant}/{upstream}/callback`
pub(super) async fn consented(State(server): State<Arc<Server>>, named: Named, request: Request) -> Response<Body> {
    let Some(at) = parsed(named) else { return nothing_here() };
    server.connect.consented(&at, &request.into_parts().0).await
}

/// `GET /connect/{tenant}/{upstream}/client.json`: the same whether or not there is such an upstream.
pub(super) async fn client_document(State(server): State<Arc<Server>>, named: Named) -> Response<Body> {
    let Some((tenant, upstream)) = parsed(named) else {
        return problem::plain(StatusCode::NOT_FOUND, "these are not the short names of a tenant and an upstream");
    };
    let document = server.connect.accounts.accounts().client_document(&tenant, &upstream);
    let mut response = Json(document).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// What every answer to a browser carries.
pub(super) async fn guard(mut response: Response<Body>) -> Response<Body> {
    page::guard(response.headers_mut());
    response
}

fn parsed(named: Named) -> Option<At> {
    let Path((tenant, upstream)) = named.ok()?;
    Some((tenant.parse().ok()?, upstream.parse().ok()?))
}

fn path((tenant, upstream): &At) -> String {
    format!("/connect/{tenant}/{upstream}")
}

fn request_id(request: &Request) -> RequestId {
    id_of(request.extensions())
}

fn id_of(extensions: &Extensions) -> RequestId {
    extensions.get::<RequestId>().cloned().unwrap_or_else(|| RequestId::new("-"))
}

fn with_cookie(mut response: Response<Body>, cookie: Option<HeaderValue>) -> Response<Body> {
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}
