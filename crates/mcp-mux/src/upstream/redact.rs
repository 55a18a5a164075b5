//! A secret that was sent with a call is not passed on when the upstream repeats it, be it in a result, an error, a notification or
//! a tool's definition. An answer that repeats none keeps its bytes.
//!
//! It is found as it was sent, and with whatever escapes JSON allows, also where JSON lies in a string of JSON. What cannot be
//! found is a secret that the upstream changed: cut in pieces, or encoded in another way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memmem};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::credential::Credential;
use super::link::Line;

/// Shortest secret that is looked for, in bytes: a shorter one may well be a word of the answer.
const SECRET_BYTES_MIN: usize = 8;
/// What stands in its place.
const REDACTED: &[u8] = b"[redacted]";

/// The secrets that were sent with one call, in each form in which they were sent.
#[derive(Default)]
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Adds one, if it is long enough to be looked for.
    pub(super) fn add(&mut self, secret: &SecretString) {
        if secret.expose_secret().len() >= SECRET_BYTES_MIN {
            self.0.push(secret.clone());
        }
    }

    /// Adds the value of a header, and what follows a scheme in it, as in `Token abc`.
    pub(super) fn add_header(&mut self, value: &SecretString) {
        self.add(value);
        if let Some((_, credential)) = value.expose_secret().split_once(' ') {
            self.add(&SecretString::from(credential));
        }
    }
}

/// Takes the secrets of one call out of what its upstream answers.
#[derive(Clone)]
pub(super) struct Redactor {
    credential: Arc<Credential>,
    line: Arc<Line>,
}

impl Redactor {
    pub(super) fn new(credential: &Arc<Credential>, line: &Arc<Line>) -> Self {
        Self { credential: Arc::clone(credential), line: Arc::clone(line) }
    }

    /// `text` without the secrets; nothing, if there are none in it.
    pub(super) fn redacted(&self, text: &[u8]) -> Option<Vec<u8>> {
        let redacted = redacted(text, &self.credential.secrets.0)?;
        if self.line.notes_repetition() {
            let upstream = self.line.upstream();
            tracing::warn!(
                tenant.id = %upstream.tenant, upstream.id = %upstream.id,
                "an upstream repeats the secret that it is called with; callers read `[redacted]` in its place"
            );
        }
        Some(redacted)
    }
}

fn redacted(text: &[u8], secrets: &[SecretString]) -> Option<Vec<u8>> {
    let has_escapes = memchr(b'\\', text).is_some();
    let has_unicode = has_escapes && memmem::find(text, b"\\u").is_some();
    let mut found: Vec<Found> = Vec::new();
    for secret in secrets {
        let secret = secret.expose_secret().as_bytes();
        // A quick look, so that the slow one is for answers in which there may be something.
        let needs_escapes = has_escapes && secret.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'/'));
        if has_unicode || needs_escapes || memmem::find(text, secret).is_some() {
            found.extend(find_all(text, &Needle::of(secret)));
        }
    }
    if found.is_empty() {
        return None;
    }
    found.sort_by_key(|found| found.place.start);
    Some(replaced(text, &found))
}

/// A place where a secret is.
struct Found {
    place: Range<usize>,
    /// Outside of a string there are only numbers; the whole number is the place.
    is_number: bool,
}

