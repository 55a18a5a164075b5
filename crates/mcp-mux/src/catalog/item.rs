//! A prompt, a resource or a template as it stands in the catalog.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use tenant_store::{Offer, OfferKey, OfferKind, Tenant, TenantId, TenantSlug, ToolClass, Upstream, UpstreamId};

use super::definition::DefinitionError;
use super::named::Named;
use super::uri;
use super::view::Face;
use crate::policy::EntryFacts;

const APP_SCHEME: &str = "ui:";

/// One prompt, resource or template.
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
    keeps_own_key: bool,
}

/// Which of a tenant's prompts and resources are known by one upstream only.
#[derive(Debug, Default)]
pub(super) struct Own {
    once: HashSet<(OfferKind, OfferKey)>,
    /// The only upstream with resources, if there is one.
    pub(super) only: Option<UpstreamId>,
}

/// Takes one element of an upstream's list of `kind`.
pub(super) fn parse(kind: OfferKind, raw: &RawValue) -> Result<(Named, OfferKey), DefinitionError> {
    let key = match kind {
        OfferKind::Prompt => "name",
        OfferKind::Resource => "uri",
        OfferKind::Template => "uriTemplate",
    };
    let (named, _, name) = Named::parse(raw, key)?;
    let name = name.parse().map_err(|_| DefinitionError::Name)?;
    Ok((named, name))
}

impl Item {
    pub(super) fn from_row(tenant: &Tenant, upstream: &Arc<Upstream>, offer: &Offer, own: &Own) -> Option<Self> {
        let (named, key) = parse(offer.kind, &offer.definition).ok().filter(|(_, key)| *key == offer.key)?;
        let exposed = match offer.kind {
            OfferKind::Prompt => offer.exposed.as_ref()?.to_string(),
            OfferKind::Resource | OfferKind::Template => uri::carry(&tenant.slug, &upstream.slug, key.as_str()),
        };
        let keeps_own_key = !uri::is_ours(key.as_str()) && own.once.contains(&(offer.kind, key.clone()));
        Some(Self {
            kind: offer.kind,
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            upstream: Arc::clone(upstream),
            own: named.raw().get().into(),
            renamed: named.renamed(&exposed, (tenant.slug.as_str(), key.as_str())).into(),
            exposed: exposed.into(),
            keeps_own_key,
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
        }
    }

    /// Whether `face` shows it to anybody: the pages of apps belong to their tenant's own endpoint.
    pub(super) fn is_on(&self, face: Face) -> bool {
        face == Face::Tenant || self.kind == OfferKind::Prompt || !is_page(self.key.as_str())
    }

    /// The key and the definition that are shown on `face`.
    pub(super) fn shown(&self, face: Face) -> (&str, &str) {
        match face {
            Face::Tenant if self.keeps_own_key => (self.key.as_str(), &self.own),
            Face::Tenant | Face::Aggregate => (&self.exposed, &self.renamed),
        }
    }
}

/// Whether a URI is that of an app's page (MCP Apps, SEP-1865).
fn is_page(uri: &str) -> bool {
    uri.get(..APP_SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(APP_SCHEME))
}

impl Own {
    pub(super) fn of(offers: &[Offer]) -> Self {
        let mut upstreams: HashMap<(OfferKind, &OfferKey), usize> = HashMap::new();
        let mut with_resources = HashSet::new();
        for offer in offers {
            *upstreams.entry((offer.kind, &offer.key)).or_default() += 1;
            if offer.kind != OfferKind::Prompt {
                with_resources.insert(offer.upstream);
            }
        }
        let once = upstreams.into_iter().filter(|(_, count)| *count == 1);
        let mut only = with_resources.into_iter();
        let only = only.next().filter(|_| only.next().is_none());
        Self { once: once.map(|((kind, key), _)| (kind, key.clone())).collect(), only }
    }
}
