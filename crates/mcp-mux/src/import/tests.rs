//! Each format, hostile files, and what is said of a file that is none.

use std::fmt::Write as _;

use insta::assert_snapshot;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::manifest::{parse, write};

const FIXTURES: &[(Format, &str)] = &[
    (Format::Mcpo, include_str!("../../tests/fixtures/import/mcpo.json")),
    (Format::MetaMcp, include_str!("../../tests/fixtures/import/metamcp.json")),
    (Format::McpHub, include_str!("../../tests/fixtures/import/mcphub.json")),
    (Format::McpServersJson, include_str!("../../tests/fixtures/import/claude.json")),
    (Format::McpServersJson, include_str!("../../tests/fixtures/import/vscode.json")),
];

fn options() -> Options {
    let group = Some(("corp".parse().unwrap(), "staff".parse().unwrap()));
    Options { tenant: "acme".parse().unwrap(), exists: false, group }
}

fn read(format: Format, text: &str) -> Result<Imported, String> {
    import(format, "a.json", text, &options()).map_err(|error| error.to_string())
}

/// The objects again, after they were written.
fn read_again(imported: &Imported) -> Result<Vec<Object>, String> {
    let text = write(&imported.objects).map_err(|error| error.to_string())?;
    let manifest = parse("a.yaml", &text).map_err(|error| format!("{error}\n{text}"))?;
    Ok(manifest.documents().iter().map(|document| document.object().clone()).collect())
}

/// All that is written anywhere.
fn told(imported: &Imported) -> String {
    let mut told = write(&imported.objects).unwrap();
    imported.report.iter().for_each(|note| writeln!(told, "{note}").unwrap());
    imported.secrets.iter().for_each(|secret| writeln!(told, "{}", secret.command()).unwrap());
    told
}

#[test]
fn every_format_becomes_a_manifest_that_is_read_and_holds_no_secret() {
    for (format, text) in FIXTURES {
        let imported = read(*format, text).unwrap();
        assert_eq!(read_again(&imported), Ok(imported.objects.clone()), "{format:?}");
        let told = told(&imported);
        assert!(text.contains("CANARY") || text.contains("${input"), "the file holds secrets");
        assert!(!told.contains("CANARY"), "{told}");
        // Each secret that an upstream names has a command, and each command an upstream that names it.
        let mut named: Vec<String> = Vec::new();
        for object in &imported.objects {
            if let Object::Upstream { slug, spec, .. } = object {
                named.extend(spec.auth.secrets().iter().map(|(name, _)| format!("{slug}/{name}")));
            }
        }
        let found: Vec<String> =
            imported.secrets.iter().map(|secret| format!("{}/{}", secret.upstream, secret.name)).collect();
        assert_eq!(named, found, "{format:?}");
    }
}

