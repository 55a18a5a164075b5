//! Streams of server-sent events, as upstreams send them.
//!
//! The first byte says how many of the bytes behind it are lengths of chunks. What follows is the stream, cut so.

use crate::upstream::read_events;

/// Where a stream is cut into chunks changes nothing of what is read in it.
pub fn events(bytes: &[u8]) {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let Some((lengths, stream)) = bytes.split_at_checked((*count).into()) else { return };
    let whole = read_events([stream.to_vec()]);
    assert_eq!(read_events(stream.iter().map(|byte| vec![*byte])), whole, "byte by byte");
    let mut rest = stream;
    let mut chunks = Vec::new();
    for length in lengths {
        let (chunk, behind) = rest.split_at_checked((*length).into()).unwrap_or((rest, &[]));
        chunks.push(chunk.to_vec());
        rest = behind;
    }
    chunks.push(rest.to_vec());
    assert_eq!(read_events(chunks), whole, "in chunks of {lengths:?}");
}
