//! How far chains had come, as the platform's record says: of each writer's part of each chain the last that was said, which covers all
//! that was said before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::event::Head;

/// What is known of how far chains go at least. It grows with writers and chains, not with time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    by_chain: BTreeMap<String, HashMap<String, Known>>,
    /// Writers that have said that they are over.
    ended: Arc<HashSet<String>>,
}

/// The last event of a writer's part of a chain that somebody vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) seq: u64,
    pub(super) hash: String,
    /// Two were named that are not one: no chain is both.
    pub(super) is_two: bool,
    /// The last that its own writer has named.
    pub(super) own: u64,
}

impl Heads {
    /// Notes one that this writer has named.
    pub fn add(&mut self, head: Head, by: &str) {
        let Head { chain, writer, seq, hash } = head;
        let is_own = writer == by;
        let known = self.by_chain.entry(chain).or_default().entry(writer);
        let known = known.or_insert_with(|| Known { seq, hash: hash.clone(), is_two: false, own: 0 });
        known.own = known.own.max(if is_own { seq } else { 0 });
        if known.seq == seq {
            known.is_two |= known.hash != hash;
        } else if known.seq < seq {
            (known.seq, known.hash) = (seq, hash);
        }
    }

    /// What is known of how far chains had come, each with its writer, and nothing of that is known any more.
    pub(super) fn take_told(&mut self) -> impl Iterator<Item = Head> {
        let told = mem::take(&mut self.by_chain).into_iter();
        told.flat_map(|(chain, writers)| {
            writers.into_iter().map(move |(writer, known)| {
                let hash = if known.is_two { String::new() } else { known.hash };
                Head { chain: chain.clone(), writer, seq: known.seq, hash }
            })
        })
    }

    /// Notes that a writer is over.
    pub(super) fn end(&mut self, writer: &str) {
        Arc::make_mut(&mut self.ended).insert(writer.to_owned());
    }

    pub(super) fn has_ended(&self, writer: &str) -> bool {
        self.ended.contains(writer)
    }

    pub(super) fn ended(&self) -> Arc<HashSet<String>> {
        Arc::clone(&self.ended)
    }

    /// The chains of which something is known.
    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        self.by_chain.keys().map(String::as_str)
    }

    pub(super) fn of(&self, chain: &str) -> HashMap<String, Known> {
        self.by_chain.get(chain).cloned().unwrap_or_default()
    }
}
