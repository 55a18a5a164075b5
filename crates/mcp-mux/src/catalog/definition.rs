//! A tool's definition, taken apart as far as needed.

use std::collections::HashSet;

use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tenant_store::{LocalName, ToolClass};

use super::named::Named;
use crate::json::{self, Members};

/// One tool's definition, taken apart as far as needed.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The name at the upstream.
    pub local: LocalName,
    /// The class that the annotations claim: `read` if `readOnlyHint` is `true`, else `write`.
    pub class: ToolClass,
    named: Named,
    param_headers: Vec<ParamHeader>,
}

/// Why a definition costs its tool the place in the list.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is longer than [`DEFINITION_BYTES_MAX`](crate::upstream::DEFINITION_BYTES_MAX) or deeper than [`json::DEPTH_MAX`].
    #[error("is too large or nested too deeply")]
    TooLarge,
    /// It is not an object, or has a key twice.
    #[error("is not a JSON object with unique keys")]
    NotAnObject,
    /// It has no usable `name`.
    #[error("has no usable name")]
    Name,
    /// Its `inputSchema` is missing or not an object, which clients refuse.
    #[error("has no inputSchema object")]
    InputSchema,
    /// Its `x-mcp-header` annotations break the rules, so that no client may use the tool (SEP-2243).
    #[error("has an `x-mcp-header` that is no header's name, is there twice, or is at no string, integer or boolean")]
    ParamHeader,
    /// It does not say which files a skill has.
    #[error(
        "is no `SKILL.md`, or has `resources` that are neither \"dynamic\" nor files in its folder with digest and size"
    )]
    Files,
    /// Its `_meta` is not an object, claims a key that is ours, or can be read in two ways.
    #[error("has a `_meta` that is not an object, holds a key of ours, or has a `ui` with a key twice")]
    Meta,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "readOnlyHint", default)]
    read_only_hint: Option<bool>,
}

impl Definition {
    /// Takes one element of an upstream's `tools`.
    pub fn parse(raw: &RawValue) -> Result<Self, DefinitionError> {
        let (named, members, name) = Named::parse(raw, "name")?;
        let schema = members.get("inputSchema").ok_or(DefinitionError::InputSchema)?;
        if !json::is_object(schema) {
            return Err(DefinitionError::InputSchema);
        }
        let annotations =
            members.get("annotations").and_then(|raw| serde_json::from_str::<Annotations>(raw.get()).ok());
        let read_only = annotations.and_then(|annotations| annotations.read_only_hint).unwrap_or(false);
        Ok(Self {
            local: name.parse().map_err(|_| DefinitionError::Name)?,
            class: if read_only { ToolClass::Read } else { ToolClass::Write },
            param_headers: param_headers(schema).ok_or(DefinitionError::ParamHeader)?,
            named,
        })
    }

    /// The upstream's own text.
    pub fn raw(&self) -> &RawValue {
        self.named.raw()
    }

    /// Whether it is there for apps alone, and not for models.
    pub(super) fn is_for_apps_only(&self) -> bool {
        self.named.is_for_apps_only()
    }

    /// The parameters that the protocol repeats as `Mcp-Param-…` headers (SEP-2243), with their values in `arguments`.
    /// Nothing, if an object on the way to one of them has a key twice: two readers could take it for two values.
    pub fn param_headers(&self, arguments: Option<&RawValue>) -> Option<Vec<(String, String)>> {
        let Some(arguments) = arguments else { return Some(Vec::new()) };
        let mut found = Vec::new();
        for param in &self.param_headers {
            let mut value = Some(arguments);
            for key in &param.path {
                let object = value.filter(|value| json::is_object(value));
                let members = object.map(|object| Members::parse(object.get())).transpose().ok()?;
                value = members.and_then(|members| members.get(key));
            }
            let text = value.and_then(|value| serde_json::from_str::<Value>(value.get()).ok());
            let text = match text {
                Some(Value::String(text)) => text,
                Some(text @ (Value::Bool(_) | Value::Number(_))) => text.to_string(),
                _ => continue,
            };
            found.push((param.header.clone(), text));
        }
        Some(found)
    }

    /// The text with what ties it to an app of its upstream, under the name `exposed` if there is one; see [`Named::with_apps`].
    pub(super) fn with_apps(
        &self,
        exposed: Option<&str>,
        tenant: &str,
        page: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        self.named.with_apps(exposed.map(|exposed| (exposed, (tenant, self.local.as_str()))), page)
    }

