//! An OpenAPI document as a tree: read within bounds, JSON or YAML, and looked into along its own references. What it refers to
//! elsewhere is not there.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options, alias_limits, budget, options};

/// Largest document, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many nodes a document in YAML may have, counted again wherever an alias repeats them.
const NODES_MAX: usize = 200_000;
/// How deep they may be nested. Reading them takes about 24 KiB of stack a level where nothing is optimised; a thread has 2 MiB.
const DEPTH_MAX: usize = 40;
/// How many aliases it may have.
const ALIASES_MAX: usize = 1_000;
/// Longest reference, in bytes.
const REFERENCE_BYTES_MAX: usize = 1024;
/// Most paths that are looked at.
const PATHS_MAX: usize = 10_000;
/// How many references may lead to each other until one leads to something else.
const REFERENCES_MAX: usize = 16;

/// Why a document is of no use. Completes the sentence "its OpenAPI document …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// No connection, or none that is allowed.
    #[error("cannot be fetched")]
    Unreachable,
    /// The request for it was answered with a status that is no success.
    #[error("was answered with HTTP status {0}")]
    Status(u16),
    /// It is larger than is taken.
    #[error("is larger than 4 MiB")]
    TooLarge,
    /// It is neither JSON nor YAML, or nested too deeply.
    #[error("is neither JSON nor YAML, or is nested too deeply")]
    Unreadable,
    /// It is of no version that is read.
    #[error("does not say `openapi: 3.0…` or `openapi: 3.1…`")]
    Version,
    /// It is compressed.
    #[error("is compressed, which was not asked for")]
    Compressed,
}

/// An OpenAPI document.
#[derive(Debug)]
pub(super) struct Document(Value);

impl Document {
    /// Reads a document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Unreadable)?;
        let text = text.trim_start_matches('\u{feff}');
        let root: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|_| DocumentError::Unreadable)?
        } else {
            serde_saphyr::from_str_with_options(text, yaml()).map_err(|_| DocumentError::Unreadable)?
        };
        let version =
            root.get("openapi").map(|version| version.as_str().map_or_else(|| version.to_string(), str::to_owned));
        let is_known = version.is_some_and(|version| version.starts_with("3.0") || version.starts_with("3.1"));
        if is_known { Ok(Self(root)) } else { Err(DocumentError::Version) }
    }

    /// Its paths, in their order, as far as they are looked at.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &Value)> {
        let paths = self.0.get("paths").and_then(Value::as_object).into_iter().flatten();
        paths.take(PATHS_MAX).map(|(path, item)| (path.as_str(), item))
    }

    /// The names of what proves a caller, each with the place where it is shown.
    pub(super) fn security_names(&self) -> HashSet<(String, String)> {
        let schemes = self.0.pointer("/components/securitySchemes").and_then(Value::as_object);
        let schemes = schemes.into_iter().flatten().filter_map(|(_, scheme)| self.resolve(scheme));
        let text = |scheme: &Value, key: &str| Some(scheme.get(key)?.as_str()?.to_ascii_lowercase());
        schemes.filter_map(|scheme| Some((text(scheme, "in")?, text(scheme, "name")?))).collect()
    }

    /// What `value` is, or what it refers to within this document.
    pub(super) fn resolve<'d>(&'d self, mut value: &'d Value) -> Option<&'d Value> {
        for _ in 0..REFERENCES_MAX {
            match value.get("$ref") {
                Some(Value::String(reference)) => value = self.find(reference)?,
                _ => return Some(value),
            }
        }
        None
    }

    /// What a reference within this document leads to (RFC 6901 §6).
    pub(super) fn find(&self, reference: &str) -> Option<&Value> {
        let reference = Some(reference).filter(|reference| reference.len() <= REFERENCE_BYTES_MAX)?;
        let pointer = percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
        self.0.pointer(&pointer)
    }
}

fn yaml() -> Options {
    options! {
        budget: budget! {
            max_documents: 1,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
        },
        alias_limits: alias_limits! { max_total_replayed_events: 2 * NODES_MAX, max_replay_stack_depth: DEPTH_MAX },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_of_both_versions_are_read() {
        for text in [
            r#"{"openapi":"3.0.3","paths":{"/a":{}}}"#,
            "\u{feff} {\"openapi\":\"3.1.1\",\"paths\":{\"/a\":{}}}",
            "openapi: 3.0.0\npaths:\n  /a: {}\n",
            "# an API\nopenapi: '3.1.0'\npaths: {/a: {get: {responses: {200: {description: yes}}}}}\n",
            "openapi: 3.1\npaths:\n  /a: {}\n",
        ] {
            let document = Document::parse(text.as_bytes()).unwrap();
            assert_eq!(document.paths().map(|(path, _)| path).collect::<Vec<_>>(), ["/a"], "{text}");
        }
        let numbers = Document::parse(b"openapi: 3.1.0\npaths: {/a: {200: {x: 1.5, y: no}}}").unwrap();
        assert_eq!(numbers.0["paths"]["/a"]["200"], serde_json::json!({"x": 1.5, "y": "no"}));
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let deep = format!("{{\"openapi\":\"3.1.0\",\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let deep_yaml = format!("openapi: 3.1.0\nx: {}{}", "[".repeat(200), "]".repeat(200));
        let bomb: String = (1..12).fold("openapi: 3.1.0\na0: &a0 [x,x]\n".to_owned(), |text, level| {
            let last = level - 1;
            let aliases = vec![format!("*a{last}"); 9].join(",");
            text + &format!("a{level}: &a{level} [{aliases}]\n")
        });
        let deep_aliases: String = (1..40).fold("openapi: 3.1.0\na0: &a0 [x]\n".to_owned(), |text, level| {
            text + &format!("a{level}: &a{level} [[[[*a{}]]]]\n", level - 1)
        });
        for (text, error) in [
            ("<html>", DocumentError::Version),
            ("", DocumentError::Version),
            (r#"{"swagger":"2.0"}"#, DocumentError::Version),
            (r#"{"openapi":"4.0.0"}"#, DocumentError::Version),
            ("{", DocumentError::Unreadable),
            ("a: [", DocumentError::Unreadable),
            (&deep, DocumentError::Unreadable),
            (&deep_yaml, DocumentError::Unreadable),
            (&bomb, DocumentError::Unreadable),
            (&deep_aliases, DocumentError::Unreadable),
            (&" ".repeat(DOCUMENT_BYTES_MAX + 1), DocumentError::TooLarge),
        ] {
            let start = text.get(..text.len().min(50));
            assert_eq!(Document::parse(text.as_bytes()).unwrap_err(), error, "{start:?}");
        }
    }

    #[test]
    fn references_lead_to_places_in_this_document_only() {
        let text = r##"{"openapi":"3.1.0","paths":{},"components":{"a/b":{"~c":1},"d e":{"$ref":"#/components/a~1b"},
            "loop":{"$ref":"#/components/loop"},"far":{"$ref":"https://evil.example/x.json#/a"},"file":{"$ref":"b.yaml"}}}"##;
        let document = Document::parse(text.as_bytes()).unwrap();
        let found = document.find("#/components/d%20e").and_then(|value| document.resolve(value));
        assert_eq!(found, Some(&serde_json::json!({"~c": 1})));
        for nowhere in ["loop", "far", "file"] {
            let value = document.find(&format!("#/components/{nowhere}")).unwrap();
            assert_eq!(document.resolve(value), None, "{nowhere}");
        }
    }
}
