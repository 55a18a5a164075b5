//! What clients are shown of a definition: the upstream's own text, in which nothing is hidden and no text is without end.
//!
//! Texts are what models and people read: titles, descriptions, and whatever else is said. They lose the characters that nobody sees, and
//! what is too long is cut, with a mark. By names, values and patterns tools are called, so nothing of them is changed, whatever they
//! hold. Keys are names too where a schema says so; elsewhere what nobody sees in one is made to be seen, and two that are the same then
//! are shown to nobody. What was approved is the upstream's own text, and not this one: a hidden character that changes is a change.

use std::borrow::Cow;
use std::collections::HashSet;
use std::iter;
use std::ops::Range;
use std::str::Chars;

use serde_json::value::RawValue;

use super::unseen::{first_unseen, marked, seen};
use crate::json;

/// Longest description of a tool, a prompt or a resource, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
/// Longest other text, such as a description within a schema, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Longest title, in bytes.
const TITLE_BYTES_MAX: usize = 1024;
/// What stands at the end of a text that was cut.
const CUT: &str = " […]";

/// Keywords of schemas that say which values are taken, or point somewhere.
const SCHEMA_CONTRACT: [&str; 23] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "discriminator",
    "enum",
    "example",
    "examples",
    "format",
    "id",
    "pattern",
    "required",
    "type",
    "x-mcp-header",
];
/// Keywords of schemas under which names lead to schemas.
const SCHEMAS: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// The definition as clients are shown it, whose member `key` holds what it is known by: the very same text, where there is nothing to
/// change. None, if it cannot be read.
pub(super) fn shown<'r>(raw: &'r RawValue, key: &str) -> Option<Cow<'r, RawValue>> {
    let text = raw.get();
    let mut walk = Walk { text, at: 0, edits: Vec::new() };
    walk.value(Part::Entry(key), 0)?;
    if walk.edits.is_empty() {
        return Some(Cow::Borrowed(raw));
    }
    RawValue::from_string(json::splice(text, walk.edits)).ok().map(Cow::Owned)
}

/// What stands somewhere in a definition.
#[derive(Debug, Clone, Copy)]
enum Part<'k> {
    /// The definition, with the member that it is known by.
    Entry(&'k str),
    /// An argument of a prompt.
    Argument,
    /// Anything else that is said.
    Detail,
    Schema,
    /// Names that lead to schemas.
    Schemas,
    /// The same, or to names.
    Dependencies,
    Dependency,
    /// A text of that length.
    Text(usize),
    /// What programs hold on to.
    Contract,
    /// The same but for keys.
    Held,
}

impl Part<'_> {
    /// What the member `key` of an object that is this is.
    fn member(self, key: &str) -> Self {
        match (self, key) {
            (Self::Held, _) | (Self::Entry(_), "_meta" | "icons") | (Self::Entry("uri"), "resources") => Self::Held,
            _ if self.is_held_on_to(key) => Self::Contract,
            (Self::Schemas, _) => Self::Schema,
            (Self::Dependencies, _) => Self::Dependency,
            (Self::Schema | Self::Dependency, key) if SCHEMAS.contains(&key) => Self::Schemas,
            (Self::Schema | Self::Dependency, "dependencies") => Self::Dependencies,
            (_, "title") | (Self::Entry(_), "name") => Self::Text(TITLE_BYTES_MAX),
            (Self::Entry(_), "description") => Self::Text(DESCRIPTION_BYTES_MAX),
            (Self::Entry(_), "inputSchema" | "outputSchema") | (Self::Schema | Self::Dependency, _) => Self::Schema,
            (Self::Entry(_), "arguments") => Self::Argument,
            _ => Self::Detail,
        }
    }

    /// Whether the member `key` stays as it is, with all that is in it.
    fn is_held_on_to(self, key: &str) -> bool {
        match (self, key) {
            (Self::Contract, _) | (Self::Argument, "name") => true,
            (Self::Entry(known_by), key) => key == known_by,
            (Self::Schema | Self::Dependency, key) => SCHEMA_CONTRACT.contains(&key),
            _ => false,
        }
    }

    /// Whether keys in it are names that somebody chose, and stay as they are.
    fn has_names(self) -> bool {
        matches!(self, Self::Schemas | Self::Dependencies | Self::Contract)
    }

    /// How long it may be as a string; nothing, where it stays as it is.
    fn bytes_max(self) -> Option<usize> {
        match self {
            Self::Contract | Self::Held | Self::Dependency => None,
            Self::Text(bytes_max) => Some(bytes_max),
            _ => Some(TEXT_BYTES_MAX),
        }
    }
}

/// Reads a JSON text from front to back, in one go, whatever is in it.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    edits: Vec<(Range<usize>, String)>,
}

