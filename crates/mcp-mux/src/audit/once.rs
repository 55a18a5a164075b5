//! Recording by a process that does one thing and ends: the command line. It is a writer of its own.

use std::sync::Arc;
use std::time::Duration;

use tenant_store::{Clock, Store, StoreError};

use super::event::{Event, Head};
use super::signer::Signer;
use super::writer::Writer;

/// Writes these events and signs them, as of now. What signs is behind the platform's keys. Tells how far its part of the platform's record came.
pub async fn record_once(store: &Store, clock: Arc<dyn Clock>, events: Vec<Event>) -> Result<Option<Head>, StoreError> {
    let signer = Arc::new(Signer::of(store, &store.platform_keys().await?).await?);
    let mut writer = Writer::new(store.clone(), signer, clock, Duration::MAX);
    for event in events {
        writer.take(&event);
    }
    let head = writer.sign_last();
    writer.add_once().await?;
    Ok(head)
}
