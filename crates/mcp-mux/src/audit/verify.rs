//! Checking a chain: that no line was changed, none is missing between two others, and none below what was signed.
//!
//! Lines come by writer and number, each checkpoint behind the line that it covers. What nobody signed can be cut off at its end without
//! a trace here; whoever keeps a signed head elsewhere finds that too.

use std::collections::{HashMap, HashSet};

use tenant_store::{AuditCheckpoint, AuditRow};

use super::event::Head;
use super::line::{self, Line, NONE_BEFORE};
use super::signer::{self, PublicKey};
use crate::civil;

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The line is none of ours.
    #[error("this is no line of the audit record")]
    NotALine,
    /// It says that it belongs elsewhere.
    #[error("this line says of itself that it lies elsewhere: it was changed or moved")]
    Elsewhere,
    /// It is not the next one.
    #[error(
        "event {found} of {writer} stands where {wanted} should be: what lies between is missing, or is there twice"
    )]
    Gap {
        /// Whose.
        writer: String,
        /// Which should come.
        wanted: u64,
        /// Which came.
        found: u64,
    },
    /// It does not fit the one before.
    #[error("event {seq} of {writer} does not fit the one before it: one of the two was changed")]
    Unlinked {
        /// Whose.
        writer: String,
        /// Which.
        seq: u64,
    },
    /// It is not what was signed.
    #[error("event {seq} of {writer} is not the one that was signed")]
    NotSigned {
        /// Whose.
        writer: String,
        /// Which.
        seq: u64,
    },
    /// Something was signed that is not there.
    #[error("the events of {writer} up to {seq} were signed, and are not all there: they were cut off")]
    CutOff {
        /// Whose.
        writer: String,
        /// How far it should go.
        seq: u64,
    },
    /// The signature is not one.
    #[error("the signature of {writer} at {seq} is not good")]
    Signature {
        /// Whose.
        writer: String,
        /// Where.
        seq: u64,
    },
    /// A key that nobody vouches for.
    #[error("it is signed with the key {id}, which is none of those that count")]
    Key {
        /// Which.
        id: String,
    },
    /// A writer's lines do not lie together.
    #[error("the events of {writer} do not lie together")]
    Scattered {
        /// Whose.
        writer: String,
    },
    /// A file without its beginning.
    #[error("the file does not begin as an export does")]
    Header,
    /// A file without its end.
    #[error("the file has no good end: something was cut off, or changed")]
    End,
    /// Something behind the end.
    #[error("there is something behind the end")]
    BehindTheEnd,
}

/// What was found in a chain in which nothing is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many events.
    pub events: u64,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// How many events are behind the last checkpoint of their writer.
    pub unsigned: u64,
    /// How many events say that others were lost, and how many those are.
    pub lost: u64,
    /// What events of this chain say of how far chains had come.
    pub heads: Vec<Head>,
}

/// Checks one chain.
#[derive(Debug)]
pub struct Verifier {
    chain: String,
    keys: HashMap<String, PublicKey>,
    /// How far each writer's part must go at least.
    required: HashMap<String, Vec<(u64, String)>>,
    part: Option<Part>,
    over: HashSet<String>,
    found: Found,
}

/// One writer's part of it, so far.
#[derive(Debug)]
struct Part {
    writer: String,
    seq: u64,
    hash: String,
    signed: u64,
}

#[derive(serde::Deserialize)]
struct Heads {
    #[serde(default, rename = "heads")]
    signed: Vec<Head>,
    #[serde(default)]
    after: Vec<Head>,
    #[serde(default)]
    count: u64,
}

