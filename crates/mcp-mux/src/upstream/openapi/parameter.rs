//! A parameter of an operation: where an argument goes, and in which form.

use serde_json::Value;

use super::document::Document;

/// Where a parameter stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterPlace {
    Path,
    Query,
    Header,
    Cookie,
}

/// How a value becomes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A list is several parameters of the same name, a map one for each member.
    Exploded,
    /// A list or a map is one text, with this between its parts.
    Joined(&'static str),
    /// A map is one parameter for each member: `name[member]`.
    Deep,
    /// JSON.
    Json,
}

/// A parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    /// What the argument is called.
    pub(super) argument: String,
    /// What the API calls it.
    pub(super) name: String,
    pub(super) place: ParameterPlace,
    pub(super) form: Form,
    pub(super) is_required: bool,
    /// What the argument must be like.
    pub(super) schema: Value,
}

/// A parameter as a document has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'d> {
    pub(super) name: &'d str,
    pub(super) place: ParameterPlace,
    pub(super) form: Form,
    pub(super) is_required: bool,
    pub(super) schema: Option<&'d Value>,
    pub(super) description: Option<&'d str>,
}

impl ParameterPlace {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "path" => Some(Self::Path),
            "query" => Some(Self::Query),
            "header" => Some(Self::Header),
            "cookie" => Some(Self::Cookie),
            _ => None,
        }
    }

    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }
}

impl<'d> Said<'d> {
    /// Reads one; nothing where it cannot be understood.
    pub(super) fn parse(document: &'d Document, value: &'d Value) -> Option<Self> {
        let value = document.resolve(value)?;
        let place = ParameterPlace::parse(value.get("in")?.as_str()?)?;
        let content = value.get("content").and_then(Value::as_object).and_then(|content| content.values().next());
        let form = if content.is_some() { Form::Json } else { form(value, place)? };
        Some(Self {
            name: value.get("name")?.as_str()?,
            place,
            form,
            is_required: place == ParameterPlace::Path || value.get("required") == Some(&Value::Bool(true)),
            schema: content.unwrap_or(value).get("schema"),
            description: value.get("description").and_then(Value::as_str),
        })
    }
}

/// How a parameter is written (OpenAPI 3.1 §4.8.12.2); nothing for the forms that are not known.
fn form(value: &Value, place: ParameterPlace) -> Option<Form> {
    let usual = match place {
        ParameterPlace::Path | ParameterPlace::Header => "simple",
        ParameterPlace::Query | ParameterPlace::Cookie => "form",
    };
    let style = value.get("style").and_then(Value::as_str).unwrap_or(usual);
    let explodes = value.get("explode").and_then(Value::as_bool).unwrap_or(style == "form");
    match style {
        "form" if explodes && place == ParameterPlace::Query => Some(Form::Exploded),
        "simple" | "form" => Some(Form::Joined(",")),
        "spaceDelimited" => Some(Form::Joined(" ")),
        "pipeDelimited" => Some(Form::Joined("|")),
        "deepObject" => Some(Form::Deep),
        _ => None,
    }
}
