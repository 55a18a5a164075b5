//! The links to all upstreams, found by tenant and upstream together, and by whoever an upstream is called as.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tenant_store::{
    Clock, EgressHosts, Revision, TenantId, TenantScope, TenantSlug, Upstream, UpstreamId, UpstreamSlug,
};
use tokio::time::Instant;

use super::credential::{Actor, Proofs};
use super::error::UpstreamError;
use super::in_flight::{Load, Rooms};
use super::link::{Conditions, Line, Link};
use super::peer::Peer;
use crate::audit::SecretUses;
use crate::caller::Principal;
use crate::config::{Exchangers, LimitsConfig};
use crate::egress::Egress;
use crate::lifecycle::Tasks;
use crate::telemetry::Operations;

/// Most links held at once; the least used are made again when needed.
const LINKS_MAX: u64 = 50_000;
/// Most links of upstreams that are called as somebody. They are held apart, so that many people at one upstream cost no other
/// upstream its link.
const ACTOR_LINKS_MAX: u64 = 50_000;
/// Most kinds of clients for whom one principal has sessions with one upstream. For further ones nothing is declared.
const KINDS_MAX: usize = 8;
/// How long a link is held that nobody uses. Its access tokens go with it.
const IDLE_MAX: Duration = Duration::from_hours(1);
/// The same for one that is called as somebody: a new token of the same caller has another link.
const ACTOR_IDLE_MAX: Duration = Duration::from_mins(10);

/// How often it is looked for links that are not in use, while nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(30);

type Key = (TenantId, UpstreamId);
/// Who an upstream is called as, and what that client's session is begun with.
type Called = (Key, Actor, Peer);

/// The links to all upstreams.
#[derive(Debug, Clone)]
pub struct Pool {
    links: Cache<Key, Arc<Link>>,
    actors: Cache<Called, Arc<Link>>,
    /// The kinds of clients that an upstream has sessions for, for each of whom it is called as.
    kinds: Cache<(Key, Actor), Arc<Mutex<Vec<Peer>>>>,
    /// At which revision it was looked last for links that are not in use, and when.
    looked: Arc<Mutex<Option<(Revision, Instant)>>>,
    rooms: Rooms,
    pub(super) egress: Egress,
    pub(super) exchangers: Exchangers,
    /// Told of each request.
    pub(super) operations: Operations,
    /// Told of what credentials are used for beside calls.
    uses: SecretUses,
    pub(super) tasks: Tasks,
    pub(super) clock: Arc<dyn Clock>,
}

/// Hears whose upstream it is, which, and whether it is called.
pub(crate) type Told<'t> = dyn FnMut(&TenantSlug, &UpstreamSlug, bool) + 't;

impl Pool {
    /// An empty pool whose connections `egress` guards and whose background work runs on `tasks`. Callers' own access tokens are shown
    /// to their `exchangers` only. `operations` are told of each request.
    pub(crate) fn new(
        (egress, exchangers): (Egress, Exchangers),
        operations: Operations,
        (tasks, clock): (Tasks, Arc<dyn Clock>),
    ) -> Self {
        Self {
            links: cache(LINKS_MAX, IDLE_MAX),
            actors: cache(ACTOR_LINKS_MAX, ACTOR_IDLE_MAX),
            kinds: Cache::builder().max_capacity(ACTOR_LINKS_MAX).time_to_idle(ACTOR_IDLE_MAX).build(),
            looked: Arc::default(),
            rooms: Rooms::default(),
            egress,
            exchangers,
            operations,
            uses: SecretUses::default(),
            tasks,
            clock,
        }
    }

    /// The same, in which so many bytes are held at once.
    pub(crate) fn bounded(self, config: &LimitsConfig) -> Self {
        Self { rooms: Rooms::new(config), ..self }
    }

    /// What a request of that principal to an upstream is held by.
    pub(crate) fn load(&self, place: (TenantId, UpstreamId), principal: &Principal) -> Load {
        self.rooms.load(place, principal)
    }

    /// The same, and what credentials are used for beside calls is recorded.
    #[must_use]
    pub(crate) fn recording(self, uses: SecretUses) -> Self {
        Self { uses, ..self }
    }

    /// What credentials are used for beside calls.
    pub(crate) fn uses(&self) -> &SecretUses {
        &self.uses
    }

    /// Tells of each upstream that was called lately whether it is called, or left alone. Nothing but the links is held for that.
    pub(crate) fn healths(&self) -> impl Fn(&mut Told<'_>) + Send + Sync + use<> {
        let links = self.links.clone();
        move |tell| {
            for (_, link) in &links {
                let line = link.line();
                tell(line.tenant(), &line.upstream().slug, line.is_well());
            }
        }
    }

