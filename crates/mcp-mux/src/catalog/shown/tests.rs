//! What is changed in a definition, and what is not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn shown_of(text: &str, key: &str) -> String {
    shown(serde_json::from_str(text).unwrap(), key).unwrap().get().to_owned()
}

fn tool(definition: &Value) -> Value {
    serde_json::from_str(&shown_of(&definition.to_string(), "name")).unwrap()
}

#[test]
fn what_needs_no_change_is_the_very_same_text() {
    let text = r#"{ "name":"a\u200b", "description" : "\u0041 \"b\"\n\ud83d\udc69\u200d💻 \/","n":1.50,"inputSchema":{"x":[1e9,null , {} ]}}"#;
    let raw: &RawValue = serde_json::from_str(text).unwrap();
    assert!(matches!(shown(raw, "name"), Some(Cow::Borrowed(same)) if std::ptr::eq(same, raw)));
}

#[test]
fn texts_lose_what_nobody_sees_wherever_they_are() {
    let hidden = "a\u{200b}\u{202e}\u{e0041}b";
    let definition = json!({
        "name": "t", "title": hidden, "description": hidden, "annotations": {"title": hidden, "x": [hidden]},
        "whenToUse": hidden, "inputSchema": {"title": hidden, "$comment": hidden, "properties": {
            "title": {"description": hidden, "x-hint": {"enum": 1, "text": hidden}},
            "enum": {"title": hidden, "items": {"anyOf": [{"description": hidden}]}},
            "default": {"description": hidden}, "dependencies": {"description": hidden},
        }, "dependencies": {"a": {"description": hidden}}},
        "outputSchema": {"$defs": {"const": {"description": hidden}}},
    });
    let expected = definition.to_string().replace(hidden, "ab");
    assert_eq!(tool(&definition).to_string(), expected);
    let prompt = json!({"name": "p", "arguments": [{"name": "n", "title": hidden, "description": hidden}]}).to_string();
    assert_eq!(shown_of(&prompt, "name"), prompt.replace(hidden, "ab"));
    let resource = json!({"uri": "x:y", "name": hidden, "annotations": {"audience": [hidden]}}).to_string();
    assert_eq!(shown_of(&resource, "uri"), resource.replace(hidden, "ab"));
    let skill = json!({"uri": "x:y/SKILL.md", "frontmatter": {"description": hidden}, "resources": []}).to_string();
    assert_eq!(shown_of(&skill, "uri"), skill.replace(hidden, "ab"));
}

#[test]
fn what_a_tool_is_called_by_stays_as_it_is() {
    let held = "a\u{200b}b".repeat(3000);
    let definition = json!({
        "name": held, "icons": [{"src": held}], "_meta": {"description": held},
        "inputSchema": {
            "properties": {&held: {"enum": [held], "const": held, "default": {"description": held}, "examples": [held],
                "pattern": held, "x-mcp-header": held, "format": held, "type": [held]}},
            "patternProperties": {&held: {}}, "$defs": {&held: {"$ref": held, "$id": held}},
            "required": [held], "dependentRequired": {&held: [held]}, "dependencies": {&held: [held]},
        },
    });
    assert_eq!(tool(&definition), definition);
    let prompt = json!({"name": held, "arguments": [{"name": held}]}).to_string();
    assert_eq!(shown_of(&prompt, "name"), prompt);
    let skill = json!({"uri": held, "resources": [{"uri": held, "digest": held}]}).to_string();
    assert_eq!(shown_of(&skill, "uri"), skill);
}

