//! What is wrong with a manifest, and where.

use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde_saphyr::Location;

const BYTE_ORDER_MARK: char = '\u{feff}';

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
    /// Where it begins, in bytes. A reader that cannot go on knows line and column only.
    offset: Option<usize>,
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
        let span = SourceSpan::new(place.offset_in(file.inner()).into(), place.bytes);
        let problem = if path.is_empty() { message } else { format!("`{path}`: {message}") };
        Self { file: Arc::clone(file), span, place, problem }
    }
}

impl Place {
    /// The first character of a file.
    pub(super) const BEGIN: Self = Self { line: 1, column: 1, offset: Some(0), bytes: 0 };

    pub(super) fn of(location: Location) -> Self {
        let bytes = |count: Option<u64>| count.and_then(|count| usize::try_from(count).ok());
        Self {
            line: location.line(),
            column: location.column(),
            offset: bytes(location.span().byte_offset()),
            bytes: bytes(location.span().byte_len()).unwrap_or(0),
        }
    }

    fn offset_in(self, text: &str) -> usize {
        self.offset.unwrap_or_else(|| {
            let before = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
            let begin = line_begins(text).nth(before(self.line)).unwrap_or(text.len());
            let line = text.get(begin..).and_then(|rest| rest.split(['\n', '\r']).next()).unwrap_or_default();
            begin + line.char_indices().nth(before(self.column)).map_or(line.len(), |(at, _)| at)
        })
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

/// Where the lines of a text begin, in bytes, as YAML 1.2 §5.4 ends them. A byte order mark is no part of the first one.
fn line_begins(text: &str) -> impl Iterator<Item = usize> {
    let first = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
    let is_end = |at: &usize| !text.get(*at..).is_some_and(|rest| rest.starts_with("\r\n"));
    let ends = text.match_indices(['\n', '\r']).map(|(at, _)| at).filter(is_end);
    std::iter::once(first).chain(ends.map(|at| at + 1))
}