    /// The link to `upstream`, which must belong to the tenant of `scope` and be at one of `hosts`. One that no longer fits what is
    /// configured is replaced, together with its connections, session and access token. An upstream that is called as somebody has
    /// one link for each of them: neither session nor access token is ever another's. So has one that keeps a session, or of which
    /// that is not known: what it notes there of one caller is nobody else's, and what it asks, it asks a client that can answer.
    pub fn link(
        &self,
        scope: TenantScope,
        upstream: &Arc<Upstream>,
        (proofs, peer): (&Proofs<'_>, Peer),
        (tenant, hosts): (&TenantSlug, Option<&EgressHosts>),
    ) -> Result<Arc<Link>, UpstreamError> {
        assert_eq!(scope.tenant(), upstream.tenant, "an upstream is linked within its own tenant only");
        let key = (upstream.tenant, upstream.id);
        let base =
            self.base((key, tenant), upstream, &Conditions { versions: proofs.versions(), hosts: hosts.cloned() });
        let of = |actor: &Actor, peer: Peer, make: &dyn Fn() -> Link| {
            let is_other = |link: &Arc<Link>| !Arc::ptr_eq(link.line(), base.line());
            let entry = self.actors.entry((key, actor.clone(), peer));
            entry.or_insert_with_if(|| Arc::new(make()), is_other).into_value()
        };
        let nobody = Peer::default();
        let (own, actor) = match (proofs.actor(upstream)?, proofs.caller) {
            (Some(actor), _) => {
                let make = || Link::new(Arc::clone(base.line()), Some(actor.clone()));
                (of(&actor, nobody, &make), actor)
            }
            (None, Some(caller)) if !base.is_stateless() => (Arc::clone(&base), Actor::of_principal(&caller.principal)),
            _ => return Ok(base),
        };
        let is_for_peer = peer == nobody && !Arc::ptr_eq(&own, &base);
        if is_for_peer || own.is_stateless() {
            return Ok(own);
        }
        let peer = if self.has_room(key, &actor, peer) { peer } else { nobody };
        Ok(of(&actor, peer, &|| own.for_session_of(actor.clone(), peer)))
    }

    /// Whether there may be a session for clients of this kind too. Clients say with each request what they are.
    fn has_room(&self, key: Key, actor: &Actor, peer: Peer) -> bool {
        let kinds = self.kinds.get_with((key, actor.clone()), Arc::default);
        let mut kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.contains(&peer) && kinds.len() < KINDS_MAX {
            kinds.push(peer);
        }
        kinds.contains(&peer)
    }

    /// Whether the link's upstream tells of changed resources; none, if that is not known yet. What is told in one session is told in
    /// every one.
    pub(crate) fn tells_of_resources(&self, link: &Link) -> Option<bool> {
        let key = (link.upstream().tenant, link.upstream().id);
        link.tells_of_resources().or_else(|| self.links.get(&key)?.tells_of_resources())
    }

    /// Drops the links of upstreams that are not in use, with their connections and access tokens. They are not told. At the same
    /// revision it looks only now and then: whoever decided by an earlier one may make a link late.
    pub(crate) fn keep(&self, revision: Revision, is_in_use: impl Fn((TenantId, UpstreamId)) -> bool) {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|(known, at)| known == revision && now < at + LOOK_EVERY) {
                return;
            }
            *looked = Some((revision, now));
        }
        self.rooms.tidy();
        let others = |key: &Key| !is_in_use(*key);
        for (key, link) in self.links.iter().filter(|(key, _)| others(key)) {
            link.line().fall_silent();
            self.links.invalidate(&*key);
        }
        for (called, link) in self.actors.iter().filter(|(called, _)| others(&called.0)) {
            link.line().fall_silent();
            self.actors.invalidate(&*called);
        }
        // Nobody else may come by for long to whom those would be shown whose time is over.
        self.links.run_pending_tasks();
        self.actors.run_pending_tasks();
    }

    /// Drops the links that use the account of `principal`, and the access token with them.
    pub(super) fn forget_account(&self, upstream: &Upstream, principal: &Principal) {
        let (key, actor) = ((upstream.tenant, upstream.id), Actor::of_principal(principal));
        self.drop_actors(|(of, called, _)| *of == key && *called == actor);
    }

    fn drop_actors(&self, is_it: impl Fn(&Called) -> bool) {
        for (called, _) in self.actors.iter().filter(|(called, _)| is_it(called)) {
            self.actors.invalidate(&*called);
        }
    }

    /// Two who need it at once get the same one.
    fn base(&self, (key, tenant): (Key, &TenantSlug), upstream: &Arc<Upstream>, conditions: &Conditions) -> Arc<Link> {
        if let Some(link) = self.links.get(&key) {
            if link.line().fits(upstream, conditions) {
                return link;
            }
            if !link.line().may_end_under(upstream, conditions) {
                link.line().fall_silent();
            }
        }
        let line = Line::new((tenant.clone(), Arc::clone(upstream)), conditions.clone(), self);
        let entry = self.links.entry(key).or_insert_with_if(
            || Arc::new(Link::new(Arc::clone(&line), None)),
            |link| !link.line().fits(upstream, conditions),
        );
        entry.into_value()
    }
}

/// Always takes what is new, in place of what was used least recently: a link that is not kept shares nothing. One that is let go ends
/// its session, whoever still holds it, and whenever the cache frees its memory.
fn cache<K: Hash + Eq + Send + Sync + 'static>(capacity: u64, idle: Duration) -> Cache<K, Arc<Link>> {
    let cache = Cache::builder().max_capacity(capacity).time_to_idle(idle).eviction_policy(EvictionPolicy::lru());
    cache.eviction_listener(|_, link: Arc<Link>, _| link.let_go()).build()
}
