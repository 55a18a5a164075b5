//! A response whose head has come.

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{Broken, SendError};

/// A response: its head, and its body as it comes.
#[derive(Debug)]
pub struct Response {
    head: Parts,
    body: Incoming,
    /// When nobody waits for the rest any more.
    ends_at: Option<Instant>,
}

impl Response {
    pub(super) fn new(response: http::Response<Incoming>, ends_at: Option<Instant>) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body, ends_at }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// How many bytes of the body are still to come, where the other side has said so.
    pub fn bytes_left(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, SendError>> {
        loop {
            let frame = match self.ends_at {
                Some(ends_at) => timeout_at(ends_at, self.body.frame()).await,
                None => Ok(self.body.frame().await),
            };
            match frame {
                Err(_) => return Some(Err(SendError::TimedOut)),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(SendError::Unreachable(Broken::Body(error)))),
                // Trailers say nothing to us.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
            }
        }
    }

    /// The pieces of the body.
    pub fn chunks(self) -> impl Stream<Item = Result<Bytes, SendError>> + Send {
        stream::unfold(self, |mut response| async move { Some((response.chunk().await?, response)) })
    }
}
