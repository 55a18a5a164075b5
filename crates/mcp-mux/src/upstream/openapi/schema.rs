//! Schemas of a document as schemas of arguments (JSON Schema 2020-12). References are followed within the document and what they
//! lead to is put in their place; what contains itself, or would grow too large, is kept once, under `$defs`.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::document::Document;

/// How deep a schema may be nested; below that anything fits.
const DEPTH_MAX: usize = 32;
/// How many nodes the schemas of one operation have before references are left in them.
const INLINE_NODES_MAX: usize = 500;
/// How many nodes the schemas of one operation may have; behind them anything fits.
const OPERATION_NODES_MAX: usize = 5_000;
/// The same for all operations of a document.
const NODES_MAX: usize = 500_000;

/// How many bytes of a text count as one node.
const NODE_BYTES: usize = 256;

/// Keywords whose value is no schema and is taken as it is.
const PLAIN: [&str; 24] = [
    "title",
    "description",
    "type",
    "enum",
    "const",
    "default",
    "format",
    "pattern",
    "required",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "deprecated",
    "contentEncoding",
    "contentMediaType",
];
/// Keywords whose value is a schema.
const ONE: [&str; 11] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is a map of schemas.
const MAP: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];

/// How much of the room for a document's schemas is left.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(NODES_MAX)
    }
}

/// Rewrites the schemas of one operation.
#[derive(Debug)]
pub(super) struct Schemas<'d, 'r> {
    document: &'d Document,
    room: &'r mut Room,
    nodes: usize,
    /// The references that are being followed.
    open: Vec<&'d str>,
    /// References that were left, by the name that each has under `$defs`.
    left: Vec<&'d str>,
    pending: VecDeque<(String, &'d str)>,
}

impl<'d, 'r> Schemas<'d, 'r> {
    pub(super) fn new(document: &'d Document, room: &'r mut Room) -> Self {
        Self { document, room, nodes: 0, open: Vec::new(), left: Vec::new(), pending: VecDeque::new() }
    }

    /// A schema for an argument.
    pub(super) fn argument(&mut self, schema: &'d Value) -> Value {
        self.rewritten(schema, 0)
    }

    /// What the schemas so far refer to.
    pub(super) fn definitions(mut self) -> Map<String, Value> {
        let mut definitions = Map::new();
        while let Some((name, reference)) = self.pending.pop_front() {
            let target = self.document.find(reference);
            self.open = vec![reference];
            let schema = target.map_or_else(|| json!({}), |target| self.rewritten(target, 0));
            definitions.insert(name, schema);
        }
        definitions
    }

    fn rewritten(&mut self, schema: &'d Value, depth: usize) -> Value {
        let (Value::Object(members), true) = (schema, depth < DEPTH_MAX && self.takes(1)) else {
            return if schema.is_boolean() { schema.clone() } else { json!({}) };
        };
        let reference = members.get("$ref").and_then(Value::as_str);
        let mut found = reference.map_or_else(Map::new, |reference| self.followed(reference, depth));
        for (keyword, value) in members {
            if let Some(value) = self.keyword(keyword, value, depth + 1) {
                found.insert(keyword.clone(), value);
            }
        }
        modernise(&mut found, members);
        Value::Object(found)
    }

