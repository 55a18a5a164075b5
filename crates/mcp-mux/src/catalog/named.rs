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

    /// The text under the name `exposed`, with `tenant` and the name `local` noted under `_meta`.
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
            Some(meta) => json::insertion_into_object(text, meta.clone(), &notes),
            None => json::insertion_into_object(text, 0..text.len(), &format!("\"_meta\":{{{notes}}}")),
        });
        json::splice(text, edits)
    }
}

fn is_plain_meta(meta: &RawValue) -> bool {
    Members::parse(meta.get())
        .is_ok_and(|members| members.get(META_TENANT).is_none() && members.get(META_LOCAL_NAME).is_none())
}
