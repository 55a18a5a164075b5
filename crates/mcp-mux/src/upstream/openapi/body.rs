//! The body that an operation takes: its members as arguments of their own, or one argument that is the body.

use http::HeaderValue;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::naming::Names;
use super::operation::{Argument, media_type};
use super::schema::Schemas;
use super::{check, encode};
use crate::json::{self, Members};

/// Most members of a body that become arguments of their own.
const MEMBERS_MAX: usize = 64;
/// Keywords by which a schema says more than which members there are.
const SAYS_MORE: [&str; 10] = [
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "patternProperties",
    "dependentSchemas",
    "propertyNames",
    "unevaluatedProperties",
];

/// A body.
#[derive(Debug)]
pub(super) struct Body {
    /// What it is sent as.
    pub(super) media_type: HeaderValue,
    format: BodyFormat,
    shape: BodyShape,
    is_required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFormat {
    Json,
    Form,
    Text,
}

#[derive(Debug)]
enum BodyShape {
    /// Each member is an argument of that name.
    Spread(Vec<Member>),
    /// One argument is the body.
    Whole(Member),
}

#[derive(Debug)]
struct Member {
    name: String,
    is_required: bool,
    schema: Value,
}

/// A body must be sent, and is of no kind that is known.
#[derive(Debug)]
pub(super) struct UnknownBody;

impl Body {
    /// Reads what a document says of a body; nothing where it need not be sent and is of no kind that is known.
    pub(super) fn read<'d>(
        said: &'d Value,
        schemas: &mut Schemas<'d, '_>,
        names: &mut Names,
    ) -> Result<Option<Self>, UnknownBody> {
        let is_required = said.get("required") == Some(&Value::Bool(true));
        let Some((media_type, format, schema)) = content(said) else {
            return if is_required { Err(UnknownBody) } else { Ok(None) };
        };
        let schema = schema.map_or_else(|| Value::Object(Map::new()), |schema| schemas.argument(schema));
        let shape = match members(&schema)
            .filter(|members| format != BodyFormat::Text && members.keys().all(|name| names.is_free(name)))
        {
            Some(members) => BodyShape::Spread(spread(members, &schema, is_required, names)),
            None => BodyShape::Whole(Member { name: names.take(&["body", "request_body"]), is_required, schema }),
        };
        Ok(Some(Self { media_type, format, shape, is_required }))
    }

    /// The arguments that it is made of.
    pub(super) fn arguments(&self) -> impl Iterator<Item = Argument<'_>> {
        let members = match &self.shape {
            BodyShape::Spread(members) => members.as_slice(),
            BodyShape::Whole(member) => std::slice::from_ref(member),
        };
        members.iter().map(Member::argument)
    }

    /// The body that `arguments` make; nothing where there is none to send, or the name of the argument at fault. Numbers stay as
    /// they were written.
    pub(super) fn filled(&self, arguments: &Members<'_>) -> Result<Option<String>, &str> {
        match &self.shape {
            BodyShape::Whole(member) => {
                let Some(value) = member.value(arguments) else { return Ok(None) };
                self.whole(value).map(Some).ok_or(member.name.as_str())
            }
            BodyShape::Spread(members) => {
                let given = members.iter().filter_map(|member| Some((member, member.value(arguments)?)));
                let given: Vec<(&Member, &RawValue)> = given.collect();
                if given.is_empty() && !self.is_required {
                    return Ok(None);
                }
                let given = given.iter().map(|(member, value)| (member.name.as_str(), *value));
                Ok(Some(if self.format == BodyFormat::Form { form(given) } else { object(given) }))
            }
        }
    }

    /// The names that are sent in a form, where the body is one.
    pub(super) fn form_names(&self, arguments: &Members<'_>) -> Vec<String> {
        let names = |members: &Members<'_>| members.iter().map(|(name, _)| name.to_owned()).collect();
        match &self.shape {
            _ if self.format != BodyFormat::Form => Vec::new(),
            BodyShape::Spread(members) => members.iter().map(|member| member.name.clone()).collect(),
            BodyShape::Whole(member) => {
                let body = arguments.get(&member.name).and_then(|value| Members::parse(value.get()).ok());
                body.as_ref().map(names).unwrap_or_default()
            }
        }
    }

    fn whole(&self, value: &RawValue) -> Option<String> {
        match self.format {
            BodyFormat::Json => Some(value.get().to_owned()),
            BodyFormat::Text => json::as_str(value).map(std::borrow::Cow::into_owned),
            BodyFormat::Form => Some(form(Members::parse(value.get()).ok()?.iter())),
        }
    }
}

impl Member {
    fn argument(&self) -> Argument<'_> {
        Argument { name: &self.name, is_required: self.is_required, schema: &self.schema }
    }

    /// What `arguments` have for it.
    fn value<'t>(&self, arguments: &Members<'t>) -> Option<&'t RawValue> {
        let value = arguments.get(&self.name)?;
        let is_left_out = value.get() == "null" && check::is_left_out(self.argument(), &Value::Null);
        (!is_left_out).then_some(value)
    }
}

