//! A secret that was sent with a call is not passed on when the upstream repeats it, be it in a result, an error, a notification or
//! a tool's definition. An answer that repeats none keeps its bytes, and what frames an answer (its id, its method) is left as it is.
//!
//! It is found as it was sent, and with whatever escapes JSON allows, also where JSON lies in a string of JSON. What cannot be
//! found is a secret that the upstream changed: cut in pieces, or encoded in another way. A secret that the caller itself sent in
//! this call is left: to replace it would tell the caller that the guess was right.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;

use super::credential::Credential;
use super::link::Line;
use crate::json::{self, Members};

/// Shortest secret that is looked for, in bytes: a shorter one may well be a word of the answer.
pub(crate) const SECRET_BYTES_MIN: usize = 8;
/// What stands in its place.
const REDACTED: &str = "[redacted]";
/// How often a string is read: JSON may hold JSON.
const LAYERS_MAX: usize = 8;
/// Stands for a character that is no part of a secret.
const NO_ASCII: u8 = 0xff;
/// The members of a message that hold what the upstream says.
const SAID: [&str; 3] = ["result", "error", "params"];

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

    /// Adds the value of a header, and what follows a scheme in it, as in `Token abc`. What holds another secret is found with it.
    pub(super) fn add_header(&mut self, value: &SecretString) {
        match value.expose_secret().split_once(' ') {
            Some((_, credential)) if credential.len() >= SECRET_BYTES_MIN => {
                self.0.push(SecretString::from(credential));
            }
            _ => self.add(value),
        }
    }
}

/// Takes the secrets of one call out of what its upstream answers.
#[derive(Clone)]
pub(super) struct Redactor {
    secrets: Arc<[SecretString]>,
    line: Arc<Line>,
}

