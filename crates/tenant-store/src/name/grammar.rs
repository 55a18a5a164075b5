//! The grammars of names.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use url::{Host, Url};

/// Headers that frame the message, are hop by hop, or that we write ourselves.
const RESERVED_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Families of headers of the same kinds, and those that tell an upstream who is calling.
const RESERVED_HEADER_FAMILIES: &[&str] = &["mcp-", "proxy-", "x-forwarded-"];

/// Characters that show nothing or turn the direction of others: soft hyphen, joiners, marks and overrides of direction, invisible
/// operators, byte-order mark, annotation marks, variation selectors, tags (Unicode categories Cf and Mn as far as they hide).
const INVISIBLE: &[RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// What breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    Empty,
    TooLong { bytes: usize, bytes_max: usize },
    Character { character: char, position: usize },
    Reserved,
    NoAddress,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("this is empty"),
            Self::TooLong { bytes, bytes_max } => write!(f, "this has {bytes} bytes, and {bytes_max} is the most"),
            Self::Character { character, position } => {
                write!(f, "this has `{}` as character {position}", character.escape_debug())
            }
            Self::Reserved => f.write_str("this is such a name"),
            Self::NoAddress => f.write_str("this is none"),
        }
    }
}

pub(super) fn check_length(text: &str, bytes_max: usize) -> Result<(), Problem> {
    match text.len() {
        0 => Err(Problem::Empty),
        bytes if bytes > bytes_max => Err(Problem::TooLong { bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// Takes the text if `is_allowed` takes each character.
fn each(text: &str, is_allowed: impl Fn(char) -> bool) -> Result<Arc<str>, Problem> {
    match (1..).zip(text.chars()).find(|(_, character)| !is_allowed(*character)) {
        Some((position, character)) => Err(Problem::Character { character, position }),
        None => Ok(text.into()),
    }
}

/// `^[a-z0-9](-?[a-z0-9])*$`
pub(super) fn slug(text: &str) -> Result<Arc<str>, Problem> {
    let text = each(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')?;
    let mut position = 0;
    for part in text.split('-') {
        position += part.len() + 1;
        if part.is_empty() {
            return Err(Problem::Character { character: '-', position: position.min(text.len()) });
        }
    }
    Ok(text)
}

pub(super) fn printable(text: &str) -> Result<Arc<str>, Problem> {
    each(text, |c| !c.is_control())
}

/// What can be seen: two names that look the same to a person should not differ in what nobody sees.
pub(super) fn visible(text: &str) -> Result<Arc<str>, Problem> {
    each(text, is_visible)
}

/// Whether a character shows itself, and leaves the direction of others alone.
pub fn is_visible(c: char) -> bool {
    !c.is_control() && !INVISIBLE.iter().any(|range| range.contains(&c))
}

pub(super) fn word(text: &str) -> Result<Arc<str>, Problem> {
    each(text, is_of_word)
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The text with `_` in place of each character that a [`word`] has not.
pub(super) fn as_word(text: &str) -> String {
    text.chars().map(|c| if is_of_word(c) { c } else { '_' }).collect()
}

/// The `token` of RFC 9110 §5.6.2, in lower case.
pub(super) fn secret_header(text: &str) -> Result<Arc<str>, Problem> {
    let text = each(text, |c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))?.to_ascii_lowercase();
    let reserved = RESERVED_HEADERS.contains(&text.as_str())
        || RESERVED_HEADER_FAMILIES.iter().any(|family| text.starts_with(family));
    if reserved { Err(Problem::Reserved) } else { Ok(text.into()) }
}

/// A host as URLs print it, so that there is one spelling to compare; perhaps with `*.` before a name.
pub(super) fn host(text: &str) -> Result<Arc<str>, Problem> {
    let below = text.strip_prefix("*.");
    let bare = each(below.unwrap_or(text), |c| c.is_alphanumeric() || "-_.:[]".contains(c))?;
    let is_whole = bare.trim_start_matches('[').split('.').all(|label| !label.is_empty());
    match Host::parse(&bare) {
        Ok(Host::Domain(name)) if is_whole && below.is_some() => Ok(format!("*.{name}").into()),
        Ok(host) if is_whole && below.is_none() => Ok(host.to_string().into()),
        _ => Err(Problem::NoAddress),
    }
}

/// Without the colon that ends a user name (RFC 7617 §2).
pub(super) fn user_name(text: &str) -> Result<Arc<str>, Problem> {
    each(text, |c| !c.is_control() && c != ':')
}

/// What needs no escape in an address (RFC 3986 §2.3).
pub(super) fn unreserved(text: &str) -> Result<Arc<str>, Problem> {
    each(text, |c| c.is_ascii_alphanumeric() || "-._~".contains(c))
}

pub(super) fn visible_ascii(text: &str) -> Result<Arc<str>, Problem> {
    each(text, |c| c.is_ascii_graphic())
}

/// `scope-token *( SP scope-token )` (RFC 6749 §3.3).
pub(super) fn scope_list(text: &str) -> Result<Arc<str>, Problem> {
    let scopes = each(text, |c| c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\'))?;
    let mut position = 0;
    for scope in scopes.split(' ') {
        position += scope.len() + 1;
        if scope.is_empty() {
            return Err(Problem::Character { character: ' ', position: position.min(text.len()) });
        }
    }
    Ok(scopes)
}

/// An absolute URI without a fragment.
pub(super) fn uri(text: &str) -> Result<Arc<str>, Problem> {
    let uri = visible_ascii(text)?;
    let is_plain = Url::parse(text).is_ok_and(|url| url.fragment().is_none());
    if is_plain { Ok(uri) } else { Err(Problem::NoAddress) }
}

/// RFC 8414 §2, and http for what runs beside us.
pub(super) fn issuer_address(text: &str) -> Result<Arc<str>, Problem> {
    let issuer = call_address(text)?;
    if issuer.contains('?') { Err(Problem::NoAddress) } else { Ok(issuer) }
}

/// A web address that can be called as it stands.
pub(super) fn call_address(text: &str) -> Result<Arc<str>, Problem> {
    let address = visible_ascii(text)?;
    let is_plain = Url::parse(text).is_ok_and(|url| {
        let anonymous = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "https" | "http") && anonymous && url.fragment().is_none()
    });
    if is_plain { Ok(address) } else { Err(Problem::NoAddress) }
}
