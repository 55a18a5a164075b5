//! Accounts of callers' own at upstreams: each is one principal's for one upstream, and nobody's ever stands in for another's.
//!
//! An account is connected in a browser, by an authorization code with PKCE (RFC 6749 §4.1, RFC 7636) at the authorization server
//! that the upstream trusts. What that gives lies sealed in one row of the principal's, from which calls take it.

mod client;
mod consent;
mod error;
mod flow;
mod live;
mod save;
mod tokens;

use std::fmt;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Value, json};
use tenant_store::{
    AccountHeld, EgressHosts, SealedCredential, Store, TenantScope, TenantSlug, TenantStore, Timestamp, Upstream,
    UpstreamId, UpstreamSlug,
};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use url::Url;

use self::flow::FLOW_LIFE;
pub(super) use self::save::version_of;
use self::tokens::{Slot, Tokens, unread};
use super::credential::Proofs;
use super::error::UpstreamError;
use super::oauth::Http;
use super::pool::Pool;
use crate::caller::Principal;
use crate::config::PublicUrl;

pub use error::AccountError;
pub use flow::{Callback, Flow};
pub(super) use live::{Account, Live};

/// At how many upstreams clients are registered at once; at more, two may register where one would do.
const REGISTERING_MAX: u64 = 1_000;

/// How often an account is looked at that is renewed while it is removed.
const REMOVALS_MAX: usize = 5;
/// How many consents are remembered that ended.
const SPENT_MAX: u64 = 100_000;

/// Callers' accounts at upstreams.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    pool: Pool,
    public_url: PublicUrl,
    registering: Registering,
    /// The states of consents whose codes were exchanged here.
    spent: Cache<String, ()>,
}

/// One after the other registers a client for an upstream, so that the second finds it registered.
#[derive(Clone)]
struct Registering(Cache<UpstreamId, Arc<Mutex<()>>>);

/// Which upstream an account is at, as a snapshot knows it.
#[derive(Debug, Clone)]
pub struct AccountPlace {
    /// The tenant, as policy decided.
    pub scope: TenantScope,
    /// The tenant's short name.
    pub tenant: TenantSlug,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The tenant's own sealed credentials that were stored for the upstream.
    pub stored: Vec<SealedCredential>,
    /// The hosts that the tenant's connections are narrowed to.
    pub hosts: Option<EgressHosts>,
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
    /// Whether calls may still use it: it opens, and the upstream and its authorization server are where they were.
    pub is_usable: bool,
}

impl Accounts {
    /// The accounts in `store`, used through `pool`, of a server that browsers know as `public_url`.
    pub fn new(store: Store, pool: Pool, public_url: PublicUrl) -> Self {
        let registering = Registering(Cache::new(REGISTERING_MAX));
        let spent = Cache::builder().max_capacity(SPENT_MAX).time_to_live(FLOW_LIFE);
        let spent = spent.eviction_policy(EvictionPolicy::lru()).build();
        Self { store, pool, public_url, registering, spent }
    }

    /// Where `principal` has accounts, in whatever tenant.
    pub async fn all_of(&self, principal: &Principal) -> Result<Vec<AccountHeld>, AccountError> {
        let held = self.store.accounts_held(&principal.issuer, &principal.subject).await;
        held.map_err(|error| AccountError::unstored(&error))
    }

    /// The account of `principal`, if one is connected.
    pub async fn held(&self, principal: &Principal, place: &AccountPlace) -> Result<Option<HeldAccount>, AccountError> {
        let rows = self.rows(place);
        let Some(row) = find(&rows, principal, &place.upstream).await? else { return Ok(None) };
        // One that does not open can still be disconnected; while nothing opens, nothing is said against it.
        let (is_usable, scope) = match open(&rows, &row).await {
            Ok(tokens) => (tokens.is_some(), tokens.and_then(|tokens| tokens.scope)),
            Err(_) => (true, None),
        };
        let is_usable = is_usable && row.is_for(&place.upstream);
        Ok(Some(HeldAccount { connected_at: row.stored_at(), scope, is_usable }))
    }

