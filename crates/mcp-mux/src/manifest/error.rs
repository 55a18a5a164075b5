//! What is wrong with a manifest, and where.

use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde_saphyr::Location;

/// A file's name and text.
pub(super) type Source = NamedSource<String>;

/// What is wrong with a manifest. Printed it names file, line, column and field; as a [`Diagnostic`] it also shows the place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}:{}:{}: {}", file.name(), place.line, place.column, problem)]
pub struct ManifestError {
    #[source_code]
    file: Arc<Source>,
    #[label("here")]
    span: SourceSpan,
    place: Place,
    problem: String,
}

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: u64,
    column: u64,
    offset: usize,
    bytes: usize,
}

/// What is wrong, before it is known in which file.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) place: Place,
    /// The way to the field, such as `spec.tools.allow[1]`; empty where the document as a whole is meant.
    pub(super) path: String,
    pub(super) message: String,
}

impl ManifestError {
    pub(super) fn new(file: &Arc<Source>, problem: Problem) -> Self {
        let Problem { place, path, message } = problem;
        let span = SourceSpan::new(place.offset.into(), place.bytes);
        let problem = if path.is_empty() { message } else { format!("`{path}`: {message}") };
        Self { file: Arc::clone(file), span, place, problem }
    }
}

impl Place {
    /// The first character of a file.
    pub(super) const BEGIN: Self = Self { line: 1, column: 1, offset: 0, bytes: 0 };

    pub(super) fn of(location: Location) -> Self {
        let bytes = |count: Option<u64>| count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        Self {
            line: location.line(),
            column: location.column(),
            offset: bytes(location.span().byte_offset()),
            bytes: bytes(location.span().byte_len()),
        }
    }

    /// What is wrong at this place.
    pub(super) fn problem(self, path: &str, message: impl Into<String>) -> Problem {
        Problem { place: self, path: path.to_owned(), message: message.into() }
    }

    /// The place, for a message about another one.
    pub(super) fn in_file(self, file: &Source) -> String {
        format!("{}:{}:{}", file.name(), self.line, self.column)
    }
}
