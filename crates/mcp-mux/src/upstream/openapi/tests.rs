//! From a document to tools, and from a tool's arguments to a request.

use std::collections::BTreeMap;
use std::time::Duration;

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tenant_store::{OnArguments, OnNewTool, OnToolChange, UpstreamAuth, UpstreamProtocol, UpstreamSpec};

use super::api::Api;
use super::request::build;
use super::tool;
use crate::upstream::request::Outgoing;

const BASE: &str = "https://api.example/v1?tenant=acme";

fn spec(auth: UpstreamAuth) -> UpstreamSpec {
    UpstreamSpec {
        url: BASE.parse().unwrap(),
        protocol: UpstreamProtocol::OpenApi { document: "https://api.example/openapi.json".parse().unwrap() },
        prefix: None,
        auth,
        call_timeout: Duration::from_secs(30),
        concurrency: 8,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: true,
    }
}

fn api_of(paths: &Value, auth: UpstreamAuth) -> Api {
    let document = json!({"openapi": "3.1.0", "servers": [{"url": "https://evil.example"}], "paths": paths, "components": {
        "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
        "parameters": {"Limit": {"name": "limit", "in": "query", "schema": {"type": "integer"}}},
    }});
    Api::read(document.to_string().as_bytes(), &spec(auth)).unwrap()
}

fn api(paths: &Value) -> Api {
    api_of(paths, UpstreamAuth::None)
}

fn call(api: &Api, tool: &str, arguments: &str) -> Result<Outgoing, String> {
    let arguments = RawValue::from_string(arguments.to_owned()).unwrap();
    build(api, api.operation(tool).expect("the tool is listed"), &BASE.parse().unwrap(), &arguments)
}

