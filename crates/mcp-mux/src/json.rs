//! Raw JSON: looking into a text without decoding it, and changing a few bytes of it without touching the rest.
//!
//! What passes through the mux is never parsed into types and printed again. These functions find the few spans that must be
//! known, check the limits that a parser would, and splice.

mod strict;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use strict::strict;

/// Deepest nesting of arrays and objects that is let through. `serde_json` itself stops at this depth, but only where it
/// decodes; raw values it would pass over at any depth.
pub(crate) const DEPTH_MAX: usize = 128;

/// Most members of an object that is looked into.
pub(crate) const MEMBERS_MAX: usize = 256;

/// The members of one JSON object in their order, each value still raw. A key that occurs twice makes the object unreadable:
/// two readers could take it for two different messages.
#[derive(Debug)]
pub struct Members<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'t> Members<'t> {
    /// Reads an object.
    pub fn parse(text: &'t str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Reads an object from bytes that should be UTF-8.
    pub fn parse_slice(bytes: &'t [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&'t RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The string that `key` holds, if it holds one.
    pub fn get_str(&self, key: &str) -> Option<Cow<'t, str>> {
        self.get(key).and_then(as_str)
    }

    /// Whether one of the keys `known` is there and not spelt as it is known.
    pub fn has_escaped(&self, known: &[&str]) -> bool {
        self.0.iter().any(|(name, _)| matches!(name, Cow::Owned(name) if known.contains(&name.as_str())))
    }

    /// Every member, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'t RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// A key that equals one of `known` but for upper and lower case.
    pub fn misspelt(&self, known: &[&str]) -> Option<&str> {
        let mut names = self.0.iter().map(|(name, _)| name.as_ref());
        names.find(|name| known.iter().any(|known| name != known && name.eq_ignore_ascii_case(known)))
    }
}

impl<'de: 't, 't> Deserialize<'de> for Members<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some(BorrowedKey(key)) = map.next_key()? {
            if members.iter().any(|(known, _)| *known == key) {
                return Err(serde::de::Error::custom("a key occurs twice"));
            }
            if members.len() == MEMBERS_MAX {
                return Err(serde::de::Error::custom("an object has too many members"));
            }
            members.push((key, map.next_value()?));
        }
        Ok(Members(members))
    }
}

/// A key borrowed from the text where it holds no escapes. (`Cow` itself would always allocate.)
struct BorrowedKey<'t>(Cow<'t, str>);

