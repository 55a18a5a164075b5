//! Ending a session at an upstream when we need it no more (MCP 2025-11-25 basic/transports, "Session Management"): a courtesy, which
//! costs nobody anything and which the upstream may refuse.
//!
//! It ends when its link is let go and no call runs in it any more. Nothing is sent where nothing may be sent any more: to an upstream
//! that was taken away, suspended or moved, or that has forgotten the session itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Method;
use http::header::HeaderMap;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::credential::Credential;
use super::link::Line;
use super::request::Outgoing;

const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends a session when it is dropped.
pub(super) struct SessionEnd {
    line: Arc<Line>,
    /// The protocol's headers, which name the session.
    headers: HeaderMap,
    /// What was shown in it last.
    shown: ArcSwap<Credential>,
    is_over: AtomicBool,
}

impl SessionEnd {
    pub(super) fn new(line: &Arc<Line>, headers: HeaderMap, credential: &Arc<Credential>) -> Self {
        let shown = ArcSwap::new(Arc::clone(credential));
        Self { line: Arc::clone(line), headers, shown, is_over: AtomicBool::new(false) }
    }

    /// From here on it is ended with this.
    pub(super) fn show(&self, credential: &Arc<Credential>) {
        self.shown.store(Arc::clone(credential));
    }

    /// The upstream has ended it.
    pub(super) fn note_over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        let tasks = self.line.tasks().clone();
        let is_unsaid = self.is_over.load(Ordering::Relaxed) || self.line.is_silent();
        // A server that stops has other things to do, and without a runtime nothing can be sent.
        if is_unsaid || tasks.shutdown().is_cancelled() || Handle::try_current().is_err() {
            return;
        }
        let (line, credential) = (Arc::clone(&self.line), self.shown.load_full());
        let (url, headers) = (line.upstream().spec.url.clone(), std::mem::take(&mut self.headers));
        tasks.spawn_draining(async move {
            let outgoing = Outgoing { method: Method::DELETE, url, headers, body: String::new() };
            let sent = line.send(&credential, outgoing, Instant::now() + END_TIMEOUT).await;
            let status = sent.map(|response| response.status().as_u16()).ok();
            tracing::debug!(upstream.id = %line.upstream().id, status, "ended a session upstream");
        });
    }
}
