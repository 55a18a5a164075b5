//! Accounts of callers' own at upstreams: each is one principal's for one upstream, and nobody's ever stands in for another's.
//!
//! An account is connected in a browser, by an authorization code with PKCE (RFC 6749 §4.1, RFC 7636) at the authorization server
//! that the upstream trusts. What that gives lies sealed in one row of the principal's, from which calls take it.

mod error;
mod flow;

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use tenant_store::{EgressHosts, SealedCredential, Store, TenantScope, TenantSlug, Timestamp, Upstream, UpstreamSlug};
use url::Url;

use super::pool::Pool;
use crate::caller::Principal;
use crate::config::PublicUrl;

pub use error::AccountError;
pub use flow::{Callback, Flow};

/// Callers' accounts at upstreams.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    pool: Pool,
    public_url: PublicUrl,
}

/// Which upstream an account is at, as a snapshot knows it.
#[derive(Debug, Clone, Copy)]
pub struct AccountPlace<'p> {
    /// The tenant, as policy decided.
    pub scope: TenantScope,
    /// The tenant's short name.
    pub tenant: &'p TenantSlug,
    /// The upstream.
    pub upstream: &'p Arc<Upstream>,
    /// The tenant's own sealed credentials that were stored for the upstream.
    pub stored: &'p [&'p SealedCredential],
    /// The hosts that the tenant's connections are narrowed to.
    pub hosts: Option<&'p EgressHosts>,
}

/// The beginning of a consent.
#[derive(Debug)]
pub struct Consent {
    /// Where the browser is sent.
    pub url: Url,
    /// What must come back with it.
    pub flow: Flow,
}

/// An account that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAccount {
    /// Since when.
    pub connected_at: Timestamp,
    /// What its tokens are good for, if the authorization server said so.
    pub scope: Option<String>,
}

impl Accounts {
    /// The accounts in `store`, used through `pool`, of a server that browsers know as `public_url`.
    pub fn new(store: Store, pool: Pool, public_url: PublicUrl) -> Self {
        Self { store, pool, public_url }
    }

    /// Begins the consent of `principal`: finds the authorization server, and a client there.
    pub async fn begin(&self, principal: &Principal, place: AccountPlace<'_>) -> Result<Consent, AccountError> {
        let _ = (&self.store, &self.pool, principal, place);
        Err(AccountError::NotOffered)
    }

    /// Ends a consent: the code is exchanged and what comes of it stored, in place of an earlier account.
    pub async fn finish(
        &self,
        principal: &Principal,
        place: AccountPlace<'_>,
        flow: Flow,
        callback: &Callback,
    ) -> Result<(), AccountError> {
        let _ = (principal, place, flow, callback);
        Err(AccountError::NotOffered)
    }

    /// The account of `principal`, if one is connected.
    pub async fn held(
        &self,
        principal: &Principal,
        place: AccountPlace<'_>,
    ) -> Result<Option<HeldAccount>, AccountError> {
        let _ = (principal, place);
        Err(AccountError::NotOffered)
    }

    /// Deletes the account of `principal` and then revokes its tokens, as far as the authorization server takes them back. `false`
    /// if there is none.
    pub async fn disconnect(&self, principal: &Principal, place: AccountPlace<'_>) -> Result<bool, AccountError> {
        let _ = (principal, place);
        Err(AccountError::NotOffered)
    }

    /// Where authorization servers send browsers back to. Each upstream has an address of its own, so that a code of one authorization
    /// server is never taken for another's (RFC 9700 §4.4.2.2).
    pub fn redirect_uri(&self, tenant: &TenantSlug, upstream: &UpstreamSlug) -> String {
        self.public_url.join(&format!("/connect/{tenant}/{upstream}/callback"))
    }

    /// The client id metadata document of an upstream, whether or not there is such an upstream: it tells nothing but addresses.
    pub fn client_document(&self, tenant: &TenantSlug, upstream: &UpstreamSlug) -> Value {
        json!({
            "client_id": self.client_uri(tenant, upstream),
            "client_name": "mcp-mux",
            "client_uri": self.public_url.join("/"),
            "redirect_uris": [self.redirect_uri(tenant, upstream)],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        })
    }

    /// Where that document is.
    fn client_uri(&self, tenant: &TenantSlug, upstream: &UpstreamSlug) -> String {
        self.public_url.join(&format!("/connect/{tenant}/{upstream}/client.json"))
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}
