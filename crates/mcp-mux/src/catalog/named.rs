//! A definition as its upstream wrote it, and the same text under another name.
//!
//! Nothing is decoded and encoded again: a new name is spliced into the upstream's own bytes, so that unknown fields, the
//! order of keys, numbers of any size and even white space arrive unchanged.

use std::ops::Range;

use serde_json::value::RawValue;

use super::definition::DefinitionError;
use crate::json::{self, Members};
use crate::upstream::DEFINITION_BYTES_MAX;

/// The key under `_meta` that holds the name at the upstream.
pub(super) const META_LOCAL_NAME: &str = "mcp-mux/localName";
/// The key under `_meta` that holds the tenant's slug.
pub(super) const META_TENANT: &str = "mcp-mux/tenant";

/// The keys under `_meta` that tie a tool to an app (MCP Apps, SEP-1865); the second one is of its drafts.
const META_APPS: [&str; 2] = [META_APP, META_PAGE_FLAT];
const META_APP: &str = "ui";
/// The URI of the app's page.
const META_PAGE: &str = "resourceUri";
const META_PAGE_FLAT: &str = "ui/resourceUri";

/// One definition, and where its name and its `_meta` are.
#[derive(Debug, Clone)]
pub(super) struct Named {
    raw: Box<RawValue>,
    name: Range<usize>,
    meta: Option<Range<usize>>,
}

impl Named {
    /// Takes one element of an upstream's list, in which `key` holds the name; answers its members and the name too.
    pub(super) fn parse<'t>(raw: &'t RawValue, key: &str) -> Result<(Self, Members<'t>, String), DefinitionError> {
        let text = raw.get();
        if text.len() > DEFINITION_BYTES_MAX || json::is_too_deep(text.as_bytes()) {
            return Err(DefinitionError::TooLarge);
        }
        let members = Members::parse(text).map_err(|_| DefinitionError::NotAnObject)?;
        let name = members.get(key).ok_or(DefinitionError::Name)?;
        let read = serde_json::from_str::<String>(name.get()).map_err(|_| DefinitionError::Name)?;
        let meta = members.get("_meta");
        if meta.is_some_and(|meta| !is_plain_meta(meta)) {
            return Err(DefinitionError::Meta);
        }
        let named = Self {
            name: json::span_in(text, name.get()).ok_or(DefinitionError::Name)?,
            meta: meta.and_then(|meta| json::span_in(text, meta.get())),
            raw: raw.to_owned(),
        };
        Ok((named, members, read))
    }

    /// The upstream's own text.
    pub(super) fn raw(&self) -> &RawValue {
        &self.raw
    }

    /// Whether it is there for apps alone, and not for models (`_meta.ui.visibility`).
    pub(super) fn is_for_apps_only(&self) -> bool {
        let visibility = self.meta().and_then(|meta| ui(&meta)).and_then(|ui| ui.get("visibility"));
        let visibility = visibility.and_then(|raw| serde_json::from_str::<Vec<String>>(raw.get()).ok());
        visibility.is_some_and(|visibility| !visibility.iter().any(|who| who == "model"))
    }

    /// The text under the name `exposed`, with `tenant` and the name `local` noted under `_meta`, and without what ties it to an app: an
    /// app may call the tools of its server, and where all tenants' are listed together, all of them would be of one server. `edits` are
    /// made besides.
    pub(super) fn renamed(
        &self,
        exposed: &str,
        (tenant, local): (&str, &str),
        mut edits: Vec<(Range<usize>, String)>,
    ) -> String {
        let text = self.raw.get();
        let notes = notes(tenant, local);
        edits.push((self.name.clone(), json::quote(exposed)));
        edits.push(match &self.meta {
            Some(meta) => {
                let kept = json::without(text.get(meta.clone()).unwrap_or("{}"), &META_APPS);
                let noted = json::splice(&kept, vec![json::insertion_into_object(&kept, 0..kept.len(), &notes)]);
                (meta.clone(), noted)
            }
            None => json::insertion_into_object(text, 0..text.len(), &format!("\"_meta\":{{{notes}}}")),
        });
        json::splice(text, edits)
    }

    /// The text with what ties it to an app, whose page is known as `page` says where that is not the upstream's own URI. Under
    /// another name too, if there is one. None, if nothing ties it to an app or nothing is to be changed.
    pub(super) fn with_apps(
        &self,
        name: Option<(&str, (&str, &str))>,
        page: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let (text, meta) = (self.raw.get(), self.meta()?);
        if META_APPS.iter().all(|key| meta.get(key).is_none()) {
            return None;
        }
        let pages = [ui(&meta).and_then(|ui| ui.get(META_PAGE)), meta.get(META_PAGE_FLAT)];
        let edit =
            |raw: &RawValue| Some((json::span_in(text, raw.get())?, json::quote(&page(json::as_str(raw)?.as_ref())?)));
        let mut edits: Vec<_> = pages.into_iter().flatten().filter_map(edit).collect();
        if let Some((exposed, (tenant, local))) = name {
            edits.push((self.name.clone(), json::quote(exposed)));
            edits.push(json::insertion_into_object(text, self.meta.clone()?, &notes(tenant, local)));
        }
        (!edits.is_empty()).then(|| json::splice(text, edits))
    }

    fn meta(&self) -> Option<Members<'_>> {
        Members::parse(self.raw.get().get(self.meta.clone()?)?).ok()
    }
}

/// What is noted under `_meta` of what has another name than at its upstream.
fn notes(tenant: &str, local: &str) -> String {
    let (tenant, local) = (json::quote(tenant), json::quote(local));
    format!("{}:{tenant},{}:{local}", json::quote(META_TENANT), json::quote(META_LOCAL_NAME))
}

fn ui<'t>(meta: &Members<'t>) -> Option<Members<'t>> {
    Members::parse(meta.get(META_APP)?.get()).ok()
}

/// Whether it holds no key of ours, and only one reading of what ties it to an app.
fn is_plain_meta(meta: &RawValue) -> bool {
    Members::parse(meta.get()).is_ok_and(|members| {
        let is_clear = members.get(META_APP).is_none_or(|ui| !json::is_object(ui) || Members::parse(ui.get()).is_ok());
        is_clear && members.get(META_TENANT).is_none() && members.get(META_LOCAL_NAME).is_none()
    })
}
