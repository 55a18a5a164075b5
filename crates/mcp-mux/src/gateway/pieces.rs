//! A body whose pieces are there from the start: what is shared or long is sent from where it lies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use crate::upstream::Load;

/// Three pieces, one behind the other.
pub(super) struct Pieces {
    pieces: std::array::IntoIter<Bytes, 3>,
    /// What holds them, until the body is sent or given up.
    _load: Load,
}

impl Pieces {
    pub(super) fn new(pieces: [Bytes; 3]) -> Self {
        Self { pieces: pieces.into_iter(), _load: Load::default() }
    }

    /// The same, held by that.
    pub(super) fn held_by(self, load: Load) -> Self {
        Self { _load: load, ..self }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.find(|piece| !piece.is_empty()).map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.as_slice().iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        let lengths = self.pieces.as_slice().iter().map(Bytes::len);
        SizeHint::with_exact(lengths.map(|length| length as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_pieces_come_in_order_and_their_length_is_known() {
        let pieces = || Pieces::new(["ab", "", "c"].map(Bytes::from));
        assert_eq!(pieces().size_hint().exact(), Some(3));
        assert_eq!(pieces().collect().await.unwrap().to_bytes(), "abc");
        assert!(!pieces().is_end_stream() && Pieces::new(Default::default()).is_end_stream());
    }
}
