//! Hearing from an upstream that its lists changed (MCP 2026-07-28 `subscriptions/listen`), so that they are listed then and not at the
//! next regular time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::credential::Proofs;
use super::error::UpstreamError;
use super::link::{Link, Reply};
use super::request::Rpc;
use crate::json::Members;

/// How long one stream is listened to; then another one is begun.
const LISTEN_LIFE: Duration = Duration::from_hours(1);

/// What a stream begins with.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

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
        self.agreed.load().as_ref().is_some_and(|agreed| agreed.is_modern() && agreed.capabilities.tells_of_lists)
    }
}

/// Calls `tell` when the link's upstream is listened to, and each time it says that a list of its own changed, until the stream ends.
pub(crate) async fn hear(
    link: &Arc<Link>,
    proofs: &Proofs<'_>,
    tell: impl Fn(Told) + Send + Sync,
) -> Result<(), UpstreamError> {
    let deadline = Instant::now() + LISTEN_LIFE;
    let kinds = r#""toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true"#;
    let params = format!("\"notifications\":{{{kinds}}}");
    let rpc = Rpc { params, is_beside: true, ..Rpc::new("subscriptions/listen") };
    let Reply::Stream(mut streaming) = link.ask(proofs, &rpc, deadline).await? else { return Ok(()) };
    while let Ok(Some(event)) = timeout_at(deadline, streaming.events.next()).await {
        let event = event?;
        let method = Members::parse(&event.0).ok().and_then(|message| message.get_str("method"));
        match method.as_deref() {
            Some(ACKNOWLEDGED) => tell(Told::Begun),
            Some(method) if method.ends_with("/list_changed") => tell(Told::Changed),
            _ => {}
        }
    }
    Ok(())
}
