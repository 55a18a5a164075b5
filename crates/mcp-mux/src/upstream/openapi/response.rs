//! What an API answers, as the result of a tool.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::operation::media_type;
use crate::egress::Response;
use crate::json;
use crate::upstream::answer::{held, refusal};
use crate::upstream::error::UpstreamError;
use crate::upstream::redact::Redactor;
use crate::upstream::request::Rpc;

/// Largest body, in bytes. A result says it up to twice, in longer words.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The result of a call that was not made, for this reason.
pub(super) fn refused(sentence: &str) -> String {
    result(&[text_block(sentence)], "", true)
}

/// The result of a call that was answered. A 401 says that it was not executed, and another access token may be taken.
pub(super) async fn read(
    response: Response,
    redactor: &Redactor,
    (rpc, deadline): (&Rpc<'_>, Instant),
) -> Result<String, UpstreamError> {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(refusal(status).unwrap_or(UpstreamError::Unauthorized));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = media_type(header(CONTENT_TYPE)).and_then(|value| Some(value.to_str().ok()?.to_ascii_lowercase()));
    let is_compressed = !matches!(header(CONTENT_ENCODING), "" | "identity");
    let bytes_max = rpc.answer_bytes_max;
    let body = held(response, (BODY_BYTES_MAX.min(bytes_max), &rpc.load), deadline).await?;
    let kind = kind.unwrap_or_default();
    let mut blocks = Vec::new();
    if !status.is_success() || body.is_empty() {
        blocks.push(text_block(&status_sentence(status)));
    }
    if is_compressed {
        blocks.push(text_block("The answer is compressed, which was not asked for, and cannot be read."));
    } else if !body.is_empty() {
        blocks.push(block(&kind, &body, redactor));
    }
    let structured = structured(&body).filter(|_| status.is_success() && !is_compressed);
    let result = result(&blocks, structured.unwrap_or_default(), !status.is_success() || is_compressed);
    if result.len() > bytes_max { Err(UpstreamError::TooLarge) } else { Ok(result) }
}

fn status_sentence(status: StatusCode) -> String {
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let redirects = if status.is_redirection() { "; redirects are not followed" } else { "" };
    format!("The API answered with HTTP status {}{reason}{redirects}.", status.as_u16())
}

/// The body as a block of content.
fn block(kind: &str, body: &Bytes, redactor: &Redactor) -> String {
    // A picture made of text is text.
    let is_media = (kind.starts_with("image/") && kind != "image/svg+xml") || kind.starts_with("audio/");
    // In other words than its own a secret would not be found any more.
    if is_media && redactor.is_in(body) {
        return text_block("The answer holds a secret, and is not shown.");
    }
    if is_media {
        let word = if kind.starts_with("image/") { "image" } else { "audio" };
        let data = BASE64_STANDARD.encode(body);
        return format!("{{\"type\":\"{word}\",\"data\":\"{data}\",\"mimeType\":{}}}", json::quote(kind));
    }
    if let Ok(text) = std::str::from_utf8(body) {
        return text_block(text);
    }
    let kind = if kind.is_empty() { "application/octet-stream" } else { kind };
    text_block(&format!("The API answered with {} bytes of {kind}, which cannot be shown.", body.len()))
}

/// The body as it came, if it is a JSON object that is not nested too deeply.
fn structured(body: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_shallow = text.starts_with('{') && !json::is_too_deep(format!("[[{text}]]").as_bytes());
    (is_shallow && serde_json::from_str::<&RawValue>(text).is_ok()).then_some(text)
}

fn result(blocks: &[String], structured: &str, is_error: bool) -> String {
    let structured = if structured.is_empty() { String::new() } else { format!(",\"structuredContent\":{structured}") };
    let error = if is_error { ",\"isError\":true" } else { "" };
    format!("{{\"content\":[{}]{structured}{error}}}", blocks.join(","))
}

fn text_block(text: &str) -> String {
    format!("{{\"type\":\"text\",\"text\":{}}}", json::quote(text))
}
