//! Whether arguments are such as an operation takes. What is wrong is said in sentences that a model can act on.

use serde_json::Value;

use super::operation::{Argument, Operation};
use crate::json::Members;

/// How many values an argument may have for them to be told.
const VALUES_SAID_MAX: usize = 50;
/// How many names of arguments are told.
const NAMES_SAID_MAX: usize = 50;

/// Checks the arguments of a call.
pub(super) fn check(operation: &Operation, arguments: &Members<'_>) -> Result<(), String> {
    let mut problems: Vec<String> = operation.arguments().filter_map(|known| problem(known, arguments)).collect();
    let is_known = |name: &str| operation.arguments().any(|known| known.name == name);
    if let Some((name, _)) = arguments.iter().find(|(name, _)| !is_known(name)) {
        let known: Vec<String> = operation.arguments().map(|known| format!("`{}`", known.name)).collect();
        let known = known.get(..known.len().min(NAMES_SAID_MAX)).unwrap_or_default();
        let known =
            if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        problems.push(format!("there is no argument {}: {known}", Value::from(name)));
    }
    if problems.is_empty() { Ok(()) } else { Err(format!("The call was not made: {}.", problems.join("; "))) }
}

/// Whether a value stands for no value at all: models say `null` for what they leave out.
pub(super) fn is_left_out(argument: Argument<'_>, value: &Value) -> bool {
    value.is_null() && !argument.is_required && !fits_type(argument.schema, value)
}

fn problem(argument: Argument<'_>, arguments: &Members<'_>) -> Option<String> {
    let name = argument.name;
    let Some(value) = arguments.get(name) else {
        return argument.is_required.then(|| format!("the argument `{name}` is missing"));
    };
    let Ok(value) = serde_json::from_str::<Value>(value.get()) else {
        return Some(format!("the argument `{name}` cannot be read"));
    };
    if is_left_out(argument, &value) {
        return None;
    }
    if !fits_type(argument.schema, &value) {
        return Some(format!("the argument `{name}` must be {}", types(argument.schema).join(" or ")));
    }
    let values = argument.schema.get("enum")?.as_array()?;
    if values.contains(&value) {
        return None;
    }
    let said: Vec<String> = values.iter().take(VALUES_SAID_MAX).map(Value::to_string).collect();
    Some(format!("the argument `{name}` must be one of {}", said.join(", ")))
}

fn fits_type(schema: &Value, value: &Value) -> bool {
    let names = type_names(schema);
    names.is_empty() || names.iter().any(|name| is_of_type(name, value))
}

fn type_names(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // What is not known is left to the API.
        _ => true,
    }
}

/// The types that fit, in words.
fn types(schema: &Value) -> Vec<&str> {
    let word = |name| match name {
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        "array" => "a list",
        "object" => "an object",
        name => name,
    };
    type_names(schema).into_iter().map(word).collect()
}
