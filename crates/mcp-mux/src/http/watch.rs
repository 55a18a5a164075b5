//! A call may outlive the moment in which its caller was judged. So the proof of identity is judged again while the call runs and
//! while its answer streams, and the gateway is told when it no longer says the same.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Response, Uri};
use tenant_store::Revision;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::holding::holding;
use super::well_known::ProtectedResource;
use crate::auth::AuthError;
use crate::caller::Caller;
use crate::lifecycle::or_never;

/// How many looks in a row may find that the provider cannot be asked, before that counts as an end.
const UNANSWERED_MAX: u32 = 2;

/// What a request showed of its caller, and what that was taken for.
pub(super) struct Watch {
    pub(super) server: Arc<Server>,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) resource: Arc<ProtectedResource>,
    pub(super) caller: Arc<Caller>,
}

impl Watch {
    /// Waits for `answer` and, if it is a stream, watches on until its end. Costs nothing where the answer is there at once.
    pub(super) async fn over(
        self,
        mut answer: Pin<&mut (impl Future<Output = Response<Body>> + Send)>,
    ) -> Response<Body> {
        let response = tokio::select! {
            biased;
            response = &mut answer => response,
            // The gateway, which was told, says how the call ends.
            () = self.look() => answer.await,
        };
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return response;
        }
        let closed = CancellationToken::new();
        let guard = closed.clone().drop_guard();
        let tasks = self.server.tasks.clone();
        // Also while the server stops, and the stream with it.
        tasks.spawn_beside(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = self.look() => {}
            }
        });
        response.map(|body| holding(body, guard))
    }

    /// Judges again and again, and returns once the caller was told that its proof ended.
    async fn look(&self) {
        let mut unanswered = 0;
        let mut changes = self.server.gateway.revisions();
        let mut api_keys = self.server.authenticator.api_key_changes(&self.headers);
        // Also what happened since it was judged last.
        if let Some(changes) = &mut api_keys {
            changes.mark_changed();
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.server.recheck_every) => {}
                // An API key that was taken back is judged again at once,
                () = or_never(api_keys.as_mut().map(news)) => {}
                // and whoever is revoked is so. Nothing else about a proof changes with the database.
                () = revoked(&self.server, &self.caller, &mut changes) => {
                    tracing::info!(request.id = %self.caller.request_id, "a running call's caller is revoked");
                    break;
                }
            }
            match self.server.identify((&self.uri, &self.headers), &self.resource.audiences, None).await {
                Ok(identity) if identity.is_of(&self.caller) => unanswered = 0,
                Ok(_) => {
                    tracing::info!(request.id = %self.caller.request_id, "a running call lost a part of its caller's identity");
                    break;
                }
                Err(AuthError::ProviderUnavailable) if unanswered < UNANSWERED_MAX => unanswered += 1,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(request.id = %self.caller.request_id, error, "a running call lost its caller's identity");
                    break;
                }
            }
        }
        self.caller.ended.cancel();
    }
}

/// Waits until there is news: for ever, if there will be none.
async fn news(changes: &mut watch::Receiver<Revision>) {
    or_never(changes.changed().await.ok().map(std::future::ready)).await;
}

/// Waits until the caller is revoked.
async fn revoked(server: &Server, caller: &Caller, changes: &mut watch::Receiver<Revision>) {
    // Also what happened before it was listened to.
    while !server.gateway.is_revoked(&caller.principal) {
        news(changes).await;
    }
}