    /// The text with `exposed` as its name, and with tenant and local name noted under `_meta`.
    pub fn renamed(&self, exposed: &str, tenant: &str) -> String {
        self.named.renamed(exposed, (tenant, self.local.as_str()), Vec::new())
    }
}

/// A parameter that the protocol repeats as a header.
#[derive(Debug, Clone)]
struct ParamHeader {
    path: Vec<String>,
    header: String,
}

/// The `x-mcp-header` annotations of a schema, found along `properties` only, if they keep the rules.
fn param_headers(schema: &RawValue) -> Option<Vec<ParamHeader>> {
    let mut found = Vec::new();
    if schema.get().contains("x-mcp-header")
        && let Ok(schema) = serde_json::from_str::<Value>(schema.get())
    {
        collect_param_headers(&schema, &mut Vec::new(), &mut found)?;
    }
    let names: HashSet<&str> = found.iter().map(|param| param.header.as_str()).collect();
    (names.len() == found.len()).then_some(found)
}

fn collect_param_headers(schema: &Value, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) -> Option<()> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Some(()) };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header") {
            let header = HeaderName::from_bytes(header.as_str()?.as_bytes()).ok()?;
            let kind = property.get("type").and_then(Value::as_str)?;
            if !["string", "integer", "boolean"].contains(&kind) {
                return None;
            }
            found.push(ParamHeader { path: path.clone(), header: header.as_str().to_owned() });
        }
        collect_param_headers(property, path, found)?;
        path.pop();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Definition, DefinitionError> {
        Definition::parse(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn renaming_changes_the_name_and_the_notes_and_not_a_byte_more() {
        let text = r#"{ "z":1, "name" : "se\u0061rch","inputSchema":{"type":"object"},  "big":123456789012345678901234567890 ,"a":[1.50]}"#;
        let renamed = parse(text).unwrap().renamed("acme__search", "acme");
        assert_eq!(
            renamed,
            r#"{"_meta":{"mcp-mux/tenant":"acme","mcp-mux/localName":"search"}, "z":1, "name" : "acme__search","inputSchema":{"type":"object"},  "big":123456789012345678901234567890 ,"a":[1.50]}"#
        );
    }

    #[test]
    fn notes_join_a_meta_that_is_there() {
        let text = r#"{"name":"a","inputSchema":{},"_meta":{"x/y":{"x":1}}}"#;
        assert_eq!(
            parse(text).unwrap().renamed("t__a", "t"),
            r#"{"name":"t__a","inputSchema":{},"_meta":{"mcp-mux/tenant":"t","mcp-mux/localName":"a","x/y":{"x":1}}}"#
        );
        // What ties it to an app stays behind.
        let text =
            r#"{"name":"a","inputSchema":{},"_meta":{"ui":{"resourceUri":"ui://x"},"b":1,"ui/resourceUri":"ui://x"}}"#;
        let renamed = parse(text).unwrap().renamed("t__a", "t");
        assert!(renamed.contains(r#""b":1"#) && !renamed.contains("ui://"), "{renamed}");
    }

    #[test]
    fn no_spelling_of_a_key_keeps_what_ties_a_tool_to_an_app() {
        let text = r#"{"name":"a","inputSchema":{},"_meta":{"b":1,"\u0075i":{"resourceUri":"ui://x"},"ui\/resourceUri":"ui://x"}}"#;
        let renamed = parse(text).unwrap().renamed("t__a", "t");
        assert!(renamed.contains(r#""b":1"#) && !renamed.contains("ui://"), "{renamed}");
    }

    #[test]
    fn an_apps_page_is_named_as_its_tenants_endpoint_knows_it() {
        let with = |meta: &str, exposed: Option<&str>| {
            let text = format!(r#"{{"name":"a","inputSchema":{{}},"_meta":{meta}}}"#);
            let carried = |page: &str| (page == "ui://x").then(|| format!("mcp-mux://t/u/{page}"));
            parse(&text).unwrap().with_apps(exposed, "t", carried)
        };
        let meta = r#"{"ui" : {"\u0072esourceUri":"ui://x","n":1.50},"ui/resourceUri":"ui:\/\/x"}"#;
        let here =
            r#"{"ui" : {"\u0072esourceUri":"mcp-mux://t/u/ui://x","n":1.50},"ui/resourceUri":"mcp-mux://t/u/ui://x"}"#;
        assert_eq!(with(meta, None).unwrap(), format!(r#"{{"name":"a","inputSchema":{{}},"_meta":{here}}}"#));
        let renamed = with(meta, Some("t__a")).unwrap();
        let noted = r#""name":"t__a","inputSchema":{},"_meta":{"mcp-mux/tenant":"t","mcp-mux/localName":"a","ui" : {"#;
        assert!(renamed.contains(noted) && renamed.contains("mcp-mux://t/u/ui://x"), "{renamed}");
        let own = r#"{"ui":{"resourceUri":"ui://y"}}"#;
        assert!(with(own, None).is_none() && with(own, Some("t__a")).unwrap().contains("\"ui://y\""));
        assert!(with(r#"{"b":1}"#, Some("t__a")).is_none(), "no app");
    }

    #[test]
    fn what_is_for_apps_alone_is_told_from_what_models_may_use() {
        let with = |ui: &str| {
            let text = format!(r#"{{"name":"a","inputSchema":{{}},"_meta":{{"ui":{ui}}}}}"#);
            parse(&text).unwrap().is_for_apps_only()
        };
        assert!(with(r#"{"visibility":["app"]}"#) && with(r#"{"visibility":[]}"#));
        for ui in [r#"{"visibility":["model","app"]}"#, "{}", "1", r#"{"visibility":"app"}"#] {
            assert!(!with(ui), "{ui}");
        }
        assert!(!parse(r#"{"name":"a","inputSchema":{}}"#).unwrap().is_for_apps_only());
    }

    #[test]
    fn only_a_true_read_only_hint_makes_a_tool_readable() {
        let with = |annotations: &str| {
            parse(&format!(r#"{{"name":"a","inputSchema":{{}},"annotations":{annotations}}}"#)).unwrap().class
        };
        assert_eq!(with(r#"{"readOnlyHint":true}"#), ToolClass::Read);
        assert_eq!(with(r#"{"readOnlyHint":false}"#), ToolClass::Write);
        assert_eq!(with(r#"{"readOnlyHint":"true"}"#), ToolClass::Write);
        assert_eq!(with(r#"{"readOnlyHint":true,"readOnlyHint":false}"#), ToolClass::Write);
        assert_eq!(with("null"), ToolClass::Write);
    }

    #[test]
    fn a_malformed_definition_is_refused() {
        for text in [
            "[]",
            r#"{"inputSchema":{}}"#,
            r#"{"name":1,"inputSchema":{}}"#,
            r#"{"name":"","inputSchema":{}}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","inputSchema":true}"#,
            r#"{"name":"a","name":"b","inputSchema":{}}"#,
            r#"{"name":"a","inputSchema":{},"_meta":[]}"#,
            r#"{"name":"a","inputSchema":{},"_meta":{"mcp-mux/tenant":"globex"}}"#,
            r#"{"name":"a","inputSchema":{},"_meta":{"ui":{"resourceUri":"ui://a","resourceUri":"ui://b"}}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!(r#"{{"name":"a","inputSchema":{{"x":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(parse(&deep).is_err());
    }
    #[test]
    fn parameters_are_repeated_only_under_names_of_headers_and_only_when_they_are_plain() {
        let with = |properties: &str| {
            let text = format!(r#"{{"name":"a","inputSchema":{{"type":"object","properties":{{{properties}}}}}}}"#);
            parse(&text).map(|definition| definition.param_headers.len())
        };
        let inner = r#""in":{"type":"object","properties":{"c":{"type":"boolean","x-mcp-header":"C"}}}"#;
        let plain = r#""a":{"type":"string","x-mcp-header":"A"},"b":{"type":"integer","x-mcp-header":"B-b"}"#;
        assert_eq!(with(&format!("{plain},{inner}")).unwrap(), 3);
        for broken in [
            r#""a":{"type":"string","x-mcp-header":""}"#,
            r#""a":{"type":"string","x-mcp-header":"My Region"}"#,
            r#""a":{"type":"string","x-mcp-header":"Region:1"}"#,
            r#""a":{"type":"string","x-mcp-header":"R\u00e9gion"}"#,
            r#""a":{"type":"string","x-mcp-header":"Region\t1"}"#,
            r#""a":{"type":"string","x-mcp-header":1}"#,
            r#""a":{"type":"number","x-mcp-header":"A"}"#,
            r#""a":{"type":"object","x-mcp-header":"A"}"#,
            r#""a":{"type":"array","x-mcp-header":"A"}"#,
            r#""a":{"type":"null","x-mcp-header":"A"}"#,
            r#""a":{"x-mcp-header":"A"}"#,
            r#""a":{"type":"string","x-mcp-header":"Same"},"b":{"type":"string","x-mcp-header":"same"}"#,
        ] {
            assert!(matches!(with(broken), Err(DefinitionError::ParamHeader)), "{broken}");
        }
    }
}
