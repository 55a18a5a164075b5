//! Whether arguments are what a tool's schema asks for.
//!
//! A schema is its upstream's, which may be hostile, and is compiled when it is first needed. Nothing is fetched for it. Patterns are
//! matched in linear time. What could cost more than the limits below is not checked: a tool never fails for its schema.

use std::fmt;
use std::sync::OnceLock;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::definition::Definition;
use crate::json;

/// Longest schema that is compiled, in bytes.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Most values that a schema may have with every reference followed.
const SCHEMA_VALUES_MAX: usize = 10_000;
/// Deepest nesting of a schema with every reference followed.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Most patterns of a schema: compiling one costs far more than anything else in it.
const PATTERNS_MAX: usize = 64;
/// Longest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Most values of a schema times values of the arguments: what one check may cost.
const COST_MAX: usize = 4_000_000;
/// Most bytes of arguments times patterns: a pattern may cost thousands of steps for each byte.
const PATTERN_COST_MAX: usize = 32 * 1024;
/// So many bytes of a string cost as much as one value.
const BYTES_PER_VALUE: usize = 32;
/// How many faults are told.
const FAULTS_MAX: usize = 5;
/// Longest part of a fault that is told, in characters: a path, or what is expected.
const TEXT_CHARS_MAX: usize = 200;

/// A tool's schema, as far as its arguments are held against it.
#[derive(Default)]
pub(crate) struct ArgumentSchema(OnceLock<Result<Compiled, Unchecked>>);

/// A schema that checks something.
struct Compiled {
    validator: Validator,
    values: usize,
    patterns: usize,
}

/// Why arguments are not held against a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unchecked {
    /// It takes whatever there is.
    #[error("its schema asks for nothing")]
    Empty,
    /// With every reference followed.
    #[error("its schema is too large or nested too deeply")]
    TooLarge,
    /// A schema in itself may cost any amount of time.
    #[error("its schema contains itself")]
    Recursive,
    /// References lead nowhere else.
    #[error("its schema refers to something outside itself, or by another name than its place")]
    Elsewhere,
    /// Some patterns are not matched in linear time.
    #[error("its schema is not valid, or has a pattern that looks around or back")]
    NotCompiled,
}

/// What is wrong with arguments, for whoever made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: a JSON pointer, empty for the arguments themselves.
    pub(crate) at: String,
    /// What is expected there, without what is there.
    pub(crate) expected: String,
}

impl ArgumentSchema {
    /// What is wrong with the arguments of a call of the tool with that definition; nothing, if they are not checked.
    pub(crate) fn faults(&self, definition: &Definition, arguments: Option<&RawValue>) -> Vec<Fault> {
        let compiled = self.0.get_or_init(|| Compiled::of(definition));
        let Ok(Compiled { validator, values, patterns }) = compiled else { return Vec::new() };
        let text = arguments.map_or("{}", RawValue::get);
        let Ok(arguments) = serde_json::from_str::<Value>(text) else { return Vec::new() };
        // Some clients say so that there are none.
        let arguments = if arguments.is_null() { Value::Object(serde_json::Map::new()) } else { arguments };
        let is_dear = values.saturating_mul(weight(&arguments)) > COST_MAX
            || patterns.saturating_mul(text.len()) > PATTERN_COST_MAX;
        if is_dear || validator.is_valid(&arguments) || validator.is_valid(&without_nulls(arguments.clone())) {
            return Vec::new();
        }
        validator.iter_errors(&arguments).take(FAULTS_MAX).map(|error| Fault::of(&error)).collect()
    }
}

/// Why the arguments of a tool are not checked, where they are not.
pub(crate) fn unchecked(definition: &Definition) -> Option<Unchecked> {
    Compiled::of(definition).err()
}

impl fmt::Debug for ArgumentSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArgumentSchema").field("is_compiled", &self.0.get().is_some()).finish()
    }
}

impl Compiled {
    fn of(definition: &Definition) -> Result<Self, Unchecked> {
        let raw = json::member(Some(definition.raw()), "inputSchema").ok_or(Unchecked::Empty)?;
        if raw.get().len() > SCHEMA_BYTES_MAX {
            return Err(Unchecked::TooLarge);
        }
        let schema: Value = serde_json::from_str(raw.get()).map_err(|_| Unchecked::NotCompiled)?;
        if asks_for_nothing(&schema) {
            return Err(Unchecked::Empty);
        }
        let mut walk = Walk { root: &schema, values: 0, patterns: 0, within: Vec::new() };
        walk.count(&schema, 0)?;
        let (values, patterns) = (walk.values, walk.patterns);
        let mut options = jsonschema::options()
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX));
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft202012);
        }
        let validator = options.build(&schema).map_err(|_| Unchecked::NotCompiled)?;
        Ok(Self { validator, values, patterns })
    }
}

