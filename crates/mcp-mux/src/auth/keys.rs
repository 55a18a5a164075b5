//! An issuer's public keys (RFC 7517): fetched in the background, again when a token names an unknown one, and never more often
//! than the gate allows, so that tokens with invented key ids cost their provider nothing.
//!
//! Readers look at an immutable set; a slow identity provider delays only tokens whose key is not known yet. A key is called
//! unknown only after a look at what its provider publishes: while the gate is shut, nobody can say. While the provider is down,
//! known keys stay good for a day.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use tenant_store::{Clock, Timestamp};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use url::Url;

use super::discovery::Discovery;
use super::error::{AuthError, Refusal};
use super::fetch::{self, FETCH_TIMEOUT, FetchError};
use super::token;
use crate::config::{IssuerConfig, SigningAlgorithm};
use crate::egress::Client;
use crate::lifecycle::Tasks;

/// How often the keys are fetched when nothing asks for them.
const REFRESH_EVERY: Duration = Duration::from_mins(10);
/// How soon a fetch that failed is tried again in the background.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// The time between two fetches that unknown key ids may cause.
pub(super) const GATE: Duration = Duration::from_secs(30);
/// For how long a key that its provider did not have is not looked for again.
const MISSING_LIFE: Duration = Duration::from_mins(1);
/// Most such keys. Each cost a fetch, so that there are never more than a few.
const MISSING_MAX: u64 = 100;
/// For how long keys are good after the last successful fetch.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Most keys of one set.
const KEYS_MAX: usize = 64;
/// Shortest RSA modulus that is accepted, in characters of base64url: 2,048 bits.
const RSA_MODULUS_CHARS_MIN: usize = 2048 / 8 * 4 / 3;

/// The keys of one issuer.
pub(super) struct IssuerKeys {
    issuer: String,
    jwks_url: Option<Url>,
    http: Client,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    current: ArcSwap<KeySet>,
    discovery: Discovery,
    /// When the last fetch began that an unknown key id caused; held while any fetch runs.
    fetching: Arc<Mutex<Option<Timestamp>>>,
    /// Until when keys that their provider did not have are not looked for again, by the hash of their id.
    missing: Cache<[u8; 32], Timestamp>,
    /// Another number whenever a key was taken away.
    generation: AtomicU64,
}

#[derive(Default)]
struct KeySet {
    keys: Vec<VerifyingKey>,
    fetched_at: Option<Timestamp>,
}

/// A key that can verify signatures.
pub(super) struct VerifyingKey {
    id: Option<String>,
    algorithm: Option<String>,
    key: Arc<DecodingKey>,
    /// The key as its provider published it.
    published: Jwk,
}

impl std::fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKeys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl IssuerKeys {
    pub(super) fn new(config: &IssuerConfig, http: Client, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self {
            issuer: config.url.clone(),
            jwks_url: config.jwks_url.clone(),
            discovery: Discovery::new(&config.url, http.clone(), Arc::clone(&clock)),
            http,
            clock,
            tasks,
            current: ArcSwap::default(),
            fetching: Arc::new(Mutex::new(None)),
            missing: Cache::builder().max_capacity(MISSING_MAX).time_to_live(MISSING_LIFE).build(),
            generation: AtomicU64::new(0),
        }
    }