#[test]
fn what_a_key_hides_is_there_to_be_seen_but_for_names_that_tools_are_called_by() {
    let (hidden, marked) = ("a\u{e0041}b", "a�b");
    let definition = json!({
        "name": "t", hidden: 1, "annotations": {hidden: {hidden: true}}, "icons": [{hidden: "x:y"}],
        "_meta": {hidden: {"deep": [{hidden: "a\u{200b}b"}]}}, "inputSchema": {hidden: 1, "x-hint": {hidden: 1}},
    });
    let expected = definition.to_string().replace(hidden, marked);
    assert_eq!(tool(&definition).to_string(), expected);
    let skill = json!({"uri": "x:y", "resources": [{hidden: 1}]}).to_string();
    assert_eq!(shown_of(&skill, "uri"), skill.replace(hidden, marked));
    // Whoever could take the two for one is shown neither.
    for text in
        [r#"{"name":"t","a\u200bb":1,"a\u200cb":2}"#, r#"{"name":"t","_meta":{"x":{"a\ufffdb":1,"a\u200bb":2}}}"#]
    {
        assert!(shown(serde_json::from_str(text).unwrap(), "name").is_none(), "{text}");
    }
    // What was there twice is there twice.
    let twice = r#"{"name":"t","x":{"a":1,"a":2}}"#;
    assert_eq!(shown_of(twice, "name"), twice);
}

#[test]
fn a_long_text_is_cut_behind_a_character_with_a_mark() {
    let long = "é".repeat(10_000);
    let definition = json!({"name": "t", "title": long, "description": long,
        "inputSchema": {"title": long, "description": long, "properties": {"q": {"description": long}}}});
    let shown = tool(&definition);
    for (at, bytes_max) in [
        ("/title", TITLE_BYTES_MAX),
        ("/description", DESCRIPTION_BYTES_MAX),
        ("/inputSchema/title", TITLE_BYTES_MAX),
        ("/inputSchema/description", TEXT_BYTES_MAX),
        ("/inputSchema/properties/q/description", TEXT_BYTES_MAX),
    ] {
        let text = shown.pointer(at).and_then(Value::as_str).unwrap();
        assert!(text.len() <= bytes_max && text.len() + 2 > bytes_max, "{at}: {} bytes", text.len());
        assert!(text.ends_with("é […]"), "{at}");
    }
    let fits = json!({"name": "t", "description": "d".repeat(DESCRIPTION_BYTES_MAX)});
    assert_eq!(tool(&fits), fits);
}

#[test]
fn no_spelling_hides_a_text() {
    for (text, plain) in [
        (r#"{"name":"t","d\u0065scription":"a\u200bb"}"#, r#"{"name":"t","d\u0065scription":"ab"}"#),
        (
            r#"{"name":"t","inputSchema":{"en\u0075m":["a\u200bb"]}}"#,
            r#"{"name":"t","inputSchema":{"en\u0075m":["a\u200bb"]}}"#,
        ),
        (r#"{"name":"t","description":"a\udb40\udc41b"}"#, r#"{"name":"t","description":"ab"}"#),
        // Half of a pair, which some take and others refuse, keeps nothing from being looked at.
        (
            r#"{"name":"t","description":"\ud800\u200b\udc00\u0041\ud800\ud83d\ude00"}"#,
            r#"{"name":"t","description":"��A�😀"}"#,
        ),
        (r#"{"name":"t","description":"a\ud800"}"#, r#"{"name":"t","description":"a�"}"#),
        (r#"{"name":"t","\ud800":"a\u200bb"}"#, r#"{"name":"t","\ud800":"ab"}"#),
        (
            r#"{"name":"t","x":{"description":"a","description":"\u200bb"}}"#,
            r#"{"name":"t","x":{"description":"a","description":"b"}}"#,
        ),
        (r#"{"name":"t","description":{"title":["\u001b[8m"]}}"#, r#"{"name":"t","description":{"title":["[8m"]}}"#),
    ] {
        assert_eq!(shown_of(text, "name"), plain, "{text}");
    }
}

#[test]
fn what_is_nested_too_deeply_is_shown_to_nobody() {
    let text = format!(r#"{{"name":"t","x":{}{}}}"#, "[".repeat(json::DEPTH_MAX), "]".repeat(json::DEPTH_MAX));
    assert!(shown(serde_json::from_str(&text).unwrap(), "name").is_none());
}

proptest! {
    #[test]
    fn what_is_shown_is_the_same_json_but_for_texts_and_needs_no_further_change(
        texts in prop::collection::vec("[a\\\\\"é👩\\x{200b}\\x{200d}\\x{fe0f}\r\n\t]{0,8}", 4),
        spaces in "[ \n\t]{0,3}",
    ) {
        let definition = json!({"name": texts[0], "description": texts[1], "inputSchema": {"enum": [texts[0]],
            "properties": {&texts[2]: {"title": texts[3], "minimum": -1.5e3, "x": [true, null, {}, []]}}}});
        let text = serde_json::to_string_pretty(&definition).unwrap().replace('\n', &format!("\n{spaces}"));
        let once = shown_of(&text, "name");
        let mut expected = definition.clone();
        let left = |text: &str| Value::from(seen(text.chars()).collect::<String>());
        expected["description"] = left(&texts[1]);
        expected["inputSchema"]["properties"][&texts[2]]["title"] = left(&texts[3]);
        prop_assert_eq!(serde_json::from_str::<Value>(&once).unwrap(), expected);
        prop_assert!(once.len() <= text.len());
        prop_assert_eq!(shown_of(&once, "name"), once);
    }
}
