//! Looking for what somebody called who has no such thing, so that the record says whose it is. Nothing is decided by it.

use std::collections::HashMap;
use std::sync::OnceLock;

use tenant_store::OfferKind;

use super::snapshot::{Entry, Shelf, Snapshot};
use super::view::Face;
use crate::policy::EntryFacts;

/// A tenant's tools and prompts by the names under which all tenants' are listed together. Made
/// when somebody is refused for the first time.
#[derive(Debug, Default)]
pub(super) struct Names(OnceLock<ByName>);

#[derive(Debug, Default)]
struct ByName {
    /// Where in the shelf's lists.
    tools: HashMap<Box<str>, usize>,
    prompts: HashMap<Box<str>, usize>,
}

impl Shelf {
    /// The tool that is listed under that name together with those of others.
    fn tool(&self, exposed: &str) -> Option<EntryFacts<'_>> {
        let place = self.by_name().tools.get(exposed)?;
        self.entries().get(*place).map(|entry| entry.facts())
    }

    fn prompt(&self, exposed: &str) -> Option<EntryFacts<'_>> {
        let place = self.by_name().prompts.get(exposed)?;
        self.items().get(*place).map(|item| item.facts())
    }

    fn own_tool(&self, shown: &str) -> Option<EntryFacts<'_>> {
        self.entries().iter().find(|entry| entry.shown(Face::Tenant).0 == shown).map(|entry| entry.facts())
    }

    fn own_prompt(&self, shown: &str) -> Option<EntryFacts<'_>> {
        let is_it = |kind: OfferKind, name: &str| kind == OfferKind::Prompt && name == shown;
        let mut items = self.items().iter();
        items.find(|item| is_it(item.kind, item.shown(Face::Tenant).0)).map(|item| item.facts())
    }

    fn by_name(&self) -> &ByName {
        let tools = || self.entries().iter().enumerate().map(|(place, entry)| (name(entry), place));
        let prompts = || self.items().iter().enumerate().filter(|(_, item)| item.kind == OfferKind::Prompt);
        self.names().0.get_or_init(|| ByName {
            tools: tools().collect(),
            prompts: prompts().map(|(place, item)| (item.shown(Face::Aggregate).0.into(), place)).collect(),
        })
    }
}

fn name(entry: &Entry) -> Box<str> {
    entry.exposed().as_str().into()
}

impl Snapshot {
    /// The tool of that name at the endpoint of all tenants, or at that tenant's own. Whoever called it may not know that there is one.
    pub fn sought_tool(&self, name: &str, tenant: Option<&str>) -> Option<EntryFacts<'_>> {
        match tenant {
            None => self.shelves().find_map(|(_, shelf)| shelf.tool(name)),
            Some(slug) => self.shelf_of(slug)?.own_tool(name),
        }
    }

    /// The same of a prompt.
    pub fn sought_prompt(&self, name: &str, tenant: Option<&str>) -> Option<EntryFacts<'_>> {
        match tenant {
            None => self.shelves().find_map(|(_, shelf)| shelf.prompt(name)),
            Some(slug) => self.shelf_of(slug)?.own_prompt(name),
        }
    }

    fn shelf_of(&self, slug: &str) -> Option<&Shelf> {
        self.shelves().map(|(_, shelf)| shelf).find(|shelf| shelf.tenant_slug().as_str() == slug)
    }
}
