//! What a caller asks of an upstream, and where that leads: one decision for every kind of thing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tenant_store::{
    LocalName, SealedCredential, TenantId, TenantSlug, TenantStore, ToolClass, Upstream, UpstreamId, UpstreamSlug,
};

use super::tasks::{Task, TaskAct};
use super::{Mux, Sight};
use crate::audit::Shown;
use crate::caller::Caller;
use crate::catalog::{Carried, Entry, Face, Item, Shelf, Unlisted, View, carry, is_ours, is_page};
use crate::json;
use crate::policy::{Access, Action, Decision, EntryFacts, Reason, decide};
use crate::upstream::Proofs;

/// What a caller asks, by the names under which the caller knows things.
#[derive(Debug)]
pub enum Wish<'r> {
    /// `tools/call`
    Tool {
        /// The tool.
        name: Cow<'r, str>,
        /// The arguments, passed on byte for byte.
        arguments: Option<&'r RawValue>,
        /// What the client repeated of the arguments as `Mcp-Param-…` headers, by lower-case name and decoded; `None` where its era
        /// has no such headers.
        param_headers: Option<BTreeMap<String, String>>,
    },
    /// `prompts/get`
    Prompt {
        /// The prompt.
        name: Cow<'r, str>,
        /// The arguments, passed on byte for byte.
        arguments: Option<&'r RawValue>,
    },
    /// `resources/read`
    Resource {
        /// The resource.
        uri: Cow<'r, str>,
    },
    /// `skills/get`
    Skill {
        /// Its `SKILL.md`.
        uri: Cow<'r, str>,
    },
    /// `completion/complete`
    Completion {
        /// For what.
        of: Thing,
        /// The argument, passed on byte for byte.
        argument: &'r RawValue,
        /// What was completed before, passed on byte for byte.
        context: Option<&'r RawValue>,
    },
    /// `tasks/…`
    Task {
        /// What is done.
        act: TaskAct,
        /// The task, which is its caller's.
        task: Task,
        /// What the client answers to what the task asks for, passed on byte for byte.
        responses: Option<&'r RawValue>,
    },
}

/// A thing that policy decides about, by the name under which a caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A tool.
    Tool(String),
    /// A prompt.
    Prompt(String),
    /// A resource, or a template of resources.
    Resource(String),
    /// A skill.
    Skill(String),
    /// The tool of that name at an upstream, which began a task.
    Begun(TenantId, UpstreamId, LocalName),
}

/// Where a wish leads.
#[derive(Debug)]
pub(super) struct Target<'s> {
    pub(super) access: &'s Access,
    pub(super) shelf: &'s Shelf,
    pub(super) upstream: &'s Arc<Upstream>,
    /// What it is known by at the upstream.
    pub(super) local: String,
    /// The tool, if it is one.
    pub(super) tool: Option<&'s Arc<Entry>>,
    /// What the upstream is shown, once it is.
    pub(super) shown: Shown,
}

/// What a tenant has stored for one of its upstreams.
pub(super) struct Stored<'s> {
    rows: TenantStore,
    credentials: Vec<&'s SealedCredential>,
    shown: Shown,
}

impl Thing {
    /// The name or address by which its caller knows it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) | Self::Skill(name) => name,
            Self::Begun(_, _, local) => local.as_str(),
        }
    }

    /// The word for what it is.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tool(_) => "tool",
            Self::Prompt(_) => "prompt",
            Self::Resource(_) | Self::Skill(_) => "resource",
            Self::Begun(..) => "task",
        }
    }
}

