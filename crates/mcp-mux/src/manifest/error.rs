//! What is wrong with a manifest, and where.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use serde_saphyr::Location;

/// A file's name and text, shared by what was found in it.
pub(super) type Source = NamedSource<String>;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: u64,
    column: u64,
    offset: usize,
    bytes: usize,
}

/// What is wrong in a file, before the file has a name.
#[derive(Debug)]
pub(super) struct Problem {
    place: Place,
    /// The way to the field, such as `spec.tools.allow[1]`; empty for the document as a whole.
    path: String,
    message: String,
}

/// What is wrong with a manifest. Printed it names file, line, column and field; as a [`Diagnostic`] it shows the place.
#[derive(Debug)]
pub struct ManifestError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<Source>,
    problem: Problem,
}
