//! Which era's rules a request follows, and whether its headers agree with its body.
//!
//! A request that names a protocol version in `_meta` is modern (2026-07-28, `basic/versioning`); `initialize` and requests
//! without are legacy. Headers only repeat the body: what is authorised and executed is the body, and a header that says
//! something else is refused, because something between us and the client may have believed it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{HeaderMap, HeaderName};

use super::envelope::Rpc;
use super::problem::Problem;
use crate::json;
use crate::protocol::{META_CAPABILITIES, META_VERSION, METHOD, MODERN_VERSION, NAME, PARAM_PREFIX, PROTOCOL_VERSION};

/// The versions we speak, newest first.
pub(crate) const VERSIONS: [&str; 4] = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"];

/// The family of protocol versions that a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on: no sessions, each request says everything.
    Modern,
}

impl Era {
    /// The word in the log field `mcp.era`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// Finds the era of a request and checks its rules.
pub(crate) fn check(headers: &HeaderMap, rpc: &Rpc<'_>) -> Result<Era, Problem> {
    let header_version = single(headers, &PROTOCOL_VERSION)?;
    let body_version = rpc.meta.as_ref().and_then(|meta| meta.get(META_VERSION));
    let body_version = body_version.map(|raw| json::as_str(raw).ok_or(Problem::bad_meta(META_VERSION, "a string")));
    let body_version = body_version.transpose()?;
    agrees(headers, &METHOD, &rpc.method)?;
    let name_key = name_key(&rpc.method);
    if let Some(name) = name_key.and_then(|key| rpc.params.get_str(key)) {
        agrees(headers, &NAME, &name)?;
    }
    if rpc.method == "initialize" {
        return Ok(Era::Legacy);
    }
    let claims_modern = header_version.as_deref().is_some_and(|version| version >= MODERN_VERSION);
    let Some(body_version) = body_version else {
        if claims_modern || rpc.method == "server/discover" {
            return Err(Problem::missing_meta(META_VERSION));
        }
        return match header_version {
            Some(version) if !VERSIONS.contains(&version.as_ref()) => Err(unsupported(&version)),
            _ => Ok(Era::Legacy),
        };
    };
    match header_version {
        None => return Err(Problem::header_mismatch("the header MCP-Protocol-Version is missing")),
        Some(version) if version != body_version => {
            return Err(Problem::header_mismatch("the header MCP-Protocol-Version differs from the body"));
        }
        Some(_) => {}
    }
    if body_version != MODERN_VERSION {
        return Err(unsupported(&body_version));
    }
    match rpc.meta.as_ref().and_then(|meta| meta.get(META_CAPABILITIES)) {
        None => return Err(Problem::missing_meta(META_CAPABILITIES)),
        Some(capabilities) if !json::is_object(capabilities) => {
            return Err(Problem::bad_meta(META_CAPABILITIES, "an object"));
        }
        Some(_) => {}
    }
    required(headers, &METHOD)?;
    if name_key.is_some() {
        required(headers, &NAME)?;
    }
    Ok(Era::Modern)
}

/// The version that a request follows, if it is not one that is yet to be agreed on. A legacy client that does not say speaks 2025-03-26
/// (MCP 2025-06-18 `basic/transports`).
pub(super) fn version(headers: &HeaderMap, (era, rpc): (Era, &Rpc<'_>)) -> Option<&'static str> {
    if era == Era::Modern {
        return Some(MODERN_VERSION);
    }
    let said = headers.get(&PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or_default());
    match said {
        _ if rpc.method == "initialize" => None,
        Some(said) => VERSIONS.into_iter().find(|version| *version == said),
        None => VERSIONS.last().copied(),
    }
}

/// The parameter that the header `Mcp-Name` repeats (MCP 2026-07-28 `basic/transports`, SEP-2663), for methods that have one.
fn name_key(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// The `Mcp-Param-…` headers of a modern request, decoded. One that cannot be read stays as it is, and will not agree with any
/// argument; one that comes twice says two things.
pub(super) fn param_headers(headers: &HeaderMap, era: Era) -> Result<Option<BTreeMap<String, String>>, Problem> {
    if era != Era::Modern {
        return Ok(None);
    }
    let mut named = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(PARAM_PREFIX) else { continue };
        let text = String::from_utf8_lossy(value.as_bytes());
        let text = decode(&text).map_or_else(|| text.to_string(), Cow::into_owned);
        if named.insert(name.to_owned(), text).is_some() {
            return Err(Problem::header_mismatch("a header Mcp-Param-… occurs twice"));
        }
    }
    Ok(Some(named))
}

fn unsupported(requested: &str) -> Problem {
    let requested: String = requested.chars().take(32).collect();
    Problem::unsupported_version(serde_json::json!({ "supported": VERSIONS, "requested": requested }))
}

/// The only value of a header. Two values, even equal ones, could be read in two ways.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<Cow<'h, str>>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::header_mismatch(format!("the header {name} occurs twice")));
    }
    let text = value.to_str().map_err(|_| Problem::header_mismatch(format!("the header {name} is not plain text")))?;
    Ok(Some(Cow::Borrowed(text)))
}

fn agrees(headers: &HeaderMap, name: &HeaderName, expected: &str) -> Result<(), Problem> {
    let Some(value) = single(headers, name)? else { return Ok(()) };
    let decoded = decode(&value).ok_or(Problem::header_mismatch(format!("the header {name} is not valid Base64")))?;
    if decoded == expected {
        Ok(())
    } else {
        Err(Problem::header_mismatch(format!("the header {name} differs from the body")))
    }
}

fn required(headers: &HeaderMap, name: &HeaderName) -> Result<(), Problem> {
    if headers.contains_key(name) {
        Ok(())
    } else {
        Err(Problem::header_mismatch(format!("the header {name} is missing")))
    }
}

/// A header value as it was before it was wrapped as `=?base64?…?=`.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|inner| inner.strip_suffix("?=")) {
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}