    /// What a reference leads to, or a reference into `$defs`. One that leads out of the document says nothing.
    fn followed(&mut self, reference: &'d str, depth: usize) -> Map<String, Value> {
        let Some(target) = self.document.find(reference) else { return Map::new() };
        if self.open.contains(&reference) || self.nodes > INLINE_NODES_MAX {
            let name = self.name_of(reference);
            return Map::from_iter([("$ref".to_owned(), json!(format!("#/$defs/{name}")))]);
        }
        self.open.push(reference);
        let rewritten = self.rewritten(target, depth + 1);
        self.open.pop();
        match rewritten {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    fn name_of(&mut self, reference: &'d str) -> String {
        let known = self.left.iter().position(|left| *left == reference);
        let position = known.unwrap_or(self.left.len());
        let last: String =
            reference.rsplit('/').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("{last}_{position}");
        if known.is_none() {
            self.left.push(reference);
            self.pending.push_back((name.clone(), reference));
        }
        name
    }

    fn keyword(&mut self, keyword: &str, value: &'d Value, depth: usize) -> Option<Value> {
        if PLAIN.contains(&keyword) {
            return self.takes(weight(value)).then(|| value.clone());
        }
        match value {
            _ if ONE.contains(&keyword) => Some(self.rewritten(value, depth)),
            Value::Array(schemas) if LIST.contains(&keyword) => {
                Some(schemas.iter().map(|schema| self.rewritten(schema, depth)).collect())
            }
            Value::Object(schemas) if MAP.contains(&keyword) => {
                let is_asked_for = |schema: &Value| schema.get("readOnly") != Some(&Value::Bool(true));
                let schemas = schemas.iter().filter(|(_, schema)| is_asked_for(schema));
                Some(Value::Object(
                    schemas.map(|(name, schema)| (name.clone(), self.rewritten(schema, depth))).collect(),
                ))
            }
            _ => None,
        }
    }

    /// Takes room for so many nodes. What does not fit costs the document as much as if it did: it was looked at.
    fn takes(&mut self, nodes: usize) -> bool {
        let fits = self.nodes + nodes <= OPERATION_NODES_MAX && nodes <= self.room.0;
        self.nodes += if fits { nodes } else { 0 };
        self.room.0 = self.room.0.saturating_sub(nodes);
        fits
    }
}

/// How many nodes a value counts for; long texts count for several.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / NODE_BYTES,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            1 + members.iter().map(|(name, value)| weight(value) + name.len() / NODE_BYTES).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// Says what OpenAPI 3.0 has keywords of its own for in the words of JSON Schema, and demands nothing that only answers have.
fn modernise(schema: &mut Map<String, Value>, old: &Map<String, Value>) {
    for (bound, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(Value::Bool(is_exclusive)) = schema.get(bound).cloned() {
            let value = if is_exclusive { schema.remove(limit) } else { None };
            schema.remove(bound);
            schema.extend(value.map(|value| (bound.to_owned(), value)));
        }
    }
    if old.get("properties").is_some() {
        let is_there =
            |name: &Value, properties: &Value| name.as_str().is_some_and(|name| properties.get(name).is_some());
        let hidden = |name: &Value| {
            old.get("properties").is_some_and(|all| is_there(name, all))
                && !schema.get("properties").is_some_and(|asked_for| is_there(name, asked_for))
        };
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.map(|names| names.iter().filter(|name| !hidden(name)).cloned().collect::<Value>());
        schema.extend(required.map(|required| ("required".to_owned(), required)));
    }
    if old.get("nullable") == Some(&Value::Bool(true)) {
        make_nullable(schema);
    }
}

fn make_nullable(schema: &mut Map<String, Value>) {
    match (schema.get("type").cloned(), schema.get("enum").and_then(Value::as_array).cloned()) {
        (Some(Value::String(name)), values) => {
            schema.insert("type".to_owned(), json!([name, "null"]));
            if let Some(mut values) = values.filter(|values| !values.contains(&Value::Null)) {
                values.push(Value::Null);
                schema.insert("enum".to_owned(), Value::Array(values));
            }
        }
        (None, _) if !schema.is_empty() => {
            let whole = Value::Object(std::mem::take(schema));
            schema.insert("anyOf".to_owned(), json!([whole, {"type": "null"}]));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(components: &Value, schema: &Value) -> (Value, Value) {
        let text = json!({"openapi": "3.0.0", "components": {"schemas": components}, "x": schema}).to_string();
        let document = Document::parse(text.as_bytes()).unwrap();
        let mut room = Room::default();
        let mut schemas = Schemas::new(&document, &mut room);
        let schema = schemas.argument(document.find("#/x").unwrap());
        (schema, Value::Object(schemas.definitions()))
    }

    #[test]
    fn references_are_followed_and_cycles_are_kept_once() {
        let components = json!({
            "Pet": {"type": "object", "properties": {"tag": {"$ref": "#/components/schemas/Tag"}}},
            "Tag": {"type": "string", "example": "x", "x-internal": 1, "xml": {}},
            "Node": {"properties": {"next": {"$ref": "#/components/schemas/Node"}}},
        });
        let (pet, none) = rewritten(&components, &json!({"$ref": "#/components/schemas/Pet", "description": "a pet"}));
        assert_eq!(pet, json!({"type": "object", "properties": {"tag": {"type": "string"}}, "description": "a pet"}));
        assert_eq!(none, json!({}));
        let (node, definitions) = rewritten(&components, &json!({"$ref": "#/components/schemas/Node"}));
        let next = json!({"properties": {"next": {"$ref": "#/$defs/Node_0"}}});
        assert_eq!((node, definitions), (next.clone(), json!({"Node_0": next})));
        for reference in ["https://evil.example/a.json#/x", "other.yaml", "#/nowhere", "file:///etc/passwd"] {
            assert_eq!(rewritten(&components, &json!({"$ref": reference})).0, json!({}), "{reference}");
        }
    }

    #[test]
    fn what_version_3_0_says_in_its_own_words_is_said_in_those_of_json_schema() {
        for (old, new) in [
            (json!({"type": "string", "nullable": true}), json!({"type": ["string", "null"]})),
            (
                json!({"type": "string", "enum": ["a"], "nullable": true}),
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            (
                json!({"allOf": [{"type": "string"}], "nullable": true}),
                json!({"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]}),
            ),
            (json!({"minimum": 1, "exclusiveMinimum": true}), json!({"exclusiveMinimum": 1})),
            (json!({"maximum": 1, "exclusiveMaximum": false}), json!({"maximum": 1})),
            (
                json!({"properties": {"id": {"readOnly": true}, "example": {"type": "string"}}, "required": ["id", "example", "other"]}),
                json!({"properties": {"example": {"type": "string"}}, "required": ["example", "other"]}),
            ),
        ] {
            assert_eq!(rewritten(&json!({}), &old).0, new, "{old}");
        }
    }

    #[test]
    fn what_would_grow_without_end_stays_small() {
        // Each refers twice to the next: followed to the end, there would be 2^40 nodes.
        let mut components = Map::new();
        for number in 0..40 {
            let next = json!({"$ref": format!("#/components/schemas/S{}", number + 1)});
            components.insert(format!("S{number}"), json!({"properties": {"a": next, "b": next}}));
        }
        components.insert("S40".to_owned(), json!({"type": "string"}));
        let (schema, definitions) = rewritten(&components.into(), &json!({"$ref": "#/components/schemas/S0"}));
        let bytes = schema.to_string().len() + definitions.to_string().len();
        assert!(bytes < 200_000, "{bytes}");
        let mut deep = json!({"type": "string"});
        for _ in 0..60 {
            deep = json!({"items": deep});
        }
        let (schema, _) = rewritten(&json!({}), &deep);
        assert_eq!(schema.to_string().matches("items").count(), DEPTH_MAX);
    }
}
