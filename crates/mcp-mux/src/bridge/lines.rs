//! Lines of a child's output, each with a bound: what is longer is cut, and the rest of it passed over.

use std::io;

use memchr::memchr;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// One line without its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// The line was longer than this.
    pub(super) is_cut: bool,
}

/// The lines of one output.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: BufReader<R>,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `bytes_max` bytes.
    pub(super) fn new(source: R, bytes_max: usize) -> Self {
        Self { source: BufReader::with_capacity(64 * 1024, source), bytes_max }
    }

    /// The next line; `None` at the end. What stands behind the last line end is a line too.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Line::default();
        loop {
            let chunk = self.source.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(Some(line).filter(|line| !line.bytes.is_empty()));
            }
            let end = memchr(b'\n', chunk);
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let taken = part.len().min(self.bytes_max - line.bytes.len());
            line.bytes.extend_from_slice(part.get(..taken).unwrap_or_default());
            line.is_cut |= taken < part.len();
            let consumed = part.len() + usize::from(end.is_some());
            self.source.consume(consumed);
            if end.is_some() {
                if line.bytes.last() == Some(&b'\r') {
                    line.bytes.pop();
                }
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], bytes_max: usize) -> Vec<(String, bool)> {
        let mut lines = Lines::new(input, bytes_max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push((String::from_utf8(line.bytes).unwrap(), line.is_cut));
        }
        all
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return() {
        let read = lines(b"a\r\n\nbc\nd", 8).await;
        let wanted = ["a", "", "bc", "d"].map(|text| (text.to_owned(), false));
        assert_eq!(read, wanted);
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_one_is_whole() {
        assert_eq!(lines(b"12345\n123\n", 3).await, [("123".to_owned(), true), ("123".to_owned(), false)]);
        let long = vec![b'x'; 1024 * 1024];
        assert_eq!(
            lines(&[&long[..], b"\nend\n"].concat(), 3).await,
            [("xxx".to_owned(), true), ("end".to_owned(), false)]
        );
    }
}
