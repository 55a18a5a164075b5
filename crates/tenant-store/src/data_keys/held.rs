//! Data keys that are held in memory, so that not every secret that is opened asks the key provider: for minutes, bounded in number,
//! and wiped after.
//!
//! A key that is held is asked for again every few minutes. While the provider cannot be reached, a key that was got within the hour
//! goes on; one that the provider refuses, or that is gone, is dropped at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crypto::{Key, KeyId, KeyRing};
use moka::future::Cache;
use tokio::time::{Instant, timeout};

use super::WrappedKey;
use crate::id::TenantId;
use crate::kek::{KekError, KeyEncryption};

/// How long a key is believed before the provider is asked again.
const FRESH: Duration = Duration::from_mins(5);
/// How long a key is used at most while the provider cannot be reached.
const OUTAGE_MAX: Duration = Duration::from_hours(1);
/// How long a key is kept that nobody uses.
const IDLE_MAX: Duration = Duration::from_mins(10);
/// How many keys are held.
const HELD_MAX: u64 = 10_000;
/// How long the provider may take.
const UNWRAP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refusal or an outage answers those that ask again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

type Which = (TenantId, KeyId);

/// The keys that are held, and what could not be had a moment ago.
#[derive(Debug, Clone)]
pub(crate) struct HeldKeys {
    kek: Arc<dyn KeyEncryption>,
    held: Cache<Which, Arc<Held>>,
    refused: Cache<Which, (Instant, KekError)>,
}

#[derive(Debug)]
struct Held {
    ring: KeyRing,
    since: Instant,
    /// Somebody asks the provider again.
    asked: AtomicBool,
}

impl HeldKeys {
    pub(crate) fn new(kek: Arc<dyn KeyEncryption>) -> Self {
        let held = Cache::builder().max_capacity(HELD_MAX).time_to_idle(IDLE_MAX).build();
        let refused = Cache::builder().max_capacity(HELD_MAX).time_to_live(IDLE_MAX).build();
        Self { kek, held, refused }
    }

    /// The key, as a ring of one. However many ask for one that is not held, one asks the provider.
    pub(crate) async fn get(&self, wrapped: &WrappedKey) -> Result<KeyRing, KekError> {
        let which = (wrapped.tenant, wrapped.id);
        if let Some(held) = self.held.get(&which).await {
            match self.again(wrapped, &held).await {
                Ok(ring) => return Ok(ring),
                Err(error) => {
                    self.held.invalidate(&which).await;
                    return Err(error);
                }
            }
        }
        if let Some((at, error)) = self.refused.get(&which).await
            && at.elapsed() < RETRY_AFTER
        {
            return Err(error);
        }
        let got = self.held.try_get_with(which, async { self.ask(wrapped).await.map(Held::new) }).await;
        match got {
            Ok(held) => Ok(held.ring.clone()),
            Err(error) => {
                self.refused.insert(which, (Instant::now(), (*error).clone())).await;
                Err((*error).clone())
            }
        }
    }

    /// Holds a key that was just made.
    pub(crate) async fn put(&self, wrapped: &WrappedKey, key: Key) {
        self.held.insert((wrapped.tenant, wrapped.id), Held::new(key)).await;
    }

    /// Drops every key but those.
    pub(crate) async fn retain(&self, alive: &HashSet<Which>) {
        let gone: Vec<Which> =
            self.held.iter().map(|(which, _)| *which).filter(|which| !alive.contains(which)).collect();
        for which in gone {
            self.held.invalidate(&which).await;
        }
        self.held.run_pending_tasks().await;
    }

    /// What is held is asked for again once it is no longer fresh; by one, while the others go on with it.
    async fn again(&self, wrapped: &WrappedKey, held: &Arc<Held>) -> Result<KeyRing, KekError> {
        let age = held.since.elapsed();
        if age < FRESH || (age < OUTAGE_MAX && held.asked.swap(true, Ordering::Relaxed)) {
            return Ok(held.ring.clone());
        }
        match self.ask(wrapped).await {
            Ok(key) => {
                let ring = KeyRing::new(key, Vec::new());
                self.held.insert((wrapped.tenant, wrapped.id), Held::of(ring.clone())).await;
                Ok(ring)
            }
            Err(KekError::Unreachable) if age < OUTAGE_MAX => {
                held.asked.store(false, Ordering::Relaxed);
                Ok(held.ring.clone())
            }
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, wrapped: &WrappedKey) -> Result<Key, KekError> {
        let asked = self.kek.unwrap(wrapped.place(), &wrapped.kek, &wrapped.wrapped);
        let key = timeout(UNWRAP_TIMEOUT, asked).await.map_err(|_| KekError::Unreachable)??;
        if key.id() == wrapped.id { Ok(key) } else { Err(KekError::Malformed) }
    }
}

impl Held {
    fn new(key: Key) -> Arc<Self> {
        Self::of(KeyRing::new(key, Vec::new()))
    }

    fn of(ring: KeyRing) -> Arc<Self> {
        Arc::new(Self { ring, since: Instant::now(), asked: AtomicBool::new(false) })
    }
}
