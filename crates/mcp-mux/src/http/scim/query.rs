//! What stands behind the `?`: which resources are wanted, and what of them.

use std::collections::HashMap;

use axum::http::Uri;
use serde_json::{Map, Value};
use tenant_store::Slice;

use super::answer::Refused;
use super::filter::{self, Equals};

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// How many resources are answered, if nobody says how many.
const PAGE_ITEMS_UNSAID: u64 = 100;
/// How many are answered at most.
pub(super) const PAGE_ITEMS_MAX: u64 = 200;
/// What is always answered (RFC 7643 §3.1).
const ALWAYS: [&str; 2] = ["schemas", "id"];

/// A query, each of whose fields comes once.
#[derive(Debug, Default)]
pub(super) struct Query(HashMap<String, String>);

/// What of a resource is answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// These alone, if that is said.
    only: Option<Vec<String>>,
    /// Not these.
    without: Vec<String>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refused> {
        let text = uri.query().unwrap_or_default();
        if text.len() > QUERY_BYTES_MAX {
            return Err(Refused::value("the query is too long"));
        }
        let mut fields = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refused::value("the query has a parameter twice"));
            }
        }
        Ok(Self(fields))
    }

    /// Which resources are wanted, and the number of the first of them, from 1.
    pub(super) fn slice(&self) -> Result<(u64, Slice), Refused> {
        let number = |name: &str| match self.0.get(name) {
            // Too large a number is one all the same.
            Some(text) => match text.parse::<i64>() {
                Ok(number) => Ok(Some(u64::try_from(number).unwrap_or(0))),
                Err(_) => Err(Refused::value(format!("`{name}` is no number"))),
            },
            None => Ok(None),
        };
        let start = number("startIndex")?.unwrap_or(1).max(1);
        let count = number("count")?.unwrap_or(PAGE_ITEMS_UNSAID).min(PAGE_ITEMS_MAX);
        Ok((start, Slice { skip: start - 1, count }))
    }

    /// What the resources must be.
    pub(super) fn filter(&self) -> Result<Vec<Equals>, Refused> {
        let Some(text) = self.0.get("filter") else { return Ok(Vec::new()) };
        let supported = "supported are `ATTRIBUTE eq VALUE` and several of those joined by `and`";
        filter::parse(text).ok_or_else(|| Refused::filter(supported))
    }

    pub(super) fn has_filter(&self) -> bool {
        self.0.contains_key("filter")
    }

    pub(super) fn shown(&self) -> Result<Shown, Refused> {
        let names = |field: &str| {
            let names = self.0.get(field)?.split(',').map(str::trim).filter(|name| !name.is_empty());
            Some(names.filter_map(filter::attribute_name).collect::<Vec<_>>())
        };
        match (names("attributes"), names("excludedAttributes")) {
            (Some(_), Some(_)) => Err(Refused::value("`attributes` and `excludedAttributes` exclude each other")),
            (only, without) => Ok(Shown { only, without: without.unwrap_or_default() }),
        }
    }

    /// Whether it is said what of a resource is wanted.
    pub(super) fn says_attributes(&self) -> bool {
        self.0.contains_key("attributes")
    }
}

impl Shown {
    /// Whether something of that attribute, in lower case, is answered.
    pub(super) fn has(&self, attribute: &str) -> bool {
        let is_of = |name: &String| name == attribute || of(name, attribute).is_some();
        self.only.as_ref().is_none_or(|only| only.iter().any(is_of))
            && !self.without.iter().any(|name| name == attribute)
    }

    /// A resource without what is not answered.
    pub(super) fn of(&self, resource: Value) -> Value {
        let Value::Object(mut resource) = resource else { return resource };
        resource.retain(|name, _| ALWAYS.contains(&name.as_str()) || self.has(&name.to_ascii_lowercase()));
        for (name, value) in &mut resource {
            let attribute = name.to_ascii_lowercase();
            let parts = |names: &[String]| -> Vec<String> {
                names.iter().filter_map(|name| Some(of(name, &attribute)?.to_owned())).collect()
            };
            let only = self.only.as_deref().filter(|only| !only.contains(&attribute)).map(parts);
            if let Some(only) = only.filter(|only| !only.is_empty()) {
                each_part(value, &|part| only.iter().any(|name| part.eq_ignore_ascii_case(name)));
            }
            let without = parts(&self.without);
            each_part(value, &|part| !without.iter().any(|name| part.eq_ignore_ascii_case(name)));
        }
        Value::Object(resource)
    }
}

/// The part of `attribute` that a path names.
fn of<'p>(path: &'p str, attribute: &str) -> Option<&'p str> {
    path.strip_prefix(attribute)?.strip_prefix('.')
}

/// Keeps those parts of a value, or of each of several.
fn each_part(value: &mut Value, keeps: &dyn Fn(&str) -> bool) {
    let retain = |parts: &mut Map<String, Value>| parts.retain(|part, _| keeps(part));
    match value {
        Value::Object(parts) => retain(parts),
        Value::Array(values) => values.iter_mut().filter_map(Value::as_object_mut).for_each(retain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Result<Query, Refused> {
        Query::of(&format!("/?{text}").parse().unwrap())
    }

    #[test]
    fn a_slice_is_within_bounds_whatever_is_asked() {
        let slice =
            |text: &str| query(text).unwrap().slice().map(|(start, slice)| (start, slice.skip, slice.count)).ok();
        assert_eq!(slice(""), Some((1, 0, 100)));
        assert_eq!(slice("startIndex=3&count=2"), Some((3, 2, 2)));
        assert_eq!(slice("startIndex=0&count=0"), Some((1, 0, 0)));
        assert_eq!(slice("startIndex=-9&count=-1"), Some((1, 0, 0)));
        assert_eq!(slice("count=999999"), Some((1, 0, PAGE_ITEMS_MAX)));
        for text in ["startIndex=a", "count=1.5", "count=", "count=99999999999999999999"] {
            assert_eq!(slice(text), None, "{text}");
        }
        assert!(query("count=1&count=2").is_err());
        assert!(query(&format!("filter={}", "a".repeat(QUERY_BYTES_MAX))).is_err());
    }

    #[test]
    fn what_is_answered_is_what_was_asked_for() {
        let group =
            json!({"schemas": ["s"], "id": "1", "displayName": "a", "members": [{"value": "2", "type": "User"}]});
        let shown = |text: &str| query(text).unwrap().shown().unwrap().of(group.clone());
        assert_eq!(shown(""), group);
        assert_eq!(shown("attributes=displayname"), json!({"schemas": ["s"], "id": "1", "displayName": "a"}));
        assert_eq!(
            shown("attributes=members.value,urn:ietf:params:scim:schemas:core:2.0:Group:nothing"),
            json!({"schemas": ["s"], "id": "1", "members": [{"value": "2"}]})
        );
        assert_eq!(shown("excludedAttributes=members,%20id"), json!({"schemas": ["s"], "id": "1", "displayName": "a"}));
        assert_eq!(
            shown("excludedAttributes=members.type"),
            json!({"schemas": ["s"], "id": "1", "displayName": "a", "members": [{"value": "2"}]})
        );
        assert_eq!(shown("attributes="), json!({"schemas": ["s"], "id": "1"}));
        assert!(query("attributes=id&excludedAttributes=members").unwrap().shown().is_err());
        assert!(!query("excludedAttributes=members").unwrap().shown().unwrap().has("members"));
    }
}