impl Walk<'_> {
    fn value(&mut self, part: Part<'_>, depth: usize) -> Option<()> {
        match self.next()? {
            b'{' | b'[' if depth == json::DEPTH_MAX => None,
            b'{' => self.members(part, depth + 1),
            b'[' => self.items(part, depth + 1),
            b'"' => {
                let span = self.string()?;
                let text = part.bytes_max().and_then(|bytes_max| fitted(inside(self.text, &span)?, bytes_max));
                self.edits.extend(text.map(|text| (span, json::quote(&text))));
                Some(())
            }
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r');
                let rest = self.text.as_bytes().get(self.at..)?;
                self.at += rest.iter().position(is_end).unwrap_or(rest.len());
                Some(())
            }
        }
    }

    fn members(&mut self, part: Part<'_>, depth: usize) -> Option<()> {
        self.at += 1;
        let (mut keys, mut is_marked) = (Vec::new(), false);
        loop {
            match self.next()? {
                b'}' => break,
                b',' => self.at += 1,
                _ => {
                    let key = self.string()?;
                    let name = key_of(inside(self.text, &key)?);
                    let member = part.member(&name);
                    if !part.has_names() && first_unseen(&name).is_some() {
                        self.edits.push((key.clone(), json::quote(&marked(&name))));
                        is_marked = true;
                    }
                    keys.push(name);
                    if self.next()? != b':' {
                        return None;
                    }
                    self.at += 1;
                    self.value(member, depth)?;
                }
            }
        }
        self.at += 1;
        let mut seen = HashSet::new();
        // Two that were told apart by what nobody sees.
        let is_ambiguous = is_marked && !keys.iter().all(|key| seen.insert(marked(key)));
        (!is_ambiguous).then_some(())
    }

    fn items(&mut self, part: Part<'_>, depth: usize) -> Option<()> {
        self.at += 1;
        loop {
            match self.next()? {
                b']' => break,
                b',' => self.at += 1,
                _ => self.value(part, depth)?,
            }
        }
        self.at += 1;
        Some(())
    }

    /// The byte that comes next, behind white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))?;
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over a string, and says where it stood.
    fn string(&mut self) -> Option<Range<usize>> {
        let rest = self.text.as_bytes().get(self.at..)?.strip_prefix(b"\"")?;
        let end = self.text.len() - json::behind_string(rest).len();
        let span = self.at..end;
        self.at = end;
        Some(span)
    }
}

/// What stands between the quotes.
fn inside<'t>(text: &'t str, span: &Range<usize>) -> Option<&'t str> {
    text.get(span.clone())?.strip_prefix('"')?.strip_suffix('"')
}

fn key_of(inside: &str) -> Cow<'_, str> {
    if inside.contains('\\') { Cow::Owned(decoded(inside).collect()) } else { Cow::Borrowed(inside) }
}

/// A text without what nobody sees and not longer than that, if it is not so already.
fn fitted(inside: &str, bytes_max: usize) -> Option<String> {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'\\';
    if inside.len() <= bytes_max && inside.bytes().all(is_plain) {
        return None;
    }
    let left = || seen(decoded(inside));
    let bytes: usize = left().map(char::len_utf8).sum();
    if bytes <= bytes_max {
        let is_as_it_was = is_text(inside) && decoded(inside).eq(left());
        return (!is_as_it_was).then(|| left().collect());
    }
    let mut cut = String::new();
    for char in left() {
        if cut.len() + char.len_utf8() > bytes_max - CUT.len() {
            break;
        }
        cut.push(char);
    }
    Some(cut + CUT)
}

/// Whether everybody can hold it: who reads strictly refuses a whole list for half of a surrogate pair.
fn is_text(inside: &str) -> bool {
    !inside.contains("\\u") || !units(inside).any(|char| char.is_none())
}

/// The characters of what stands between the quotes of a string.
fn decoded(inside: &str) -> impl Iterator<Item = char> {
    units(inside).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// The same, with nothing for half of a surrogate pair.
fn units(inside: &str) -> impl Iterator<Item = Option<char>> {
    let mut chars = inside.chars();
    iter::from_fn(move || {
        Some(match chars.next()? {
            '\\' => escaped(&mut chars),
            char => Some(char),
        })
    })
}

/// What an escape stands for, behind its backslash.
fn escaped(chars: &mut Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return coded(chars),
        char => char,
    })
}

fn coded(chars: &mut Chars<'_>) -> Option<char> {
    let first = code_unit(chars)?;
    let mut ahead = chars.clone();
    let has_second = (0xd800..0xdc00).contains(&first) && ahead.next() == Some('\\') && ahead.next() == Some('u');
    if !has_second {
        return char::from_u32(first.into());
    }
    let pair = char::decode_utf16([first, code_unit(&mut ahead)?]).next()?.ok();
    if pair.is_some() {
        *chars = ahead;
    }
    pair
}

fn code_unit(chars: &mut Chars<'_>) -> Option<u16> {
    let digits = chars.as_str().get(..4)?;
    *chars = chars.as_str().get(4..)?.chars();
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
