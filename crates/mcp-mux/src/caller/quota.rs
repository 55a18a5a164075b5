//! How much one principal, or one tenant, may hold of something at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Principal;

/// At most so many of something for each principal, or for each of whatever else holds it.
#[derive(Debug, Clone)]
pub struct Quota<K: Eq + Hash = Principal> {
    max: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of them, or as many as were taken together, until it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash = Principal> {
    quota: Quota<K>,
    holder: K,
    count: usize,
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// At most `max` for each.
    pub fn new(max: usize) -> Self {
        Self { max, held: Arc::default() }
    }

    /// One more for `holder`; none, if it holds all that it may.
    pub fn take(&self, holder: &K) -> Option<Share<K>> {
        self.take_many(holder, 1)
    }

    /// So many more for `holder`; none, if those are more than it may hold.
    pub fn take_many(&self, holder: &K, count: usize) -> Option<Share<K>> {
        let mut held = self.lock();
        let all = held.get(holder).copied().unwrap_or_default().checked_add(count).filter(|all| *all <= self.max)?;
        held.insert(holder.clone(), all);
        Some(Share { quota: self.clone(), holder: holder.clone(), count })
    }
}

impl<K: Eq + Hash> Quota<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.quota.lock();
        if let Some(all) = held.get_mut(&self.holder) {
            *all -= self.count;
            if *all == 0 {
                held.remove(&self.holder);
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
        assert!(quota.take_many(&bob, 3).is_none() && quota.take_many(&bob, usize::MAX).is_none());
        let both = quota.take_many(&bob, 2).unwrap();
        assert!(quota.take(&bob).is_none());
        drop((second, third, both));
        assert!(quota.lock().is_empty());
    }
}
