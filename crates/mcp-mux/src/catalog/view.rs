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
        let shared = names_twice(face, &entries);

        let mut names = HashMap::with_capacity(entries.len());
        let mut order = Vec::with_capacity(entries.len());
        let mut tools = String::from("[");
        for entry in entries {
            let (name, text) = entry.shown(face);
            if shared.contains(name) {
                tracing::error!(mcp.tool = name, "two tools have one name: neither is listed nor called");
                continue;
            }
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

/// Names that more than one entry would have. There should be none; if there are, a call must not end at either's upstream.
fn names_twice<'e>(face: Face, entries: &[&'e Arc<Entry>]) -> HashSet<&'e str> {
    let mut seen = HashSet::new();
    entries.iter().map(|entry| entry.shown(face).0).filter(|name| !seen.insert(*name)).collect()
}
