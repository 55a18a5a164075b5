//! An operation of a document as a tool: what its arguments are, and where each goes.

use http::{HeaderValue, Method};
use serde_json::{Map, Value};

use super::body::Body;
use super::document::Document;
use super::naming::{self, Names};
use super::parameter::{Parameter, ParameterPlace, Said};
use super::reserved::Reserved;
use super::schema::{Room, Schemas};
use super::template::Template;
use super::tool;

/// Most parameters of one operation.
const PARAMETERS_MAX: usize = 100;
/// The methods that become tools, as documents call them.
pub(super) const METHODS: [(&str, Method); 6] = [
    ("get", Method::GET),
    ("head", Method::HEAD),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("patch", Method::PATCH),
    ("delete", Method::DELETE),
];

/// An operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// The tool's name.
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) template: Template,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Method and path, which tell operations apart.
    pub(super) mark: String,
    /// The tool's definition, in JSON.
    pub(super) definition: String,
}

/// An argument that a tool takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Argument<'o> {
    pub(super) name: &'o str,
    pub(super) is_required: bool,
    pub(super) schema: &'o Value,
}

/// What an operation is read from.
#[derive(Debug)]
pub(super) struct Reading<'d, 'r> {
    pub(super) document: &'d Document,
    pub(super) reserved: &'r Reserved,
    pub(super) room: &'r mut Room,
    /// The names of the tools so far.
    pub(super) names: &'r mut Names,
}

/// Where an operation stands in its document.
#[derive(Debug, Clone)]
pub(super) struct Spot<'d> {
    pub(super) path: &'d str,
    pub(super) item: &'d Value,
    pub(super) method: Method,
    pub(super) operation: &'d Value,
    pub(super) template: Template,
}

impl Operation {
    /// Reads an operation; nothing where it asks for something that is not known here.
    pub(super) fn read<'d>(reading: &mut Reading<'d, '_>, spot: &Spot<'d>) -> Option<Self> {
        let said = parameters(reading.document, spot)?;
        let mut schemas = Schemas::new(reading.document, reading.room);
        let mut arguments = Names::default();
        let mut parameters = Vec::with_capacity(said.len());
        for said in said.into_iter().filter(|said| !reading.reserved.holds(said.place, said.name)) {
            parameters.push(parameter(said, &mut schemas, &mut arguments));
        }
        let body = match spot.operation.get("requestBody").and_then(|body| reading.document.resolve(body)) {
            Some(body) => Body::read(body, &mut schemas, &mut arguments).ok()?,
            None => None,
        };
        let definitions = schemas.definitions();
        let id = spot.operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
        let name = reading.names.take(&[id, &naming::of_path(&spot.method, spot.path)]);
        let mut operation = Self {
            name,
            method: spot.method.clone(),
            template: spot.template.clone(),
            parameters,
            body,
            mark: format!("{} {}", spot.method, spot.path),
            definition: String::new(),
        };
        operation.definition = tool::definition(&operation, spot, definitions)?;
        Some(operation)
    }

    /// Everything that it takes, in the order of the document.
    pub(super) fn arguments(&self) -> impl Iterator<Item = Argument<'_>> {
        let parameters = self.parameters.iter().map(|parameter| Argument {
            name: &parameter.argument,
            is_required: parameter.is_required,
            schema: &parameter.schema,
        });
        parameters.chain(self.body.iter().flat_map(Body::arguments))
    }
}

/// The parameters of a path and of an operation there; an operation's own take the place of the path's.
fn parameters<'d>(document: &'d Document, spot: &Spot<'d>) -> Option<Vec<Said<'d>>> {
    let mut found: Vec<Said<'d>> = Vec::new();
    for owner in [spot.item, spot.operation] {
        let values = owner.get("parameters").and_then(Value::as_array).into_iter().flatten();
        for value in values {
            let Some(said) = Said::parse(document, value) else {
                // What cannot be sent may be left out where it need not be sent.
                let is_required = document.resolve(value)?.get("required") == Some(&Value::Bool(true));
                if is_required {
                    return None;
                }
                continue;
            };
            found.retain(|known| (known.place, known.name) != (said.place, said.name));
            if found.len() == PARAMETERS_MAX {
                return None;
            }
            found.push(said);
        }
    }
    let is_filled = |hole: &str| found.iter().any(|said| said.place == ParameterPlace::Path && said.name == hole);
    let all_are_filled = spot.template.holes().all(is_filled);
    found.retain(|said| said.place != ParameterPlace::Path || spot.template.holes().any(|hole| hole == said.name));
    all_are_filled.then_some(found)
}

fn parameter<'d>(said: Said<'d>, schemas: &mut Schemas<'d, '_>, names: &mut Names) -> Parameter {
    let mut schema = said.schema.map_or_else(|| Value::Object(Map::new()), |schema| schemas.argument(schema));
    if let (Some(members), Some(description)) = (schema.as_object_mut(), said.description) {
        let text = tool::shortened(description);
        members.entry("description").or_insert_with(|| Value::from(text));
    }
    Parameter {
        argument: names.take(&[said.name, &format!("{}_{}", said.place.word(), said.name)]),
        name: said.name.to_owned(),
        place: said.place,
        form: said.form,
        is_required: said.is_required,
        schema,
    }
}

/// A media type as a header's value, without its parameters.
pub(super) fn media_type(text: &str) -> Option<HeaderValue> {
    let essence = text.split(';').next()?.trim();
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
    };
    let (kind, name) = essence.split_once('/')?;
    (is_word(kind) && is_word(name)).then(|| HeaderValue::from_str(essence).ok()).flatten()
}
