//! Checking a chain: that no line was changed, none is missing between two others, none below what was signed, and that its writers signed it.
//!
//! Lines come by writer and number, each checkpoint behind the line that it covers. Something wrong does not end the check: it goes on with
//! what comes behind it. What nobody signed yet can be cut off at the end of a part without a trace here; whoever keeps a signed head
//! elsewhere finds that too.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tenant_store::{AuditCheckpoint, AuditPruned, AuditRow, Timestamp};

use super::event::Head;
use super::heads::{Heads, Known};
use super::line::{self, Line, NONE_BEFORE};
use super::signer::{self, PublicKey};
use super::wrong::{WRONG_MAX, Wrong};
use crate::civil;

/// After this time whatever was recorded is signed. An hour is the longest time between two checkpoints, and what a killed writer left is
/// signed by the next one a quarter of an hour after that.
const UNSIGNED_MAX: Duration = Duration::from_hours(3);
/// What the platform's chain is called.
const PLATFORM: &str = "platform";
/// How far clocks may differ.
pub(super) const SKEW_MAX: Duration = Duration::from_mins(5);

/// What was found in a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many events.
    pub events: u64,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// How many events are behind the last signature of their writer's part.
    pub unsigned: u64,
    /// How many events were signed by another writer alone, because their own was gone.
    pub vouched: u64,
    /// How many events are gone because their time was over, which is signed.
    pub pruned: u64,
    /// How many events say that others were lost, and how many those are.
    pub lost: u64,
    /// When the last event happened.
    pub last_at: String,
    /// What events of this chain say of how far chains had come.
    pub heads: Heads,
    /// How far each writer's part is signed.
    pub(super) signed: HashMap<String, u64>,
}

impl Found {
    /// Whether a signature covers that event.
    pub(super) fn has_signed(&self, row: &AuditRow) -> bool {
        self.signed.get(&row.writer.to_string()).is_some_and(|signed| row.seq <= *signed)
    }
}

/// Checks one chain.
#[derive(Debug)]
pub struct Verifier {
    chain: String,
    keys: HashMap<String, PublicKey>,
    /// How far each writer's part must go at least.
    required: HashMap<String, Known>,
    /// Whose parts go no further than that. The platform's own record says so itself.
    ended: Arc<HashSet<String>>,
    /// When that happened which need not be signed yet.
    recently: Option<RangeInclusive<String>>,
    part: Option<Part>,
    found: Found,
    /// What was wrong with parts that are over.
    wrong: Vec<Wrong>,
}

/// One writer's part of it, so far.
#[derive(Debug)]
struct Part {
    writer: String,
    seq: u64,
    hash: String,
    /// How far it is gone.
    pruned: u64,
    /// The last line was none, so that nobody knows what should come now.
    is_lost: bool,
    /// How far it is signed, and how far by its own writer.
    signed: u64,
    own: u64,
    /// When the last happened of what is not signed.
    unsigned_at: String,
}

#[derive(serde::Deserialize)]
struct Told {
    #[serde(default, rename = "heads")]
    signed: Vec<Head>,
    #[serde(default)]
    after: Vec<Head>,
    #[serde(default)]
    count: u64,
}

