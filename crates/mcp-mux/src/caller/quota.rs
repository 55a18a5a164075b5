//! How much one principal may hold of something at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Principal;

/// At most so many of something for each principal.
#[derive(Debug, Clone)]
pub struct Quota {
    max: usize,
    held: Arc<Mutex<HashMap<Principal, usize>>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Share {
    quota: Quota,
    principal: Principal,
}

impl Quota {
    /// At most `max` for each.
    pub fn new(max: usize) -> Self {
        Self { max, held: Arc::default() }
    }

    /// One more for `principal`; none, if it holds all that it may.
    pub fn take(&self, principal: &Principal) -> Option<Share> {
        let mut held = self.lock();
        let count = held.get(principal).copied().unwrap_or_default();
        if count >= self.max {
            return None;
        }
        held.insert(principal.clone(), count + 1);
        Some(Share { quota: self.clone(), principal: principal.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.quota.lock();
        if let Some(count) = held.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_more_than_that_and_what_is_given_back_is_forgotten() {
        let of = |subject: &str| Principal { issuer: "corp".parse().unwrap(), subject: subject.parse().unwrap() };
        let (quota, alice, bob) = (Quota::new(2), of("alice"), of("bob"));
        let (first, second) = (quota.take(&alice).unwrap(), quota.take(&alice).unwrap());
        assert!(quota.take(&alice).is_none());
        assert!(quota.take(&bob).is_some(), "what one holds is nothing to another");
        drop(first);
        let third = quota.take(&alice).unwrap();
        drop((second, third));
        assert!(quota.lock().is_empty());
    }
}
