//! An API as its document describes it, read once and shared.

use http::Method;
use serde_json::Value;
use tenant_store::UpstreamSpec;

use super::document::{Document, DocumentError};
use super::naming::Names;
use super::operation::{METHODS, Operation, Reading, Spot};
use super::reserved::Reserved;
use super::schema::Room;
use super::template::Template;
use crate::upstream::lists::{ITEMS_MAX, LIST_BYTES_MAX};

/// Most operations of a document that are looked at.
const OPERATIONS_MAX: usize = 10_000;

/// An API.
#[derive(Debug)]
pub(super) struct Api {
    operations: Vec<Operation>,
    /// The paths of all operations, also of those that are no tools.
    routes: Vec<(Method, Template)>,
    /// What no argument may set.
    pub(super) reserved: Reserved,
    /// How many operations are no tools.
    pub(super) left_out: usize,
}

impl Api {
    /// Reads the document of an upstream.
    pub(super) fn read(bytes: &[u8], spec: &UpstreamSpec) -> Result<Self, DocumentError> {
        let document = Document::parse(bytes)?;
        let reserved = Reserved::new(&document, &spec.url, &spec.auth);
        let (mut room, mut names) = (Room::default(), Names::default());
        let (mut operations, mut routes) = (Vec::new(), Vec::new());
        let (mut left_out, mut bytes) = (0, 0);
        for spot in spots(&document).take(OPERATIONS_MAX) {
            let Some(spot) = spot else {
                left_out += 1;
                continue;
            };
            routes.push((spot.method.clone(), spot.template.clone()));
            let has_room = operations.len() < ITEMS_MAX && bytes < LIST_BYTES_MAX;
            let mut reading = Reading { document: &document, reserved: &reserved, room: &mut room, names: &mut names };
            match has_room.then(|| Operation::read(&mut reading, &spot)).flatten() {
                Some(operation) => {
                    bytes += operation.definition.len();
                    operations.push(operation);
                }
                None => left_out += 1,
            }
        }
        Ok(Self { operations, routes, reserved, left_out })
    }

    /// The operation that the tool of that name calls.
    pub(super) fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }

    /// Whether a path with these segments is rather that of another operation with the same method, which says more of it.
    pub(super) fn is_of_another(&self, operation: &Operation, segments: &[String]) -> bool {
        let own = operation.template.text_bytes();
        self.routes.iter().any(|(method, template)| {
            *method == operation.method && template.text_bytes() > own && template.covers(segments)
        })
    }

    /// The result of listing its tools, in JSON.
    pub(super) fn listing(&self) -> String {
        let definitions: Vec<&str> = self.operations.iter().map(|operation| operation.definition.as_str()).collect();
        format!("{{\"tools\":[{}]}}", definitions.join(","))
    }
}

/// The operations of a document, in its order; nothing in the place of one whose path is none.
fn spots(document: &Document) -> impl Iterator<Item = Option<Spot<'_>>> {
    document.paths().flat_map(move |(path, item)| {
        let item = document.resolve(item);
        let template = Template::parse(path);
        METHODS.into_iter().filter_map(move |(word, method)| {
            let item = item?;
            let operation: &Value = item.get(word).filter(|operation| operation.is_object())?;
            Some(template.clone().map(|template| Spot { path, item, method, operation, template }))
        })
    })
}