#[test]
fn what_is_found_is_what_the_file_says() {
    let text = json!({"mcpServers": {
        "both": {"type": "sse", "url": "https://a.example/sse", "headers": {"authorization": "bearer x", "X-B": "y"}},
        "one": {"url": "https://b.example/mcp?v=1", "headers": {"Authorization": "Bearer x"}, "disabled": true},
        "key": {"url": "https://c.example/mcp?v=1&apiKey=x"},
        "bare": {"url": "https://f.example/?key=x"},
        "two": {"url": "https://d.example/?token=x&a=b&secret=y"},
        "env": {"url": "https://e.example/", "headers": {"Authorization": "Bearer ${env:TOKEN}", "X-K": "$KEY"}},
    }});
    let imported = read(Format::McpServersJson, &text.to_string()).unwrap();
    let mut shown = String::new();
    for object in &imported.objects {
        if let Object::Upstream { slug, spec, .. } = object {
            let auth = serde_json::to_string(&spec.auth).unwrap();
            writeln!(shown, "{slug} {} {auth} {}", spec.url, spec.enabled).unwrap();
        }
    }
    imported.secrets.iter().for_each(|secret| writeln!(shown, "{}", secret.command()).unwrap());
    let lost = imported.report.iter().filter(|note| note.problem.contains("not carried over"));
    lost.for_each(|note| writeln!(shown, "{note}").unwrap());
    assert_snapshot!(shown, @r#"
    both https://a.example/sse {"headers":{"headers":{"authorization":"authorization","x-b":"x-b"}}} true
    one https://b.example/mcp?v=1 {"bearer":{"secret":"token"}} false
    key https://c.example/mcp?v=1 {"query":{"parameter":"apiKey","secret":"apikey"}} true
    bare https://f.example/ {"query":{"parameter":"key","secret":"key"}} true
    two https://d.example/?a=b {"query":{"parameter":"token","secret":"token"}} true
    env https://e.example/ {"headers":{"headers":{"authorization":"authorization","x-k":"x-k"}}} true
    jq -er 'getpath(["mcpServers","both","headers","authorization"]) | strings' < "$SOURCE" | mcp-mux secret set acme/both/authorization
    jq -er 'getpath(["mcpServers","both","headers","X-B"]) | strings' < "$SOURCE" | mcp-mux secret set acme/both/x-b
    jq -er 'getpath(["mcpServers","one","headers","Authorization"]) | strings | sub("^ *bearer +"; ""; "i")' < "$SOURCE" | mcp-mux secret set acme/one/token
    jq -er 'getpath(["mcpServers","key","url"]) | strings | capture("[?&]apiKey=(?<value>[^&#]*)").value' < "$SOURCE" | mcp-mux secret set acme/key/apikey
    jq -er 'getpath(["mcpServers","bare","url"]) | strings | capture("[?&]key=(?<value>[^&#]*)").value' < "$SOURCE" | mcp-mux secret set acme/bare/key
    jq -er 'getpath(["mcpServers","two","url"]) | strings | capture("[?&]token=(?<value>[^&#]*)").value' < "$SOURCE" | mcp-mux secret set acme/two/token
    printf 'Bearer %s' "${TOKEN:?}" | mcp-mux secret set acme/env/authorization
    printf %s "${KEY:?}" | mcp-mux secret set acme/env/x-k
    mcpServers.two.url: the parameter `secret`: is not carried over
      → an upstream is shown headers, a parameter or a token of a client, and no two of these
    "#);
}

#[test]
fn names_of_the_file_stay_names_in_a_shell_and_in_a_filter() {
    let name = "x'; rm -rf ~ #\"$(id)`id`\\\n\u{202e}\u{7f}é🦀";
    let text = json!({"mcpServers": {name: {"url": "https://a.example", "headers": {"X-A'b": "v"}}}}).to_string();
    let imported = read(Format::Mcpo, &text).unwrap();
    let commands: Vec<String> = imported.secrets.iter().map(NeededSecret::command).collect();
    assert_snapshot!(commands.join("\n"), @r#"jq -er 'getpath(["mcpServers","x'\''; rm -rf ~ #\"$(id)`id`\\\n\u202e\u007f\u00e9\ud83e\udd80","headers","X-A'\''b"]) | strings' < "$SOURCE" | mcp-mux secret set acme/x-rm-rf-id-id/x-a-b"#);
    assert!(commands.iter().all(|command| command.chars().all(|c| c.is_ascii_graphic() || c == ' ')));
    assert_eq!(quoted("a'b c"), r"'a'\''b c'");
}

#[test]
fn without_a_group_nobody_may_use_anything_and_what_to_deny_is_said() {
    let options = Options { group: None, exists: true, ..options() };
    let (format, text) = FIXTURES[0];
    let imported = import(format, "a.json", text, &options).unwrap();
    assert!(imported.objects.iter().all(|object| matches!(object, Object::Upstream { .. })));
    let note = imported.report.iter().find(|note| note.problem.contains("no grant")).unwrap();
    assert!(note.instead.contains(r#"deny: ["time/convert_time", "mcp-streamable-http/delete_*", "#), "{note}");
}

#[test]
fn a_tool_that_is_switched_off_is_denied_even_if_no_pattern_holds_its_name() {
    let tools = ["é".repeat(100), "a\nb".to_owned(), "plain".to_owned()];
    let text = json!({"mcpServers": {"a": {"url": "https://a.example", "disabledTools": tools}}}).to_string();
    let imported = read(Format::Mcpo, &text).unwrap();
    let Some(Object::Grant { spec, .. }) = imported.objects.last() else { panic!("{imported:?}") };
    let slug = "a".parse().unwrap();
    for tool in &tools {
        assert!(spec.deny.iter().any(|pattern| pattern.hits(&slug, tool, "")), "{tool}");
    }
    assert!(!spec.deny.iter().any(|pattern| pattern.hits(&slug, "other", "")));
}

#[test]
fn a_file_of_another_shape_is_shown_at_its_place_and_without_its_values() {
    let error = |text: &str| read(Format::Mcpo, text).unwrap_err();
    assert_snapshot!(error("{\n  \"mcpServers\": {\n    \"a\": CANARY\n"), @"a.json:3:10: is no JSON: expected value");
    assert_snapshot!(error(""), @"a.json:1:1: is no JSON: EOF while parsing a value");
    assert_snapshot!(error("[]"), @r#"a.json:1:1: the file must be a map (`{"name": …}`)"#);
    assert_snapshot!(error("{\"servers\": {}}"), @"a.json:1:1: the file must have `mcpServers`: a map of servers by their names");
    assert_snapshot!(error("{\"mcpServers\": [1]}"), @r#"a.json:1:16: `mcpServers` must be a map (`{"name": …}`)"#);
    assert_snapshot!(error("{\"mcpServers\": {\n\"é\": {\"url\": 1}}}"), @"a.json:2:14: `mcpServers.é.url` must be a text in quotes");
    assert_snapshot!(error("{\"mcpServers\": {\n // a\n\"a\": {\"url\": \"https://a\", \"headers\": \"CANARY\"}}}"), @r#"a.json:3:38: `mcpServers.a.headers` must be a map (`{"name": …}`)"#);
    assert_snapshot!(error("{\"mcpServers\": {\"a\": {\"url\": \"https://a\", \"headers\": {\"X\": [\"CANARY\"]}}}}"), @"a.json:1:60: `mcpServers.a.headers.X` must be a text in quotes");
    assert_snapshot!(error("{\"mcpServers\": {\"a\": {\"url\": \"https://a\", \"disabled\": \"CANARY\"}}}"), @"a.json:1:55: `mcpServers.a.disabled` must be `true` or `false`");
    assert_snapshot!(error("{\"mcpServers\": {\"a\": {}, \"a\": {}}}"), @"a.json:1:16: `mcpServers` has a name twice: which of the two is meant?");
    assert_snapshot!(error("{\"mcpServers\": {\"a\": \"\\ud800\"}}"), @"a.json:1:22: is no JSON that can be read");
    assert_snapshot!(error(&format!("{{\"mcpServers\": {}{}}}", "[".repeat(100), "]".repeat(100))), @"a.json:1:80: is nested more than 64 deep");
    let many: serde_json::Map<_, _> = (0..1_001).map(|number| (number.to_string(), json!({}))).collect();
    assert_snapshot!(error(&json!({"mcpServers": many}).to_string()), @"a.json:1:15: `mcpServers` must have at most 1000 servers: split the file");
    assert_snapshot!(read(Format::McpServersJson, "{}").unwrap_err(), @"a.json:1:1: the file must have `mcpServers`, or `servers` as VS Code writes it");
}

#[test]
fn comments_and_commas_are_passed_over_and_texts_are_not() {
    let text = "{ // a \"b\"\n /* , } */ \"mcpServers\": {\"a\": {\"url\": \"https://a.example/x\", /* é */ }, }, \"c\": \"//,}\", }";
    let imported = read(Format::Mcpo, text).unwrap();
    assert_eq!(imported.objects.len(), 3);
    assert!(imported.report.iter().any(|note| note.problem.contains("comments")));
    let plain = read(Format::Mcpo, "{\"mcpServers\": {\"a\": {\"url\": \"https://a.example/*x*/,]\"}}}").unwrap();
    assert!(!plain.report.iter().any(|note| note.problem.contains("comments")));
    for text in ["/", "/*", "//", "\"", "\"\\", "{\"a\": /* ", "{,}", "[,]", "\u{feff}{"] {
        assert!(read(Format::Mcpo, text).is_err(), "{text}");
    }
}

/// Something that may stand where a text is expected.
fn word() -> BoxedStrategy<String> {
    let words = [
        "",
        "a",
        "yes",
        "Authorization",
        "X-Key",
        "Host",
        "https://a.example/mcp",
        "https://u:p@a.example/?key=x&token=%20#f",
        "http://127.0.0.1:1/${A}",
        "wss://a",
        "Bearer x",
        "Bearer ${A}",
        "${input:x}",
        "stdio",
        "sse",
        "openapi",
        "http",
        "apiKey",
        "query",
        "header",
        "bearer",
        "*",
        "\u{202e}",
        "a\nb",
        "1e3",
    ];
    prop_oneof![3 => select(words.map(ToOwned::to_owned).to_vec()), 1 => "\\PC{0,40}", 1 => any::<String>()].boxed()
}

/// Servers with the fields that are known, which hold what they should or not.
fn server() -> BoxedStrategy<serde_json::Value> {
    let names = [
        "type",
        "url",
        "command",
        "args",
        "env",
        "headers",
        "bearerToken",
        "disabled",
        "enabled",
        "disabledTools",
        "tools",
        "openapi",
        "timeout",
        "owner",
        "other",
    ];
    let map = || proptest::collection::btree_map(word(), word(), 0..4).prop_map(|map| json!(map));
    let list = || proptest::collection::vec(word(), 0..4).prop_map(|list| json!(list));
    let openapi = (word(), word(), word()).prop_map(|(url, kind, value)| {
        json!({"url": url, "security": {"type": kind, "apiKey": {"name": value, "in": "query", "value": value}}})
    });
    let tools = proptest::collection::btree_map(word(), any::<bool>(), 0..3).prop_map(|tools| {
        let states = tools.into_iter().map(|(tool, enabled)| (tool, json!({"enabled": enabled})));
        serde_json::Value::Object(states.collect())
    });
    let right = (word(), word(), map(), list(), any::<bool>(), openapi, tools).prop_map(
        |(url, kind, map, list, flag, openapi, tools)| {
            json!({"type": kind, "url": url, "command": url, "args": list, "env": map, "headers": map, "bearerToken": url,
                   "disabled": flag, "enabled": flag, "disabledTools": list, "openapi": openapi, "tools": tools})
        },
    );
    let kept = proptest::sample::subsequence(names.to_vec(), 0..names.len());
    (right, kept, word())
        .prop_map(|(mut server, kept, kind)| {
            if let Some(fields) = server.as_object_mut() {
                fields.retain(|name, _| kept.contains(&name.as_str()));
                if kept.contains(&"url") {
                    fields.insert("url".to_owned(), json!(format!("https://{}.example/{kind}", kept.len())));
                }
            }
            server
        })
        .boxed()
}

proptest! {
    #[test]
    fn whatever_is_read_becomes_a_manifest_that_is_read(
        servers in proptest::collection::btree_map(word(), server(), 0..6),
        format in select(vec![Format::Mcpo, Format::MetaMcp, Format::McpHub, Format::McpServersJson]),
    ) {
        let text = json!({"mcpServers": servers}).to_string();
        if let Ok(imported) = read(format, &text) {
            prop_assert_eq!(read_again(&imported), Ok(imported.objects.clone()));
            for command in imported.secrets.iter().map(NeededSecret::command) {
                prop_assert!(command.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", command);
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z0-9:{}\\[\\],/*\\\\\"\n é]{0,100}") {
        drop(read(Format::Mcpo, &text));
    }
}