    /// Deletes the account of `principal` and then revokes its tokens, as far as the authorization server takes them back. `false`
    /// if there is none.
    pub async fn disconnect(&self, principal: &Principal, place: &AccountPlace) -> Result<bool, AccountError> {
        self.remove(principal, place, "an account was disconnected").await
    }

    /// The same as an operator does it.
    pub async fn revoke(&self, principal: &Principal, place: &AccountPlace) -> Result<bool, AccountError> {
        self.remove(principal, place, "an operator revoked an account").await
    }

    async fn remove(
        &self,
        principal: &Principal,
        place: &AccountPlace,
        said: &'static str,
    ) -> Result<bool, AccountError> {
        let (accounts, principal, place) = (self.clone(), principal.clone(), place.clone());
        self.whole(async move {
            let gone = accounts.take_out(&principal, &place).await?;
            if gone {
                tracing::info!(
                    tenant.id = %place.upstream.tenant, upstream.id = %place.upstream.id,
                    principal.issuer = %principal.issuer, principal.id = %principal.subject, "{said}"
                );
            }
            Ok(gone)
        })
        .await
    }

    async fn take_out(&self, principal: &Principal, place: &AccountPlace) -> Result<bool, AccountError> {
        let rows = self.rows(place);
        for _ in 0..REMOVALS_MAX {
            let Some(row) = find(&rows, principal, &place.upstream).await? else { return Ok(false) };
            // What cannot be revoked for want of a key stays until it can.
            let tokens = open(&rows, &row).await.map_err(|_| AccountError::Unavailable)?;
            let removed = rows.remove_credential_version(&row).await;
            self.pool.forget_account(&place.upstream, principal);
            if !removed.map_err(|error| AccountError::unstored(&error))? {
                // It was renewed in between, and what was read is not what must be revoked.
                continue;
            }
            if let Some(tokens) = tokens {
                self.take_back(&rows, place, &tokens).await;
            }
            return Ok(true);
        }
        Err(AccountError::Unavailable)
    }

    /// Revokes what was given (RFC 7009). Nothing depends on it here: nobody uses it any more.
    async fn take_back(&self, rows: &TenantStore, place: &AccountPlace, tokens: &Tokens) {
        let stored: Vec<&SealedCredential> = place.stored.iter().collect();
        let proofs = Proofs { caller: None, rows, stored: &stored, shown: None };
        let client = client::client(&proofs, &place.upstream, tokens.source.known(), self.http(place)).await;
        client::take_back(client, tokens, (&place.upstream, self.now())).await;
    }

    /// Runs `work` to its end, also if whoever asked for it goes away: what was given must be stored or taken back.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AccountError>> + Send + 'static,
    ) -> Result<T, AccountError> {
        let (say, said) = oneshot::channel();
        self.pool.tasks.spawn_draining(async move {
            // Nobody may be there to hear it any more.
            say.send(work.await).ok();
        });
        said.await.unwrap_or(Err(AccountError::Unavailable))
    }

    fn rows(&self, place: &AccountPlace) -> TenantStore {
        assert_eq!(place.scope.tenant(), place.upstream.tenant, "an account is at an upstream of its own tenant only");
        self.store.tenant(place.scope)
    }

    fn http(&self, place: &AccountPlace) -> Http {
        Http::new(self.pool.egress.tenant(place.hosts.clone()))
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

/// What lies in a row; nothing, if nobody can use it any more. An error, if that cannot be said now.
async fn open(rows: &TenantStore, row: &SealedCredential) -> Result<Option<Tokens>, UpstreamError> {
    match rows.open_credential(row).await {
        Ok(text) => Ok(Tokens::parse(&text)),
        Err(error) if unread(&error) == UpstreamError::AccountMissing => Ok(None),
        Err(_) => Err(UpstreamError::SecretsUnavailable),
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}
