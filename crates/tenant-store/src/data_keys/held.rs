//! Data keys that are held in memory, so that not every secret that is opened asks the key provider: for minutes, bounded in number,
//! and wiped after.
//!
//! A key that is held is asked for again every few minutes, by one, while the others go on with it. While the provider gives no
//! answer that can be understood, a key that was got within the hour goes on; one that the provider refuses, or that is gone, is
//! dropped at once, and one of a shredded tenant is not taken back.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crypto::{Key, KeyId, KeyRing};
use moka::future::Cache;
use tokio::sync::Mutex;
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
/// How long the provider is left alone, after it did not answer, by those whose key is held.
const OUTAGE_RETRY: Duration = Duration::from_secs(30);

type Which = (TenantId, KeyId);

/// The keys that are held, and what could not be had a moment ago.
#[derive(Debug, Clone)]
pub(crate) struct HeldKeys {
    kek: Arc<dyn KeyEncryption>,
    held: Cache<Which, Arc<Held>>,
    refused: Cache<Which, (Instant, KekError)>,
    shredded: Arc<RwLock<HashSet<TenantId>>>,
}

#[derive(Debug)]
struct Held {
    ring: KeyRing,
    since: Instant,
    /// Whoever holds it asks the provider again, not before that moment.
    turn: Mutex<Instant>,
}

impl HeldKeys {
    pub(crate) fn new(kek: Arc<dyn KeyEncryption>) -> Self {
        let held = Cache::builder().max_capacity(HELD_MAX).time_to_idle(IDLE_MAX).build();
        let refused = Cache::builder().max_capacity(HELD_MAX).time_to_live(IDLE_MAX).build();
        Self { kek, held, refused, shredded: Arc::default() }
    }

    /// The key, as a ring of one. However many ask for one that is not held, one asks the provider.
    pub(crate) async fn get(&self, wrapped: &WrappedKey) -> Result<KeyRing, KekError> {
        let which = (wrapped.tenant, wrapped.id);
        self.require_unshredded(wrapped.tenant)?;
        match self.held.get(&which).await {
            Some(held) if held.since.elapsed() < FRESH => Ok(held.ring.clone()),
            // Boxed, because whoever asks carries along what happens seldom.
            Some(held) => Box::pin(self.again(wrapped, held)).await,
            None => Box::pin(self.first(wrapped)).await,
        }
    }

    /// What is not held is asked for.
    async fn first(&self, wrapped: &WrappedKey) -> Result<KeyRing, KekError> {
        let which = (wrapped.tenant, wrapped.id);
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

    /// Of those tenants' keys, drops all but those that are alive.
    pub(crate) async fn retain(&self, tenants: &HashSet<TenantId>, alive: &HashSet<Which>) {
        let is_dead = |which: &Which| tenants.contains(&which.0) && !alive.contains(which);
        let gone: Vec<Which> = self.held.iter().map(|(which, _)| *which).filter(is_dead).collect();
        for which in gone {
            self.held.invalidate(&which).await;
        }
        self.held.run_pending_tasks().await;
    }

    /// Drops every key of those tenants, and gives none of them any more.
    pub(crate) async fn shredded(&self, tenants: impl IntoIterator<Item = TenantId>) {
        self.shredded.write().unwrap_or_else(PoisonError::into_inner).extend(tenants);
        let gone = |which: &Which| self.require_unshredded(which.0).is_err();
        let gone: Vec<Which> = self.held.iter().map(|(which, _)| *which).filter(gone).collect();
        for which in gone {
            self.held.invalidate(&which).await;
        }
        self.held.run_pending_tasks().await;
    }

    /// Wipes what was dropped or not used for a while. Without being told so, the cache does that only when it is used.
    pub(crate) async fn tidy(&self) {
        self.held.run_pending_tasks().await;
    }

    fn require_unshredded(&self, tenant: TenantId) -> Result<(), KekError> {
        let shredded = self.shredded.read().unwrap_or_else(PoisonError::into_inner);
        if shredded.contains(&tenant) { Err(KekError::Refused) } else { Ok(()) }
    }

    /// What is held and no longer fresh is asked for again.
    async fn again(&self, wrapped: &WrappedKey, held: Arc<Held>) -> Result<KeyRing, KekError> {
        let which = (wrapped.tenant, wrapped.id);
        let is_bridged = held.since.elapsed() < OUTAGE_MAX;
        let mut not_before = match held.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) if is_bridged => return Ok(held.ring.clone()),
            Err(_) => held.turn.lock().await,
        };
        if let Some(newer) = self.held.get(&which).await.filter(|newer| !Arc::ptr_eq(newer, &held)) {
            return Ok(newer.ring.clone());
        }
        if Instant::now() < *not_before {
            return if is_bridged { Ok(held.ring.clone()) } else { Err(KekError::Unreachable) };
        }
        match self.ask(wrapped).await {
            Ok(key) => {
                let newer = Held::new(key);
                self.held.insert(which, Arc::clone(&newer)).await;
                Ok(newer.ring.clone())
            }
            // An answer that is none comes from something in between.
            Err(KekError::Unreachable | KekError::Malformed) if is_bridged => {
                *not_before = Instant::now() + OUTAGE_RETRY;
                Ok(held.ring.clone())
            }
            Err(error @ KekError::Unreachable) => {
                *not_before = Instant::now() + RETRY_AFTER;
                Err(error)
            }
            Err(error) => {
                self.held.invalidate(&which).await;
                Err(error)
            }
        }
    }

    async fn ask(&self, wrapped: &WrappedKey) -> Result<Key, KekError> {
        let asked = self.kek.unwrap(wrapped.place(), &wrapped.kek, &wrapped.wrapped);
        let key = timeout(UNWRAP_TIMEOUT, asked).await.map_err(|_| KekError::Unreachable)??;
        // It may have been shredded while the provider answered.
        self.require_unshredded(wrapped.tenant)?;
        if key.id() == wrapped.id { Ok(key) } else { Err(KekError::Malformed) }
    }
}

impl Held {
    fn new(key: Key) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { ring: KeyRing::new(key, Vec::new()), since: now, turn: Mutex::new(now) })
    }
}