fn replaced(text: &[u8], found: &[Found]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for Found { place, is_number } in found {
        if place.start >= done {
            out.extend_from_slice(text.get(done..place.start).unwrap_or_default());
            let quote: &[u8] = if *is_number { b"\"" } else { b"" };
            out.extend([quote, REDACTED, quote].concat());
        }
        done = done.max(place.end);
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

/// What is compared: one byte of a text with its escapes undone, and where it is. Backslashes themselves are left out on both sides,
/// so that it does not matter how often something was escaped.
struct Unit {
    /// Nothing for what is no part of a secret: the quotes around a string, or a character that is not ASCII.
    byte: Option<u8>,
    place: Range<usize>,
}

/// The unit of `text` that begins at `at`. A quote is no delimiter when it is escaped.
fn unit(text: &[u8], at: usize) -> Unit {
    let rest = text.get(at..).unwrap_or_default();
    let backslashes = rest.iter().take_while(|byte| **byte == b'\\').count();
    let end = at + backslashes + 1;
    match rest.get(backslashes) {
        None => Unit { byte: None, place: at..text.len() },
        Some(b'"') if backslashes % 2 == 0 && backslashes > 0 => Unit { byte: None, place: at..end - 1 },
        Some(b'"') if backslashes == 0 => Unit { byte: None, place: at..end },
        Some(b'u') if backslashes > 0 => match hexadecimal(text.get(end..end + 4)) {
            Some(code) => Unit { byte: u8::try_from(code).ok().filter(u8::is_ascii), place: at..end + 4 },
            None => Unit { byte: Some(b'u'), place: at..end },
        },
        Some(byte) => Unit { byte: Some(*byte), place: at..end },
    }
}

fn hexadecimal(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}

/// A secret, ready to be found in one pass over a text (Knuth, Morris and Pratt).
struct Needle {
    bytes: Zeroizing<Vec<u8>>,
    /// For each beginning of it, how long the longest shorter beginning is with which that ends.
    fallbacks: Vec<usize>,
}

impl Needle {
    fn of(secret: &[u8]) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(secret.len()));
        let mut at = 0;
        while at < secret.len() {
            let unit = unit(secret, at);
            // A secret is no JSON: a quote in it is one of its characters.
            let quote = secret.get(at).filter(|byte| **byte == b'"').copied();
            bytes.extend(unit.byte.or(quote));
            at = unit.place.end;
        }
        let mut needle = Self { fallbacks: vec![0; bytes.len() + 1], bytes };
        let mut matched = 0;
        for length in 1..needle.bytes.len() {
            matched = needle.advance(matched, needle.bytes.get(length).copied());
            if let Some(fallback) = needle.fallbacks.get_mut(length + 1) {
                *fallback = matched;
            }
        }
        needle
    }

    /// How much of it is matched, when `matched` was before `byte` came.
    fn advance(&self, mut matched: usize, byte: Option<u8>) -> usize {
        let Some(byte) = byte else { return 0 };
        loop {
            if self.bytes.get(matched) == Some(&byte) {
                return matched + 1;
            }
            if matched == 0 {
                return 0;
            }
            matched = self.fallbacks.get(matched).copied().unwrap_or_default();
        }
    }
}

fn find_all(text: &[u8], needle: &Needle) -> Vec<Found> {
    let mut found = Vec::new();
    if needle.bytes.is_empty() {
        return found;
    }
    let mut starts = VecDeque::with_capacity(needle.bytes.len());
    let (mut at, mut matched, mut in_string) = (0, 0, false);
    while at < text.len() {
        let unit = unit(text, at);
        at = unit.place.end;
        in_string ^= unit.byte.is_none() && text.get(unit.place.start) == Some(&b'"');
        matched = needle.advance(matched, unit.byte);
        if starts.len() == needle.bytes.len() {
            starts.pop_front();
        }
        starts.push_back(unit.place.start);
        if matched == needle.bytes.len() {
            let place = starts.front().copied().unwrap_or_default()..at;
            found.push(if in_string { Found { place, is_number: false } } else { number_around(text, place) });
            matched = 0;
        }
    }
    found
}

