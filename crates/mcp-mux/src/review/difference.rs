//! How two definitions differ: what was, and what is, by JSON pointer.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::place::Place;

/// Most differences that are told.
const DIFFERENCES_MAX: usize = 200;
/// What is not pinned, and so no difference.
const UNPINNED: [&str; 2] = ["icons", "_meta"];
/// What of the latter is.
const PINNED_META: [&str; 2] = ["ui", "ui/resourceUri"];

/// What models read of a tool before all else.
const READ_FIRST: [&str; 4] = ["name", "title", "description", "inputSchema"];

/// One place at which two definitions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// A JSON pointer.
    pub(crate) at: String,
    /// What was there, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old: Option<Value>,
    /// What is there, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new: Option<Value>,
}

/// Where two definitions differ in what is pinned of them: what models read first, then the rest in the order of the keys. Where there are too
/// many differences, the last one says so.
pub(crate) fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    if !new.is_object() || !(old.is_object() || old.is_null()) {
        compare(Place::Root, Some(old), Some(new), &mut found);
        return found;
    }
    let (old, new) = (pinned(old), pinned(new));
    for key in READ_FIRST {
        compare(Place::Member(&Place::Root, key), old.get(key), new.get(key), &mut found);
    }
    let rest = |value: &Value| {
        let members = value.as_object().into_iter().flatten().filter(|(key, _)| !READ_FIRST.contains(&key.as_str()));
        Value::Object(members.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    compare(Place::Root, Some(&rest(&old)), Some(&rest(&new)), &mut found);
    if found.len() == DIFFERENCES_MAX {
        let more = "there may be more differences, which are not shown: read the whole definition with `-o json`";
        found.push(Difference { at: "…".to_owned(), old: None, new: Some(more.into()) });
    }
    found
}

fn pinned(definition: &Value) -> Value {
    let mut pinned = serde_json::Map::new();
    for (key, value) in definition.as_object().into_iter().flatten() {
        if !UNPINNED.contains(&key.as_str()) {
            pinned.insert(key.clone(), value.clone());
        } else if let Some(meta) = value.as_object() {
            let kept = meta.iter().filter(|(key, _)| PINNED_META.contains(&key.as_str()));
            let kept: serde_json::Map<_, _> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
            if !kept.is_empty() {
                pinned.insert(key.clone(), Value::Object(kept));
            }
        }
    }
    Value::Object(pinned)
}

fn compare(at: Place<'_>, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    if old == new || found.len() == DIFFERENCES_MAX {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                compare(Place::Member(&at, key), old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                compare(Place::Item(&at, place), Some(old), Some(new), found);
            }
        }
        _ => found.push(Difference { at: at.to_string(), old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_its_place_and_what_was_and_is_there() {
        let old = json!({"name": "a", "description": "old", "inputSchema": {"properties": {"x/y": {"type": "string"}}},
            "icons": [1], "_meta": {"v": 1}});
        let new = json!({"inputSchema": {"properties": {"x/y": {"type": "integer"}, "z": {}}}, "name": "a",
            "title": "A", "icons": [2], "_meta": {"v": 2, "ui": {"resourceUri": "ui://a"}}});
        let told = differences(&old, &new).into_iter().map(|one| format!("{}: {:?} → {:?}", one.at, one.old, one.new));
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @r#"
        /title: None → Some(String("A"))
        /description: Some(String("old")) → None
        /inputSchema/properties/x~1y/type: Some(String("string")) → Some(String("integer"))
        /inputSchema/properties/z: None → Some(Object {})
        /_meta: None → Some(Object {"ui": Object {"resourceUri": String("ui://a")}})
        "#);
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_told() {
        let many = |value: i32| json!({"x": (0..1000).map(|_| value).collect::<Vec<_>>()});
        let told = differences(&many(1), &many(2));
        assert_eq!(told.len(), DIFFERENCES_MAX + 1);
        assert_eq!(told.last().map(|last| last.at.as_str()), Some("…"));
    }

    #[test]
    fn what_models_read_is_told_however_much_else_changed() {
        let many = |value: i32| (0..1000).map(|_| value).collect::<Vec<_>>();
        let old = json!({"annotations": many(1), "description": "old"});
        let told = differences(&old, &json!({"annotations": many(2), "description": "new"}));
        assert_eq!(told.first().map(|first| first.at.as_str()), Some("/description"));
    }
}