impl Wish<'_> {
    /// What policy decides about: of a task, it is the tool that began it.
    pub fn thing(&self) -> Thing {
        match self {
            Self::Tool { name, .. } => Thing::Tool(name.to_string()),
            Self::Prompt { name, .. } => Thing::Prompt(name.to_string()),
            Self::Resource { uri } => Thing::Resource(uri.to_string()),
            Self::Skill { uri } => Thing::Skill(uri.to_string()),
            Self::Completion { of, .. } => of.clone(),
            Self::Task { task, .. } => {
                let (tenant, upstream, tool) = task.begun_by();
                Thing::Begun(tenant, upstream, tool.clone())
            }
        }
    }

    /// `"key":value,…` of the request to the upstream, where the thing is known as `local`.
    pub(super) fn params(&self, local: &str) -> String {
        let local = json::quote(local);
        match self {
            Self::Tool { arguments, .. } | Self::Prompt { arguments, .. } => {
                let arguments = arguments.map(|raw| format!(",\"arguments\":{}", raw.get())).unwrap_or_default();
                format!("\"name\":{local}{arguments}")
            }
            Self::Resource { .. } | Self::Skill { .. } => format!("\"uri\":{local}"),
            Self::Completion { of, argument, context } => {
                let (kind, key) = match of {
                    Thing::Resource(_) => ("ref/resource", "uri"),
                    _ => ("ref/prompt", "name"),
                };
                let context = context.map(|raw| format!(",\"context\":{}", raw.get())).unwrap_or_default();
                let argument = argument.get();
                format!("\"ref\":{{\"type\":\"{kind}\",\"{key}\":{local}}},\"argument\":{argument}{context}")
            }
            Self::Task { responses, .. } => {
                let responses = responses.map(|raw| format!(",\"inputResponses\":{}", raw.get())).unwrap_or_default();
                format!("\"taskId\":{local}{responses}")
            }
        }
    }

    /// Whether `Mcp-Name` repeats what it is about.
    pub(super) fn is_named(&self) -> bool {
        !matches!(self, Self::Completion { .. } | Self::Skill { .. })
    }

    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tools/call",
            Self::Prompt { .. } => "prompts/get",
            Self::Resource { .. } => "resources/read",
            Self::Skill { .. } => "skills/get",
            Self::Completion { .. } => "completion/complete",
            Self::Task { act, .. } => act.method(),
        }
    }
}

