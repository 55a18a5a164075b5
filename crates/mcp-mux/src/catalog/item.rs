//! A prompt, a resource, a template or a skill as it stands in the catalog.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::value::RawValue;
use tenant_store::{
    ExposedName, Offer, OfferKey, OfferKind, Tenant, TenantId, TenantSlug, ToolClass, Upstream, UpstreamId,
};

use super::definition::DefinitionError;
use super::named::Named;
use super::shown::shown;
use super::snapshot::RevokedThings;
use super::uri;
use super::view::Face;
use crate::json::{self, Members};
use crate::policy::EntryFacts;

const APP_SCHEME: &str = "ui:";

/// What the URI of a skill ends with (SEP-2640).
const SKILL_FILE: &str = "/SKILL.md";
/// Most files of one skill: what every host must take, and no server should go beyond.
const FILES_MAX: usize = 512;
/// Longest URI of a file, in bytes.
const FILE_URI_BYTES_MAX: usize = 2048;

/// One prompt, resource, template or skill.
#[derive(Debug)]
pub struct Item {
    /// What it is.
    pub kind: OfferKind,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The tenant's short name.
    pub tenant_slug: TenantSlug,
    /// The upstream that offers it.
    pub upstream: Arc<Upstream>,
    /// What it is known by there.
    pub key: OfferKey,
    exposed: Box<str>,
    own: Box<str>,
    renamed: Box<str>,
    /// What the tenant's own endpoint shows in place of the two, because it belongs to an app.
    at_tenant: Option<Box<str>>,
    keeps_own_key: bool,
    revoked: bool,
}

/// Which of a tenant's prompts and resources are known by one upstream only.
#[derive(Debug, Default)]
pub(super) struct Own {
    owners: HashMap<OfferKind, HashMap<OfferKey, UpstreamId>>,
    /// The only upstream with resources, if there is one.
    pub(super) only: Option<UpstreamId>,
}

/// Takes one element of an upstream's list of `kind`.
pub(super) fn parse(kind: OfferKind, raw: &RawValue) -> Result<(Named, OfferKey), DefinitionError> {
    let (named, _, name) = Named::parse(raw, known_by(kind))?;
    if kind == OfferKind::Skill {
        files(named.raw(), &name).ok_or(DefinitionError::Files)?;
    }
    Ok((named, name.parse().map_err(|_| DefinitionError::Name)?))
}

/// The member that holds what an entry of `kind` is known by.
fn known_by(kind: OfferKind) -> &'static str {
    match kind {
        OfferKind::Prompt => "name",
        OfferKind::Resource | OfferKind::Skill => "uri",
        OfferKind::Template => "uriTemplate",
    }
}

impl Item {
    pub(super) fn from_row(
        tenant: &Tenant,
        upstream: &Arc<Upstream>,
        offer: &Offer,
        (own, revoked): (&Own, &RevokedThings),
    ) -> Option<Self> {
        let definition = shown(&offer.definition, known_by(offer.kind))?;
        let (named, key) = parse(offer.kind, &definition).ok().filter(|(_, key)| *key == offer.key)?;
        let carried = |own: &str| uri::carry(&tenant.slug, &upstream.slug, own);
        let exposed = match offer.kind {
            OfferKind::Prompt => offer.exposed.as_ref()?.to_string(),
            OfferKind::Resource | OfferKind::Template | OfferKind::Skill => carried(key.as_str()),
        };
        let own_files = if offer.kind == OfferKind::Skill { files(named.raw(), key.as_str())? } else { Vec::new() };
        let keeps_own_key = match offer.kind {
            // Its files keep their URIs with it, whether they are listed or not.
            OfferKind::Skill => own.says_enough(upstream.id, key.as_str()),
            kind => own.owns(upstream.id, kind, key.as_str()),
        };
        let files = own_files.into_iter().map(|(span, uri)| (span, json::quote(&carried(&uri)))).collect();
        let name = (!keeps_own_key).then_some((exposed.as_str(), (tenant.slug.as_str(), key.as_str())));
        // Skills have no apps.
        let is_skill = offer.kind == OfferKind::Skill;
        let at_tenant = (!is_skill)
            .then_some(&named)
            .and_then(|named| named.with_apps(name, |page| own.carried(tenant, upstream, page)));
        Some(Self {
            kind: offer.kind,
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            upstream: Arc::clone(upstream),
            own: named.raw().get().into(),
            renamed: named.renamed(&exposed, (tenant.slug.as_str(), key.as_str()), files).into(),
            at_tenant: at_tenant.map(Into::into),
            exposed: exposed.into(),
            keeps_own_key,
            revoked: revoked.has(upstream.id, key.as_str()),
            key,
        })
    }

