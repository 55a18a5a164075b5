//! An issuer's public keys (RFC 7517): fetched in the background, again when a token names an unknown one, and never more often
//! than the gate allows, so that tokens with invented key ids cost nobody anything.
//!
//! Readers look at an immutable set; a slow identity provider delays only tokens whose key is not known yet. While it is down,
//! known keys stay good for a day.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use tenant_store::{Clock, Timestamp};
use tokio::sync::Mutex;
use url::Url;

use super::discovery::Discovery;
use super::error::{AuthError, Refusal};
use super::fetch::{self, FETCH_TIMEOUT, FetchError};
use super::token;
use crate::config::{IssuerConfig, SigningAlgorithm};

/// How often the keys are fetched when nothing asks for them.
const REFRESH_EVERY: Duration = Duration::from_mins(10);
/// How soon a fetch that failed is tried again in the background.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// The time between two fetches that unknown key ids may cause.
const GATE: Duration = Duration::from_secs(30);
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
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    current: ArcSwap<KeySet>,
    discovery: Discovery,
    /// When the last fetch began that an unknown key id caused; held while any fetch runs.
    fetching: Mutex<Option<Timestamp>>,
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
    pub(super) fn new(config: &IssuerConfig, http: reqwest::Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer: config.url.clone(),
            jwks_url: config.jwks_url.clone(),
            discovery: Discovery::new(&config.url, http.clone(), Arc::clone(&clock)),
            http,
            clock,
            current: ArcSwap::default(),
            fetching: Mutex::new(None),
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
        &self,
        id: Option<&str>,
        algorithm: SigningAlgorithm,
    ) -> Result<Arc<DecodingKey>, AuthError> {
        if let Some(key) = self.known(id, algorithm) {
            return Ok(key);
        }
        let seen = self.current.load().fetched_at;
        let mut last = self.fetching.lock().await;
        // Somebody may have fetched while we waited; and the gate lets one fetch through at a time.
        let now = self.clock.now();
        let gate_is_open = last.is_none_or(|last| now >= last.plus(GATE));
        if self.current.load().fetched_at == seen && gate_is_open {
            *last = Some(now);
            self.fetch().await;
        }
        drop(last);
        let found = self.known(id, algorithm);
        let usable = self.current.load().fetched_at.is_some_and(|at| self.clock.now() < at.plus(STALE_MAX));
        found.ok_or(if usable { Refusal::UnknownKey.into() } else { AuthError::ProviderUnavailable })
    }

    /// A token without a key id is good only where it leaves no choice.
    fn known(&self, id: Option<&str>, algorithm: SigningAlgorithm) -> Option<Arc<DecodingKey>> {
        let algorithm = token::algorithm(algorithm);
        let current = self.current.load();
        if self.clock.now() >= current.fetched_at?.plus(STALE_MAX) {
            return None;
        }
        let name = format!("{algorithm:?}");
        let mut fitting = current.keys.iter().filter(|key| {
            let named = id.is_none_or(|id| key.id.as_deref() == Some(id));
            named && key.key.family() == algorithm.family() && key.algorithm.as_ref().is_none_or(|own| *own == name)
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(Arc::clone(&key.key)),
            _ => None,
        }
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
                let stays = |old: &VerifyingKey| keys.iter().any(|key| key.published == old.published);
                let lost_one = !self.current.load().keys.iter().all(stays);
                self.current.store(Arc::new(KeySet { keys, fetched_at: Some(self.clock.now()) }));
                if lost_one {
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
