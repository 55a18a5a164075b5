//! The accounts of a caller's own at upstreams: which there may be, and their beginnings and ends.
//!
//! An account may be had at an upstream of which the caller may call at least one tool, or whose tools are listed with the caller's
//! account. One that is there already may be looked at and ended, whatever the grants say by now. Any other upstream is, for this
//! caller, none: one that does not exist, one of a tenant out of reach, and one that is called in another way are the same answer.

use std::collections::HashSet;
use std::sync::Arc;

use tenant_store::{
    AccountHeld, AuditChain, TenantScope, TenantSlug, Timestamp, Upstream, UpstreamAuth, UpstreamId, UpstreamSlug,
};

use super::Mux;
use crate::audit::{ConsentAct, ConsentOutcome, Consented, Event, Room, What, Who};
use crate::caller::{Caller, Principal};
use crate::catalog::{Entry, Shelf, Snapshot};
use crate::policy::{Action, Reach, decide, own_account};
use crate::upstream::{AccountError, AccountPlace, Accounts, Callback, Consent, Flow, HeldAccount, lister};

/// Most accounts that one page lists.
const LISTED_MAX: usize = 200;

/// Accounts, as far as callers reach them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnAccounts {
    mux: Mux,
    accounts: Accounts,
}

/// An upstream at which a caller has or may have an account.
#[derive(Debug)]
pub struct OwnAccount {
    /// The tenant.
    pub tenant: TenantSlug,
    /// What people call it.
    pub tenant_name: String,
    /// The upstream.
    pub upstream: UpstreamSlug,
    /// The account, if one is connected.
    pub held: Option<HeldAccount>,
    /// Whether one may be connected.
    pub is_offered: bool,
    /// Whether the upstream's tools are listed with it, for everybody.
    pub lists: bool,
}

/// Why nothing was done with an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnAccountError {
    /// For this caller there is no such upstream. Nobody can tell why.
    #[error("there is no such account to be had")]
    Unknown,
    /// There is one, and it failed. The sentence names tenant and upstream, which the caller knows.
    #[error("The account at upstream `{upstream}` of tenant `{tenant}` {error}.")]
    Failed {
        /// The tenant.
        tenant: TenantSlug,
        /// The upstream.
        upstream: UpstreamSlug,
        /// What happened.
        error: AccountError,
    },
    /// The database cannot be had.
    #[error("Your accounts cannot be looked up now; try again later.")]
    Unavailable,
}

/// What somebody does with an account, on its way into the record. It is recorded, too, if nobody waits for its end.
struct Recording {
    room: Option<Room>,
    at: Timestamp,
    chain: AuditChain,
    consented: Consented,
}

/// What a caller reaches and has, at one moment.
struct Reached {
    snapshot: Arc<Snapshot>,
    reach: Reach,
    held: Vec<AccountHeld>,
}

/// One upstream that is called with accounts, at which the caller has or may have one.
struct Spot {
    place: AccountPlace,
    tenant_name: String,
    is_held: bool,
    is_offered: bool,
    lists: bool,
}