fn line(outgoing: &Outgoing) -> String {
    let header =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let headers = outgoing.headers.iter().filter(|(name, _)| *name != "accept").map(header);
    let parts = [format!("{} {}", outgoing.method, outgoing.url)].into_iter().chain(headers);
    parts.chain([outgoing.body.clone()]).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn tools(api: &Api) -> Vec<Value> {
    let listing: Value = serde_json::from_str(&api.listing()).unwrap();
    listing["tools"].as_array().unwrap().clone()
}

fn pets() -> Api {
    api(&json!({
        "/pets/{petId}": {
            "parameters": [{"name": "petId", "in": "path", "required": true, "schema": {"type": "string"}}],
            "get": {
                "operationId": "pets.show", "summary": "Shows a pet", "description": "With all that is known of it.",
                "parameters": [
                    {"$ref": "#/components/parameters/Limit"},
                    {"name": "kind", "in": "query", "schema": {"type": "string", "enum": ["cat", "dog"]}, "description": "which kind"},
                    {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "X-Api-Key", "in": "header", "required": true, "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    {"name": "theme", "in": "cookie", "schema": {"type": "string"}},
                ],
            },
            "delete": {},
            "put": {"requestBody": {"required": true, "content": {"application/json": {"schema": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            }}}}},
        },
    }))
}

#[test]
fn operations_become_tools() {
    let api = pets();
    let names: Vec<Value> = tools(&api).iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["pets_show", "put_pets_petId", "delete_pets_petId"]);
    assert_snapshot!(tools(&api)[0], @r#"{"name":"pets_show","description":"Shows a pet\n\nWith all that is known of it.","inputSchema":{"type":"object","properties":{"petId":{"type":"string"},"limit":{"type":"integer"},"kind":{"type":"string","enum":["cat","dog"],"description":"which kind"},"tags":{"type":"array","items":{"type":"string"}},"X-Trace":{"type":"string"},"theme":{"type":"string"}},"additionalProperties":false,"required":["petId"]},"annotations":{"readOnlyHint":true,"openWorldHint":true},"_meta":{"mcp-mux/operation":"GET /pets/{petId}"}}"#);
    assert_snapshot!(tools(&api)[1], @r#"{"name":"put_pets_petId","description":"PUT /pets/{petId}","inputSchema":{"type":"object","properties":{"petId":{"type":"string"},"name":{"type":"string"},"age":{"type":"integer"}},"additionalProperties":false,"required":["petId","name"]},"annotations":{"readOnlyHint":false,"idempotentHint":true,"openWorldHint":true},"_meta":{"mcp-mux/operation":"PUT /pets/{petId}"}}"#);
    assert_eq!(tools(&api)[2]["annotations"]["destructiveHint"], true);
    assert_eq!(tools(&api)[2]["description"], "DELETE /pets/{petId}");
}

#[test]
fn arguments_go_where_the_document_says() {
    let api = pets();
    let arguments = r#"{"petId":"a b","limit":10,"kind":"cat","tags":["x","y&z"],"X-Trace":"t1","theme":"a;b"}"#;
    assert_snapshot!(line(&call(&api, "pets_show", arguments).unwrap()), @"
    GET https://api.example/v1/pets/a%20b?tenant=acme&limit=10&kind=cat&tags=x&tags=y%26z
    x-trace: t1
    cookie: theme=a%3Bb
    ");
    let arguments = r#"{"petId":"7","name":"Mia","age": null}"#;
    assert!(line(&call(&api, "put_pets_petId", arguments).unwrap()).ends_with("{\"name\":\"Mia\"}"));
    let arguments = r#"{"petId":"7","name":"Mia","age": 3.0}"#;
    assert_snapshot!(line(&call(&api, "put_pets_petId", arguments).unwrap()), @r#"
    PUT https://api.example/v1/pets/7?tenant=acme
    content-type: application/json
    {"name":"Mia","age":3.0}
    "#);
    assert_snapshot!(line(&call(&api, "delete_pets_petId", r#"{"petId":"7"}"#).unwrap()), @"DELETE https://api.example/v1/pets/7?tenant=acme");
}

#[test]
fn wrong_arguments_are_refused_in_words() {
    let api = pets();
    let error = |arguments| call(&api, "pets_show", arguments).err().unwrap_or_default();
    assert_snapshot!(error("{}"), @"The call was not made: the argument `petId` is missing.");
    assert_snapshot!(error(r#"{"petId":"7","limit":"ten","kind":"cow","X-Api-Key":"mine"}"#), @r#"The call was not made: the argument `limit` must be an integer; the argument `kind` must be one of "cat", "dog"; there is no argument "X-Api-Key": it takes `petId`, `limit`, `kind`, `tags`, `X-Trace`, `theme`."#);
    assert_snapshot!(error(r#"{"petId":"../admin"}"#), @r"The argument `petId` must be a single part of a path: not empty, not `.` or `..`, and without `/`, `\` and control characters, in whatever encoding.");
    assert_snapshot!(error(r#"{"petId":"7","X-Trace":"a\r\nHost: evil"}"#), @"The argument `X-Trace` cannot be sent: it is too long, nested, or has characters that its place does not take.");
    assert_snapshot!(error(r#"{"petId":"7","petId":"8"}"#), @"The arguments must be an object with at most 256 members, each of another name.");
    assert_eq!(error(r#"{"petId":"7","limit":null}"#), "", "models say null for what they leave out");
}

#[test]
fn a_definition_says_which_operation_it_is_of() {
    let mark = |method: &str, path: &str| {
        let paths = json!({path: {method: {"operationId": "a"}}});
        let definition = RawValue::from_string(tools(&api(&paths))[0].to_string()).unwrap();
        tool::operation_of(&definition).unwrap()
    };
    assert_eq!(mark("get", "/a"), "GET /a");
    assert_eq!([mark("delete", "/a"), mark("get", "/b")], ["DELETE /a", "GET /b"]);
}

#[test]
fn an_argument_does_not_make_another_operation() {
    let path = |name: &str| json!([{"name": name, "in": "path", "required": true, "schema": {}}]);
    let api = api(&json!({
        "/users/{id}": {"get": {"operationId": "show", "parameters": path("id")}, "post": {"operationId": "change", "parameters": path("id")}},
        "/users/export": {"get": {"operationId": "export"}},
        "/users/{id}:reset": {"get": {"operationId": "reset", "parameters": path("id")}},
    }));
    for id in ["export", "EXPORT", "7:reset"] {
        let error = call(&api, "show", &json!({"id": id}).to_string()).err().unwrap();
        assert_eq!(error, "The arguments would make this the address of another operation: call that tool instead.");
    }
    assert!(call(&api, "change", r#"{"id":"export"}"#).is_ok(), "there is no other operation with this method");
    assert!(call(&api, "show", r#"{"id":"exports"}"#).is_ok());
}

#[test]
fn members_of_a_map_set_nothing_else() {
    let key = UpstreamAuth::Query { parameter: "api_key".parse().unwrap(), secret: "key".parse().unwrap() };
    let api = api_of(
        &json!({"/find": {"get": {"operationId": "find", "parameters": [
            {"name": "filter", "in": "query", "schema": {"type": "object"}},
            {"name": "page", "in": "query", "schema": {}},
            {"name": "api_key", "in": "query", "required": true, "schema": {}},
            {"name": "tenant", "in": "query", "schema": {}},
        ]}}}),
        key,
    );
    assert_eq!(tools(&api)[0]["inputSchema"]["properties"], json!({"filter": {"type": "object"}, "page": {}}));
    for member in ["api_key", "API_KEY", "api_key[]", "tenant", "page", "_method"] {
        let arguments = json!({"filter": {member: "x"}}).to_string();
        assert!(call(&api, "find", &arguments).is_err(), "{member}");
    }
    let good = call(&api, "find", r#"{"filter":{"color":"a&tenant=b"},"page":2}"#).unwrap();
    assert_eq!(good.url.as_str(), "https://api.example/v1/find?tenant=acme&color=a%26tenant%3Db&page=2");
}

#[test]
fn what_cannot_be_a_tool_is_left_out_alone() {
    let api = api(&json!({
        "/good": {"get": {}},
        "/../up": {"get": {}},
        "no-slash": {"get": {}},
        "/missing/{id}": {"get": {}},
        "/upload": {"post": {"requestBody": {"required": true, "content": {"multipart/form-data": {}}}}},
        "/matrix/{id}": {"get": {"parameters": [{"name": "id", "in": "path", "required": true, "style": "matrix", "schema": {}}]}},
        "/far": {"$ref": "https://evil.example/paths.json"},
        "/large": {"get": {"parameters": [{"name": "x", "in": "query", "schema": {"enum": vec!["x".repeat(1000); 300]}}]}},
        "/huge": {"get": {"parameters": [{"name": "x", "in": "query", "schema": {"enum": vec!["x"; 20_000]}}]}},
        "/also": {"get": {}, "trace": {}, "summary": "an item"},
    }));
    let names: Vec<Value> = tools(&api).iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["get_good", "get_huge", "get_also"]);
    assert_eq!(tools(&api)[1]["inputSchema"]["properties"]["x"], json!({}), "what is too large to be said is not");
    assert_eq!(api.left_out, 6);
}

#[test]
fn more_operations_than_a_list_has_are_left_out() {
    let paths: serde_json::Map<String, Value> =
        (0..2_100).map(|number| (format!("/p{number}"), json!({"get": {}}))).collect();
    let api = api(&Value::Object(paths));
    assert_eq!((tools(&api).len(), api.left_out), (2_000, 100));
}

#[test]
fn a_document_that_repeats_itself_is_read_in_time() {
    // Each of 100 operations refers to a schema that would be a million nodes.
    let mut schemas = serde_json::Map::new();
    for number in 0..20 {
        let next = json!({"$ref": format!("#/components/schemas/S{}", number + 1)});
        schemas.insert(
            format!("S{number}"),
            json!({"properties": {"a": next, "b": next}, "description": "x".repeat(10_000)}),
        );
    }
    let body = json!({"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}});
    let paths: serde_json::Map<String, Value> =
        (0..100).map(|number| (format!("/p{number}"), json!({"post": {"requestBody": body}}))).collect();
    let document = json!({"openapi": "3.0.0", "paths": paths, "components": {"schemas": schemas}}).to_string();
    let api = Api::read(document.as_bytes(), &spec(UpstreamAuth::None)).unwrap();
    let bytes = api.listing().len();
    assert!(bytes < 10 * 1024 * 1024, "{bytes}");
}

proptest! {
    #[test]
    fn whatever_the_arguments_the_request_goes_where_it_should(
        id in "[a./\\\\%2eEfF;?#: \r\n]{0,6}|\\PC{0,8}", text in "\\PC{0,8}|[&=#?%\r\n]{0,6}",
    ) {
        let arguments = json!({"petId": id, "tags": [text], "X-Trace": text, "theme": text}).to_string();
        let Ok(outgoing) = call(&pets(), "pets_show", &arguments) else { return Ok(()) };
        let url = outgoing.url;
        prop_assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("api.example"), None));
        prop_assert_eq!(url.path_segments().unwrap().count(), 3);
        prop_assert!(url.path().starts_with("/v1/pets/"));
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        prop_assert_eq!(pairs, vec![("tenant".to_owned(), "acme".to_owned()), ("tags".to_owned(), text.clone())]);
        let names: Vec<&str> = outgoing.headers.keys().map(http::HeaderName::as_str).collect();
        prop_assert!(names.iter().all(|name| ["accept", "x-trace", "cookie"].contains(name)));
    }

    #[test]
    fn no_document_panics(bytes in "\\PC{0,200}|[{}\\[\\]:,\"a$ref#/ \n-]{0,80}") {
        if let Ok(api) = Api::read(format!("openapi: 3.1.0\npaths: {bytes}").as_bytes(), &spec(UpstreamAuth::None)) {
            prop_assert!(serde_json::from_str::<Value>(&api.listing()).is_ok());
        }
    }
}
