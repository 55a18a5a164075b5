//! An open stream outlives the moment in which its caller was judged. So the proof of identity is judged again while the stream
//! runs, and the gateway is told when it no longer holds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Response, Uri};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Server;

/// What a request showed of its caller.
pub(super) struct Proof {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) audiences: [String; 2],
}

/// Watches over `response` if it is a stream: `ended` is cancelled once `proof` does not hold any more.
pub(super) fn over(
    server: &Arc<Server>,
    proof: Proof,
    ended: CancellationToken,
    response: Response<Body>,
) -> Response<Body> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return response;
    }
    let closed = CancellationToken::new();
    let guard = closed.clone().drop_guard();
    let watcher = Arc::clone(server);
    server.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(watcher.recheck_every) => {}
            }
            let judged = watcher.authenticator.authenticate(&proof.uri, &proof.headers, &proof.audiences).await;
            if let Err(error) = judged {
                tracing::info!(error = &error as &dyn std::error::Error, "an open stream lost its caller's identity");
                ended.cancel();
                return;
            }
        }
    });
    response.map(|body| Body::new(Watched { body, _guard: guard }))
}

/// A body that tells its watcher when it is gone.
struct Watched {
    body: Body,
    _guard: DropGuard,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
