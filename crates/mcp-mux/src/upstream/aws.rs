//! AWS Signature Version 4: a request is signed with its method, path, query, headers and body, so that a signature is good for
//! this request, in this region and service, for minutes.

use std::borrow::Cow;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{AwsAccessKeyId, AwsName, Timestamp};
use url::Url;

use super::request::Outgoing;
use crate::{civil, hex};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What requests are signed with.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) access_key_id: AwsAccessKeyId,
    pub(super) secret_access_key: SecretString,
    pub(super) session_token: Option<SecretString>,
    pub(super) region: AwsName,
    pub(super) service: AwsName,
}

impl Signer {
    /// What must not be seen of it.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        [Some(&self.secret_access_key), self.session_token.as_ref()].into_iter().flatten()
    }

    /// Adds the signature to a request that is otherwise complete; nothing if the request cannot be signed as it is.
    pub(super) fn sign(&self, request: &mut Outgoing, now: Timestamp) -> Option<()> {
        let time = civil::basic(now);
        let day = time.get(..8)?;
        let host = host_of(&request.url)?;
        let headers = &mut request.headers;
        headers.insert(DATE, HeaderValue::from_str(&time).ok()?);
        if let Some(token) = &self.session_token {
            headers.insert(SECURITY_TOKEN, sensitive(token.expose_secret())?);
        }
        let (names, lines) = canonical_headers(headers, &host)?;
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{}",
            request.method,
            canonical_path(request.url.path()),
            canonical_query(&request.url),
            hex::encode(digest(&SHA256, request.body.as_bytes()).as_ref()),
        );
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let hashed = hex::encode(digest(&SHA256, canonical.as_bytes()).as_ref());
        let signature = hex::encode(self.signed(day, &format!("{ALGORITHM}\n{time}\n{scope}\n{hashed}")).as_ref());
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        );
        request.headers.insert(AUTHORIZATION, sensitive(&authorization)?);
        Some(())
    }

    /// The signature under a key that is good for one day, region and service.
    fn signed(&self, day: &str, text: &str) -> hmac::Tag {
        let secret = SecretString::from(format!("AWS4{}", self.secret_access_key.expose_secret()));
        let mut tag = keyed(secret.expose_secret().as_bytes(), day.as_bytes());
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request", text] {
            tag = keyed(tag.as_ref(), part.as_bytes());
        }
        tag
    }
}

fn keyed(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Host` header that the HTTP stack will send.
fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The names of all headers, and a line for each: in order, in lower case, without superfluous spaces.
fn canonical_headers(headers: &HeaderMap, host: &str) -> Option<(String, String)> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).filter(|name| *name != HOST).collect();
    names.push("host");
    names.sort_unstable();
    let mut lines = String::new();
    for name in &names {
        let values: Option<Vec<Cow<'_, str>>> = if *name == "host" {
            Some(vec![host.into()])
        } else {
            headers.get_all(*name).iter().map(|value| value.to_str().ok().map(squeezed)).collect()
        };
        writeln!(lines, "{name}:{}", values?.join(",")).ok()?;
    }
    Some((names.join(";"), lines))
}

/// Without spaces at its ends, and with single ones inside.
fn squeezed(text: &str) -> Cow<'_, str> {
    text.split_whitespace().collect::<Vec<_>>().join(" ").into()
}

/// The path as services other than S3 read it: empty segments are left out, and what is escaped already is escaped again.
fn canonical_path(path: &str) -> String {
    let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(escaped).collect();
    let last = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{last}", segments.join("/"))
}

/// The parameters in order of name, then of value.
fn canonical_query(url: &Url) -> String {
    let query = url.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (escaped_once(name), escaped_once(value))
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encoded, but for what RFC 3986 §2.3 leaves as it is.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| escaped + &escaped_byte(byte))
}

fn escaped_byte(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// The same for a text in which some may be percent-encoded already, in capitals or not.
fn escaped_once(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let (byte, behind) = match behind {
            [high, low, behind @ ..] if *first == b'%' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high) << 4 | digit(*low), behind)
            }
            behind => (*first, behind),
        };
        escaped.push_str(&escaped_byte(byte));
        rest = behind;
    }
    escaped
}

/// What a hexadecimal digit stands for.
fn digit(letter: u8) -> u8 {
    match letter {
        b'0'..=b'9' => letter - b'0',
        letter => letter.to_ascii_lowercase().wrapping_sub(b'a').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests;
