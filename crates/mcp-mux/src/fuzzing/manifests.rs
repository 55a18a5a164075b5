//! Manifests, as `mcp-mux validate` reads them.

use miette::{Diagnostic as _, GraphicalReportHandler, GraphicalTheme};

use crate::manifest::{Document, ManifestError, Object, parse, validate, write};

const FILE: &str = "fuzz.yaml";
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What is wrong is shown at a place inside the text, and what is read is written as the same.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let manifest = match parse(FILE, text) {
        Ok(manifest) => manifest,
        Err(error) => return is_about(text, &error),
    };
    let manifests = [manifest];
    let [manifest] = &manifests;
    match validate(&manifests) {
        Ok(count) => assert_eq!(count, manifest.documents().len()),
        Err(error) => return is_about(text, &error),
    }
    let objects = objects(manifest.documents());
    let written = write(objects.iter().copied()).expect("what was read can be written");
    let again = parse(FILE, &written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(self::objects(again.documents()), objects, "{written}");
}

fn objects(documents: &[Document]) -> Vec<&Object> {
    documents.iter().map(Document::object).collect()
}

/// The error names a line and a column that the text has, and can be drawn with them.
fn is_about(text: &str, error: &ManifestError) {
    let message = error.to_string();
    let mut parts = message.strip_prefix(FILE).expect("it opens with the file").splitn(4, ':').skip(1);
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok()).expect("a line and a column follow");
    let (line, column) = (number(), number());
    for label in error.labels().expect("it has a place") {
        let whole = label.offset()..label.offset() + label.len();
        assert!(text.get(whole.clone()).is_some(), "{whole:?} is no part of the text: {message}");
        let before = text.get(..label.offset()).expect("the whole is a part of the text");
        let (drawn_line, drawn_column) = place_behind(before);
        assert_eq!(line, drawn_line, "what is drawn is elsewhere: {message}");
        // The parser counts a byte order mark within a line, and not where a document begins.
        assert!(
            column == drawn_column || before.contains(BYTE_ORDER_MARK),
            "column {drawn_column} is drawn: {message}"
        );
    }
    let mut drawn = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    handler.render_report(&mut drawn, error).expect("a text can be written to");
}

/// The line and the column of what follows this text.
fn place_behind(before: &str) -> (usize, usize) {
    let before = before.replace("\r\n", "\n").replace('\r', "\n");
    let (line, column) =
        (before.matches('\n').count(), before.rsplit('\n').next().map_or(0, |line| line.chars().count()));
    (line + 1, column + 1)
}
