//! SCIM 2.0 (RFC 7643, RFC 7644): identity providers push their users and groups here.
//!
//! Who asks proves that first, by the token of one directory; before that nothing of a request is judged or read, and whatever is wrong is
//! the same 401. Then it touches that directory and no other. What a directory does not use of a user is neither stored nor answered.

mod answer;
mod discovery;
mod filter;
mod groups;
mod patch;
mod path;
mod query;
mod resource;
mod users;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Method, Uri};
use axum::response::Response;
use serde_json::{Map, Value};
use tenant_store::{Clock, Directory, IssuerName, Store};
use tokio::time::timeout;

use self::answer::Refused;
use self::query::Query;
use super::Server;
use crate::audit::{Audit, Pushing, Through};
use crate::auth::{Directories, Proved, Unproved};
use crate::caller::RequestId;
use crate::config::{BODY_BYTES_MAX, DirectoryNames, PublicUrl};
use crate::json;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes of directories need.
#[derive(Debug)]
pub struct Scim {
    /// Who may push what.
    pub directories: Directories,
    /// Where it is kept.
    pub store: Store,
    /// Where it is recorded what they push.
    pub audit: Audit,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where all of this is.
    pub public_url: PublicUrl,
}

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Config,
    ResourceTypes,
    ResourceType,
    Schemas,
    Schema,
    Users,
    User,
    Groups,
    Group,
    /// Nothing of ours.
    Nothing,
}

impl About {
    /// The methods that mean something, as the header `Allow` lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Users | Self::Groups => "GET, POST",
            Self::User | Self::Group => "GET, PUT, PATCH, DELETE",
            _ => "GET",
        }
    }
}

/// How long a request of a directory waits for others of the same one.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request of somebody who has proved to be that directory.
struct Asked<'s> {
    directory: Directory,
    names: &'s DirectoryNames,
    /// Where its routes are.
    base: String,
    query: Query,
    /// What the end of the path names.
    id: String,
}

pub(super) async fn handle(
    about: About,
    State(server): State<Arc<Server>>,
    path: Result<Path<HashMap<String, String>>, PathRejection>,
    request: Request,
) -> Response {
    // A path that does not decode names no directory.
    let mut path = path.map(|Path(path)| path).unwrap_or_default();
    let issuer = path.remove("issuer").unwrap_or_default();
    let scim = &server.scim;
    let Proved { issuer, names, places } = match scim.directories.proved(&issuer, request.headers()) {
        Ok(proved) => proved,
        Err(unproved) => return server.unproved(unproved, &request).answer(),
    };
    // What one directory sends costs the others nothing.
    let Ok(Ok(_place)) = timeout(PLACE_TIMEOUT, places.acquire()).await else {
        Refused::Busy.log(issuer);
        return Refused::Busy.answer();
    };
    let id = path.remove("id").or_else(|| path.remove("rest")).unwrap_or_default();
    let answered = match scim.asked(issuer, names, id, request.uri()) {
        Ok(asked) => {
            let recording = scim.recording(&asked.directory, through(&request)).await;
            let answered = asked.dispatch((about, request.method().clone()), request.into_body()).await;
            // Whoever is answered can read it in the record soon.
            drop(recording);
            answered
        }
        Err(refused) => Err(refused),
    };
    answered.unwrap_or_else(|refused| {
        refused.log(issuer);
        refused.answer()
    })
}

impl Server {
    /// What somebody is told who is no directory. A directory itself is let in wherever it comes from: to compare its token costs nothing.
    fn unproved(&self, unproved: Unproved, request: &Request) -> Refused {
        tracing::info!("nobody was let in to a directory");
        let counted = match unproved {
            Unproved::Missing => Ok(()),
            Unproved::Wrong => self.authenticator.count_attempt(self.address(request)),
        };
        counted.map_or_else(Refused::TooMany, |()| Refused::Unproved)
    }
}

impl Scim {
    /// What the request changes is recorded; what only asks changes nothing.
    async fn recording(&self, directory: &Directory, through: Option<Through>) -> Option<Pushing> {
        Some(self.audit.pushing(directory, self.clock.now(), through?).await)
    }

    fn asked<'s>(
        &self,
        issuer: &IssuerName,
        names: &'s DirectoryNames,
        id: String,
        uri: &Uri,
    ) -> Result<Asked<'s>, Refused> {
        let base = self.public_url.join(&format!("/scim/v2/{issuer}"));
        let query = Query::of(uri)?;
        Ok(Asked { directory: self.store.directory(issuer), names, base, query, id })
    }
}

impl Asked<'_> {
    async fn dispatch(self, (about, method): (About, Method), body: Body) -> Result<Response, Refused> {
        match (about, &method) {
            (About::Config, &Method::GET) => Ok(discovery::config(&self.base)),
            (About::ResourceTypes, &Method::GET) => discovery::resource_types(&self.base, &self.query),
            (About::ResourceType, &Method::GET) => discovery::resource_type(&self.base, &self.id),
            (About::Schemas, &Method::GET) => discovery::schemas(&self.base, &self.query),
            (About::Schema, &Method::GET) => discovery::schema(&self.base, &self.id),
            (About::Users, &Method::GET) => self.users().await,
            (About::Users, &Method::POST) => self.add_user(body).await,
            (About::User, &Method::GET) => self.user().await,
            (About::User, &Method::PUT) => self.put_user(body).await,
            (About::User, &Method::PATCH) => self.patch_user(body).await,
            (About::User, &Method::DELETE) => self.remove_user().await,
            (About::Groups, &Method::GET) => self.groups().await,
            (About::Groups, &Method::POST) => self.add_group(body).await,
            (About::Group, &Method::GET) => self.group().await,
            (About::Group, &Method::PUT) => self.put_group(body).await,
            (About::Group, &Method::PATCH) => self.patch_group(body).await,
            (About::Group, &Method::DELETE) => self.remove_group().await,
            // Searching is for GET; that POST does it too is optional (RFC 7644 §3.4.3).
            (About::Nothing, &Method::POST) if self.id.ends_with(".search") => Err(Refused::NotImplemented),
            (About::Nothing, _) => Err(Refused::NotFound),
            _ => Err(Refused::Method(about.methods())),
        }
    }
}

/// How the record names a request that may change something.
fn through(request: &Request) -> Option<Through> {
    let request_id = request.extensions().get::<RequestId>().map(RequestId::to_string).unwrap_or_default();
    (request.method() != Method::GET).then_some(Through::Scim { request_id })
}

/// A body, which must be a JSON object.
async fn read(body: Body) -> Result<Map<String, Value>, Refused> {
    let read = timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await;
    let bytes = read.map_err(|_| Refused::Slow)?.map_err(|_| Refused::TooLarge)?;
    if json::is_too_deep(&bytes) {
        return Err(Refused::syntax("the body is nested too deeply"));
    }
    match json::strict(&bytes) {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(Refused::syntax("the body is no JSON object, or has a name twice or very many in one object")),
    }
}
