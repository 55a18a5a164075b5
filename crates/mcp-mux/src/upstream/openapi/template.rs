//! The path of an operation, with holes that arguments fill. What fills a hole stays in its segment: whoever reads the path, once
//! decoded or decoded again, finds as many segments as the template has, and none that leads up.

use std::collections::HashSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tenant_store::percent_decodings;

/// Everything that RFC 3986 §2.3 does not leave as it is.
pub(super) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What the text of a template may hold as it is (RFC 3986 §3.3).
const NOT_OF_A_PATH: &AsciiSet =
    &RESERVED.remove(b'!').remove(b'$').remove(b'&').remove(b'\'').remove(b'(').remove(b')').remove(b'*').remove(b'+');
/// Longest path of a document, in bytes.
const TEMPLATE_BYTES_MAX: usize = 2 * 1024;
/// Most holes of a path.
const HOLES_MAX: usize = 32;
/// Longest path that is sent, in bytes.
const PATH_BYTES_MAX: usize = 8 * 1024;
/// How often a segment is decoded to see what somebody may take it for.
const DECODINGS_MAX: usize = 4;

/// A path with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Segment>);

type Segment = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(String),
}

/// A path whose holes are filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// As it is sent.
    pub(super) path: String,
    /// Its segments as they are meant.
    pub(super) segments: Vec<String>,
}

