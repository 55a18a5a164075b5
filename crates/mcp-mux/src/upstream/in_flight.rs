//! Bytes in flight: what is held in memory of requests to an upstream and of its answers, until their clients have them or nobody waits any
//! more. Of each upstream, and of all upstreams of a tenant together, there may be so many at once; and whoever holds half of that with other
//! calls gets no more of it, so that nobody alone keeps it from their colleagues, as far as there is room for more than one long call.
//!
//! Nobody waits for room. Whoever does, while it holds some, may keep from others what they wait for; so a call that finds none is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tenant_store::{TenantId, UpstreamId};

use crate::caller::Principal;
use crate::config::LimitsConfig;

type Key = (TenantId, UpstreamId);

/// What one call may hold, in bytes: the longest request and the longest answer.
const CALL_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// The room that there is for bytes of upstreams and of tenants. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    upstream_max: Option<u64>,
    tenant_max: Option<u64>,
    upstreams: Mutex<HashMap<Key, Arc<Room>>>,
    tenants: Mutex<HashMap<TenantId, Arc<Room>>>,
    /// What each principal holds in a tenant.
    principals: Mutex<HashMap<(TenantId, Principal), Arc<Room>>>,
}

#[derive(Debug)]
struct Room {
    bytes_max: u64,
    held: AtomicU64,
}

/// The bytes of one request that are held, until the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    rooms: Vec<Arc<Room>>,
    /// What its principal holds, this and others.
    own: Option<Arc<Room>>,
    bytes: AtomicU64,
}

impl Rooms {
    pub(super) fn new(config: &LimitsConfig) -> Self {
        let (upstream_max, tenant_max) = config.bytes_in_flight();
        Self(Arc::new(Shared { upstream_max, tenant_max, ..Shared::default() }))
    }

    /// What a request of that principal to that upstream is held by. There is nothing of it yet.
    pub(super) fn load(&self, (tenant, upstream): Key, principal: &Principal) -> Load {
        let of_upstream = room(&self.0.upstreams, (tenant, upstream), self.0.upstream_max);
        let of_tenant = room(&self.0.tenants, tenant, self.0.tenant_max);
        let smaller = of_upstream.iter().chain(&of_tenant).map(|room| room.bytes_max).min();
        let share = smaller.map(|bytes| (bytes / 2).max(CALL_BYTES_MAX));
        let own = room(&self.0.principals, (tenant, principal.clone()), share);
        let rooms = of_upstream.into_iter().chain(of_tenant).collect();
        Load(Arc::new(Held { rooms, own, bytes: AtomicU64::new(0) }))
    }

    /// Forgets those for whom nothing is held.
    pub(super) fn tidy(&self) {
        tidy(&self.0.upstreams);
        tidy(&self.0.tenants);
        tidy(&self.0.principals);
    }
}

fn tidy<K: Eq + std::hash::Hash>(rooms: &Mutex<HashMap<K, Arc<Room>>>) {
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    rooms.retain(|_, room| Arc::strong_count(room) > 1);
}

fn room<K: Eq + std::hash::Hash>(
    rooms: &Mutex<HashMap<K, Arc<Room>>>,
    key: K,
    bytes_max: Option<u64>,
) -> Option<Arc<Room>> {
    let bytes_max = bytes_max?;
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || Arc::new(Room { bytes_max, held: AtomicU64::new(0) });
    Some(Arc::clone(rooms.entry(key).or_insert_with(new)))
}

