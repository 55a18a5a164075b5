//! Calls of legacy upstreams that wait for a modern client: the upstream asked for something in the stream of the call, the client got that
//! question as its answer, and comes back with what it was asked for. Meanwhile the call is parked here, for a bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use crate::caller::{Caller, Principal, Quota, Share};
use crate::lifecycle::Tasks;
use crate::upstream::Streaming;

/// How long a call is parked.
pub(super) const PARKED_LIFE: Duration = Duration::from_mins(5);
/// Most parked calls of one principal. Each holds a place at its upstream.
const PARKED_MAX: usize = 8;

/// All that are parked here.
#[derive(Debug, Clone)]
pub(super) struct ParkingLot {
    calls: Arc<Mutex<HashMap<Uuid, Held>>>,
    quota: Quota,
    tasks: Tasks,
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Parked {
    /// Its stream, in which the answer to the call will come.
    pub(super) streaming: Streaming,
    /// The id of the upstream's request.
    pub(super) asked: Box<RawValue>,
    /// How many more times the upstream may ask.
    pub(super) questions_left: usize,
}

#[derive(Debug)]
struct Held {
    principal: Principal,
    call: Parked,
    _share: Share,
}

impl ParkingLot {
    /// An empty one, of which `tasks` drive out who stays too long.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { calls: Arc::default(), quota: Quota::new(PARKED_MAX), tasks }
    }

    /// Parks a call of `caller`; not, if too many are parked already: then the call ends.
    pub(super) fn park(&self, caller: &Caller, call: Parked) -> Option<Uuid> {
        let share = self.quota.take(&caller.principal)?;
        let id = Uuid::new_v4();
        self.lock().insert(id, Held { principal: caller.principal.clone(), call, _share: share });
        let (calls, until) = (Arc::downgrade(&self.calls), Instant::now() + PARKED_LIFE);
        self.tasks.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(calls) = calls.upgrade() {
                calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        });
        Some(id)
    }

    /// The call, if it is parked here and is one of `caller`'s.
    pub(super) fn take(&self, caller: &Caller, id: Uuid) -> Option<Parked> {
        let mut calls = self.lock();
        let is_theirs = calls.get(&id).is_some_and(|held| held.principal == caller.principal);
        if is_theirs { calls.remove(&id).map(|held| held.call) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