impl Template {
    /// Reads a path of a document; nothing where it is none, or leads up.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix('/').filter(|_| path.len() <= TEMPLATE_BYTES_MAX)?;
        if rest.contains(['?', '#', '\\']) || rest.chars().any(char::is_control) {
            return None;
        }
        let segments: Option<Vec<Segment>> = rest.split('/').map(pieces).collect();
        let segments = segments?;
        let mut names = HashSet::new();
        for piece in segments.iter().flatten() {
            if let Piece::Hole(name) = piece
                && (names.len() == HOLES_MAX || !names.insert(name.as_str()))
            {
                return None;
            }
        }
        // A path may end in a slash, and has no other empty segment.
        let (_, others) = segments.split_last()?;
        if others.iter().any(Vec::is_empty) {
            return None;
        }
        let texts = segments.iter().filter_map(|segment| match segment.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        });
        (!texts.into_iter().any(|text| leads_astray(text))).then_some(Self(segments))
    }

    /// The names of its holes.
    pub(super) fn holes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().filter_map(|piece| match piece {
            Piece::Hole(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The path with each hole filled with what `value` has for it; else the name of the hole at fault.
    pub(super) fn fill(&self, value: impl Fn(&str) -> Option<String>) -> Result<Filled, &str> {
        let mut filled = Filled { path: String::new(), segments: Vec::new() };
        for segment in &self.0 {
            let (mut sent, mut meant, mut last_hole) = (String::new(), String::new(), None);
            for piece in segment {
                match piece {
                    Piece::Text(text) => {
                        sent.extend(utf8_percent_encode(text, NOT_OF_A_PATH));
                        meant.push_str(text);
                    }
                    Piece::Hole(name) => {
                        let text =
                            value(name).filter(|text| !text.is_empty() && !leads_astray(text)).ok_or(name.as_str())?;
                        sent.extend(utf8_percent_encode(&text, RESERVED));
                        meant.push_str(&text);
                        last_hole = Some(name.as_str());
                    }
                }
            }
            if let Some(hole) = last_hole.filter(|_| leads_astray(&meant)) {
                return Err(hole);
            }
            filled.path = filled.path + "/" + &sent;
            if filled.path.len() > PATH_BYTES_MAX {
                return Err(last_hole.unwrap_or_default());
            }
            filled.segments.push(meant);
        }
        Ok(filled)
    }

    /// Whether somebody could take a path with these segments for one of this template's: whoever decodes it once more, or leaves out
    /// what follows a semicolon.
    pub(super) fn covers(&self, segments: &[String]) -> bool {
        let Some(readings) = percent_decodings(&segments.join("/")) else { return true };
        readings.iter().any(|path| {
            let segments: Vec<&str> = path.split('/').collect();
            let cut: Vec<&str> = segments.iter().filter_map(|segment| segment.split(';').next()).collect();
            self.covers_as_is(&segments) || self.covers_as_is(&cut)
        })
    }

    /// The same for whoever takes it to the letter, in capitals or not.
    fn covers_as_is(&self, segments: &[&str]) -> bool {
        let fits = |(pieces, segment): (&Segment, &&str)| is_covered(pieces, &segment.to_lowercase());
        self.0.len() == segments.len() && self.0.iter().zip(segments).all(fits)
    }

    /// How much of it is text: of two templates that cover a path, the one with more is meant.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = self.0.iter().flatten().map(|piece| if let Piece::Text(text) = piece { text.len() } else { 0 });
        texts.sum()
    }
}

/// Text and holes of one segment. Two holes have text between them: nobody could tell where one ends.
fn pieces(segment: &str) -> Option<Segment> {
    let (mut pieces, mut rest) = (Vec::new(), segment);
    while !rest.is_empty() {
        let (text, hole) = rest.split_once('{').map_or((rest, None), |(text, hole)| (text, Some(hole)));
        if text.contains('}') || (text.is_empty() && matches!(pieces.last(), Some(Piece::Hole(_)))) {
            return None;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        rest = "";
        if let Some(hole) = hole {
            let (name, behind) = hole.split_once('}')?;
            if name.is_empty() || name.contains('{') {
                return None;
            }
            pieces.push(Piece::Hole(name.to_owned()));
            rest = behind;
        }
    }
    Some(pieces)
}

/// Whether somebody who reads a segment, decoding it once or several times, would find another segment in it, or none.
fn leads_astray(segment: &str) -> bool {
    let mut text = segment.to_owned();
    for _ in 0..DECODINGS_MAX {
        // Some servers leave out what follows a semicolon.
        let name = text.split(';').next().unwrap_or_default();
        if matches!(name, "." | "..") || text.contains(['/', '\\']) || text.chars().any(char::is_control) {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    true
}

/// Whether `text`, in lower case, is the pieces' own text with something in each hole.
fn is_covered(pieces: &[Piece], text: &str) -> bool {
    match pieces {
        [] => text.is_empty(),
        [Piece::Text(own), rest @ ..] => {
            text.strip_prefix(own.to_lowercase().as_str()).is_some_and(|text| is_covered(rest, text))
        }
        [Piece::Hole(_)] => !text.is_empty(),
        [Piece::Hole(_), Piece::Text(own)] => {
            text.strip_suffix(own.to_lowercase().as_str()).is_some_and(|text| !text.is_empty())
        }
        [Piece::Hole(_), rest @ ..] => {
            let Some([Piece::Text(own), behind @ ..]) = rest.get(..) else { return false };
            let own = own.to_lowercase();
            let first = text.chars().next().map_or(0, char::len_utf8);
            let found = text.get(first..).and_then(|text| text.find(&own)).map(|at| first + at + own.len());
            found.filter(|_| first > 0).and_then(|at| text.get(at..)).is_some_and(|text| is_covered(behind, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn filled(template: &str, value: &str) -> Option<Filled> {
        Template::parse(template).unwrap().fill(|_| Some(value.to_owned())).ok()
    }

    #[test]
    fn a_path_has_few_holes_each_of_another_name_and_stays_short() {
        let holes = |count: usize| (0..count).fold(String::new(), |path, index| format!("{path}/{{h{index}}}"));
        assert!(Template::parse(&holes(HOLES_MAX)).is_some());
        for path in [holes(HOLES_MAX + 1), "/{a}/{a}".to_owned(), format!("/{}", "a".repeat(TEMPLATE_BYTES_MAX))] {
            assert_eq!(Template::parse(&path), None, "{path}");
        }
        assert_eq!(filled("/{a}/b", &"x".repeat(PATH_BYTES_MAX)), None);
    }

    #[test]
    fn other_spellings_of_another_path_are_that_path() {
        let me = Template::parse("/users/me").unwrap();
        for id in ["me", "ME", "m%65", "m%2565", "me;x", "m%65;x"] {
            assert!(me.covers(&["users".to_owned(), id.to_owned()]), "{id}");
        }
        assert!(!me.covers(&["users".to_owned(), "mine".to_owned()]));
    }

    #[test]
    fn an_argument_stays_in_its_segment() {
        for (value, path) in [
            ("7", "/users/7/files"),
            ("a b", "/users/a%20b/files"),
            ("?x=1#y", "/users/%3Fx%3D1%23y/files"),
            ("100%", "/users/100%25/files"),
            ("a.b", "/users/a.b/files"),
            ("...", "/users/.../files"),
            ("grüße", "/users/gr%C3%BC%C3%9Fe/files"),
            (":@!$&'()*+,;=", "/users/%3A%40%21%24%26%27%28%29%2A%2B%2C%3B%3D/files"),
        ] {
            assert_eq!(filled("/users/{id}/files", value).unwrap().path, path);
        }
        for value in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/",
            "\\",
            "..\\x",
            "%2e",
            "%2E%2e",
            ".%2e",
            "%252e%252e",
            "%2f",
            "a%2Fb",
            "%255c",
            "%25252525252e",
            "a\r\nb",
            "a\0",
            "%00",
            "..;x",
            "\u{7f}",
            "\u{85}",
        ] {
            assert_eq!(filled("/users/{id}/files", value), None, "{value:?}");
        }
    }

    #[test]
    fn holes_and_text_together_lead_nowhere_either() {
        for (template, value) in [("/a/{b}.", "."), ("/a/.{b}", "."), ("/a/%2e{b}", "."), ("/a/{b}2e", "%")] {
            assert_eq!(filled(template, value), None, "{template}");
        }
        assert_eq!(filled("/a/{b}.json", "x").unwrap().path, "/a/x.json");
        for path in [
            "a",
            "",
            "/a/../b",
            "/./a",
            "/%2e%2e/a",
            "/a?x=1",
            "/a#b",
            "/a\\b",
            "//a",
            "/a//b",
            "/{a}{b}",
            "/{a",
            "/a}",
            "/{}",
            "/%2f",
        ] {
            assert_eq!(Template::parse(path), None, "{path}");
        }
        for path in ["/", "/a", "/a/", "/a/{b}:cancel", "/{a}-{b}", "/a@b,c;d=e"] {
            assert!(Template::parse(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_template_covers_the_paths_that_it_could_make() {
        for (template, path, covers) in [
            ("/users/{id}", "users/7", true),
            ("/users/me", "users/ME", true),
            ("/users/{id}", "users/7/x", false),
            ("/users/{id}:cancel", "users/7:cancel", true),
            ("/users/{id}:cancel", "users/:cancel", false),
            ("/x/{a}-{b}-{c}", "x/1-2-3", true),
            ("/x/{a}-{b}-{c}", "x/1-2", false),
            ("/x/{a}.json", "x/.json", false),
        ] {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            assert_eq!(Template::parse(template).unwrap().covers(&segments), covers, "{template} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_argument_changes_the_segments_of_an_address(value in "[a./\\\\%2eEfF5cC;?#: ü\r\n\u{0}]{0,8}|\\PC{0,12}") {
            let Some(filled) = filled("/v1/{id}/end", &value) else { return Ok(()) };
            let mut url: Url = "https://api.example/base?fixed=1".parse().unwrap();
            url.set_path(&format!("/base{}", filled.path));
            prop_assert_eq!(url.path(), format!("/base{}", filled.path));
            prop_assert_eq!(url.query(), Some("fixed=1"));
            prop_assert_eq!(url.fragment(), None);
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 4);
            let decoded = percent_decode_str(segments[2]).decode_utf8().unwrap();
            prop_assert_eq!(decoded.as_ref(), value.as_str());
            // Whoever decodes the whole path before it is taken apart finds the same segments.
            let whole = percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(whole.split('/').count(), 5);
            let again = percent_decode_str(&whole).decode_utf8_lossy().into_owned();
            prop_assert!(!again.split('/').any(|segment| matches!(segment, "." | "..")));
            prop_assert_eq!(again.split('/').count(), 5);
        }

        #[test]
        fn what_a_template_makes_it_covers(a in "[a-z.%:-]{1,5}", b in "[a-z.-]{1,5}") {
            let template = Template::parse("/x/{a}:{b}/y").unwrap();
            let made = template.fill(|name| Some(if name == "a" { a.clone() } else { b.clone() }));
            if let Ok(made) = made {
                prop_assert!(template.covers(&made.segments));
            }
        }
    }
}
