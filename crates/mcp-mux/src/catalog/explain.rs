//! What is decided about tools for somebody, for an operator who asks why.

use std::collections::HashMap;
use std::sync::Arc;

use tenant_store::SecretName;

use super::snapshot::{Entry, Shelf, Snapshot};
use super::view::Face;
use crate::caller::Caller;
use crate::policy::{Explanation, explain};

/// A tool, and what is decided about it for somebody.
#[derive(Debug)]
pub struct Explained {
    /// The tool.
    pub entry: Arc<Entry>,
    /// The decision, and what would turn it around.
    pub explanation: Explanation,
    /// Whether the endpoint of all tenants shows it too, and not its tenant's own alone.
    pub is_aggregate: bool,
    /// The secrets that its upstream is called with, and the version that is stored of each.
    pub secrets: Vec<(SecretName, Option<u32>)>,
}

impl Snapshot {
    /// Every tool of the tenants in reach or, of all tenants, those that clients see as `tool` at one endpoint or the other, with what is
    /// decided about them for `caller`; ordered by the name at the endpoint of all.
    pub fn explain(&self, caller: &Caller, tool: Option<&str>) -> Vec<Explained> {
        let reach = self.grants().reach(caller);
        let is_called =
            |entry: &Entry, tool: &str| entry.exposed().as_str() == tool || entry.shown(Face::Tenant).0 == tool;
        let is_meant = |entry: &&Arc<Entry>| tool.is_none_or(|tool| is_called(entry, tool));
        let mut all = Vec::new();
        for (tenant, shelf) in self.shelves() {
            if tool.is_none() && reach.access(tenant).is_none() {
                continue;
            }
            all.extend(shelf.entries().iter().filter(is_meant).map(|entry| Explained {
                explanation: explain(self.grants(), caller, &entry.facts()),
                secrets: secrets(shelf, entry),
                is_aggregate: entry.is_on(Face::Aggregate),
                entry: Arc::clone(entry),
            }));
        }
        all.sort_by(|one, other| one.entry.exposed().cmp(other.entry.exposed()));
        all
    }
}

fn secrets(shelf: &Shelf, entry: &Entry) -> Vec<(SecretName, Option<u32>)> {
    // One that was stored for another address is not what the upstream is called with.
    let stored = shelf.credentials(entry.upstream.id).into_iter().filter(|sealed| sealed.is_for(&entry.upstream));
    let versions: HashMap<_, _> = stored.map(|sealed| (sealed.name(), sealed.version())).collect();
    let names = entry.upstream.spec.auth.secrets().into_iter().map(|(name, _)| name);
    names.map(|name| (name.clone(), versions.get(name).copied())).collect()
}