/// The whole number of which `place` is a part.
fn number_around(text: &[u8], place: Range<usize>) -> Found {
    let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    let before = text.get(..place.start).unwrap_or_default().iter().rev().take_while(is_part).count();
    let after = text.get(place.end..).unwrap_or_default().iter().take_while(is_part).count();
    Found { place: place.start - before..place.end + after, is_number: true }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn clean(text: &str, secrets: &[&str]) -> Option<String> {
        let mut all = Secrets::default();
        for secret in secrets {
            all.add(&SecretString::from(*secret));
        }
        redacted(text.as_bytes(), &all.0).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_secret_is_found_however_it_is_escaped() {
        for (secret, text, expected) in [
            ("CANARY-key", r#"{"a":"CANARY-key"}"#, r#"{"a":"[redacted]"}"#),
            (
                "CANARY-key",
                r#"{"CANARY-key":"xCANARY-keyy CANARY-key"}"#,
                r#"{"[redacted]":"x[redacted]y [redacted]"}"#,
            ),
            ("CANARY-key", r#"["\u0043ANARY-\u006Bey"]"#, r#"["[redacted]"]"#),
            ("CANARY-key", r#"["{\"h\":\"\\u0043ANARY-key\"}"]"#, r#"["{\"h\":\"[redacted]\"}"]"#),
            (
                "CANARY/key=",
                r#"["CANARY\/key=","CANARY\\/key=","CANARY/key="]"#,
                r#"["[redacted]","[redacted]","[redacted]"]"#,
            ),
            (r#"CANARY"key\"#, r#"["CANARY\"key\\","CANARY\\\"key\\\\"]"#, r#"["[redacted]\\","[redacted]\\\\"]"#),
            (r"CANARY\key", r#"["CANARY\\key","CANARY\\\\key"]"#, r#"["[redacted]","[redacted]"]"#),
            ("aabaabaaab", r#"["aabaabaabaaab"]"#, r#"["aab[redacted]"]"#),
            ("key12345", "{\"a\":\"line\\nkey12345\"}", "{\"a\":\"line\\n[redacted]\"}"),
            (
                "12345678",
                r#"{"n":12345678,"m":-9.12345678e1,"s":"12345678"}"#,
                r#"{"n":"[redacted]","m":"[redacted]","s":"[redacted]"}"#,
            ),
        ] {
            let cleaned = clean(text, &[secret]);
            assert_eq!(cleaned.as_deref(), Some(expected), "{secret} in {text}");
            assert!(serde_json::from_str::<Value>(expected).is_ok());
        }
    }

    #[test]
    fn what_holds_no_secret_stays_as_it_is() {
        for (secret, text) in [
            ("CANARY-key", r#"{"a":"CANARY-ke","b":"y \u0043ANARY-kez"}"#),
            ("short", r#"{"a":"short"}"#),
            ("a\",\"bcde", r#"["a","bcde"]"#),
            ("abc\":12345", r#"{"abc":12345}"#),
            ("CANARY-key", ""),
            ("CANARY-key", "\\"),
            ("CANARY-key", "\"\\u00\""),
        ] {
            assert_eq!(clean(text, &[secret]), None, "{secret} in {text}");
        }
    }

    #[test]
    fn several_secrets_may_overlap() {
        let text = r#"["Bearer CANARY-key","CANARY-key2"]"#;
        let cleaned = clean(text, &["Bearer CANARY-key", "CANARY-key", "CANARY-key2"]).unwrap();
        assert_eq!(cleaned, r#"["[redacted]","[redacted]"]"#);
    }

    #[test]
    fn a_match_that_begins_in_an_escape_leaves_valid_json() {
        for (secret, text) in [
            ("nabcdefgh", r#"["\nabcdefgh"]"#),
            ("e9abcdefg", r#"["\u00e9abcdefg"]"#),
            ("abcdefgh\\", r#"["abcdefgh\"x"]"#),
            ("00e9abcd", r#"["\u00e9abcd"]"#),
        ] {
            let cleaned = clean(text, &[secret]).unwrap_or_else(|| text.to_owned());
            assert!(serde_json::from_str::<Value>(&cleaned).is_ok(), "{secret} in {text}: {cleaned}");
        }
    }

    /// A text as JSON, escaped by chance and put into strings of JSON by chance.
    fn escaped(text: &str, how: &[u8]) -> String {
        let mut out = String::from("\"");
        for (index, character) in text.chars().enumerate() {
            match (how.get(index % how.len().max(1)).copied().unwrap_or_default() % 3, character) {
                (0, _) => write!(out, "\\u{:04x}", u32::from(character)).unwrap(),
                (1, '/') => out.push_str("\\/"),
                (_, '"' | '\\') => out.extend(['\\', character]),
                _ => out.push(character),
            }
        }
        out + "\""
    }

    proptest! {
        #[test]
        fn no_escaping_hides_a_secret_and_json_stays_json(
            secret in "[!-~]{8,20}", before in "[ -~é]{0,9}", after in "[ -~é]{0,9}",
            how in prop::collection::vec(0_u8..3, 1..9), nested in any::<bool>(),
        ) {
            prop_assume!(!secret.contains('\\') && !before.ends_with('\\'));
            let plain = format!("{before}{secret}{after}");
            let text = escaped(&plain, &how);
            let text = if nested { escaped(&text, &[2]) } else { text };
            let cleaned = clean(&text, &[&secret]).expect("it is there");
            let mut read: Value = serde_json::from_str(&cleaned).unwrap();
            if nested {
                read = serde_json::from_str(read.as_str().unwrap()).unwrap();
            }
            prop_assert!(!read.as_str().unwrap().contains(&secret), "{}", cleaned);
            prop_assert!(read.as_str().unwrap().contains("[redacted]"));
        }

        #[test]
        fn no_text_and_no_secret_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..60), secret in "[\\\\u0-9\"a-c]{8,12}") {
            drop(redacted(&text, &[SecretString::from(secret)]));
        }
    }
}