    /// What policy needs to know about it. To read and to be advised is all that can be done with it.
    pub fn facts(&self) -> EntryFacts<'_> {
        EntryFacts {
            tenant: self.tenant,
            upstream: self.upstream.id,
            upstream_slug: &self.upstream.slug,
            local: self.key.as_str(),
            exposed: &self.exposed,
            class: ToolClass::Read,
            enabled: self.upstream.spec.enabled,
            approved: true,
            revoked: self.revoked,
        }
    }

    /// Whether `face` shows it to anybody: skills and the pages of apps belong to their tenant's own endpoint.
    pub(super) fn is_on(&self, face: Face) -> bool {
        face == Face::Tenant
            || match self.kind {
                OfferKind::Prompt => true,
                OfferKind::Resource | OfferKind::Template => !is_page(self.key.as_str()),
                OfferKind::Skill => false,
            }
    }

    /// The key and the definition that are shown on `face`.
    pub(super) fn shown(&self, face: Face) -> (&str, &str) {
        match face {
            Face::Tenant if self.keeps_own_key => (self.key.as_str(), self.at_tenant.as_ref().unwrap_or(&self.own)),
            Face::Tenant => (&self.exposed, self.at_tenant.as_ref().unwrap_or(&self.renamed)),
            Face::Aggregate => (&self.exposed, &self.renamed),
        }
    }
}

/// Whether a URI is that of an app's page (MCP Apps, SEP-1865).
pub fn is_page(uri: &str) -> bool {
    uri.get(..APP_SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(APP_SCHEME))
}

/// Where the URIs of a skill's files stand in its entry, and what they are; `resources` says `"dynamic"` where nobody knows them. None, if
/// the entry is not one that a host may load (SEP-2640): each file lies in the folder of `uri`, the skill's own, and has digest and size.
pub fn files(entry: &RawValue, uri: &str) -> Option<Vec<(Range<usize>, String)>> {
    let folder = uri.strip_suffix(SKILL_FILE).filter(|folder| !folder.is_empty() && !uri::is_ours(folder))?;
    let resources = Members::parse(entry.get()).ok()?.get("resources")?;
    if json::as_str(resources).is_some_and(|word| word == "dynamic") {
        return Some(Vec::new());
    }
    let files: Vec<&RawValue> = serde_json::from_str(resources.get()).ok()?;
    let file = |file: &RawValue| {
        let members = Members::parse(file.get()).ok()?;
        let raw = members.get("uri")?;
        let uri = json::as_str(raw).filter(|uri| uri.len() <= FILE_URI_BYTES_MAX)?;
        let path = uri.strip_prefix(folder)?.strip_prefix('/')?;
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return None;
        }
        let has_digest = members.get_str("digest").is_some_and(|digest| digest.starts_with("sha256:"));
        let has_size = members.get("size").is_some_and(|size| size.get().parse::<u64>().is_ok());
        (has_digest && has_size).then_some((json::span_in(entry.get(), raw.get())?, uri.into_owned()))
    };
    let files = Some(files).filter(|files| files.len() <= FILES_MAX)?;
    files.into_iter().map(file).collect()
}

