//! What the suite expects to find, by the names that it knows: tools, prompts and resources, and what they say.

use serde_json::{Value, json};

/// A red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

/// One sample of silence.
const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==";

/// Tools without arguments, and what each is for.
const PLAIN_TOOLS: &[(&str, &str)] = &[
    ("test_simple_text", "Says a text"),
    ("test_image_content", "Shows an image"),
    ("test_audio_content", "Plays a sound"),
    ("test_embedded_resource", "Embeds a resource"),
    ("test_multiple_content_types", "Says a text, shows an image and embeds a resource"),
    ("test_error_handling", "Fails"),
    ("test_tool_with_logging", "Logs what it does"),
    ("test_logging_tool", "Logs what it does"),
    ("test_tool_with_progress", "Tells how far it is"),
    ("test_reconnection", "Says a text"),
    ("test_missing_capability", "Cannot work without sampling"),
    ("test_streaming_elicitation", "Asks for a word"),
    ("test_trigger_tool_change", "Says that the tools changed"),
    ("test_trigger_prompt_change", "Says that the prompts changed"),
    ("test_elicitation_sep1034_defaults", "Asks with answers already filled in"),
    ("test_elicitation_sep1330_enums", "Asks with choices of every kind"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks a model"),
    ("test_input_required_result_list_roots", "Asks for roots"),
    ("test_input_required_result_request_state", "Asks, and wants its state back"),
    ("test_input_required_result_multiple_inputs", "Asks three things at once"),
    ("test_input_required_result_multi_round", "Asks twice"),
    ("test_input_required_result_tampered_state", "Asks, and wants its state back unchanged"),
    ("test_input_required_result_capabilities", "Asks whatever the client can answer"),
];

/// All tools.
pub(super) fn tools() -> Value {
    let tool = |name: &str, description: &str, schema: Value| json!({"name": name, "description": description, "inputSchema": schema});
    let word = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
    let mut tools: Vec<Value> =
        PLAIN_TOOLS.iter().map(|(name, description)| tool(name, description, json!({"type": "object"}))).collect();
    tools.extend(super::jobs::TOOLS.map(|(name, description)| tool(name, description, json!({"type": "object"}))));
    tools.push(tool("test_sampling", "Asks a model", word("prompt")));
    tools.push(tool("test_elicitation", "Asks for an address", word("message")));
    tools.push(tool("opens_page", "Wants a page opened", json!({"type": "object"})));
    tools.push(tool("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", full_schema()));
    let region = json!({"type": "string", "x-mcp-header": "Region"});
    let schema = json!({"type": "object", "properties": {"region": region}, "required": ["region"]});
    tools.push(tool("test_parameter_in_header", "Reads a parameter that is in a header too", schema));
    Value::Array(tools)
}

/// A schema with one keyword of each kind that the dialect has.
fn full_schema() -> Value {
    let street = json!({"street": {"type": "string"}, "city": {"type": "string"}});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": street}},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

/// The contents of the result of a tool that does not ask.
pub(super) fn said_by_tool(name: &str) -> Option<Value> {
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    let resource = |uri: &str, kind: &str, text: &str| json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}});
    Some(match name {
        "test_simple_text" => json!([text("This is a simple text response for testing.")]),
        "test_image_content" => json!([image]),
        "test_audio_content" => json!([{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]),
        "test_embedded_resource" => {
            json!([resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")])
        }
        "test_multiple_content_types" => {
            let data = r#"{"test":"data","value":123}"#;
            let embedded = resource("test://mixed-content-resource", "application/json", data);
            json!([text("Multiple content types test:"), image, embedded])
        }
        "test_error_handling" => {
            json!([text("This tool intentionally returns an error for testing")])
        }
        other => json!([text(tools().as_array()?.iter().find(|tool| tool["name"] == other)?["description"].as_str()?)]),
    })
}

/// All prompts.
pub(super) fn prompts() -> Value {
    let argument = |name: &str| json!({"name": name, "description": format!("The argument {name}"), "required": true});
    json!([
        {"name": "test_simple_prompt", "description": "Says a text"},
        {
            "name": "test_prompt_with_arguments",
            "description": "Says its arguments",
            "arguments": [argument("arg1"), argument("arg2")],
        },
        {
            "name": "test_prompt_with_embedded_resource",
            "description": "Embeds a resource",
            "arguments": [argument("resourceUri")],
        },
        {"name": "test_prompt_with_image", "description": "Shows an image"},
        {"name": "test_input_required_result_prompt", "description": "Asks for a context"},
    ])
}

/// The contents of the messages of a prompt that does not ask.
pub(super) fn said_by_prompt(name: &str, arguments: &Value) -> Option<Value> {
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
    let text = |text: &str| json!({"type": "text", "text": text});
    Some(match name {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1"), argument("arg2"));
            json!([text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
        }
        "test_prompt_with_embedded_resource" => {
            let uri = argument("resourceUri");
            let resource =
                json!({"uri": uri, "mimeType": "text/plain", "text": "Embedded resource content for testing."});
            json!([{"type": "resource", "resource": resource}, text("Please process the embedded resource above.")])
        }
        "test_prompt_with_image" => {
            let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
            json!([image, text("Please analyze the image above.")])
        }
        _ => return None,
    })
}

/// All resources that are listed.
pub(super) fn resources() -> Value {
    let resource = |uri: &str, name: &str, kind: &str| json!({"uri": uri, "name": name, "description": format!("The {name}"), "mimeType": kind});
    json!([
        resource("test://static-text", "static text", "text/plain"),
        resource("test://static-binary", "static image", "image/png"),
        resource("test://watched-resource", "watched text", "text/plain"),
        super::skills::resource(),
    ])
}

/// All templates.
pub(super) fn templates() -> Value {
    let uri = "test://template/{id}/data";
    json!([{"uriTemplate": uri, "name": "by id", "description": "The data of an id", "mimeType": "application/json"}])
}

/// What a resource holds.
pub(super) fn contents(uri: &str) -> Option<Value> {
    let text = |kind: &str, text: &str| json!({"uri": uri, "mimeType": kind, "text": text});
    match uri {
        "test://static-text" => Some(text("text/plain", "This is the content of the static text resource.")),
        "test://static-binary" => Some(json!({"uri": uri, "mimeType": "image/png", "blob": PNG})),
        "test://watched-resource" => Some(text("text/plain", "This can be watched.")),
        _ => {
            if let Some(file) = super::skills::contents(uri) {
                return Some(file);
            }
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            Some(text("application/json", &data.to_string()))
        }
    }
}
