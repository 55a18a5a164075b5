//! Manifests: the desired state as YAML documents, read into typed objects, applied in one transaction, and written again.
//!
//! Whatever is wrong is found before anything is written, and is shown with file, line, column and field. A manifest names
//! secrets and never holds them.

mod apply;
mod auth;
mod document;
mod effect;
mod error;
mod export;
mod field;
mod report;
mod verify;
mod write;
mod yaml;

use std::sync::Arc;

pub use apply::{ApplyError, Options, apply, delete, make_recording_keys, validate};
pub use document::{Document, Kind, Object};
pub use effect::{Effect, Named, Thing, Whom};
pub use error::ManifestError;
pub use export::{Exported, Unsaid, export};
pub use report::{Applied, Became, Dropped, Report};
pub use verify::{Finding, Verified, judge};
pub use write::{WriteError, documents, write, write_managed};

/// Size of the largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a document may say, as JSON Schema (draft 2020-12), for editors. It lets pass what is read; what is read may have to obey more.
pub const SCHEMA: &str = include_str!("manifest/schema.json");

/// A file of documents, read and checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    source: Arc<error::Source>,
    documents: Vec<Document>,
}

impl Manifest {
    /// The name under which errors speak of it: usually the path of the file.
    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    /// The documents, in their order.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }
}

/// Reads `text`. Errors call it `source_name`.
pub fn parse(source_name: &str, text: &str) -> Result<Manifest, ManifestError> {
    let source = Arc::new(error::Source::new(source_name, text.to_owned()));
    let documents = yaml::parse(text).and_then(|nodes| document::read_all(&nodes));
    match documents {
        Ok(documents) => Ok(Manifest { source, documents }),
        Err(problem) => Err(ManifestError::new(&source, problem)),
    }
}

#[cfg(test)]
mod tests;