impl Own {
    /// Counts what enabled upstreams offer, under each name that a tenant's endpoint may show it by.
    pub(super) fn of(offers: &[Offer], is_enabled: impl Fn(UpstreamId) -> bool) -> Self {
        let offers: Vec<&Offer> = offers.iter().filter(|offer| is_enabled(offer.upstream)).collect();
        let mut counts: HashMap<(OfferKind, &str), usize> = HashMap::new();
        for offer in &offers {
            let exposed = offer.exposed.as_ref().map(ExposedName::as_str);
            for name in exposed.into_iter().chain([offer.key.as_str()]) {
                *counts.entry((offer.kind, name)).or_default() += 1;
            }
        }
        let mut owners: HashMap<OfferKind, HashMap<OfferKey, UpstreamId>> = HashMap::new();
        for offer in offers.iter().filter(|offer| counts.get(&(offer.kind, offer.key.as_str())) == Some(&1)) {
            owners.entry(offer.kind).or_default().insert(offer.key.clone(), offer.upstream);
        }
        let with_resources = offers.iter().filter(|offer| offer.kind != OfferKind::Prompt).map(|offer| offer.upstream);
        let mut with_resources = with_resources.collect::<HashSet<_>>().into_iter();
        let only = with_resources.next().filter(|_| with_resources.next().is_none());
        Self { owners, only }
    }

    /// The URI by which the tenant's own endpoint knows a page of an app of `upstream`, where that is not its own.
    pub(super) fn carried(&self, tenant: &Tenant, upstream: &Upstream, page: &str) -> Option<String> {
        let leads_there = self.says_enough(upstream.id, page) || self.owns(upstream.id, OfferKind::Resource, page);
        (!leads_there).then(|| uri::carry(&tenant.slug, &upstream.slug, page))
    }

    /// Whether the upstream is the only one with resources, and the URI its own.
    fn says_enough(&self, upstream: UpstreamId, uri: &str) -> bool {
        self.only == Some(upstream) && !uri::is_ours(uri)
    }

    /// Whether the upstream is the only one with that key, and the key its own.
    fn owns(&self, upstream: UpstreamId, kind: OfferKind, key: &str) -> bool {
        let owner = self.owners.get(&kind).and_then(|owners| owners.get(key));
        owner == Some(&upstream) && !uri::is_ours(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skill(uri: &str, resources: &str) -> Result<(Named, OfferKey), DefinitionError> {
        let entry = format!(r#"{{"uri":"{uri}","frontmatter":{{}},"resources":{resources}}}"#);
        parse(OfferKind::Skill, &RawValue::from_string(entry).unwrap())
    }

    fn file(uri: &str) -> String {
        format!(r#"{{"uri":"{uri}","digest":"sha256:00","size":1}}"#)
    }

    #[test]
    fn a_skill_says_which_files_it_has_or_that_nobody_knows() {
        let uri = "skill://a/SKILL.md";
        let files = format!("[{},{}]", file(uri), file("skill://a/b/c.md"));
        for resources in [r#""dynamic""#, &files, "[]"] {
            assert_eq!(skill(uri, resources).unwrap().1.as_str(), uri, "{resources}");
        }
        let outside = format!("[{}]", file("skill://b/SKILL.md"));
        let ours = format!("[{}]", file("mcp-mux://globex/desk/skill://a/SKILL.md"));
        let climbing = format!("[{}]", file("skill://a/../b/c.md"));
        let beside = format!("[{}]", file("skill://ab/c.md"));
        let many = format!("[{}]", vec![file(uri); FILES_MAX + 1].join(","));
        let twice = r#"[{"uri":"skill://a/a","uri":"skill://a/b","digest":"sha256:00","size":1}]"#;
        let bare = r#"[{"uri":"skill://a/SKILL.md"}]"#;
        for resources in [
            r#""static""#,
            "null",
            "{}",
            r#"["skill://a/SKILL.md"]"#,
            twice,
            bare,
            &outside,
            &ours,
            &climbing,
            &beside,
            &many,
        ] {
            assert!(matches!(skill(uri, resources), Err(DefinitionError::Files)), "{resources}");
        }
        for uri in
            ["skill://a/README.md", "SKILL.md", "/SKILL.md", "skill://aSKILL.md", "mcp-mux://globex/desk/SKILL.md"]
        {
            assert!(matches!(skill(uri, "[]"), Err(DefinitionError::Files)), "{uri}");
        }
    }
}
