//! The links to all upstreams, found by tenant and upstream together, and by whoever an upstream is called as.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tenant_store::{Clock, EgressHosts, TenantId, TenantScope, Upstream, UpstreamId};

use super::credential::{Actor, Proofs};
use super::error::UpstreamError;
use super::link::{Conditions, Line, Link};
use crate::caller::Principal;
use crate::egress::Egress;
use crate::lifecycle::Tasks;

/// Most links held at once; the least used are made again when needed.
const LINKS_MAX: u64 = 10_000;
/// Most links of upstreams that are called as somebody. They are held apart, so that many people at one upstream cost no other
/// upstream its link.
const ACTOR_LINKS_MAX: u64 = 50_000;
/// How long a link is held that nobody uses. Its access tokens go with it.
const IDLE_MAX: Duration = Duration::from_hours(1);

type Key = (TenantId, UpstreamId);

/// The links to all upstreams.
#[derive(Debug, Clone)]
pub struct Pool {
    links: Cache<Key, Arc<Link>>,
    actors: Cache<(Key, Actor), Arc<Link>>,
    pub(super) egress: Egress,
    pub(super) tasks: Tasks,
    pub(super) clock: Arc<dyn Clock>,
}

impl Pool {
    /// An empty pool whose connections `egress` guards and whose background work runs on `tasks`.
    pub fn new(egress: Egress, tasks: Tasks, clock: Arc<dyn Clock>) -> Self {
        Self {
            links: Cache::builder().max_capacity(LINKS_MAX).time_to_idle(IDLE_MAX).build(),
            actors: Cache::builder().max_capacity(ACTOR_LINKS_MAX).time_to_idle(IDLE_MAX).build(),
            egress,
            tasks,
            clock,
        }
    }

    /// The link to `upstream`, which must belong to the tenant of `scope` and be at one of `hosts`. One that no longer fits what is
    /// configured is replaced, together with its connections, session and access token. An upstream that is called as somebody has
    /// one link for each of them: neither session nor access token is ever another's.
    pub fn link(
        &self,
        scope: TenantScope,
        upstream: &Arc<Upstream>,
        proofs: &Proofs<'_>,
        hosts: Option<&EgressHosts>,
    ) -> Result<Arc<Link>, UpstreamError> {
        assert_eq!(scope.tenant(), upstream.tenant, "an upstream is linked within its own tenant only");
        let key = (upstream.tenant, upstream.id);
        let base = self.base(key, upstream, &Conditions { versions: proofs.versions(), hosts: hosts.cloned() });
        let Some(actor) = proofs.actor(upstream)? else { return Ok(base) };
        let link = self.actors.entry((key, actor.clone())).or_insert_with_if(
            || Arc::new(Link::new(Arc::clone(base.line()), Some(actor))),
            |link| !Arc::ptr_eq(link.line(), base.line()),
        );
        Ok(link.into_value())
    }

    /// Drops the link that uses the account of `principal`, and the access token with it.
    pub(super) fn forget_account(&self, upstream: &Upstream, principal: &Principal) {
        self.actors.invalidate(&((upstream.tenant, upstream.id), Actor::with_account(principal)));
    }

    /// Two who need it at once get the same one.
    fn base(&self, key: Key, upstream: &Arc<Upstream>, conditions: &Conditions) -> Arc<Link> {
        if let Some(link) = self.links.get(&key).filter(|link| link.line().fits(upstream, conditions)) {
            return link;
        }
        let line = Line::new(Arc::clone(upstream), conditions.clone(), self);
        let entry = self.links.entry(key).or_insert_with_if(
            || Arc::new(Link::new(Arc::clone(&line), None)),
            |link| !link.line().fits(upstream, conditions),
        );
        entry.into_value()
    }
}
