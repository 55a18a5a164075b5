//! Recording by a process that does one thing and ends: the command line. It is a writer of its own.

use std::sync::Arc;
use std::time::Duration;

use tenant_store::{Store, StoreError, SystemClock};

use super::event::Event;
use super::signer::Signer;
use super::writer::Writer;

/// Writes these events and signs them. What signs is behind the platform's keys.
pub async fn record_once(store: &Store, events: Vec<Event>) -> Result<(), StoreError> {
    let signer = Signer::of(store, &store.platform_keys().await?).await?;
    let mut writer = Writer::new(store.clone(), signer, Arc::new(SystemClock), Duration::MAX);
    for event in events {
        writer.take(event);
    }
    writer.sign();
    writer.add_once().await
}
