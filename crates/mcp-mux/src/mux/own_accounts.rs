//! The accounts of a caller's own at upstreams: which there may be, and their beginnings and ends.
//!
//! An account may be had at an upstream of which the caller may call at least one tool. Any other upstream is, for this caller, none:
//! one that does not exist, one of a tenant out of reach, and one that is called in another way are the same answer.

use std::sync::Arc;

use tenant_store::{SealedCredential, TenantSlug, UpstreamAuth, UpstreamId, UpstreamSlug};

use super::Mux;
use crate::caller::{Caller, Principal};
use crate::catalog::{Shelf, Snapshot};
use crate::policy::{Access, Action, Reach, decide};
use crate::upstream::{AccountError, AccountPlace, Accounts, Callback, Consent, Flow, HeldAccount};

/// Most accounts that one page lists.
const LISTED_MAX: usize = 200;

/// Accounts, as far as callers reach them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnAccounts {
    mux: Mux,
    accounts: Accounts,
}

/// An upstream at which a caller may have an account.
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
}

/// What a caller reaches, at one moment.
struct Reached {
    snapshot: Arc<Snapshot>,
    reach: Reach,
}

impl OwnAccounts {
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
        let reached = self.reached(caller);
        let mut found = Vec::new();
        for access in reached.reach.accesses() {
            let Some(shelf) = reached.snapshot.shelf(access) else { continue };
            let mut upstreams: Vec<&UpstreamSlug> = shelf.upstreams().map(|upstream| &upstream.slug).collect();
            upstreams.sort_by_key(|slug| slug.as_str());
            found.extend(upstreams.into_iter().map(|upstream| (access.tenant_slug(), upstream)));
        }
        let mut accounts = Vec::new();
        for (tenant, upstream) in found {
            if accounts.len() == LISTED_MAX {
                tracing::warn!(principal.issuer = %caller.principal.issuer, "somebody may have more accounts than are listed");
                break;
            }
            match self.find(caller, tenant, upstream).await {
                Ok(account) => accounts.push(account),
                Err(OwnAccountError::Unknown) => {}
                Err(error) => return Err(error),
            }
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
        let reached = self.reached(caller);
        let spot = reached.spot(tenant, upstream).ok_or(OwnAccountError::Unknown)?;
        let held = self.accounts.held(&caller.principal, spot.place()).await;
        let held = held.map_err(|error| failed(tenant, upstream, error))?;
        let tenant_name = spot.shelf.tenant_name().to_owned();
        Ok(OwnAccount { tenant: tenant.clone(), tenant_name, upstream: upstream.clone(), held })
    }

    /// Begins a consent.
    pub async fn begin(
        &self,
        caller: &Caller,
        tenant: &TenantSlug,
        upstream: &UpstreamSlug,
    ) -> Result<Consent, OwnAccountError> {
        let reached = self.reached(caller);
        let spot = reached.spot(tenant, upstream).ok_or(OwnAccountError::Unknown)?;
        let begun = self.accounts.begin(&caller.principal, spot.place()).await;
        begun.map_err(|error| failed(tenant, upstream, error))
    }

    /// Ends a consent at the upstream that the browser came back to.
    pub async fn finish(
        &self,
        caller: &Caller,
        (tenant, upstream): (&TenantSlug, &UpstreamSlug),
        flow: Flow,
        callback: &Callback,
    ) -> Result<(), OwnAccountError> {
        let reached = self.reached(caller);
        let spot = reached.spot(tenant, upstream).ok_or(OwnAccountError::Unknown)?;
        let finished = self.accounts.finish(&caller.principal, spot.place(), flow, callback).await;
        finished.map_err(|error| failed(tenant, upstream, error))
    }

    /// Ends an account. `false` if there is none.
    pub async fn disconnect(
        &self,
        caller: &Caller,
        tenant: &TenantSlug,
        upstream: &UpstreamSlug,
    ) -> Result<bool, OwnAccountError> {
        let reached = self.reached(caller);
        let spot = reached.spot(tenant, upstream).ok_or(OwnAccountError::Unknown)?;
        let ended = self.accounts.disconnect(&caller.principal, spot.place()).await;
        ended.map_err(|error| failed(tenant, upstream, error))
    }

    fn reached(&self, caller: &Caller) -> Reached {
        let snapshot = self.mux.catalog.snapshot();
        let reach = snapshot.grants().reach(caller);
        Reached { snapshot, reach }
    }
}

/// One upstream of the caller's reach that is called with accounts.
struct Spot<'r> {
    access: &'r Access,
    shelf: &'r Shelf,
    upstream: &'r Arc<tenant_store::Upstream>,
    stored: Vec<&'r SealedCredential>,
}

impl Reached {
    fn spot(&self, tenant: &TenantSlug, upstream: &UpstreamSlug) -> Option<Spot<'_>> {
        let access = self.reach.accesses().iter().find(|access| access.tenant_slug() == tenant)?;
        let shelf = self.snapshot.shelf(access)?;
        let upstream = shelf.upstreams().find(|known| known.slug == *upstream)?;
        let is_with_accounts = matches!(upstream.spec.auth, UpstreamAuth::Account(_));
        let offered = is_with_accounts && self.may_call_one_of(shelf, upstream.id);
        offered.then(|| Spot { access, shelf, upstream, stored: shelf.credentials(upstream.id) })
    }

    fn may_call_one_of(&self, shelf: &Shelf, upstream: UpstreamId) -> bool {
        let mut entries = shelf.entries().iter().filter(|entry| entry.upstream.id == upstream);
        entries.any(|entry| decide(&self.reach, Action::Call, &entry.facts()).is_allowed())
    }
}

impl Spot<'_> {
    fn place(&self) -> AccountPlace<'_> {
        AccountPlace {
            scope: self.access.scope(),
            tenant: self.access.tenant_slug(),
            upstream: self.upstream,
            stored: &self.stored,
            hosts: self.shelf.egress_hosts(),
        }
    }
}

fn failed(tenant: &TenantSlug, upstream: &UpstreamSlug, error: AccountError) -> OwnAccountError {
    OwnAccountError::Failed { tenant: tenant.clone(), upstream: upstream.clone(), error }
}
