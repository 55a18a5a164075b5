//! The flow guard: whether what a caller says to one tenant's upstream was read, minutes ago, in an answer of another tenant's.
//!
//! One person may serve two companies, and a model that works for that person reads from one and writes to the other. No grant stands
//! against that: both are allowed. So each answer leaves prints of what is distinctive in it, kept for a while with its reader, and
//! arguments are compared with them. The prints are keyed hashes: nothing can be read out of them.
//!
//! It sees what is copied. It does not see what is said in other words; see `docs/flow-guard.md`.

mod memory;
mod prints;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tenant_store::TenantId;
use tokio::time::Instant;

use self::memory::Memory;
use self::prints::{Prints, Side};
use crate::caller::Principal;

/// How long what was read is remembered after it was read last.
pub const REMEMBERED: Duration = Duration::from_mins(15);
/// Most prints that are kept of all readers together: up to about 250 MiB. Whoever read longest ago is forgotten first.
const PRINTS_MAX: u64 = 3_000_000;

/// What was read lately, by whom, and from whom it came. Clones share it.
#[derive(Debug, Clone)]
pub struct FlowGuard {
    /// Its seed is this process's own, so that nobody can choose texts that fall together.
    hasher: RandomState,
    readers: Cache<Principal, Arc<Mutex<Memory>>, RandomState>,
}

/// What stands in arguments and came from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The tenants in whose answers it was read.
    pub from: Vec<TenantId>,
    prints: Vec<u64>,
}

impl Default for FlowGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl FlowGuard {
    /// One that remembers nothing yet.
    pub fn new() -> Self {
        let readers = Cache::builder()
            .max_capacity(PRINTS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &Principal, memory: &Arc<Mutex<Memory>>| weight(memory))
            .time_to_idle(REMEMBERED)
            .build_with_hasher(RandomState::default());
        Self { hasher: RandomState::default(), readers }
    }

    /// Remembers that `reader` read `answer`, a JSON value, from `tenant`.
    pub fn read(&self, reader: &Principal, tenant: TenantId, answer: &str, now: Instant) {
        let prints = Prints::of(answer, Side::Answer, &self.hasher);
        if prints.is_empty() {
            return;
        }
        let memory = self.readers.get_with_by_ref(reader, Arc::default);
        memory.lock().unwrap_or_else(PoisonError::into_inner).read(tenant, &prints, now);
        // Weighed anew.
        self.readers.insert(reader.clone(), memory);
    }

    /// Whether anything is remembered of `reader`; of whoever reaches one tenant nothing is.
    pub fn has_read(&self, reader: &Principal) -> bool {
        self.readers.contains_key(reader)
    }

    /// What of `arguments`, a JSON value, `reader` read lately from others than `tenant`, and `tenant` has not said or heard itself.
    /// `known` is text that tells nothing: the definition of what is called.
    pub fn find(
        &self,
        reader: &Principal,
        tenant: TenantId,
        (arguments, known): (&str, &str),
        now: Instant,
    ) -> Option<Flow> {
        let memory = self.readers.get(reader)?;
        let prints = Prints::of(arguments, Side::Arguments, &self.hasher);
        let known = || Prints::of(known, Side::Arguments, &self.hasher);
        let (from, prints) = memory.lock().unwrap_or_else(PoisonError::into_inner).find(tenant, &prints, known, now)?;
        Some(Flow { from, prints })
    }

    /// Remembers that `tenant` hears what was found: it is no news to it from now on.
    pub fn told(&self, reader: &Principal, tenant: TenantId, flow: &Flow, now: Instant) {
        if let Some(memory) = self.readers.get(reader) {
            memory.lock().unwrap_or_else(PoisonError::into_inner).told(tenant, &flow.prints, now);
        }
    }
}

fn weight(memory: &Mutex<Memory>) -> u32 {
    let len = memory.lock().unwrap_or_else(PoisonError::into_inner).len();
    u32::try_from(len).unwrap_or(u32::MAX).max(1)
}
