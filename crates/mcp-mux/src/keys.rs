//! Key providers: what wraps data keys, put together from the configuration. One wraps; several may unwrap, so that a deployment can
//! move from one to another while it serves.

mod vault;

use std::pin::Pin;
use std::sync::Arc;

use crypto::Key;
use tenant_store::{Asking, KekError, KekId, KeyEncryption, KeyPlace, LocalKeys};

use crate::config::{Config, ConfigError};
use crate::egress::{Egress, EgressError};
use vault::Vault;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A setting cannot work.
    #[error("the key settings cannot be used")]
    Config(#[from] ConfigError),
    /// The HTTP stack could not be set up.
    #[error("cannot open connections")]
    Egress(#[from] EgressError),
}

/// All configured providers.
#[derive(Debug)]
pub struct KeyProviders {
    writer: Arc<dyn KeyEncryption>,
    readers: Vec<Arc<dyn KeyEncryption>>,
}

impl KeyProviders {
    /// From the configuration. Asks nobody yet.
    pub fn new(config: &Config) -> Result<Self, KeysError> {
        let keys = &config.keys;
        let local = keys.ring()?.map(|ring| Arc::new(LocalKeys::new(ring)) as Arc<dyn KeyEncryption>);
        let vault = keys.vault.as_ref().map(|vault| Vault::new(vault, &Egress::new(&config.egress)?)).transpose()?;
        let vault = vault.map(|vault| Arc::new(vault) as Arc<dyn KeyEncryption>);
        let is_retired = keys.vault.as_ref().is_none_or(|vault| vault.retired);
        let (writer, reader) = if is_retired { (local, vault) } else { (vault, local) };
        let writer = writer.ok_or_else(|| ConfigError::Setting {
            setting: "keys".to_owned(),
            problem: "has no key that wraps".to_owned(),
        })?;
        Ok(Self { writer, readers: reader.into_iter().collect() })
    }

    fn of(&self, kek: &KekId) -> Option<&Arc<dyn KeyEncryption>> {
        std::iter::once(&self.writer).chain(&self.readers).find(|provider| provider.knows(kek))
    }
}

impl KeyEncryption for KeyProviders {
    fn primary(&self) -> Asking<'_, KekId> {
        self.writer.primary()
    }

    fn wrap<'a>(&'a self, place: KeyPlace, key: &'a Key) -> Asking<'a, (KekId, Vec<u8>)> {
        self.writer.wrap(place, key)
    }

    fn unwrap<'a>(&'a self, place: KeyPlace, kek: &'a KekId, wrapped: &'a [u8]) -> Asking<'a, Key> {
        match self.of(kek) {
            Some(provider) => provider.unwrap(place, kek, wrapped),
            None => Box::pin(std::future::ready(Err(KekError::Unknown(kek.clone())))),
        }
    }

    fn knows(&self, kek: &KekId) -> bool {
        self.of(kek).is_some()
    }

    fn describe(&self) -> String {
        let all = std::iter::once(&self.writer).chain(&self.readers);
        all.map(|provider| provider.describe()).collect::<Vec<_>>().join(", ")
    }

    fn keep_alive(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let all = std::iter::once(&self.writer).chain(&self.readers);
        let all: Vec<_> = all.map(|provider| provider.keep_alive()).collect();
        Box::pin(async move { drop(futures::future::join_all(all).await) })
    }
}
