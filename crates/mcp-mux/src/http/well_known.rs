//! Protected-resource metadata (RFC 9728): tells clients which authorization servers we trust.
//!
//! Built from the configured public URL, never from a request's Host. A tenant's document is the same whether or not the tenant
//! exists: it tells nobody who our customers are.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use tenant_store::TenantSlug;

use super::{Server, problem};
use crate::config::{Config, IssuerConfig, PublicUrl};
use crate::mux::Endpoint;

/// The parts of the documents that all endpoints share.
#[derive(Debug)]
pub struct ProtectedResources {
    public_url: PublicUrl,
    authorization_servers: Vec<String>,
    /// Those that every issuer is to be asked for; none where issuers differ, since a client asks one of them for all.
    scopes: Vec<String>,
    aggregate: Arc<ProtectedResource>,
}

/// One endpoint as OAuth sees it.
#[derive(Debug)]
pub(super) struct ProtectedResource {
    /// Its identifier (RFC 8707).
    pub(super) url: String,
    /// What tokens may name as their audience: the endpoint itself, or the whole that it is a part of.
    pub(super) audiences: [String; 2],
    /// Where its document is.
    pub(super) metadata_url: String,
    /// The OAuth scopes to ask for, separated by spaces.
    pub(super) scope: String,
}

impl ProtectedResource {
    fn at(path: &str, public_url: &PublicUrl, scopes: &[String]) -> Self {
        let url = public_url.join(path);
        Self {
            audiences: [url.clone(), public_url.join("/mcp")],
            url,
            metadata_url: public_url.join(&format!("/.well-known/oauth-protected-resource{path}")),
            scope: scopes.join(" "),
        }
    }
}

impl ProtectedResources {
    /// From the configuration; `public_url` may differ from the configured one where a free port was taken.
    pub fn new(config: &Config, public_url: &PublicUrl) -> Self {
        let mut asked_for = config.issuers.iter().map(IssuerConfig::advertised_scopes);
        let first = asked_for.next().unwrap_or_default();
        let scopes = if asked_for.all(|scopes| scopes == first) { first } else { Vec::new() };
        Self {
            public_url: public_url.clone(),
            authorization_servers: config.issuers.iter().map(|issuer| issuer.url.clone()).collect(),
            aggregate: Arc::new(ProtectedResource::at("/mcp", public_url, &scopes)),
            scopes,
        }
    }

    pub(super) fn of(&self, endpoint: &Endpoint) -> Arc<ProtectedResource> {
        // Whatever else a path may hold, what we print of it is a slug.
        let tenant = match endpoint {
            Endpoint::Aggregate => None,
            Endpoint::Tenant(slug) => slug.parse::<TenantSlug>().ok(),
        };
        match tenant {
            Some(slug) => Arc::new(ProtectedResource::at(&format!("/t/{slug}/mcp"), &self.public_url, &self.scopes)),
            None => Arc::clone(&self.aggregate),
        }
    }

    /// The document of the endpoint for all tenants.
    pub fn aggregate_document(&self) -> Value {
        self.document(&Endpoint::Aggregate)
    }

    fn document(&self, endpoint: &Endpoint) -> Value {
        let mut document = Map::from_iter([
            ("resource".to_owned(), json!(self.of(endpoint).url)),
            ("bearer_methods_supported".to_owned(), json!(["header"])),
            ("resource_name".to_owned(), json!("mcp-mux")),
        ]);
        // A list without members is left out (RFC 9728 §3.2).
        if !self.authorization_servers.is_empty() {
            document.insert("authorization_servers".to_owned(), json!(self.authorization_servers));
        }
        if !self.scopes.is_empty() {
            document.insert("scopes_supported".to_owned(), json!(self.scopes));
        }
        Value::Object(document)
    }
}

pub(super) async fn aggregate(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(server.resources.aggregate_document())
}

pub(super) async fn tenant(State(server): State<Arc<Server>>, tenant: Result<Path<String>, PathRejection>) -> Response {
    let tenant = tenant.map(|Path(tenant)| tenant).unwrap_or_default();
    if tenant.parse::<TenantSlug>().is_err() {
        return problem::plain(StatusCode::NOT_FOUND, "this is not the short name of a tenant");
    }
    Json(server.resources.document(&Endpoint::Tenant(tenant))).into_response()
}
