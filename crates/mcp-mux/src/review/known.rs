//! The names of a tenant's tools and of the other tenants, arranged once, so that each definition is held against all of them in one go.

use std::collections::{BTreeMap, HashMap, HashSet};

use tenant_store::{LocalName, TenantSlug, Tool};

use crate::catalog::skeleton;

/// Shortest name of a tenant that is looked for in texts: shorter ones are words.
const NAMED_CHARS_MIN: usize = 4;

/// What a tool is among.
#[derive(Debug, Default)]
pub(crate) struct Known<'k> {
    /// By what the names look like, and then by what is left of them in exposed ones: what differs only in the rest is told apart by
    /// what [`expose`](crate::catalog::expose) puts behind it.
    locals: HashMap<String, BTreeMap<String, &'k Tool>>,
    /// By what the names look like.
    exposed: HashMap<String, Vec<&'k Tool>>,
    /// What texts may name.
    names: HashMap<&'k str, Owner<'k>>,
    tenants: HashSet<&'k str>,
}

/// Whose a name is.
#[derive(Debug)]
struct Owner<'k> {
    local: &'k LocalName,
    /// It is that of a tool with another local name, too.
    is_shared: bool,
}

/// Tools whose names could be taken for that of one.
#[derive(Debug)]
pub(super) struct Alike<'k> {
    /// Some of them.
    pub(super) some: Vec<&'k Tool>,
    /// How many more there are at the least.
    pub(super) more: usize,
}

impl<'k> Known<'k> {
    /// All that a tenant's upstreams list, and the tenants besides its own.
    pub(crate) fn of(tools: &'k [Tool], tenants: &[&'k TenantSlug]) -> Self {
        let tenants = tenants.iter().map(|slug| slug.as_str()).filter(|slug| slug.len() >= NAMED_CHARS_MIN);
        let mut known = Self { tenants: tenants.collect(), ..Self::default() };
        for tool in tools {
            let alike = known.locals.entry(skeleton(tool.local.as_str())).or_default();
            alike.entry(tool.local.sanitised()).or_insert(tool);
            known.exposed.entry(skeleton(tool.exposed.as_str())).or_default().push(tool);
            for name in [tool.local.as_str(), tool.exposed.as_str()].into_iter().filter(|name| is_name(name)) {
                let owner = known.names.entry(name).or_insert(Owner { local: &tool.local, is_shared: false });
                owner.is_shared |= *owner.local != tool.local;
            }
        }
        known
    }

    /// Up to `max` tools whose names look like those of `tool` and are not the same.
    pub(super) fn alike(&self, tool: &Tool, max: usize) -> Alike<'k> {
        let own = tool.local.sanitised();
        let locals = self.locals.get(&skeleton(tool.local.as_str()));
        let exposed = self.exposed.get(&skeleton(tool.exposed.as_str()));
        let by_local = locals.into_iter().flatten().filter(|(local, _)| **local != own).map(|(_, tool)| *tool);
        let by_exposed = exposed.into_iter().flatten().copied();
        let mut some: Vec<&Tool> = Vec::new();
        // Both may name the same ones, and the tool itself.
        for other in by_local.take(max).chain(by_exposed.take(max + 1)) {
            if !is_same(other, tool) && some.len() < max && !some.iter().any(|known| is_same(known, other)) {
                some.push(other);
            }
        }
        let all = locals.map_or(0, BTreeMap::len).max(exposed.map_or(0, Vec::len));
        Alike { more: all.saturating_sub(some.len() + 1), some }
    }

    /// Whether `word` is the name of another tool than `tool`.
    pub(super) fn is_other_tool(&self, word: &str, tool: &Tool) -> bool {
        self.names.get(word).is_some_and(|owner| owner.is_shared || *owner.local != tool.local)
    }

    /// Whether `word` is another tenant's name.
    pub(super) fn is_other_tenant(&self, word: &str) -> bool {
        self.tenants.contains(word)
    }
}

/// A name of one plain word is a word.
fn is_name(name: &str) -> bool {
    name.contains(['_', '-', '.']) || name.chars().skip(1).any(char::is_uppercase)
}

fn is_same(one: &Tool, other: &Tool) -> bool {
    (one.upstream, &one.local) == (other.upstream, &other.local)
}
