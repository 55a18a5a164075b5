//! Accounts of callers' own at upstreams: each is one principal's for one upstream, and nobody's ever stands in for another's.
//!
//! An account is connected in a browser, by an authorization code with PKCE (RFC 6749 §4.1, RFC 7636) at the authorization server
//! that the upstream trusts. What that gives lies sealed in one row of the principal's, from which calls take it.

mod client;
mod consent;
mod error;
mod flow;
mod live;
mod tokens;

use std::fmt;
use std::sync::Arc;

use moka::sync::Cache;
use serde_json::{Value, json};
use tenant_store::{
    EgressHosts, SealedCredential, Store, TenantScope, TenantSlug, TenantStore, Timestamp, Upstream, UpstreamId,
    UpstreamSlug,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use url::Url;

use self::tokens::{Slot, Tokens, unread};
use super::credential::Proofs;
use super::oauth::Http;
use super::pool::Pool;
use crate::caller::Principal;
use crate::config::PublicUrl;

pub use error::AccountError;
pub use flow::{Callback, Flow};
pub(super) use live::{Account, Live};

/// At how many upstreams clients are registered at once; at more, two may register where one would do.
const REGISTERING_MAX: u64 = 1_000;

/// Callers' accounts at upstreams.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    pool: Pool,
    public_url: PublicUrl,
    registering: Registering,
}

/// One after the other registers a client for an upstream, so that the second finds it registered.
#[derive(Clone)]
struct Registering(Cache<UpstreamId, Arc<Mutex<()>>>);

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
        Self { store, pool, public_url, registering: Registering(Cache::new(REGISTERING_MAX)) }
    }

    /// The account of `principal`, if one is connected.
    pub async fn held(
        &self,
        principal: &Principal,
        place: AccountPlace<'_>,
    ) -> Result<Option<HeldAccount>, AccountError> {
        let rows = self.rows(place);
        let Some(row) = find(&rows, principal, place.upstream).await? else { return Ok(None) };
        // One that does not open can still be disconnected.
        let scope = open(&rows, &row).await.and_then(|tokens| tokens.scope);
        Ok(Some(HeldAccount { connected_at: row.stored_at(), scope }))
    }

    /// Deletes the account of `principal` and then revokes its tokens, as far as the authorization server takes them back. `false`
    /// if there is none.
    pub async fn disconnect(&self, principal: &Principal, place: AccountPlace<'_>) -> Result<bool, AccountError> {
        let gone = self.remove(principal, place).await?;
        if gone {
            tracing::info!(
                tenant.id = %place.upstream.tenant, upstream.id = %place.upstream.id,
                principal.issuer = %principal.issuer, principal.id = %principal.subject, "an account was disconnected"
            );
        }
        Ok(gone)
    }

    /// The same as an operator does it.
    pub async fn revoke(&self, principal: &Principal, place: AccountPlace<'_>) -> Result<bool, AccountError> {
        let gone = self.remove(principal, place).await?;
        if gone {
            tracing::info!(
                tenant.id = %place.upstream.tenant, upstream.id = %place.upstream.id,
                principal.issuer = %principal.issuer, principal.id = %principal.subject, "an operator revoked an account"
            );
        }
        Ok(gone)
    }

    async fn remove(&self, principal: &Principal, place: AccountPlace<'_>) -> Result<bool, AccountError> {
        let rows = self.rows(place);
        let Some(row) = find(&rows, principal, place.upstream).await? else { return Ok(false) };
        let tokens = open(&rows, &row).await;
        let slot = Slot::of(principal, place.upstream.id).map_err(|_| AccountError::Unavailable)?;
        let removed = rows.remove_credential_of(place.upstream.id, slot.slot().owner, slot.slot().name).await;
        self.pool.forget_account(place.upstream, principal);
        let removed = removed.map_err(|error| AccountError::unstored(&error))?;
        if let Some(tokens) = tokens {
            self.take_back(&rows, place, &tokens).await;
        }
        Ok(removed)
    }

    /// Revokes what was given (RFC 7009). Nothing depends on it here: the account is gone already.
    async fn take_back(&self, rows: &TenantStore, place: AccountPlace<'_>, tokens: &Tokens) {
        let source = &tokens.source;
        let Some(endpoint) = &source.revocation_endpoint else { return };
        let proofs = Proofs { caller: None, rows, stored: place.stored };
        let known = (&source.issuer, source.client, &source.client_id);
        let revoked = match client::client(&proofs, place.upstream, known, self.http(place)).await {
            Ok(Some(client)) => {
                client.revoke(endpoint, &tokens.refresh.as_ref().unwrap_or(&tokens.access).0, self.now()).await.is_ok()
            }
            _ => false,
        };
        if !revoked {
            let (tenant, upstream) = (place.upstream.tenant, place.upstream.id);
            tracing::warn!(tenant.id = %tenant, upstream.id = %upstream, "an authorization server did not take back an account's tokens");
        }
    }

    fn rows(&self, place: AccountPlace<'_>) -> TenantStore {
        assert_eq!(place.scope.tenant(), place.upstream.tenant, "an account is at an upstream of its own tenant only");
        self.store.tenant(place.scope)
    }

    fn http(&self, place: AccountPlace<'_>) -> Http {
        Http::new(self.pool.egress.tenant(place.hosts.cloned()))
    }

    fn now(&self) -> Timestamp {
        self.pool.clock.now()
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

impl Registering {
    async fn lock(&self, upstream: UpstreamId) -> OwnedMutexGuard<()> {
        self.0.get_with(upstream, Arc::default).lock_owned().await
    }
}

/// The row of an account.
async fn find(
    rows: &TenantStore,
    principal: &Principal,
    upstream: &Upstream,
) -> Result<Option<SealedCredential>, AccountError> {
    let slot = Slot::of(principal, upstream.id).map_err(|_| AccountError::Unavailable)?;
    rows.find_credential(slot.slot()).await.map_err(|error| AccountError::unstored(&error))
}

async fn open(rows: &TenantStore, row: &SealedCredential) -> Option<Tokens> {
    let text = rows.open_credential(row).await;
    text.map_err(|error| unread(&error)).ok().and_then(|text| Tokens::parse(&text))
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}
