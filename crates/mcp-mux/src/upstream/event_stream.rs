//! Server-sent events (WHATWG HTML §9.2), read as far as MCP uses them, with a limit on each event and on the whole stream.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use http::HeaderValue;

use super::error::UpstreamError;
use super::in_flight::Load;
use super::redact::Redactor;
use super::resume::Position;

/// Largest single event, in bytes.
pub(super) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest id of an event, in bytes.
const ID_BYTES_MAX: usize = 1024;
/// Most bytes of one stream.
pub(super) const STREAM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a stream may begin with, and nobody should take for a part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The data of one event; the lines of its `data` fields, joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(pub String);

/// What kind of event it is, by its `event` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An MCP message.
    Message,
    /// Where messages go, in the transport of 2024-11-05.
    Endpoint,
    /// Anything else.
    Other,
}

/// Events of one response body, or some of them.
pub struct EventStream {
    source: Source,
    /// The kind that is handed out; events of other kinds are passed over.
    wanted: Kind,
    kind: Kind,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    chunk: Bytes,
    after_carriage_return: bool,
    is_first_line: bool,
    read_bytes: usize,
    redactor: Option<Redactor>,
    /// By what is held what was read and the event that was handed out last.
    load: Load,
    /// Whether whoever these events come from counts them there already.
    is_counted: bool,
    /// The id of the last event that had one, and how long to wait before the stream is taken up.
    last_id: Option<HeaderValue>,
    retry: Option<Duration>,
}

enum Source {
    Body(BoxStream<'static, Result<Bytes, UpstreamError>>),
    Events(BoxStream<'static, Result<Event, UpstreamError>>),
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("read_bytes", &self.read_bytes).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Reads messages from `body`.
    pub fn new(body: BoxStream<'static, Result<Bytes, UpstreamError>>) -> Self {
        Self::of(Source::Body(body))
    }

    /// Messages that were read from a body that holds others', too.
    pub(super) fn of_events(events: BoxStream<'static, Result<Event, UpstreamError>>) -> Self {
        Self::of(Source::Events(events))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            wanted: Kind::Message,
            kind: Kind::Message,
            line: Vec::new(),
            data: None,
            chunk: Bytes::new(),
            after_carriage_return: false,
            is_first_line: true,
            read_bytes: 0,
            redactor: None,
            load: Load::default(),
            is_counted: false,
            last_id: None,
            retry: None,
        }
    }

    /// The same events without the secrets of the call.
    pub(super) fn without(self, redactor: Redactor) -> Self {
        Self { redactor: Some(redactor), ..self }
    }

    /// The same events, held by that.
    pub(super) fn held_by(self, load: Load) -> Self {
        Self { load, ..self }
    }

    /// The same events, which come from streams that are held by that.
    pub(super) fn held_inside(self, load: Load) -> Self {
        Self { load, is_counted: true, ..self }
    }

    /// By what its events are held.
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// Where it can be taken up, if its events have ids.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position { id: self.last_id.clone()?, retry: self.retry })
    }

    /// The same stream, handing out events of that kind from here on.
    pub(super) fn wanting(self, wanted: Kind) -> Self {
        Self { wanted, ..self }
    }

    /// From here on the stream may have as many bytes again.
    pub(super) fn count_anew(&mut self) {
        self.read_bytes = 0;
    }