impl OwnAccounts {
    /// Whether nobody is let in as that principal.
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.mux.is_revoked(principal)
    }

    /// The accounts of whoever calls through `mux`.
    pub fn new(mux: Mux, accounts: Accounts) -> Self {
        Self { mux, accounts }
    }

    /// The accounts that the client id metadata documents and the redirects are about.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether some grant of the principal's issuer names the group: others can be forgotten.
    pub fn keep_named(&self, principal: &Principal, groups: &mut Vec<tenant_store::Group>) {
        let snapshot = self.mux.catalog.snapshot();
        groups.retain(|group| snapshot.grants().names(&principal.issuer, group));
    }

    /// Every account that `caller` has or may have, in the order of tenants and upstreams.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<OwnAccount>, OwnAccountError> {
        let mut spots = self.reached(caller).await?.spots(caller);
        if spots.len() > LISTED_MAX {
            tracing::warn!(principal.issuer = %caller.principal.issuer, "somebody may have more accounts than are listed");
        }
        spots.truncate(LISTED_MAX);
        let mut accounts = Vec::new();
        for spot in spots {
            accounts.push(self.look(caller, spot).await?);
        }
        Ok(accounts)
    }

    /// The account that `caller` has or may have at one upstream.
    pub async fn find(
        &self,
        caller: &Caller,
        tenant: &TenantSlug,
        upstream: &UpstreamSlug,
    ) -> Result<OwnAccount, OwnAccountError> {
        let spot = self.spot(caller, (tenant, upstream)).await?;
        self.look(caller, spot).await
    }

    async fn look(&self, caller: &Caller, spot: Spot) -> Result<OwnAccount, OwnAccountError> {
        let Spot { place, tenant_name, is_held, is_offered, lists } = spot;
        let held = if is_held { self.accounts.held(&caller.principal, &place).await } else { Ok(None) };
        let held = held.map_err(|error| failed(&place, error))?;
        let (tenant, upstream) = (place.tenant, place.upstream.slug.clone());
        Ok(OwnAccount { tenant, tenant_name, upstream, held, is_offered, lists })
    }

    /// Begins a consent.
    pub async fn begin(
        &self,
        caller: &Caller,
        tenant: &TenantSlug,
        upstream: &UpstreamSlug,
    ) -> Result<(OwnAccount, Consent), OwnAccountError> {
        let spot = self.spot(caller, (tenant, upstream)).await?.offered()?;
        let recording = self.recording(caller, &spot.place, ConsentAct::Begin).await;
        let begun = self.accounts.begin(&caller.principal, &spot.place).await;
        recording.end(begun.is_ok());
        let consent = begun.map_err(|error| failed(&spot.place, error))?;
        Ok((self.look(caller, spot).await?, consent))
    }

    /// Ends a consent at the upstream that the browser came back to.
    pub async fn finish(
        &self,
        caller: &Caller,
        (tenant, upstream): (&TenantSlug, &UpstreamSlug),
        flow: Flow,
        callback: Callback,
    ) -> Result<(), OwnAccountError> {
        let Spot { place, .. } = self.spot(caller, (tenant, upstream)).await?.offered()?;
        let recording = self.recording(caller, &place, ConsentAct::Connect).await;
        let finished = self.accounts.finish(&caller.principal, &place, flow, callback).await;
        recording.end(finished.is_ok());
        finished.map_err(|error| failed(&place, error))
    }

    /// Ends an account. `false` if there is none.
    pub async fn disconnect(
        &self,
        caller: &Caller,
        tenant: &TenantSlug,
        upstream: &UpstreamSlug,
    ) -> Result<bool, OwnAccountError> {
        let Spot { place, .. } = self.spot(caller, (tenant, upstream)).await?;
        let recording = self.recording(caller, &place, ConsentAct::Disconnect).await;
        let ended = self.accounts.disconnect(&caller.principal, &place).await;
        recording.end(ended == Ok(true));
        ended.map_err(|error| failed(&place, error))
    }

    /// What will be recorded for the tenant whose upstream it is about: the account is there, or may be.
    async fn recording(&self, caller: &Caller, place: &AccountPlace, action: ConsentAct) -> Recording {
        let room = Some(self.mux.audit.room().await);
        let (at, chain) = (self.mux.clock.now(), AuditChain::Tenant(place.scope));
        let (tenant, upstream) = (place.scope.tenant(), place.upstream.slug.clone());
        let (who, request_id) = (Who::of(caller), caller.request_id.to_string());
        let consented = Consented { who, request_id, action, tenant, upstream, outcome: ConsentOutcome::Gone };
        Recording { room, at, chain, consented }
    }

    async fn spot(
        &self,
        caller: &Caller,
        (tenant, upstream): (&TenantSlug, &UpstreamSlug),
    ) -> Result<Spot, OwnAccountError> {
        let spots = self.reached(caller).await?.spots(caller);
        let is_it = |spot: &Spot| spot.place.tenant == *tenant && spot.place.upstream.slug == *upstream;
        spots.into_iter().find(is_it).ok_or(OwnAccountError::Unknown)
    }

    async fn reached(&self, caller: &Caller) -> Result<Reached, OwnAccountError> {
        let held = self.accounts.all_of(&caller.principal).await.map_err(|_| OwnAccountError::Unavailable)?;
        let snapshot = self.mux.catalog.snapshot();
        let reach = snapshot.grants().reach(caller);
        Ok(Reached { snapshot, reach, held })
    }
}

