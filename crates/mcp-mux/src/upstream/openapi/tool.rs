//! What a tool says of itself.

use std::borrow::Cow;

use http::Method;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::operation::{Operation, Spot};
use crate::json::{self, Members};
use crate::upstream::lists::DEFINITION_BYTES_MAX;

/// The key in a definition's `_meta` that says which operation it is of: method and path.
const META_OPERATION: &str = "mcp-mux/operation";
/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 4 * 1024;

/// The definition of the operation's tool, in JSON; nothing where it would be too large, or too deep in a list.
pub(super) fn definition(operation: &Operation, spot: &Spot<'_>, definitions: Map<String, Value>) -> Option<String> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for argument in operation.arguments() {
        properties.insert(argument.name.to_owned(), argument.schema.clone());
        if argument.is_required {
            required.push(argument.name);
        }
    }
    let mut schema = Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), Value::Object(properties)),
        ("additionalProperties".to_owned(), json!(false)),
    ]);
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if !definitions.is_empty() {
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    let definition = json!({
        "name": operation.name,
        "description": description(spot),
        "inputSchema": schema,
        "annotations": annotations(&operation.method),
        "_meta": {META_OPERATION: operation.mark},
    });
    let definition = definition.to_string();
    // A list has it below its result, and what reads it there reads no deeper than this.
    let is_too_deep = json::is_too_deep(format!("[[[[{definition}]]]]").as_bytes());
    (definition.len() <= DEFINITION_BYTES_MAX && !is_too_deep).then_some(definition)
}

/// Which operation the definition of a tool is of.
pub(super) fn operation_of(definition: &RawValue) -> Option<String> {
    let meta = Members::parse(definition.get()).ok()?.get("_meta")?;
    Members::parse(meta.get()).ok()?.get_str(META_OPERATION).map(Cow::into_owned)
}

/// A text of a document, cut off where it is longer than a description may be.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(DESCRIPTION_CHARS_MAX).collect()
}

fn description(spot: &Spot<'_>) -> String {
    let said = |key: &str| spot.operation.get(key).or_else(|| spot.item.get(key)).and_then(Value::as_str);
    let texts: Vec<&str> = ["summary", "description"].into_iter().filter_map(said).map(str::trim).collect();
    let text = match texts.as_slice() {
        [summary, description] if description.starts_with(summary) => (*description).to_owned(),
        texts => texts.join("\n\n"),
    };
    if text.is_empty() { format!("{} {}", spot.method, shortened(spot.path)) } else { shortened(&text) }
}

/// What the method says of an operation (RFC 9110 §9.2).
fn annotations(method: &Method) -> Value {
    match *method {
        Method::GET | Method::HEAD => json!({"readOnlyHint": true, "openWorldHint": true}),
        Method::PUT => json!({"readOnlyHint": false, "idempotentHint": true, "openWorldHint": true}),
        Method::DELETE => {
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": true})
        }
        _ => json!({"readOnlyHint": false, "openWorldHint": true}),
    }
}