impl Verifier {
    /// Checks that chain by these keys. What others vouch for (`required`) must be there.
    pub fn new<'k>(chain: &str, keys: impl IntoIterator<Item = &'k PublicKey>, required: &[Head]) -> Self {
        let keys = keys.into_iter().filter(|key| key.is_sound()).map(|key| (key.id.clone(), key.clone())).collect();
        let mut by_writer: HashMap<String, Vec<(u64, String)>> = HashMap::new();
        for head in required.iter().filter(|head| head.chain == chain) {
            by_writer.entry(head.writer.clone()).or_default().push((head.seq, head.hash.clone()));
        }
        Self {
            chain: chain.to_owned(),
            keys,
            required: by_writer,
            part: None,
            over: HashSet::new(),
            found: Found::default(),
        }
    }

    /// The next row of a database, whose columns must say what the line says.
    pub fn row(&mut self, row: &AuditRow) -> Result<(), Wrong> {
        let line = Line::parse(&row.line).map_err(|_| Wrong::NotALine)?;
        let is_there =
            line.writer == row.writer.to_string() && line.seq == row.seq && line.at == civil::rfc3339(row.at);
        if !is_there {
            return Err(Wrong::Elsewhere);
        }
        self.line(&line, &row.line)
    }

    /// The next line of a file, without its end.
    pub fn text(&mut self, text: &str) -> Result<(), Wrong> {
        let line = Line::parse(text).map_err(|_| Wrong::NotALine)?;
        self.line(&line, text)
    }

    fn line(&mut self, line: &Line, text: &str) -> Result<(), Wrong> {
        if line.v != line::VERSION {
            return Err(Wrong::NotALine);
        }
        if line.chain != self.chain {
            return Err(Wrong::Elsewhere);
        }
        self.turn_to(&line.writer)?;
        let hash = line::hash(text);
        let part = self.part.as_mut().ok_or(Wrong::NotALine)?;
        let (writer, seq) = (line.writer.clone(), line.seq);
        if seq != part.seq + 1 {
            return Err(Wrong::Gap { writer, wanted: part.seq + 1, found: seq });
        }
        if line.prev != part.hash {
            return Err(Wrong::Unlinked { writer, seq });
        }
        let is_required = |(wanted, wanted_hash): &(u64, String)| *wanted != seq || *wanted_hash == hash;
        if !self.required.get(&writer).is_none_or(|required| required.iter().all(is_required)) {
            return Err(Wrong::NotSigned { writer, seq });
        }
        (part.seq, part.hash) = (seq, hash);
        self.found.events += 1;
        self.note(line, text)
    }

    fn note(&mut self, line: &Line, text: &str) -> Result<(), Wrong> {
        if ["checkpoint", "started", "lost"].contains(&line.event.as_str()) {
            let told: Heads = serde_json::from_str(text).map_err(|_| Wrong::NotALine)?;
            self.found.lost += told.count;
            self.found.heads.extend(told.signed.into_iter().chain(told.after));
        }
        Ok(())
    }

    /// The next checkpoint.
    pub fn checkpoint(&mut self, checkpoint: &AuditCheckpoint) -> Result<(), Wrong> {
        let AuditCheckpoint { seq, hash, key_id, signature, .. } = checkpoint;
        let (writer, seq) = (checkpoint.writer.to_string(), *seq);
        let key = self.keys.get(key_id).ok_or_else(|| Wrong::Key { id: key_id.clone() })?;
        if !key.has_signed(&signer::message(&self.chain, checkpoint), signature) {
            return Err(Wrong::Signature { writer, seq });
        }
        self.turn_to(&writer)?;
        let part = self.part.as_mut().ok_or(Wrong::NotALine)?;
        if part.seq < seq {
            return Err(Wrong::CutOff { writer, seq });
        }
        if part.seq != seq || part.hash != *hash {
            return Err(Wrong::NotSigned { writer, seq });
        }
        part.signed = seq;
        self.found.checkpoints += 1;
        Ok(())
    }

    /// What was found, if nothing is missing at the end.
    pub fn finish(mut self) -> Result<Found, Wrong> {
        self.leave()?;
        for (writer, required) in &self.required {
            if let Some((seq, _)) = required.iter().max().filter(|_| !self.over.contains(writer)) {
                return Err(Wrong::CutOff { writer: writer.clone(), seq: *seq });
            }
        }
        Ok(self.found)
    }

    /// From here on it is this writer's part.
    fn turn_to(&mut self, writer: &str) -> Result<(), Wrong> {
        if self.part.as_ref().is_some_and(|part| part.writer == writer) {
            return Ok(());
        }
        self.leave()?;
        if self.over.contains(writer) {
            return Err(Wrong::Scattered { writer: writer.to_owned() });
        }
        self.part = Some(Part { writer: writer.to_owned(), seq: 0, hash: NONE_BEFORE.to_owned(), signed: 0 });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Wrong> {
        let Some(Part { writer, seq, signed, .. }) = self.part.take() else { return Ok(()) };
        let most = self.required.get(&writer).and_then(|required| required.iter().map(|(seq, _)| *seq).max());
        if let Some(most) = most.filter(|most| *most > seq) {
            return Err(Wrong::CutOff { writer, seq: most });
        }
        self.found.unsigned += seq - signed;
        self.over.insert(writer);
        Ok(())
    }
}