impl Verifier {
    /// Checks that chain by these keys. What others vouch for (`required`) must be there. What happened recently, as of `now`, need not be
    /// signed yet; without a time, all must be.
    pub fn new<'k>(
        chain: &str,
        keys: impl IntoIterator<Item = &'k PublicKey>,
        required: &Heads,
        now: Option<Timestamp>,
    ) -> Self {
        let keys = keys.into_iter().filter(|key| key.is_sound()).map(|key| (key.id.clone(), key.clone())).collect();
        Self {
            chain: chain.to_owned(),
            keys,
            required: required.of(chain),
            ended: if chain == PLATFORM { Arc::default() } else { required.ended() },
            recently: now.map(recently),
            part: None,
            found: Found::default(),
            wrong: Vec::new(),
        }
    }

    /// What is gone of the part that comes next, which begins behind it.
    pub fn pruned(&mut self, AuditPruned(pruned): &AuditPruned) -> Result<(), Wrong> {
        let (writer, seq) = (pruned.writer.to_string(), pruned.seq);
        let key = self.keys.get(&pruned.key_id).ok_or_else(|| Wrong::Key { id: pruned.key_id.clone() })?;
        if !key.has_signed(&signer::message_of_pruned(&self.chain, pruned), &pruned.signature) {
            return Err(Wrong::Signature { writer, seq });
        }
        self.turn_to(&writer)?;
        let is_first = self.part.as_ref().is_some_and(|part| part.seq == 0 && part.signed == 0);
        let part = self.part.as_mut().filter(|_| is_first).ok_or(Wrong::NotALine)?;
        (part.seq, part.pruned, part.signed, part.own) = (seq, seq, seq, seq);
        part.hash.clone_from(&pruned.hash);
        self.found.pruned = self.found.pruned.saturating_add(seq);
        let is_other = |known: &Known| known.seq == seq && (known.hash != pruned.hash || known.is_two);
        if self.required.get(&writer).is_some_and(is_other) {
            return Err(Wrong::NotSigned { writer, seq });
        }
        Ok(())
    }

    /// The next row of a database, whose columns must say what the line says.
    pub fn row(&mut self, row: &AuditRow) -> Result<(), Wrong> {
        let writer = row.writer.to_string();
        let line = Line::parse(&row.line);
        let is_there = |line: &Line| line.writer == writer && line.seq == row.seq && line.at == civil::rfc3339(row.at);
        if let Some(line) = line.as_ref().ok().filter(|line| is_there(line)) {
            return self.line(line, &row.line);
        }
        self.turn_to(&writer)?;
        let no_line = self.no_line();
        if let Some(part) = &mut self.part {
            part.seq = row.seq;
        }
        Err(if line.is_ok() { Wrong::Elsewhere } else { no_line })
    }

    /// The next line of a file, without its end.
    pub fn text(&mut self, text: &str) -> Result<(), Wrong> {
        match Line::parse(text) {
            Ok(line) => self.line(&line, text),
            Err(_) => Err(self.no_line()),
        }
    }

    fn no_line(&mut self) -> Wrong {
        if let Some(part) = &mut self.part {
            part.is_lost = true;
        }
        Wrong::NotALine
    }

    fn line(&mut self, line: &Line, text: &str) -> Result<(), Wrong> {
        if line.v != line::VERSION {
            return Err(self.no_line());
        }
        if line.chain != self.chain {
            self.no_line();
            return Err(Wrong::Elsewhere);
        }
        self.turn_to(&line.writer)?;
        let hash = line::hash(text);
        let part = self.part.as_mut().ok_or(Wrong::NotALine)?;
        let (writer, seq) = (line.writer.clone(), line.seq);
        let wanted = part.seq.saturating_add(1);
        // Whatever is wrong, what comes next must fit this one.
        let is_lost = mem::replace(&mut part.is_lost, false);
        let prev = mem::replace(&mut part.hash, hash);
        part.seq = seq;
        if line.at > part.unsigned_at {
            part.unsigned_at.clone_from(&line.at);
        }
        self.found.events += 1;
        if line.at > self.found.last_at {
            self.found.last_at.clone_from(&line.at);
        }
        let is_required = |known: &Known| known.seq != seq || (known.hash == part.hash && !known.is_two);
        let is_required = self.required.get(&writer).is_none_or(is_required);
        let is_over = self.chain == PLATFORM && self.found.heads.has_ended(&writer);
        self.note(line, text)?;
        match () {
            () if is_over => Err(Wrong::Added { writer, seq }),
            () if seq != wanted && !is_lost => Err(Wrong::Gap { writer, wanted, found: seq }),
            () if line.prev != prev && !is_lost => Err(Wrong::Unlinked { writer, seq }),
            () if !is_required => Err(Wrong::NotSigned { writer, seq }),
            () => Ok(()),
        }
    }

    fn note(&mut self, line: &Line, text: &str) -> Result<(), Wrong> {
        if line.event == "ended" {
            self.found.heads.end(&line.writer);
        }
        if ["checkpoint", "started", "lost"].contains(&line.event.as_str()) {
            let told: Told = serde_json::from_str(text).map_err(|_| Wrong::NotALine)?;
            self.found.lost = self.found.lost.saturating_add(told.count);
            told.signed.into_iter().chain(told.after).for_each(|head| self.found.heads.add(head, &line.writer));
        }
        Ok(())
    }

    /// The next checkpoint.
    pub fn checkpoint(&mut self, checkpoint: &AuditCheckpoint) -> Result<(), Wrong> {
        let AuditCheckpoint { seq, hash, key_id, signature, .. } = checkpoint;
        let (writer, seq) = (checkpoint.writer.to_string(), *seq);
        let key = self.keys.get(key_id).ok_or_else(|| Wrong::Key { id: key_id.clone() })?;
        let is_own = key.has_signed(&signer::message(&self.chain, checkpoint), signature);
        if !is_own && !key.has_signed(&signer::message_of_another(&self.chain, checkpoint), signature) {
            return Err(Wrong::Signature { writer, seq });
        }
        self.turn_to(&writer)?;
        let part = self.part.as_mut().ok_or(Wrong::NotALine)?;
        // Somebody did sign it: what is wrong with it is another matter.
        part.signed = part.signed.max(seq);
        part.own = if is_own { part.own.max(seq) } else { part.own };
        part.unsigned_at.clear();
        if part.is_lost {
            return Ok(());
        }
        if part.seq < seq {
            return Err(Wrong::CutOff { writer, seq });
        }
        if part.seq != seq || part.hash != *hash {
            return Err(Wrong::NotSigned { writer, seq });
        }
        self.found.checkpoints += 1;
        Ok(())
    }

    /// What lines have said of how far chains had come since that was asked last.
    pub(super) fn take_told(&mut self) -> Vec<Head> {
        self.found.heads.take_told().collect()
    }

    /// What was found, and what is wrong with whole parts.
    pub fn finish(mut self) -> (Found, Vec<Wrong>) {
        self.leave();
        let missing = self.required.iter().filter(|(writer, _)| !self.found.signed.contains_key(*writer));
        let missing = missing.map(|(writer, known)| Wrong::CutOff { writer: writer.clone(), seq: known.seq });
        self.wrong.extend(missing.take(WRONG_MAX));
        (self.found, self.wrong)
    }

    /// From here on it is this writer's part.
    fn turn_to(&mut self, writer: &str) -> Result<(), Wrong> {
        if self.part.as_ref().is_some_and(|part| part.writer == writer) {
            return Ok(());
        }
        self.leave();
        let (writer, hash, unsigned_at) = (writer.to_owned(), NONE_BEFORE.to_owned(), String::new());
        let was_there = self.found.signed.contains_key(&writer);
        let (seq, pruned, signed, own) = (0, 0, 0, 0);
        let part = Part { writer: writer.clone(), seq, hash, pruned, is_lost: was_there, signed, own, unsigned_at };
        self.part = Some(part);
        if was_there { Err(Wrong::Scattered { writer }) } else { Ok(()) }
    }

    fn leave(&mut self) {
        let Some(Part { writer, seq, pruned, signed, own, unsigned_at, .. }) = self.part.take() else { return };
        self.found.signed.insert(writer.clone(), signed);
        self.found.unsigned = self.found.unsigned.saturating_add(seq.saturating_sub(signed));
        self.found.vouched = self.found.vouched.saturating_add(signed.saturating_sub(own));
        // What said how far it came may be gone with what it spoke of.
        let most = self.required.get(&writer).map_or(0, |known| known.seq).max(pruned);
        // Where another one signed first, its own signature has no place; but it has said itself how far it came.
        let own_told = self.required.get(&writer).map_or(0, |known| known.own).max(own);
        let is_recent = self.recently.as_ref().is_some_and(|recently| recently.contains(&unsigned_at));
        let wrong = match () {
            () if most > seq => Wrong::CutOff { writer, seq: most },
            () if most < seq && self.ended.contains(&writer) => Wrong::Added { writer, seq: most + 1 },
            // Nothing of it was left that another one might sign.
            () if own_told < signed && self.ended.contains(&writer) => Wrong::Added { writer, seq: own_told + 1 },
            // A writer signs its first event at once.
            () if own == 0 => Wrong::Unsigned { writer, seq: 1 },
            () if seq > signed && !is_recent => Wrong::Unsigned { writer, seq: signed + 1 },
            () => return,
        };
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(wrong);
        }
    }
}

fn recently(now: Timestamp) -> RangeInclusive<String> {
    let unsigned_max = i64::try_from(UNSIGNED_MAX.as_millis()).unwrap_or(i64::MAX);
    let begin = Timestamp::from_millis(now.as_millis().saturating_sub(unsigned_max));
    civil::rfc3339(begin)..=civil::rfc3339(now.plus(SKEW_MAX))
}
