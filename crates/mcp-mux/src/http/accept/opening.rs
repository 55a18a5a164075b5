//! A connection whose first bytes must come in time. What reads requests has a clock for headers, but only from the moment on in which it knows
//! whether they are of HTTP/1 or HTTP/2, for which it waits for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// So many bytes tell the two apart: HTTP/2 begins with as many (RFC 9113 §3.4).
const TELLING_BYTES: usize = 24;

/// A connection that fails when its first bytes come late.
#[derive(Debug)]
pub(super) struct Opening {
    stream: TcpStream,
    /// Until when they must have come, and how many are still to come; none, when they have come.
    awaited: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Opening {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, awaited: Some((Box::pin(sleep(patience)), TELLING_BYTES)) }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some((_, missing)) = &mut this.awaited else { return read };
        let come = buffer.filled().len() - before;
        match missing.checked_sub(come) {
            None | Some(0) => this.awaited = None,
            Some(left) => *missing = left,
        }
        if let (Some((sleep, _)), Poll::Pending) = (&mut this.awaited, &read)
            && sleep.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Opening {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