    /// The next event; `None` at the end of the stream. An event that the end cuts short is dropped, as the standard says.
    pub async fn next(&mut self) -> Option<Result<Event, UpstreamError>> {
        if !self.is_counted {
            self.load.keep(self.line.len() + self.data.as_ref().map_or(0, Vec::len) + self.chunk.len());
        }
        loop {
            match self.take_event() {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            let body = match &mut self.source {
                Source::Body(body) => body,
                Source::Events(events) => return events.next().await.map(|event| self.handed_on(event?)),
            };
            match body.next().await? {
                Ok(chunk) => {
                    self.read_bytes = self.read_bytes.saturating_add(chunk.len());
                    if self.read_bytes > STREAM_BYTES_MAX {
                        return Some(Err(UpstreamError::TooLarge));
                    }
                    if !self.load.take(chunk.len()) {
                        return Some(Err(UpstreamError::NoRoomToRead));
                    }
                    self.chunk = chunk;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// An event that was read elsewhere.
    fn handed_on(&self, event: Event) -> Result<Event, UpstreamError> {
        if !self.is_counted && !self.load.take(event.0.len()) {
            return Err(UpstreamError::NoRoomToRead);
        }
        let redacted = self.redactor.as_ref().and_then(|redactor| redactor.redacted(event.0.as_bytes()));
        Ok(redacted.map_or(event, Event))
    }

    /// Consumes the current chunk up to the end of an event.
    fn take_event(&mut self) -> Result<Option<Event>, UpstreamError> {
        while !self.chunk.is_empty() {
            if std::mem::take(&mut self.after_carriage_return) && self.chunk.first() == Some(&b'\n') {
                self.chunk = self.chunk.slice(1..);
                continue;
            }
            let Some(end) = self.chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.append_to_line(&self.chunk.clone())?;
                self.chunk = Bytes::new();
                return Ok(None);
            };
            self.after_carriage_return = self.chunk.get(end) == Some(&b'\r');
            self.append_to_line(&self.chunk.slice(..end))?;
            self.chunk = self.chunk.slice(end + 1..);
            if let Some(event) = self.end_line()? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn append_to_line(&mut self, part: &Bytes) -> Result<(), UpstreamError> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + part.len() > EVENT_BYTES_MAX {
            return Err(UpstreamError::TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, UpstreamError> {
        if std::mem::take(&mut self.is_first_line) && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.is_empty() {
            let kind = std::mem::replace(&mut self.kind, Kind::Message);
            let Some(data) = self.data.take().filter(|_| kind == self.wanted) else { return Ok(None) };
            let redacted = self.redactor.as_ref().and_then(|redactor| redactor.redacted(&data));
            let text = redacted.map_or_else(|| String::from_utf8(data), Ok);
            return text.map(|text| Some(Event(text))).map_err(|_| UpstreamError::NotMcp);
        }
        if let Some(value) = self.line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        if let Some(kind) = self.line.strip_prefix(b"event:") {
            self.kind = match kind.strip_prefix(b" ").unwrap_or(kind) {
                b"" | b"message" => Kind::Message,
                b"endpoint" => Kind::Endpoint,
                _ => Kind::Other,
            };
        }
        if let Some(id) = self.line.strip_prefix(b"id:").filter(|id| id.len() <= ID_BYTES_MAX) {
            let id = HeaderValue::from_bytes(id.strip_prefix(b" ").unwrap_or(id)).ok();
            self.last_id = id.filter(|id| !id.is_empty());
        }
        if let Some(wait) = self.line.strip_prefix(b"retry:") {
            let wait = std::str::from_utf8(wait).ok().and_then(|wait| wait.trim().parse().ok());
            self.retry = wait.map(Duration::from_millis).or(self.retry);
        }
        self.line.clear();
        Ok(None)
    }
}

/// Every message in these chunks up to the first failure; and where the stream could be taken up, and after what wait.
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::type_complexity, reason = "two things to compare, which nobody takes apart")]
pub(crate) fn read_events(
    chunks: impl IntoIterator<Item = Vec<u8>>,
) -> (Vec<Result<Event, UpstreamError>>, Option<(HeaderValue, Option<Duration>)>) {
    let chunks: Vec<_> = chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))).collect();
    let mut events = EventStream::new(futures::stream::iter(chunks).boxed());
    let all = async {
        let mut out = Vec::new();
        while let Some(event) = events.next().await {
            let failed = event.is_err();
            out.push(event);
            if failed {
                break;
            }
        }
        out
    };
    let all = futures::FutureExt::now_or_never(all).expect("chunks that are there keep nobody waiting");
    (all, events.position().map(|position| (position.id, position.retry)))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: Vec<Vec<u8>>) -> Vec<Result<Event, UpstreamError>> {
        read_events(chunks).0
    }

    fn texts(input: &str) -> Vec<String> {
        read(vec![input.as_bytes().to_vec()]).into_iter().map(|event| event.unwrap().0).collect()
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        assert_eq!(texts("event: message\ndata: {\"a\":1}\n\ndata: 2\n\n"), ["{\"a\":1}", "2"]);
        assert_eq!(texts("data:1\r\n\r\ndata:2\r\r"), ["1", "2"]);
    }

    #[test]
    fn comments_ids_and_events_without_data_are_passed_over() {
        assert_eq!(texts(": ping\n\nid: 7\nretry: 3000\n\ndata: x\nid: 8\n\n"), ["x"]);
    }

    #[test]
    fn a_stream_remembers_where_it_can_be_taken_up() {
        let chunk = Bytes::from("id: 7\nretry: 500\ndata: \n\nid:8\ndata: 1\n\nid: half");
        let mut events = EventStream::new(stream::iter([Ok(chunk)]).boxed());
        while events.next().now_or_never().flatten().is_some() {}
        let position = events.position().unwrap();
        assert_eq!((position.id.to_str().unwrap(), position.retry), ("8", Some(Duration::from_millis(500))));
        let mut none = EventStream::new(stream::iter([Ok(Bytes::from("data: 1\n\n"))]).boxed());
        while none.next().now_or_never().flatten().is_some() {}
        assert!(none.position().is_none());
    }

    #[test]
    fn events_of_another_kind_than_messages_are_passed_over() {
        assert_eq!(texts("event: ping\ndata: {}\n\nevent:message\ndata: 1\n\ndata: 2\n\n"), ["1", "2"]);
    }

    #[test]
    fn an_event_of_the_wanted_kind_is_found_among_others() {
        let body = "data: 1\n\nevent: ping\ndata: 2\n\nevent: endpoint\ndata: /messages\n\nevent: endpoint\ndata: 3\n\ndata: 4\n\n";
        let body = stream::iter([Ok(Bytes::from_static(body.as_bytes()))]);
        let mut events = EventStream::new(body.boxed()).wanting(Kind::Endpoint);
        let mut next = async |wanted| {
            events.wanted = wanted;
            events.next().await.unwrap().unwrap().0
        };
        let read = async { (next(Kind::Endpoint).await, next(Kind::Message).await) };
        assert_eq!(read.now_or_never().unwrap(), ("/messages".to_owned(), "4".to_owned()));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(texts("\u{feff}data: 1\n\ndata: 2\n\n"), ["1", "2"]);
        assert!(texts("\n\u{feff}data: 1\n\n").is_empty());
    }

    #[test]
    fn data_of_several_lines_is_joined() {
        assert_eq!(texts("data: {\ndata:  \"a\": 1\ndata: }\n\n"), ["{\n \"a\": 1\n}"]);
    }

    #[test]
    fn an_event_that_the_end_cuts_short_is_dropped() {
        assert!(texts("data: half\n").is_empty());
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let chunk = vec![b'x'; 1024 * 1024];
        let mut chunks = vec![b"data: ".to_vec()];
        chunks.extend(std::iter::repeat_n(chunk, 17));
        assert_eq!(read(chunks).pop(), Some(Err(UpstreamError::TooLarge)));
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_into_chunks_does_not_matter(
            input in "(data: ?[a-z]{0,5}|:[a-z]{0,3}|id: 1|\n|\r|\r\n){0,20}",
            cuts in prop::collection::vec(1_usize..5, 0..60),
        ) {
            let whole = read(vec![input.clone().into_bytes()]);
            let mut rest = input.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head.to_vec());
                rest = tail;
            }
            chunks.push(rest.to_vec());
            prop_assert_eq!(whole, read(chunks));
        }
    }
}