impl Redactor {
    /// For what is proved with `credential`, perhaps within a session that these ids name, and asked with `params`.
    pub(super) fn new<'i>(
        credential: &Credential,
        session: impl IntoIterator<Item = &'i str>,
        params: &str,
        line: &Arc<Line>,
    ) -> Self {
        let ids = session.into_iter().filter(|id| id.len() >= SECRET_BYTES_MIN).map(SecretString::from);
        let escapes = Escapes::of(params.as_bytes());
        let is_news = |secret: &SecretString| {
            let secret = secret.expose_secret().as_bytes();
            !escapes.may_hide(params.as_bytes(), secret) || find(params.as_bytes(), &[secret]).is_empty()
        };
        let secrets = credential.secrets.0.iter().cloned().chain(ids).filter(is_news);
        Self { secrets: secrets.collect(), line: Arc::clone(line) }
    }

    /// Whether bytes that are no message hold one of the secrets.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.secrets.iter().any(|secret| memmem::find(bytes, secret.expose_secret().as_bytes()).is_some())
    }

    /// A message without the secrets; nothing, if there are none in it or it is no message. Who reads it then refuses it.
    pub(super) fn redacted(&self, message: &[u8]) -> Option<String> {
        let secrets: Vec<&[u8]> = self.secrets.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
        let redacted = redacted(message, &secrets)?;
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

fn redacted(message: &[u8], secrets: &[&[u8]]) -> Option<String> {
    let escapes = Escapes::of(message);
    let secrets: Vec<&[u8]> = secrets.iter().copied().filter(|secret| escapes.may_hide(message, secret)).collect();
    if secrets.is_empty() || json::is_too_deep(message) {
        return None;
    }
    let text = std::str::from_utf8(message).ok()?;
    let members = Members::parse(text).ok()?;
    let mut edits = Vec::new();
    for said in SAID.iter().filter_map(|name| members.get(name)).map(RawValue::get) {
        let span = json::span_in(text, said)?;
        for Found { place, is_number } in merged(find(said.as_bytes(), &secrets)) {
            let stand_in = if is_number { format!("\"{REDACTED}\"") } else { REDACTED.to_owned() };
            edits.push((span.start + place.start..span.start + place.end, stand_in));
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    (!edits.is_empty()).then(|| json::splice(text, edits))
}

/// The escapes of a text, by what they stand for.
struct Escapes {
    is_any: bool,
    /// The ASCII characters that are written `\u00…`, one bit each.
    ascii: u128,
}

impl Escapes {
    fn of(text: &[u8]) -> Self {
        let is_any = memchr::memchr(b'\\', text).is_some();
        let mut ascii = 0;
        if is_any {
            for at in memmem::find_iter(text, b"\\u00") {
                let code = hexadecimal(text.get(at + 2..at + 6)).filter(|code| *code < 0x80);
                ascii |= code.map_or(0, |code| 1 << code);
            }
        }
        Self { is_any, ascii }
    }

    /// A quick look, so that the slow one is for texts in which the secret may be.
    fn may_hide(&self, text: &[u8], secret: &[u8]) -> bool {
        let has = |byte: &u8| byte.is_ascii() && self.ascii & (1 << byte) != 0;
        let is_escaped = secret.iter().any(|byte| has(byte) || matches!(byte, b'"' | b'\\' | b'/'));
        // What an escape is made of may be escaped itself, where JSON lies in JSON.
        let is_deep = b"\\u0123456789abcdefABCDEF".iter().any(has);
        (self.is_any && (is_escaped || is_deep)) || memmem::find(text, secret).is_some()
    }
}

/// A place where a secret is.
struct Found {
    place: Range<usize>,
    /// Outside of a string only numbers are looked at; the whole number is the place.
    is_number: bool,
}

/// In order, and those that overlap as one.
fn merged(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|found| found.place.start);
    let mut merged: Vec<Found> = Vec::with_capacity(found.len());
    for next in found {
        match merged.last_mut() {
            Some(last) if next.place.start < last.place.end => last.place.end = last.place.end.max(next.place.end),
            _ => merged.push(next),
        }
    }
    merged
}

fn hexadecimal(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}

/// Where `secrets` are in `text`, which is JSON or a part of it.
fn find(text: &[u8], secrets: &[&[u8]]) -> Vec<Found> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        let (begin, is_number) = (at, is_of_number(*byte));
        let end = if is_number {
            at + text.get(at..).unwrap_or_default().iter().take_while(|byte| is_of_number(**byte)).count()
        } else if *byte == b'"' {
            at += 1;
            end_of_string(text, at)
        } else {
            at += 1;
            continue;
        };
        let content = text.get(at..end).unwrap_or_default();
        if is_number {
            let is_secret = secrets.iter().any(|secret| memmem::find(content, secret).is_some());
            found.extend(is_secret.then_some(Found { place: begin..end, is_number }));
        } else {
            let places = find_in_string(content, secrets).into_iter();
            found.extend(places.map(|place| Found { place: at + place.start..at + place.end, is_number }));
        }
        // Behind the number, or behind the quote.
        at = if is_number { end } else { end + 1 };
    }
    found
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Where the string ends whose content begins at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Where `secrets` are in the content of a string: in what it says and, for it may hold JSON, in what that says, and so on.
fn find_in_string(content: &[u8], secrets: &[&[u8]]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut layer = Layer::of(content);
    for _ in 0..LAYERS_MAX {
        let is_last = memchr::memchr(b'\\', &layer.bytes).is_none();
        layer = layer.read();
        for secret in secrets {
            let hits = memmem::find_iter(&layer.bytes, secret);
            places.extend(hits.map(|start| layer.place(start, start + secret.len())));
        }
        if is_last {
            break;
        }
    }
    places
}

/// The content of a string, read some times, and where each byte of it begins in what is written.
struct Layer {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Layer {
    fn of(content: &[u8]) -> Self {
        let starts = (0..=content.len()).map(|at| u32::try_from(at).unwrap_or(u32::MAX));
        Self { bytes: content.to_vec(), starts: starts.collect() }
    }

    /// The same with its escapes undone. What is no escape is left as it is: not all that has backslashes is JSON.
    fn read(&self) -> Self {
        let mut read = Self { bytes: Vec::with_capacity(self.bytes.len()), starts: Vec::new() };
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            let (byte, length) = match (byte, self.bytes.get(at + 1)) {
                (b'\\', Some(b'u')) => match hexadecimal(self.bytes.get(at + 2..at + 6)) {
                    Some(code) => (u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(NO_ASCII), 6),
                    None => (b'\\', 1),
                },
                (b'\\', Some(escaped @ (b'"' | b'\\' | b'/'))) => (*escaped, 2),
                (b'\\', Some(b'b' | b'f' | b'n' | b'r' | b't')) => (b'\n', 2),
                (byte, _) => (*byte, 1),
            };
            read.bytes.push(byte);
            read.starts.extend(self.starts.get(at));
            at += length;
        }
        read.starts.extend(self.starts.last());
        read
    }

    /// Where what lies from `start` to `end` is written.
    fn place(&self, start: usize, end: usize) -> Range<usize> {
        let at = |index: usize| self.starts.get(index).map_or(usize::MAX, |at| *at as usize);
        at(start)..at(end)
    }
}

#[cfg(test)]
mod tests;