impl Recording {
    fn end(mut self, is_done: bool) {
        self.consented.outcome = if is_done { ConsentOutcome::Done } else { ConsentOutcome::Failed };
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        room.put(Event { at: self.at, chain: self.chain, what: What::Account(self.consented.clone()) });
    }
}

impl Reached {
    /// All that there are, in the order of tenants and upstreams.
    fn spots(&self, caller: &Caller) -> Vec<Spot> {
        let mut spots = Vec::new();
        for access in self.reach.accesses() {
            let Some(shelf) = self.snapshot.shelf(access) else { continue };
            let callable = self.callable(shelf);
            for upstream in shelf.upstreams() {
                let is_with_accounts = matches!(upstream.spec.auth, UpstreamAuth::Account(_));
                let lists = lists_with(upstream, &caller.principal);
                let is_offered = is_with_accounts && (lists || callable.contains(&upstream.id));
                let is_held = self.has(upstream);
                if is_offered || is_held {
                    let place = place(access.scope(), shelf, upstream);
                    let tenant_name = shelf.tenant_name().to_owned();
                    spots.push(Spot { place, tenant_name, is_held, is_offered, lists });
                }
            }
        }
        spots.extend(self.held.iter().filter_map(|held| self.left_behind(*held, &caller.principal)));
        spots.sort_by(|one, other| one.name().cmp(&other.name()));
        spots
    }

    /// An account in a tenant of which nothing is in reach any more.
    fn left_behind(&self, held: AccountHeld, principal: &Principal) -> Option<Spot> {
        if self.reach.access(held.tenant()).is_some() {
            return None;
        }
        let scope = own_account(held);
        let shelf = self.snapshot.shelf_in(scope)?;
        let place = place(scope, shelf, shelf.upstream(held.upstream())?);
        let (tenant_name, lists) = (shelf.tenant_name().to_owned(), lists_with(&place.upstream, principal));
        Some(Spot { place, tenant_name, is_held: true, is_offered: false, lists })
    }

    fn has(&self, upstream: &Upstream) -> bool {
        self.held.iter().any(|held| (held.tenant(), held.upstream()) == (upstream.tenant, upstream.id))
    }

    /// The upstreams of which the caller may call a tool.
    fn callable(&self, shelf: &Shelf) -> HashSet<UpstreamId> {
        let allowed = |entry: &&Arc<Entry>| decide(&self.reach, Action::Call, &entry.facts()).is_allowed();
        shelf.entries().iter().filter(allowed).map(|entry| entry.upstream.id).collect()
    }
}

impl Spot {
    /// Itself, if an account may be connected.
    fn offered(self) -> Result<Self, OwnAccountError> {
        if self.is_offered { Ok(self) } else { Err(OwnAccountError::Unknown) }
    }

    fn name(&self) -> (&str, &str) {
        (self.place.tenant.as_str(), self.place.upstream.slug.as_str())
    }
}

/// Whether tools are listed with the account of that principal.
fn lists_with(upstream: &Upstream, principal: &Principal) -> bool {
    matches!(&upstream.spec.auth, UpstreamAuth::Account(auth) if lister(auth).as_ref() == Some(principal))
}

fn place(scope: TenantScope, shelf: &Shelf, upstream: &Arc<Upstream>) -> AccountPlace {
    AccountPlace {
        scope,
        tenant: shelf.tenant_slug().clone(),
        upstream: Arc::clone(upstream),
        stored: shelf.credentials(upstream.id).into_iter().cloned().collect(),
        hosts: shelf.egress_hosts().cloned(),
    }
}

fn failed(place: &AccountPlace, error: AccountError) -> OwnAccountError {
    OwnAccountError::Failed { tenant: place.tenant.clone(), upstream: place.upstream.slug.clone(), error }
}