impl Load {
    /// So many more bytes are held. `false` if there is no room for them.
    #[must_use]
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if !self.0.may_grow() {
            return false;
        }
        for (index, room) in self.0.rooms.iter().enumerate() {
            if !room.take(bytes) {
                self.0.rooms.iter().take(index).for_each(|room| room.give_back(bytes));
                return false;
            }
        }
        if let Some(own) = &self.0.own {
            own.held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// No more than so many bytes are held any more.
    pub(super) fn keep(&self, bytes: usize) {
        let before = self.0.bytes.fetch_min(bytes as u64, Ordering::Relaxed);
        self.0.give_back(before.saturating_sub(bytes as u64));
    }

    /// Another one in the same rooms, of which nothing is held yet.
    pub(crate) fn apart(&self) -> Self {
        let Held { rooms, own, .. } = &*self.0;
        Self(Arc::new(Held { rooms: rooms.clone(), own: own.clone(), bytes: AtomicU64::new(0) }))
    }
}

impl Room {
    fn take(&self, bytes: u64) -> bool {
        let add = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.bytes_max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Held {
    /// Whether its principal holds less than its share with others: one may be as long as there is room.
    fn may_grow(&self) -> bool {
        let others = |own: &Room| own.held.load(Ordering::Relaxed).saturating_sub(self.bytes.load(Ordering::Relaxed));
        self.own.as_ref().is_none_or(|own| others(own) < own.bytes_max)
    }

    fn give_back(&self, bytes: u64) {
        self.rooms.iter().chain(&self.own).for_each(|room| room.give_back(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use tenant_store::Timestamp;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn rooms(upstream: u32, tenant: u32) -> Rooms {
        Rooms::new(&LimitsConfig {
            upstream_mib_in_flight: upstream,
            tenant_mib_in_flight: tenant,
            ..LimitsConfig::default()
        })
    }

    fn of(name: &str) -> Principal {
        Principal { issuer: "corp".parse().unwrap(), subject: name.parse().unwrap() }
    }

    fn key(tenant: TenantId) -> Key {
        (tenant, UpstreamId::new(Timestamp::from_millis(1)))
    }

    #[test]
    fn an_upstream_and_a_tenant_hold_so_many_bytes_and_others_as_many_of_their_own() {
        let (rooms, at) = (rooms(2, 3), Timestamp::from_millis(1));
        let (acme, globex) = (TenantId::new(at), TenantId::new(at));
        let (desk, crm, other) = (key(acme), key(acme), key(globex));
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(of);
        let first = rooms.load(desk, &alice);
        assert!(first.take(2 * MIB) && !first.take(1) && !rooms.load(desk, &bob).take(1));
        let second = rooms.load(crm, &bob);
        assert!(second.take(MIB) && !second.take(1), "the tenant's room is full, though the upstream's is not");
        assert!(rooms.load(other, &alice).take(2 * MIB));
        // What was refused took nothing: all of it is free again.
        second.keep(0);
        let (third, clone) = (rooms.load(crm, &carol), first.clone());
        assert!(third.take(MIB));
        drop(first);
        assert!(!rooms.load(desk, &carol).take(1), "somebody still holds it");
        drop((clone, third));
        assert!(rooms.load(desk, &alice).take(2 * MIB));
    }

    #[test]
    fn whoever_holds_half_gets_no_more_until_some_of_it_is_gone_and_others_do() {
        let (rooms, desk) = (rooms(80, 60), key(TenantId::new(Timestamp::from_millis(1))));
        let [alice, bob] = ["alice", "bob"].map(of);
        let (first, second) = (rooms.load(desk, &alice), rooms.load(desk, &alice));
        assert!(first.take(20 * MIB) && second.take(20 * MIB), "less than half was held");
        assert!(first.take(1), "what it holds itself is not in its way");
        let third = rooms.load(desk, &alice);
        assert!(!third.take(1) && !first.apart().take(1));
        assert!(rooms.load(desk, &bob).take(10 * MIB));
        second.keep(5 * MIB);
        assert!(third.take(10 * MIB));
        drop((first, second, third));
        assert!(rooms.load(desk, &alice).take(50 * MIB), "one may be as long as there is room");
    }

    #[test]
    fn what_is_set_apart_is_held_by_itself_and_forgotten_rooms_are_empty() {
        let (rooms, desk) = (rooms(4, 4), key(TenantId::new(Timestamp::from_millis(1))));
        let [alice, bob] = ["alice", "bob"].map(of);
        let load = rooms.load(desk, &alice);
        let apart = load.apart();
        assert!(load.take(MIB) && apart.take(3 * MIB) && !apart.take(1));
        rooms.tidy();
        assert!(!rooms.load(desk, &bob).take(MIB), "what is held is not forgotten");
        drop((load, apart));
        rooms.tidy();
        let Shared { upstreams, tenants, principals, .. } = &*rooms.0;
        assert!(upstreams.lock().unwrap().is_empty() && tenants.lock().unwrap().is_empty());
        assert!(principals.lock().unwrap().is_empty());
    }

    #[test]
    fn zero_is_any_number() {
        let load = rooms(0, 0).load(key(TenantId::new(Timestamp::from_millis(1))), &of("alice"));
        assert!(load.take(usize::MAX) && load.take(usize::MAX));
    }
}
