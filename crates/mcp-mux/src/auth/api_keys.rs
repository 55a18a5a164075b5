//! The API keys that are good now, in memory: who shows one is found without asking the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tenant_store::{ApiKey, Revision, Store, StoreError, Timestamp};
use tokio::sync::{Notify, watch};

use super::Identity;
use super::error::{AuthError, Refusal};
use crate::api_key::ApiKeySecret;
use crate::caller::{Bounds, Principal};

/// How far in the future the end of a key lies that never ends.
const ENDLESS: Duration = Duration::from_hours(24);

/// The keys of the database, as of its last revision.
#[derive(Debug)]
pub struct ApiKeys {
    store: Store,
    current: ArcSwap<Known>,
    changed: watch::Sender<Revision>,
    wake: Notify,
}

#[derive(Debug)]
struct Known {
    revision: Revision,
    by_digest: HashMap<[u8; 32], ApiKey>,
}

impl ApiKeys {
    /// Reads the keys.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let known = Known::load(&store).await?;
        let (changed, _) = watch::channel(known.revision);
        Ok(Self { store, current: ArcSwap::from_pointee(known), changed, wake: Notify::new() })
    }

    /// Tells of each revision whose keys are good from then on.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Looks at the revision now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Reads the keys again whenever the database has moved on, until dropped. While it cannot be read, the last ones stay.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            if let Err(error) = self.reload().await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the API keys cannot be read; the last ones stay in use"
                );
            }
        }
    }

    /// Reads the keys again if the database has moved on.
    pub async fn reload(&self) -> Result<(), StoreError> {
        if self.store.revision().await? != self.current.load().revision {
            let known = Known::load(&self.store).await?;
            let revision = known.revision;
            self.current.store(Arc::new(known));
            self.changed.send_replace(revision);
        }
        Ok(())
    }

    /// Whose key that is. Keys are found by their digest, so that time tells nothing about them.
    pub(super) fn identity(&self, text: &str, now: Timestamp) -> Result<Identity, AuthError> {
        let digest = ApiKeySecret::parse(text).ok_or(Refusal::ApiKey)?.digest();
        let known = self.current.load();
        let key = known.by_digest.get(digest.as_bytes()).filter(|key| key.digest == digest && key.is_good(now));
        let key = key.ok_or(Refusal::ApiKey)?;
        Ok(Identity {
            principal: Principal { issuer: key.issuer.clone(), subject: key.subject.clone() },
            client: Some(key.id.to_string().into()),
            by_access_token: false,
            email: None,
            groups: Arc::default(),
            bounds: key.tenants.as_deref().map_or(Bounds::Everything, |tenants| Bounds::Tenants(tenants.into())),
            expires_at: key.expires_at.unwrap_or_else(|| now.plus(ENDLESS)),
        })
    }
}

impl Known {
    /// The revision is read first: a change that lands meanwhile leads to one reading too many, never to one too few.
    async fn load(store: &Store) -> Result<Self, StoreError> {
        let revision = store.revision().await?;
        let mut by_digest = HashMap::new();
        for key in store.api_keys().await? {
            match key {
                Ok(key) if key.revoked_at.is_none() => drop(by_digest.insert(*key.digest.as_bytes(), key)),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "an API key is unreadable and so refused"
                    );
                }
            }
        }
        Ok(Self { revision, by_digest })
    }
}