/// Whether a schema lets every object pass, as most tools without parameters say it.
fn asks_for_nothing(schema: &Value) -> bool {
    let is_free = |(key, value): (&String, &Value)| match key.as_str() {
        "type" => value == "object",
        "properties" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "$schema" | "title" | "description" => true,
        _ => false,
    };
    schema.as_object().is_some_and(|members| members.iter().all(is_free))
}

/// Counts what a schema is with every reference followed, and refuses those whose cost cannot be told.
struct Walk<'s> {
    root: &'s Value,
    values: usize,
    patterns: usize,
    /// The references that are being followed.
    within: Vec<&'s str>,
}

impl<'s> Walk<'s> {
    fn count(&mut self, value: &'s Value, depth: usize) -> Result<(), Unchecked> {
        self.values += 1;
        if self.values > SCHEMA_VALUES_MAX || self.patterns > PATTERNS_MAX || depth > SCHEMA_DEPTH_MAX {
            return Err(Unchecked::TooLarge);
        }
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    self.follow(key, member, depth)?;
                    self.count(member, depth + 1)?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.count(item, depth + 1)),
            _ => Ok(()),
        }
    }

    /// A member that leads to another place of the schema. An example that looks like one counts as one.
    fn follow(&mut self, key: &str, member: &'s Value, depth: usize) -> Result<(), Unchecked> {
        self.patterns += match (key, member) {
            ("pattern", Value::String(_)) => 1,
            ("patternProperties", Value::Object(members)) => members.len(),
            _ => 0,
        };
        match (key, member.as_str()) {
            ("$ref", Some(reference)) => {
                if self.within.contains(&reference) {
                    return Err(Unchecked::Recursive);
                }
                let pointer = reference.strip_prefix('#').filter(|pointer| !pointer.contains('%'));
                let target = pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or(Unchecked::Elsewhere)?;
                self.within.push(reference);
                let counted = self.count(target, depth + 1);
                self.within.pop();
                counted
            }
            ("$dynamicRef" | "$recursiveRef", Some(_)) => Err(Unchecked::Recursive),
            // They change what references mean.
            ("$id" | "id" | "$anchor" | "$dynamicAnchor", Some(_)) if depth > 0 => Err(Unchecked::Elsewhere),
            _ => Ok(()),
        }
    }
}

/// The arguments without those that are `null`: that is how many clients say that they leave one out (SEP-2243 has it so, too).
fn without_nulls(mut arguments: Value) -> Value {
    if let Some(members) = arguments.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    arguments
}

/// How many values there are, long strings counted for more.
fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::Object(members) => members.iter().map(|(key, value)| key.len() / BYTES_PER_VALUE + weight(value)).sum(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::String(text) => text.len() / BYTES_PER_VALUE,
        _ => 0,
    };
    inside + 1
}

impl Fault {
    fn of(error: &ValidationError<'_>) -> Self {
        let at = cut(error.instance_path().as_str());
        Self { at, expected: cut(&error.masked_with("this").to_string()) }
    }
}

fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(TEXT_CHARS_MAX).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(schema: &str) -> Definition {
        let text = format!(r#"{{"name":"a","inputSchema":{schema}}}"#);
        Definition::parse(&RawValue::from_string(text).unwrap()).unwrap()
    }

    fn faults(schema: &str, arguments: &str) -> Vec<String> {
        let arguments = RawValue::from_string(arguments.to_owned()).unwrap();
        let faults = ArgumentSchema::default().faults(&definition(schema), Some(&arguments));
        faults.into_iter().map(|fault| format!("{}: {}", fault.at, fault.expected)).collect()
    }

    #[test]
    fn a_fault_says_where_and_what_is_expected_and_not_what_was_there() {
        let schema = r##"{"type":"object","properties":{"n":{"type":"integer","maximum":9},"in":{"$ref":"#/$defs/in"}},
            "required":["n"],"additionalProperties":false,"$defs":{"in":{"type":"object","properties":{"c":{"enum":["red","blue"]}}}}}"##;
        let told = |arguments: &str| {
            let mut told = faults(schema, arguments);
            told.sort();
            told.join("\n")
        };
        insta::assert_snapshot!(told(r#"{"in":{"c":"CANARY"},"n":"CANARY"}"#), @r#"
        /in/c: this is not one of "red" or "blue"
        /n: this is not of type "integer"
        "#);
        insta::assert_snapshot!(told(r#"{"more":1,"n":10}"#), @r"
        /n: this is greater than the maximum of 9
        : Additional properties are not allowed ('more' was unexpected)
        ");
        insta::assert_snapshot!(told("{}"), @r#": "n" is a required property"#);
        assert!(faults(schema, r#"{"n":9,"in":{"c":"red"}}"#).is_empty());
        // Left out, as some clients say it; what must be there is not.
        assert!(faults(schema, r#"{"n":9,"in":null}"#).is_empty());
        assert_eq!(faults(schema, r#"{"n":null}"#), [r#"/n: this is not of type "integer""#]);
        assert!(ArgumentSchema::default().faults(&definition(r#"{"required":["a"]}"#), None).len() == 1);
        assert!(
            faults(r#"{"required":["a"]}"#, "null").len() == 1
                && faults(r#"{"minProperties":0,"type":"object"}"#, "null").is_empty()
        );
    }

    #[test]
    fn few_faults_are_told_and_none_at_length() {
        let names: Vec<String> = (0..50).map(|n| format!("\"{n}{}\"", "x".repeat(500))).collect();
        let told = faults(&format!(r#"{{"required":[{}]}}"#, names.join(",")), "{}");
        assert_eq!(told.len(), FAULTS_MAX);
        assert!(told.iter().all(|fault| fault.chars().count() < TEXT_CHARS_MAX + 10));
    }

    #[test]
    fn a_schema_that_could_cost_anything_is_no_check() {
        let doubling: Vec<String> = (0..40)
            .map(|n| {
                format!(
                    r##""d{n}":{{"anyOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}}"##,
                    next = n + 1
                )
            })
            .collect();
        let doubling =
            format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d40":{{"type":"string"}}}}}}"##, doubling.join(","));
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(100), "}".repeat(100));
        let patterns: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!(r#""{n}":{{"pattern":"{n}"}}"#)).collect();
        let patterns = format!(r#"{{"properties":{{{}}}}}"#, patterns.join(","));
        let long = format!(r#"{{"enum":["{}"]}}"#, "x".repeat(SCHEMA_BYTES_MAX));
        for (schema, why) in [
            ("{}", Unchecked::Empty),
            (
                r#"{"type":"object","properties":{},"$schema":"https://json-schema.org/draft/2020-12/schema"}"#,
                Unchecked::Empty,
            ),
            (r##"{"properties":{"and":{"items":{"$ref":"#"}}}}"##, Unchecked::Recursive),
            (
                r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##,
                Unchecked::Recursive,
            ),
            (r##"{"$dynamicRef":"#a"}"##, Unchecked::Recursive),
            (r#"{"$ref":"https://evil.example/schema"}"#, Unchecked::Elsewhere),
            (r#"{"$ref":"file:///etc/passwd"}"#, Unchecked::Elsewhere),
            (r##"{"$ref":"#name"}"##, Unchecked::Elsewhere),
            (r#"{"properties":{"a":{"$id":"https://evil.example/"}}}"#, Unchecked::Elsewhere),
            (r#"{"$schema":"https://evil.example/schema","required":["a"]}"#, Unchecked::NotCompiled),
            (r#"{"type":"number of things"}"#, Unchecked::NotCompiled),
            (r#"{"properties":{"a":{"pattern":"(?=a)"}}}"#, Unchecked::NotCompiled),
            (r#"{"properties":{"a":{"pattern":"(a{1000}){1000}"}}}"#, Unchecked::NotCompiled),
            (&doubling, Unchecked::TooLarge),
            (&deep, Unchecked::TooLarge),
            (&patterns, Unchecked::TooLarge),
            (&long, Unchecked::TooLarge),
        ] {
            assert_eq!(unchecked(&definition(schema)), Some(why), "{schema:.80}");
            assert!(faults(schema, r#"{"a":1}"#).is_empty(), "{schema:.80}");
        }
    }

    #[test]
    fn a_pattern_that_is_slow_elsewhere_is_matched_in_linear_time() {
        let schema = r#"{"properties":{"a":{"pattern":"^(a+)+$"}}}"#;
        let slow = |length| faults(schema, &format!(r#"{{"a":"{}!"}}"#, "a".repeat(length))).len();
        assert_eq!(slow(30_000), 1);
        assert_eq!(slow(PATTERN_COST_MAX), 0, "what could cost more is not checked");
    }

    #[test]
    fn arguments_that_would_cost_too_much_are_not_checked() {
        let schema = format!(r#"{{"additionalProperties":{{"enum":[{}]}}}}"#, vec!["1"; 1000].join(","));
        let many: Vec<String> = (0..10_000).map(|n| format!("\"{n}\":2")).collect();
        assert!(!faults(&schema, r#"{"a":2}"#).is_empty());
        assert!(faults(&schema, &format!("{{{}}}", many.join(","))).is_empty());
    }
}