impl Sight {
    /// As what a use of `thing`, which leads to `target`, is counted: what a caller may call as it likes is counted together.
    pub(super) fn counted_as<'t>(&self, thing: &'t Thing, target: &'t Target<'_>) -> &'t str {
        match thing {
            Thing::Resource(uri) | Thing::Skill(uri) if !self.is_listed(uri) => "",
            Thing::Begun(_, _, tool) => tool.as_str(),
            _ => &target.local,
        }
    }

    /// Where a wish about `thing` leads.
    pub(super) fn target_of(&self, wish: &Wish<'_>, thing: &Thing) -> Option<Target<'_>> {
        let target = self.target(thing)?;
        match wish {
            Wish::Task { task, .. } => task.at(&target),
            _ => Some(target),
        }
    }

    /// Where `thing` leads, if it may be used. The view was made by the same decision; deciding again, for this very action, keeps a
    /// mistake in building or caching views from ever becoming a call.
    pub(super) fn target(&self, thing: &Thing) -> Option<Target<'_>> {
        match thing {
            Thing::Tool(name) => {
                let entry = self.view.tools.get(name)?;
                let local = entry.local().to_string();
                let target = self.at(entry.tenant, &entry.upstream, local)?;
                let is_allowed = decide(&self.reach, Action::Call, &entry.facts()).is_allowed();
                is_allowed.then_some(Target { tool: Some(entry), ..target })
            }
            Thing::Prompt(name) => {
                let prompt = self.view.prompts.get(name)?;
                let is_allowed = decide(&self.reach, Action::Call, &prompt.facts()).is_allowed();
                self.at(prompt.tenant, &prompt.upstream, prompt.key.to_string()).filter(|_| is_allowed)
            }
            Thing::Resource(uri) => self.resource(uri),
            Thing::Skill(uri) => self.skill(uri),
            Thing::Begun(tenant, upstream, local) => {
                let is_it =
                    |entry: &Entry| (entry.tenant, entry.upstream.id, entry.local()) == (*tenant, *upstream, local);
                let entry = self.view.tools.iter().find(|entry| is_it(entry))?;
                let is_allowed = decide(&self.reach, Action::Call, &entry.facts()).is_allowed();
                self.at(entry.tenant, &entry.upstream, entry.local().to_string()).filter(|_| is_allowed)
            }
        }
    }

    fn at<'s>(&'s self, tenant: TenantId, upstream: &'s Arc<Upstream>, local: String) -> Option<Target<'s>> {
        let access = self.reach.access(tenant)?;
        Some(Target {
            access,
            shelf: self.snapshot.shelf(access)?,
            upstream,
            local,
            tool: None,
            shown: Shown::default(),
        })
    }

    /// Tools may link to resources that no list has, so what is not listed may be read too, where policy would let one of that URI be
    /// listed, and where the URI means what it says. What is listed is taken to the letter.
    fn resource(&self, uri: &str) -> Option<Target<'_>> {
        let View { resources, templates, skills, .. } = &*self.view;
        match resources.get(uri).or_else(|| templates.get(uri)).or_else(|| skills.get(uri)) {
            Some(item) => self.listed(item),
            None => self.not_listed(uri),
        }
    }

    /// The same of skills, which may be served without being listed, too. What is a resource of one upstream is no skill of it.
    fn skill(&self, uri: &str) -> Option<Target<'_>> {
        match self.view.skills.get(uri) {
            Some(item) => self.listed(item),
            None => self.not_listed(uri),
        }
    }

    fn listed<'s>(&'s self, item: &'s Item) -> Option<Target<'s>> {
        let target = self.at(item.tenant, &item.upstream, item.key.to_string())?;
        self.decision(&target, &target.local).is_allowed().then_some(target)
    }

    fn not_listed(&self, uri: &str) -> Option<Target<'_>> {
        let target = self.unlisted(uri)?;
        let unlisted = Unlisted::parse(&target.local)?;
        let is_allowed = |local: &String| self.decision(&target, local).is_allowed();
        let is_denied = |local: &String| {
            let refuses = |reason: &Reason| matches!(reason, Reason::Denied { .. } | Reason::Revoked { .. });
            self.decision(&target, local).reasons.iter().any(refuses)
        };
        let is_printed_right = unlisted.printed.is_empty() || unlisted.printed.iter().any(is_allowed);
        let is_refused = !is_allowed(&target.local)
            || !is_printed_right
            || unlisted.readings.iter().chain(&unlisted.printed).any(is_denied);
        (!is_refused).then_some(target)
    }

    /// What policy says of a resource of the target's upstream. The same names as in a list, whichever of them the caller used: what
    /// denies one of them denies the resource.
    pub(super) fn decision(&self, target: &Target<'_>, local: &str) -> Decision {
        let exposed = carry(target.access.tenant_slug(), &target.upstream.slug, local);
        let facts = EntryFacts {
            tenant: target.upstream.tenant,
            upstream: target.upstream.id,
            upstream_slug: &target.upstream.slug,
            local,
            exposed: &exposed,
            class: ToolClass::Read,
            enabled: target.upstream.spec.enabled,
            approved: true,
            revoked: target.shelf.has_revoked(target.upstream.id, local),
        };
        decide(&self.reach, Action::Call, &facts)
    }

    fn unlisted(&self, uri: &str) -> Option<Target<'_>> {
        if let Some(Carried { tenant, upstream, own }) = Carried::parse(uri) {
            let access = self.reach.accesses().iter().find(|access| access.tenant_slug().as_str() == tenant)?;
            let shelf = self.snapshot.shelf(access)?;
            let upstream = shelf.upstreams().find(|known| known.slug.as_str() == upstream)?;
            // Apps work at their tenant's own endpoint only.
            let is_here = self.face == Face::Tenant || !is_page(own);
            let (local, shown) = (own.to_owned(), Shown::default());
            return is_here.then_some(Target { access, shelf, upstream, local, tool: None, shown });
        }
        // On a tenant's own endpoint an upstream's own URI says enough where there is only one that it can be of.
        let [access] = self.reach.accesses() else { return None };
        if self.face == Face::Aggregate || is_ours(uri) {
            return None;
        }
        let shelf = self.snapshot.shelf(access)?;
        let (upstream, local, shown) = (shelf.only_with_resources()?, uri.to_owned(), Shown::default());
        Some(Target { access, shelf, upstream, local, tool: None, shown })
    }
}

impl<'s> Target<'s> {
    /// What its tenant has stored to prove callers with.
    pub(super) fn stored(&self, mux: &Mux) -> Stored<'s> {
        let credentials = self.shelf.credentials(self.upstream.id);
        Stored { rows: mux.store.tenant(self.access.scope()), credentials, shown: self.shown.clone() }
    }
}

impl Stored<'_> {
    /// With who calls.
    pub(super) fn proofs<'p>(&'p self, caller: &'p Caller) -> Proofs<'p> {
        Proofs { caller: Some(caller), rows: &self.rows, stored: &self.credentials, shown: Some(&self.shown) }
    }
}

impl Target<'_> {
    /// Where it is in fact.
    pub(super) fn place(&self) -> (TenantId, UpstreamId) {
        (self.upstream.tenant, self.upstream.id)
    }

    pub(super) fn slugs(&self) -> (TenantSlug, UpstreamSlug) {
        (self.access.tenant_slug().clone(), self.upstream.slug.clone())
    }
}
