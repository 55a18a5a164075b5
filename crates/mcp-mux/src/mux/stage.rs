//! Where a call is between its upstream and its client, and what happens there.

use futures::future::BoxFuture;

use super::call::CallError;
use super::round::Round;
use crate::upstream::{Event, Reply, Streaming, UpstreamError};

/// Where a call is.
pub(super) enum Stage {
    /// The upstream works, and streams.
    Reading(Streaming),
    /// The client is asked.
    Asking(Round),
    /// The upstream is told what the client answered.
    Telling(BoxFuture<'static, Result<Reply, CallError>>),
    Ended,
}

/// What happens at a stage.
pub(super) enum Happened {
    Event(Option<Result<Event, UpstreamError>>),
    Send(String),
    Answered,
    Told(Result<Reply, CallError>),
}

impl Stage {
    /// What happens next. Nothing is lost when it is not waited for to its end.
    pub(super) async fn next(&mut self) -> Happened {
        match self {
            Self::Reading(streaming) => Happened::Event(streaming.events.next().await),
            Self::Asking(round) => match round.next().await {
                Some(request) => Happened::Send(request),
                None => Happened::Answered,
            },
            Self::Telling(reply) => Happened::Told(reply.await),
            Self::Ended => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reading(_) => "Reading",
            Self::Asking(_) => "Asking",
            Self::Telling(_) => "Telling",
            Self::Ended => "Ended",
        })
    }
}
