//! What one reach sees: its exposed names, and its list as bytes that are ready to send.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::snapshot::{Entry, Snapshot};
use crate::policy::{Action, Reach, decide};

/// Which endpoint a caller looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// `/mcp`: all tenants of the caller, under exposed names.
    Aggregate,
    /// `/t/{tenant}/mcp`: one tenant, under the upstreams' own names where those do not collide.
    Tenant,
}

/// The entries that a reach sees under the names by which it calls them. Equal reaches share one.
#[derive(Debug)]
pub struct View {
    names: HashMap<Box<str>, Arc<Entry>>,
    order: Vec<Box<str>>,
    tools: Bytes,
}

impl View {
    /// Asks policy about every entry of every tenant in reach.
    pub(super) fn build(snapshot: &Snapshot, face: Face, reach: &Reach) -> Self {
        let shelves = reach.accesses().iter().filter_map(|access| snapshot.shelf(access));
        let allowed = |entry: &&Arc<Entry>| decide(reach, Action::List, &entry.facts()).is_allowed();
        let entries: Vec<&Arc<Entry>> = shelves.flat_map(super::snapshot::Shelf::entries).filter(allowed).collect();
        let own_names = match face {
            Face::Aggregate => HashSet::new(),
            Face::Tenant => names_without_collision(&entries),
        };

        let mut names = HashMap::with_capacity(entries.len());
        let mut order = Vec::with_capacity(entries.len());
        let mut tools = String::from("[");
        for entry in entries {
            let (name, text) = if own_names.contains(entry.local().as_str()) {
                (entry.local().as_str(), entry.raw().get())
            } else {
                (entry.exposed.as_str(), entry.renamed())
            };
            names.insert(name.into(), Arc::clone(entry));
            order.push(name.into());
            if tools.len() > 1 {
                tools.push(',');
            }
            tools.push_str(text);
        }
        tools.push(']');
        Self { names, order, tools: tools.into() }
    }

    /// The entry that this view calls `name`. A name that belongs to somebody else and a name that belongs to nobody are the
    /// same answer.
    pub fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        self.names.get(name)
    }

    /// The definitions as one JSON array.
    pub fn tools(&self) -> Bytes {
        self.tools.clone()
    }

    /// The names, in the order of the list.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(AsRef::as_ref)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing can be seen.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Bytes that it keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        const ENTRY_BYTES: usize = 96;
        self.tools.len() + self.names.len() * ENTRY_BYTES
    }
}

/// The local names that only one upstream uses and that are nobody's exposed name.
fn names_without_collision<'e>(entries: &[&'e Arc<Entry>]) -> HashSet<&'e str> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for entry in entries {
        *counts.entry(entry.local().as_str()).or_default() += 1;
        *counts.entry(entry.exposed.as_str()).or_default() += 1;
    }
    let own = entries.iter().map(|entry| entry.local().as_str());
    own.filter(|name| counts.get(name) == Some(&1)).collect()
}