/// The kind of body that is sent, of those that may be.
fn content(said: &Value) -> Option<(HeaderValue, BodyFormat, Option<&Value>)> {
    let content = said.get("content")?.as_object()?;
    for format in [BodyFormat::Json, BodyFormat::Form, BodyFormat::Text] {
        for (name, details) in content {
            let name = if name == "*/*" { "application/json" } else { name };
            if let Some(value) = media_type(name).filter(|_| is_of(format, &name.to_ascii_lowercase())) {
                return Some((value, format, details.get("schema")));
            }
        }
    }
    None
}

fn is_of(format: BodyFormat, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match format {
        BodyFormat::Json => essence == "application/json" || essence.ends_with("+json"),
        BodyFormat::Form => essence == "application/x-www-form-urlencoded",
        BodyFormat::Text => essence == "text/plain",
    }
}

/// The members of an object of which nothing else is said.
fn members(schema: &Value) -> Option<&Map<String, Value>> {
    let schema = schema.as_object()?;
    let is_closed = schema.get("additionalProperties").is_none_or(|more| more == &Value::Bool(false));
    let is_object = schema.get("type").is_none_or(|kind| kind == "object");
    let says_more = SAYS_MORE.iter().any(|keyword| schema.contains_key(*keyword));
    let members = schema.get("properties")?.as_object()?;
    (is_closed && is_object && !says_more && (1..=MEMBERS_MAX).contains(&members.len())).then_some(members)
}

fn spread(members: &Map<String, Value>, schema: &Value, is_required: bool, names: &mut Names) -> Vec<Member> {
    let required = schema.get("required").and_then(Value::as_array);
    let is_needed = |name: &str| required.is_some_and(|names| names.iter().any(|needed| needed == name));
    let member = |(name, schema): (&String, &Value)| Member {
        name: names.take(&[name]),
        is_required: is_required && is_needed(name),
        schema: schema.clone(),
    };
    members.iter().map(member).collect()
}

fn object<'a>(members: impl Iterator<Item = (&'a str, &'a RawValue)>) -> String {
    let members = members.map(|(name, value)| format!("{}:{}", json::quote(name), value.get()));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Names and values as a page's form would send them; a list is several of the same name, and what is nested is JSON.
fn form<'a>(members: impl Iterator<Item = (&'a str, &'a RawValue)>) -> String {
    let text =
        |value: &RawValue| json::as_str(value).map_or_else(|| value.get().to_owned(), std::borrow::Cow::into_owned);
    let mut pairs = Vec::new();
    for (name, value) in members {
        match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(items) => pairs.extend(items.into_iter().map(|item| (name.to_owned(), text(item)))),
            Err(_) => pairs.push((name.to_owned(), text(value))),
        }
    }
    encode::query(&pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::document::Document;
    use super::super::schema::Room;
    use super::*;

    fn filled(body: &Value, arguments: &str) -> Option<String> {
        let document = json!({"openapi": "3.0.0", "x": body}).to_string();
        let document = Document::parse(document.as_bytes()).unwrap();
        let mut room = Room::default();
        let mut names = Names::default();
        names.take(&["id"]);
        let mut schemas = Schemas::new(&document, &mut room);
        let body = Body::read(document.find("#/x").unwrap(), &mut schemas, &mut names).unwrap().unwrap();
        body.filled(&Members::parse(arguments).unwrap()).unwrap()
    }

    #[test]
    fn a_body_is_made_of_its_members_or_of_one_argument() {
        let of = |media: &str, schema: Value| json!({"required": true, "content": {media: {"schema": schema}}});
        let pet = json!({"properties": {"name": {"type": "string"}, "age": {}}});
        let clash = json!({"properties": {"id": {}}});
        for (body, arguments, sent) in [
            (of("application/json", pet.clone()), r#"{"age": 1.50, "name":"a\"b"}"#, r#"{"name":"a\"b","age":1.50}"#),
            (of("application/json", pet.clone()), "{}", "{}"),
            (of("application/merge-patch+json", clash), r#"{"id":7,"body":{"id": 8}}"#, r#"{"id": 8}"#),
            (of("application/json", json!({"type": "array"})), r#"{"body":[1, 2]}"#, "[1, 2]"),
            (
                of("application/x-www-form-urlencoded", pet),
                r#"{"name":"a&b=c","age":[1,{"x":2}]}"#,
                "name=a%26b%3Dc&age=1&age=%7B%22x%22%3A2%7D",
            ),
            (of("text/plain", json!({"type": "string"})), r#"{"body":"hello\n"}"#, "hello\n"),
        ] {
            assert_eq!(filled(&body, arguments).as_deref(), Some(sent), "{body}");
        }
    }
}
