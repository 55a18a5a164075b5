//! The schema says what the reader reads: it knows the same fields, and lets pass whatever the reader takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::{SCHEMA, parse};
use super::GOOD;

static WHOLE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(SCHEMA).unwrap());
static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| jsonschema::validator_for(&WHOLE).unwrap());

/// What is wrong with these documents by the schema.
pub(super) fn faults(text: &str) -> Vec<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let faults = documents.iter().flat_map(|document| VALIDATOR.iter_errors(document));
    faults.map(|error| format!("{} at {}", error, error.instance_path())).collect()
}

/// Documents in which every map of the format is there.
fn complete() -> Vec<Value> {
    let spec = |auth: Value| json!({ "http": { "url": "https://mcp.acme.example/mcp" }, "auth": auth });
    let secret = json!({ "secret": "key" });
    let client = json!({ "issuer": "https://as.example", "clientId": "mux", "secret": "client" });
    let auths = [
        json!({ "bearer": secret }),
        json!({ "headers": { "x-a": secret } }),
        json!({ "basic": { "username": "svc", "secret": "key" } }),
        json!({ "query": { "parameter": "key", "secret": "key" } }),
        json!({ "clientCredentials": client }),
        json!({ "tokenExchange": client }),
        json!({ "account": { "issuer": "https://as.example", "client": { "clientId": "mux" },
            "listing": { "account": { "issuer": "corp", "subject": "s" } } } }),
        json!({ "mtls": { "secret": "pair" }, "bearer": secret }),
        json!({ "awsSigV4": { "accessKeyId": "A", "secretAccessKey": secret, "region": "r", "service": "s" } }),
    ];
    let own = json!({ "tenant": "acme", "name": "x" });
    let document = |kind: &str, metadata: &Value, spec: Value| json!({ "apiVersion": "mcp-mux/v1", "kind": kind, "metadata": metadata, "spec": spec });
    let openapi = json!({ "openapi": { "url": "https://api.example" }, "auth": "none" });
    let grant = json!({ "issuer": "corp", "groups": ["g"], "level": "read", "tools": { "allow": ["*"] } });
    let test = json!({ "as": { "issuer": "corp", "groups": ["g"] }, "can": ["acme__x"] });
    let tenant = json!({ "egress": { "hosts": ["a.example"] } });
    let mut all = vec![
        document("Tenant", &json!({ "name": "acme" }), tenant),
        document("Upstream", &own, openapi),
        document("Grant", &own, grant),
        document("AccessTest", &own, test),
    ];
    all.extend(auths.into_iter().map(|auth| document("Upstream", &own, spec(auth))));
    all
}

/// The maps inside a value, each by the way to it.
fn maps(value: &Value) -> Vec<Vec<String>> {
    let Value::Object(fields) = value else { return Vec::new() };
    let mut all = vec![Vec::new()];
    for (name, inner) in fields {
        all.extend(maps(inner).into_iter().map(|way| [vec![name.clone()], way].concat()));
    }
    all
}

/// The part of the schema behind references, and where alternatives are, the map among them.
fn resolved(part: &Value) -> &Value {
    if let Some(reference) = part.get("$ref") {
        return resolved(WHOLE.pointer(reference.as_str().unwrap().trim_start_matches('#')).unwrap());
    }
    let alternatives = part.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    alternatives.map(resolved).find(|one| one.get("properties").is_some()).unwrap_or(part)
}

/// The part of the schema that is about what `way` leads to in a document of that kind.
fn part<'s>(kind: &str, way: &[String]) -> &'s Value {
    let Some((first, rest)) = way.split_first() else { return &WHOLE };
    let rules = WHOLE["allOf"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["if"]["properties"]["kind"]["const"] == kind).unwrap();
    let mut part = resolved(&rule["then"]["properties"][first]);
    for name in rest {
        part = resolved(part["properties"].get(name).unwrap_or(&part["additionalProperties"]));
    }
    part
}

fn keys(part: &Value) -> BTreeSet<String> {
    part["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn it_knows_the_fields_that_the_reader_knows() {
    const NO_FIELD: &str = "qqqqqqqqqqqqqqqqqqqq";
    let mut seen = BTreeSet::new();
    for document in complete() {
        let kind = document["kind"].as_str().unwrap();
        parse("good.yaml", &document.to_string()).unwrap();
        for way in maps(&document) {
            let mut wrong = document.clone();
            let at = way.iter().fold(&mut wrong, |value, name| &mut value[name]);
            at[NO_FIELD] = json!({ "secret": "key" });
            let Err(error) = parse("wrong.yaml", &wrong.to_string()) else { continue };
            let error = error.to_string();
            let Some((_, known)) = error.split_once("known here: ") else { panic!("{kind} {way:?}: {error}") };
            let known: BTreeSet<String> = known.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
            let part = part(kind, &way);
            assert_eq!(keys(part), known, "{kind} {way:?}");
            assert_eq!(part["additionalProperties"], false, "{kind} {way:?}");
            seen.insert(std::ptr::from_ref(part) as usize);
        }
    }
    // None of its closed maps was left out.
    assert_eq!(seen.len(), SCHEMA.matches("\"additionalProperties\": false").count());
}

#[test]
fn what_is_read_is_valid() {
    assert_eq!(faults(GOOD), [""; 0]);
    for document in complete() {
        assert_eq!(faults(&document.to_string()), [""; 0]);
    }
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        if parse("example.yaml", &text).is_ok() {
            assert_eq!(faults(&text), [""; 0], "{}", file.display());
        }
    }
}

#[test]
fn what_is_wrong_is_seen_while_it_is_typed() {
    for (what, with) in [
        ("allow: [\"*\"]", "allowed: [\"*\"]"),
        ("level: read", "level: reader"),
        ("name: jira", "name: Jira"),
        ("timeout: 2m", "timeout: 2"),
        ("concurrency: 8", "concurrency: 0"),
        ("concurrency: 8", "onNewTool: ask"),
        ("concurrency: 8", "onArguments: drop"),
        ("auth: { bearer: { secret: jira-token } }", "auth: { bearer: jira-token }"),
        ("kind: Grant", "kind: Grants"),
        ("groups: [acme-analysts]", "groups: []"),
    ] {
        let wrong = GOOD.replace(what, with);
        assert_ne!(wrong, GOOD, "{what}");
        assert!(parse("wrong.yaml", &wrong).is_err(), "{with}");
        assert!(!faults(&wrong).is_empty(), "{with}");
    }
}
