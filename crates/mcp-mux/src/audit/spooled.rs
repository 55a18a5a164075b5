//! What writers left on disk that ended, or were killed, while the database was away: the next process with the same folder adds it. Each line
//! is its writer's own, with its place in its chain; what was added before is not added again.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crypto::KeyRing;
use tenant_store::{AuditChain, Store};
use tokio::time::sleep;

use super::Audit;
use super::backlog::{Item, parts};
use super::spool::{SpoolError, SpoolFile, Spooled, cannot_remove};
use crate::config::AuditConfig;
use crate::lifecycle::Tasks;
use crate::policy::Administration;

/// How long to wait after the database failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A file that was found.
struct Found<'s> {
    store: &'s Store,
    administration: Administration,
    file: SpoolFile,
}

impl Audit {
    /// Adds it, beside everything else.
    pub fn take_up_spools(
        store: &Store,
        administration: Administration,
        config: &AuditConfig,
        (keys, tasks): (&KeyRing, &Tasks),
    ) {
        let (store, folder, keys) = (store.clone(), config.spool_directory.clone(), keys.clone());
        tasks.spawn(async move {
            for path in found(&folder) {
                match SpoolFile::take_up(&path, &keys) {
                    Ok(Some(file)) => Found { store: &store, administration, file }.add().await,
                    // Another process has it.
                    Ok(None) => {}
                    Err(error) => cannot(&error, &path),
                }
            }
        });
    }
}

fn found(folder: &Path) -> Vec<PathBuf> {
    SpoolFile::all(folder).unwrap_or_else(|error| {
        cannot(&error, folder);
        Vec::new()
    })
}

fn cannot(error: &(dyn Error + 'static), path: &Path) {
    tracing::error!(error, path = %path.display(), "what waits there of the audit record cannot be read");
}

impl Found<'_> {
    async fn add(mut self) {
        let path = self.file.path.clone();
        match self.add_all().await {
            Ok(count) => match self.file.remove().await {
                Ok(()) => {
                    tracing::info!(audit.lines = count, path = %path.display(), "what waited of the audit record on disk is written");
                }
                Err(error) => cannot_remove(&error, &path),
            },
            // What came before it is written.
            Err(error @ (SpoolError::Open(_) | SpoolError::NotABatch | SpoolError::Torn)) => {
                let path = self.file.put_aside().await;
                cannot(&error, &path);
            }
            Err(error) => cannot(&error, &path),
        }
    }

    async fn add_all(&mut self) -> Result<usize, SpoolError> {
        let mut count = 0;
        while let Some(batch) = self.file.next().await? {
            count += batch.len();
            let kept: Option<Vec<_>> = batch.into_iter().map(|spooled| self.kept(spooled)).collect();
            let parts = parts(kept.ok_or(SpoolError::NotABatch)?.iter());
            while let Err(error) = self.store.append_audit(&parts).await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "what waits of the audit record on disk cannot be written yet"
                );
                sleep(RETRY_AFTER).await;
            }
        }
        Ok(count)
    }

    fn kept(&self, spooled: Spooled) -> Option<(AuditChain, Item)> {
        let chain = match spooled.chain.parse() {
            Ok(tenant) => AuditChain::Tenant(self.administration.scope(tenant)),
            Err(_) if spooled.chain == AuditChain::Platform.to_string() => AuditChain::Platform,
            Err(_) => return None,
        };
        Some((chain, spooled.item(self.file.writer())?))
    }
}
