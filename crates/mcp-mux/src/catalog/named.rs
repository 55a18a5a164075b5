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

/// The keys under `_meta` that tie a tool to an app (MCP Apps, SEP-1865).
const META_APPS: [&str; 2] = ["ui", "ui/resourceUri"];

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
        let meta =
            self.meta.clone().and_then(|meta| self.raw.get().get(meta)).and_then(|meta| Members::parse(meta).ok());
        let ui = meta.and_then(|meta| meta.get("ui")).and_then(|ui| Members::parse(ui.get()).ok());
        let visibility = ui.and_then(|ui| ui.get("visibility"));
        let visibility = visibility.and_then(|raw| serde_json::from_str::<Vec<String>>(raw.get()).ok());
        visibility.is_some_and(|visibility| !visibility.iter().any(|who| who == "model"))
    }

    /// The text under the name `exposed`, with `tenant` and the name `local` noted under `_meta`, and without what ties it to an app: an
    /// app may call the tools of its server, and where all tenants' are listed together, all of them would be of one server.
    pub(super) fn renamed(&self, exposed: &str, (tenant, local): (&str, &str)) -> String {
        let text = self.raw.get();
        let notes = format!(
            "{}:{},{}:{}",
            json::quote(META_TENANT),
            json::quote(tenant),
            json::quote(META_LOCAL_NAME),
            json::quote(local)
        );
        let mut edits = vec![(self.name.clone(), json::quote(exposed))];
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
}

fn is_plain_meta(meta: &RawValue) -> bool {
    Members::parse(meta.get())
        .is_ok_and(|members| members.get(META_TENANT).is_none() && members.get(META_LOCAL_NAME).is_none())
}
