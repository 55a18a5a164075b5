//! Looking for what somebody called who has no such thing, so that the record says whose it is. Nothing is decided by it.

use std::collections::HashMap;
use std::sync::OnceLock;

use tenant_store::{OfferKind, TenantId, UpstreamId};

use super::item::Item;
use super::snapshot::{Shelf, Snapshot};
use super::view::Face;
use crate::policy::EntryFacts;

/// All tenants' tools and prompts by the names under which they are listed together, and tenants by their short names. Made when somebody is
/// refused for the first time: from then on nobody who is refused costs more for there being many tenants.
#[derive(Debug, Default)]
pub(super) struct Names(OnceLock<ByName>);

#[derive(Debug, Default)]
struct ByName {
    /// Whose, and where in the shelf's lists.
    tools: HashMap<Box<str>, (TenantId, usize)>,
    prompts: HashMap<Box<str>, (TenantId, usize)>,
    tenants: HashMap<Box<str>, TenantId>,
}

impl ByName {
    fn of(snapshot: &Snapshot) -> Self {
        let mut names = Self::default();
        for (tenant, shelf) in snapshot.shelves() {
            names.tenants.insert(shelf.tenant_slug().as_str().into(), tenant);
            let tools = shelf.entries().iter().enumerate();
            names.tools.extend(tools.map(|(place, entry)| (entry.exposed().as_str().into(), (tenant, place))));
            let prompts = shelf.items().iter().enumerate().filter(|(_, item)| item.kind == OfferKind::Prompt);
            let prompts = prompts.map(|(place, item)| (item.shown(Face::Aggregate).0.into(), (tenant, place)));
            names.prompts.extend(prompts);
        }
        names
    }
}

impl Shelf {
    fn own_tool(&self, shown: &str) -> Option<EntryFacts<'_>> {
        self.entries().iter().find(|entry| entry.shown(Face::Tenant).0 == shown).map(|entry| entry.facts())
    }

    fn own_prompt(&self, shown: &str) -> Option<EntryFacts<'_>> {
        let is_it = |item: &Item| item.kind == OfferKind::Prompt && item.shown(Face::Tenant).0 == shown;
        self.items().iter().find(|item| is_it(item)).map(|item| item.facts())
    }

    fn tool_at(&self, upstream: UpstreamId, local: &str) -> Option<EntryFacts<'_>> {
        let mut all = self.entries().iter().map(|entry| entry.facts());
        all.find(|facts| facts.upstream == upstream && facts.local == local)
    }

    /// The resource, template or skill of that URI, at that upstream if it is known at which.
    pub fn resource_at(&self, upstream: Option<UpstreamId>, own: &str) -> Option<EntryFacts<'_>> {
        let all = self.items().iter().filter(|item| item.kind != OfferKind::Prompt).map(|item| item.facts());
        let mut at = all.filter(|facts| upstream.is_none_or(|upstream| facts.upstream == upstream));
        at.find(|facts| facts.local == own)
    }
}

impl Snapshot {
    /// The tool of that name at the endpoint of all tenants, or at that tenant's own. Whoever called it may not know that there is one.
    pub fn sought_tool(&self, name: &str, tenant: Option<&str>) -> Option<EntryFacts<'_>> {
        let Some(slug) = tenant else {
            let (tenant, place) = self.by_name().tools.get(name)?;
            return self.shelf_of(*tenant)?.entries().get(*place).map(|entry| entry.facts());
        };
        self.shelf_of(*self.by_name().tenants.get(slug)?)?.own_tool(name)
    }

    /// The same of a prompt.
    pub fn sought_prompt(&self, name: &str, tenant: Option<&str>) -> Option<EntryFacts<'_>> {
        let Some(slug) = tenant else {
            let (tenant, place) = self.by_name().prompts.get(name)?;
            return self.shelf_of(*tenant)?.items().get(*place).map(|item| item.facts());
        };
        self.shelf_of(*self.by_name().tenants.get(slug)?)?.own_prompt(name)
    }

    /// The tool of that name at that upstream of that tenant.
    pub fn sought_tool_at(&self, (tenant, upstream): (TenantId, UpstreamId), local: &str) -> Option<EntryFacts<'_>> {
        self.shelf_of(tenant)?.tool_at(upstream, local)
    }

    fn by_name(&self) -> &ByName {
        self.names().0.get_or_init(|| ByName::of(self))
    }
}