impl<'de: 't, 't> Deserialize<'de> for BorrowedKey<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = BorrowedKey<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(BorrowedKey(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BorrowedKey(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The string that a raw value is, if it is one.
pub(crate) fn as_str(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<BorrowedKey<'_>>(raw.get()).ok().map(|BorrowedKey(text)| text)
}

/// The member `key` of a raw value, if that is an object.
pub(crate) fn member<'t>(object: Option<&'t RawValue>, key: &str) -> Option<&'t RawValue> {
    Members::parse(object?.get()).ok()?.get(key)
}

/// Whether a raw value is an object.
pub(crate) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Whether arrays and objects are nested deeper than [`DEPTH_MAX`]. Counts brackets outside strings; says nothing about
/// whether the text is JSON.
pub(crate) fn is_too_deep(text: &[u8]) -> bool {
    // Who opens few brackets in all is never deep in them. They are counted out of order, a whole register at a time.
    let opening = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
    let opened = text.chunks(u8::MAX.into()).map(|chunk| usize::from(chunk.iter().map(opening).sum::<u8>()));
    opened.sum::<usize>() > DEPTH_MAX && depth_exceeds_max(text)
}

/// The same, read from front to back.
fn depth_exceeds_max(mut text: &[u8]) -> bool {
    let mut depth = 0_usize;
    while let [byte, rest @ ..] = text {
        text = rest;
        match byte {
            b'"' => text = behind_string(rest),
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// What follows the string whose content begins `text`; nothing, if the string has no end.
pub(crate) fn behind_string(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', text) {
        let (is_end, rest) = (text.get(at) == Some(&b'"'), text.get(at + 1..).unwrap_or_default());
        if is_end {
            return rest;
        }
        text = rest.get(1..).unwrap_or_default();
    }
    &[]
}

/// A JSON string literal.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where `part`, a slice of `text`, lies in it; `None` if it is not a slice of it.
pub(crate) fn span_in(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let span = start..start.checked_add(part.len())?;
    (text.get(span.clone())? == part).then_some(span)
}

/// The edit that puts `members` (`"key":value,…`) at the front of the object that `object` spans.
pub(crate) fn insertion_into_object(text: &str, object: Range<usize>, members: &str) -> (Range<usize>, String) {
    let at = object.start + 1;
    let rest = text.get(at..object.end).unwrap_or_default();
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    (at..at, format!("{members}{comma}"))
}

/// The edit that takes the member with that value, a slice of `text`, out of its object, with one comma beside it.
fn removal_from_object(text: &str, key: &str, value: &str) -> Option<(Range<usize>, String)> {
    let value = span_in(text, value)?;
    let before = text.get(..value.start)?.trim_end().strip_suffix(':')?.trim_end();
    let start = before.strip_suffix('"')?.rfind('"')?;
    // It may be spelt with escapes. One with a quote in it is left where it is.
    if serde_json::from_str::<String>(before.get(start..)?).ok()? != key {
        return None;
    }
    let (head, tail) = (text.get(..start)?.trim_end(), text.get(value.end..)?);
    if let Some(rest) = tail.trim_start().strip_prefix(',') {
        return Some((start..text.len() - rest.len(), String::new()));
    }
    let from = head.strip_suffix(',').map_or(start, str::len);
    Some((from..value.end, String::new()))
}

/// An object without the members of these names.
pub(crate) fn without<'o>(object: &'o str, keys: &[&str]) -> Cow<'o, str> {
    // A quick look: most objects have none of them, in whatever spelling.
    let is_in = |part: &str| memchr::memmem::find(object.as_bytes(), part.as_bytes()).is_some();
    let has_one = |members: Members<'_>| keys.iter().any(|key| members.get(key).is_some());
    if !keys.iter().copied().chain(["\\u", "\\/"]).any(is_in) || !Members::parse(object).is_ok_and(has_one) {
        return Cow::Borrowed(object);
    }
    let mut text = Cow::Borrowed(object);
    for key in keys {
        let value = Members::parse(&text).ok().and_then(|members| members.get(key));
        if let Some(edit) = value.and_then(|value| removal_from_object(&text, key, value.get())) {
            text = Cow::Owned(splice(&text, vec![edit]));
        }
    }
    text
}

/// `text` with each span replaced. The spans do not overlap and lie within the text.
pub(crate) fn splice(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| span.start);
    let grown: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len() + grown);
    let mut from = 0;
    for (span, new) in edits {
        out.push_str(text.get(from..span.start).unwrap_or_default());
        out.push_str(&new);
        from = span.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Whether a text is nested deeper than that, byte by byte and without a short cut: what the fast way is compared with.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_too_deep_for_sure(text: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped, mut deepest) = (0_usize, false, false, 0);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest > most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brackets_in_strings_and_closed_ones_are_not_deep() {
        for (text, is_deep) in [
            ("[".repeat(DEPTH_MAX), false),
            ("[".repeat(DEPTH_MAX + 1), true),
            ("{}".repeat(DEPTH_MAX + 1), false),
            (format!("\"{}\"", "[".repeat(DEPTH_MAX + 1)), false),
            (format!("\"\\\"{}\"", "[".repeat(DEPTH_MAX + 1)), false),
            (format!("\"\\\\\"{}", "[".repeat(DEPTH_MAX + 1)), true),
        ] {
            assert_eq!(is_too_deep(text.as_bytes()), is_deep, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_look_at_the_depth_says_what_the_slow_one_says(
            pieces in prop::collection::vec("\\[{0,60}|\\{{0,60}|[\\]}]{0,3}|\"|\\\\|a", 0..40),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(is_too_deep(text.as_bytes()), is_too_deep_for_sure(text.as_bytes(), DEPTH_MAX));
        }
    }

    #[test]
    fn a_member_goes_with_one_comma() {
        for (text, left) in [
            (r#"{"a":1}"#, "{}"),
            (r#"{ "a" : 1 , "b":2}"#, r#"{  "b":2}"#),
            (r#"{"b":2, "a":{"a":[1,2]} }"#, r#"{"b":2 }"#),
            (r#"{"b":2,"a":"x","c":3}"#, r#"{"b":2,"c":3}"#),
            (r#"{"b":"\"a\":1"}"#, r#"{"b":"\"a\":1"}"#),
            (r#"{"\u0061":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{"\"a":1,"b":2}"#, r#"{"\"a":1,"b":2}"#),
        ] {
            assert_eq!(without(text, &["a"]), left, "{text}");
        }
        assert_eq!(without(r#"{"a":1,"b":2,"c":3}"#, &["b", "a", "c"]), "{}");
        assert_eq!(without(r#"{"a\/b":1,"c":2}"#, &["a/b"]), r#"{"c":2}"#);
    }
}
