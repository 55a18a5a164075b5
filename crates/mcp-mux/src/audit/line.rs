//! The canonical line: what is hashed, to the byte. One JSON object on one line, its members in this order, without white space between
//! them; the hash is SHA-256 of the line with its end (`\n`), so that `sha256sum` can check it.

use serde::{Deserialize, Serialize};
use tenant_store::{AuditRow, AuditWriterId};

use super::event::{Event, What, sha256};
use crate::civil;

/// The version of this form.
pub(super) const VERSION: u32 = 1;
/// What stands for the hash of the event before the first one.
pub(super) const NONE_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[derive(Serialize)]
struct Canonical<'e> {
    v: u32,
    chain: &'e str,
    writer: AuditWriterId,
    seq: u64,
    prev: &'e str,
    at: String,
    #[serde(flatten)]
    what: &'e What,
}

/// A line as far as it says where it belongs. What else it says is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// The version of the form.
    pub v: u32,
    /// Whose chain it belongs to.
    pub chain: String,
    /// Who wrote it.
    pub writer: String,
    /// The how-manieth it is.
    pub seq: u64,
    /// The hash of the one before.
    pub prev: String,
    /// When it happened.
    pub at: String,
    /// What it tells of.
    pub event: String,
}

impl Line {
    /// Reads a line.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// The event as the next line of its chain.
pub(super) fn row(
    event: &Event,
    writer: AuditWriterId,
    (seq, prev): (u64, &str),
) -> Result<AuditRow, serde_json::Error> {
    let (chain, at) = (event.chain.to_string(), civil::rfc3339(event.at));
    let canonical = Canonical { v: VERSION, chain: &chain, writer, seq, prev, at, what: &event.what };
    Ok(AuditRow { writer, seq, at: event.at, line: serde_json::to_string(&canonical)? })
}

/// The hash of a line, which the next one repeats.
pub(super) fn hash(line: &str) -> String {
    let mut whole = Vec::with_capacity(line.len() + 1);
    whole.extend_from_slice(line.as_bytes());
    whole.push(b'\n');
    sha256(&whole)
}