    /// Fetches the keys now and then, until dropped.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            let fresh = {
                let _fetching = self.fetching.lock().await;
                self.fetch().await
            };
            tokio::time::sleep(if fresh { REFRESH_EVERY } else { RETRY_EVERY }).await;
        }
    }

    /// What was verified under another generation may have been verified with a key that was taken away since.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The key that a token's header names, for an algorithm that fits the key.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: SigningAlgorithm,
    ) -> Result<Arc<DecodingKey>, AuthError> {
        if let Some(known) = self.known(id, algorithm) {
            return known;
        }
        let hash = hash(id.unwrap_or_default());
        if self.missing.get(&hash).is_some_and(|until| self.clock.now() < until) {
            return Err(Refusal::UnknownKey.into());
        }
        let fetching = Arc::clone(&self.fetching).lock_owned().await;
        // Somebody may have fetched while we waited; and the gate lets one fetch through at a time.
        if let Some(known) = self.known(id, algorithm) {
            return known;
        }
        let now = self.clock.now();
        let gate_is_open = fetching.is_none_or(|last| now >= last.plus(GATE));
        if !gate_is_open || !self.fetch_through(fetching).await {
            return Err(AuthError::ProviderUnavailable);
        }
        self.known(id, algorithm).unwrap_or_else(|| {
            self.missing.insert(hash, now.plus(MISSING_LIFE));
            Err(Refusal::UnknownKey.into())
        })
    }

    /// The key, if the set knows its id; a refusal, if it is another kind of key than the token says. A token without a key id
    /// is good only where it leaves no choice.
    fn known(&self, id: Option<&str>, algorithm: SigningAlgorithm) -> Option<Result<Arc<DecodingKey>, AuthError>> {
        let algorithm = token::algorithm(algorithm);
        let current = self.current.load();
        if self.clock.now() >= current.fetched_at?.plus(STALE_MAX) {
            return None;
        }
        let name = format!("{algorithm:?}");
        let fits = |key: &&VerifyingKey| {
            key.key.family() == algorithm.family() && key.algorithm.as_ref().is_none_or(|own| *own == name)
        };
        let named = |key: &&VerifyingKey| id.is_none_or(|id| key.id.as_deref() == Some(id));
        let mut fitting = current.keys.iter().filter(named).filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(Ok(Arc::clone(&key.key))),
            (Some(_), Some(_)) => Some(Err(Refusal::UnknownKey.into())),
            (None, _) if id.is_some() && current.keys.iter().any(|key| named(&key)) => {
                Some(Err(Refusal::UnknownKey.into()))
            }
            (None, _) => None,
        }
    }

    /// Fetches because of an unknown key id, which shuts the gate. It runs on when whoever caused it has gone: otherwise a client
    /// that breaks off each time could keep the gate shut and the keys old.
    async fn fetch_through(self: &Arc<Self>, mut fetching: OwnedMutexGuard<Option<Timestamp>>) -> bool {
        *fetching = Some(self.clock.now());
        let (done, fetched) = oneshot::channel();
        let keys = Arc::clone(self);
        self.tasks.spawn(async move {
            let fresh = keys.fetch().await;
            drop(fetching);
            if done.send(fresh).is_err() {
                tracing::debug!(issuer = %keys.issuer, "keys were fetched for a request that has gone");
            }
        });
        fetched.await.unwrap_or(false)
    }

    /// Where the key set is.
    async fn place(&self) -> Result<Url, FetchError> {
        match &self.jwks_url {
            Some(url) => Ok(url.clone()),
            None => Ok(self.discovery.endpoints().await?.jwks),
        }
    }

    /// Fetches the set; one that cannot be used leaves the known keys as they are.
    async fn fetch(&self) -> bool {
        let set = async {
            let body = fetch::get(&self.http, &self.place().await?).await?;
            let set: JwkSet = serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)?;
            verifying_keys(&set)
        };
        match tokio::time::timeout(FETCH_TIMEOUT, set).await.unwrap_or(Err(FetchError::Late)) {
            Ok(keys) => {
                tracing::debug!(issuer = %self.issuer, keys = keys.len(), "fetched an issuer's keys");
                let (now, before) = (self.clock.now(), self.current.load_full());
                let lost: Vec<&VerifyingKey> =
                    before.keys.iter().filter(|old| !keys.iter().any(|key| key.published == old.published)).collect();
                // Their tokens are refused at once: this was the look at what the provider publishes.
                for id in lost.iter().filter_map(|key| key.id()) {
                    self.missing.insert(hash(id), now.plus(MISSING_LIFE));
                }
                self.current.store(Arc::new(KeySet { keys, fetched_at: Some(now) }));
                if !lost.is_empty() {
                    self.generation.fetch_add(1, Ordering::Release);
                }
                true
            }
            Err(error) => {
                self.discovery.doubt().await;
                tracing::warn!(
                    issuer = %self.issuer, error = &error as &dyn std::error::Error,
                    "an issuer's keys could not be fetched; those known stay in use"
                );
                false
            }
        }
    }
}

impl VerifyingKey {
    /// The key's id, if it has one.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// The keys of a set that can be used. A set in which an id stands for two keys is none.
pub(super) fn verifying_keys(set: &JwkSet) -> Result<Vec<VerifyingKey>, FetchError> {
    if set.keys.len() > KEYS_MAX {
        return Err(FetchError::TooLarge);
    }
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    for jwk in set.keys.iter().filter(|jwk| is_for_signatures(jwk)) {
        let id = jwk.common.key_id.clone();
        if id.is_some() && !seen.insert(id.clone()) {
            return Err(FetchError::NotUnderstood);
        }
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        if key.family() == AlgorithmFamily::Hmac {
            continue;
        }
        let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        keys.push(VerifyingKey { id, algorithm, key: Arc::new(key), published: jwk.clone() });
    }
    Ok(keys)
}

fn hash(id: &str) -> [u8; 32] {
    Sha256::digest(id).into()
}

fn is_for_signatures(jwk: &Jwk) -> bool {
    let signs = !matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature);
    let strong = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => rsa.n.len() >= RSA_MODULUS_CHARS_MIN,
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => true,
        _ => false,
    };
    signs && strong
}

#[cfg(test)]
mod tests;
