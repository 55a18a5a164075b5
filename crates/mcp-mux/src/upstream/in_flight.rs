//! Bytes in flight: what is held in memory of requests to an upstream and of its answers, until their clients have them or nobody waits any
//! more. Of each upstream, and of all upstreams of a tenant together, there may be so many at once.
//!
//! Nobody waits for room. Whoever does, while it holds some, may keep from others what they wait for; so a call that finds none is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tenant_store::{TenantId, UpstreamId};

use crate::config::LimitsConfig;

type Key = (TenantId, UpstreamId);

/// The room that there is for bytes of upstreams and of tenants. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    upstream_max: Option<u64>,
    tenant_max: Option<u64>,
    upstreams: Mutex<HashMap<Key, Arc<Room>>>,
    tenants: Mutex<HashMap<TenantId, Arc<Room>>>,
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
    bytes: AtomicU64,
}

impl Rooms {
    pub(super) fn new(config: &LimitsConfig) -> Self {
        let (upstream_max, tenant_max) = config.bytes_in_flight();
        Self(Arc::new(Shared { upstream_max, tenant_max, ..Shared::default() }))
    }

    /// What a request to that upstream is held by. There is nothing of it yet.
    pub(super) fn load(&self, (tenant, upstream): Key) -> Load {
        let of_upstream = room(&self.0.upstreams, (tenant, upstream), self.0.upstream_max);
        let of_tenant = room(&self.0.tenants, tenant, self.0.tenant_max);
        let rooms = of_upstream.into_iter().chain(of_tenant).collect();
        Load(Arc::new(Held { rooms, bytes: AtomicU64::new(0) }))
    }

    /// Forgets upstreams that are not in use, as soon as nothing of them is held.
    pub(super) fn keep(&self, is_in_use: impl Fn(Key) -> bool) {
        let mut upstreams = self.0.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.retain(|key, room| is_in_use(*key) || Arc::strong_count(room) > 1);
    }
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
        for (index, room) in self.0.rooms.iter().enumerate() {
            if !room.take(bytes) {
                self.0.rooms.iter().take(index).for_each(|room| room.give_back(bytes));
                return false;
            }
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
        Self(Arc::new(Held { rooms: self.0.rooms.clone(), bytes: AtomicU64::new(0) }))
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
    fn give_back(&self, bytes: u64) {
        self.rooms.iter().for_each(|room| room.give_back(bytes));
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

    fn key(tenant: TenantId) -> Key {
        (tenant, UpstreamId::new(Timestamp::from_millis(1)))
    }

    #[test]
    fn an_upstream_and_a_tenant_hold_so_many_bytes_and_others_as_many_of_their_own() {
        let (rooms, at) = (rooms(2, 3), Timestamp::from_millis(1));
        let (acme, globex) = (TenantId::new(at), TenantId::new(at));
        let (desk, crm, other) = (key(acme), key(acme), key(globex));
        let first = rooms.load(desk);
        assert!(first.take(2 * MIB) && !first.take(1) && !rooms.load(desk).take(1));
        let second = rooms.load(crm);
        assert!(second.take(MIB) && !second.take(1), "the tenant's room is full, though the upstream's is not");
        assert!(rooms.load(other).take(2 * MIB));
        // What was refused took nothing: all of it is free again.
        second.keep(0);
        let (third, clone) = (rooms.load(crm), first.clone());
        assert!(third.take(MIB));
        drop(first);
        assert!(!rooms.load(desk).take(1), "somebody still holds it");
        drop((clone, third));
        assert!(rooms.load(desk).take(2 * MIB));
    }

    #[test]
    fn what_is_set_apart_is_held_by_itself_and_forgotten_rooms_are_empty() {
        let (rooms, desk) = (rooms(1, 0), key(TenantId::new(Timestamp::from_millis(1))));
        let load = rooms.load(desk);
        let apart = load.apart();
        assert!(load.take(MIB / 2) && apart.take(MIB / 2) && !apart.take(1));
        rooms.keep(|_| false);
        assert!(!rooms.load(desk).take(MIB), "what is held is not forgotten");
        drop((load, apart));
        rooms.keep(|_| false);
        assert!(rooms.0.upstreams.lock().unwrap().is_empty());
    }

    #[test]
    fn zero_is_any_number() {
        let load = rooms(0, 0).load(key(TenantId::new(Timestamp::from_millis(1))));
        assert!(load.take(usize::MAX) && load.take(usize::MAX));
    }
}
