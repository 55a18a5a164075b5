//! Hearing from an upstream that its lists changed, so that they are listed then and not at the next regular time: by
//! `subscriptions/listen` (MCP 2026-07-28), or in a legacy session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::credential::Proofs;
use super::error::UpstreamError;
use super::link::Link;
use super::notices::Notice;
use super::request::Lane;
use super::subscribe::Topics;

/// How long one stream is listened to; then another one is begun.
const LISTEN_LIFE: Duration = Duration::from_hours(1);

/// What is heard from an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// It is listened to from now on; what changed before is unknown.
    Begun,
    /// A list of it changed.
    Changed,
}

impl Link {
    /// Whether the upstream can be listened to, as far as is known by now.
    pub(crate) fn tells_of_lists(&self) -> bool {
        self.agreed.load().as_ref().is_some_and(|agreed| agreed.can_be_heard() && agreed.capabilities.tells_of_lists)
    }
}

/// Calls `tell` when the link's upstream is listened to, and each time it says that a list of its own changed, until the stream ends.
pub(crate) async fn hear(
    link: &Arc<Link>,
    proofs: &Proofs<'_>,
    tell: impl Fn(Told) + Send + Sync,
) -> Result<(), UpstreamError> {
    let deadline = Instant::now() + LISTEN_LIFE;
    let mut subscription = link.subscribe(proofs, &Topics { lane: Lane::Catalog, lists: true, uris: &[] }).await?;
    while let Ok(Some(notice)) = timeout_at(deadline, subscription.next()).await {
        match notice {
            Notice::Begun => tell(Told::Begun),
            Notice::Lists => tell(Told::Changed),
            Notice::Updated(_) => {}
        }
    }
    Ok(())
}
