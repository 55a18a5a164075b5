//! A POST as HTTP shows it, before its message is read: what it accepts, what it says to be, and its body within bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::problem::Problem;
use crate::config::BODY_BYTES_MAX;

/// How long a body may take to come.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// What kind of answer a client takes. JSON it takes always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    Json,
    Events,
}

impl Accepts {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let types: Vec<&str> = values
            .flat_map(|value| value.split(','))
            .filter_map(|entry| entry.split(';').next())
            .map(str::trim)
            .collect();
        let takes =
            |wanted: &[&str]| types.iter().any(|kind| wanted.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted)));
        let any = types.is_empty() || takes(&["*/*"]);
        if any || takes(&["text/event-stream", "text/*"]) {
            Ok(Self::Events)
        } else if takes(&["application/json", "application/*"]) {
            Ok(Self::Json)
        } else {
            Err(Problem::not_acceptable())
        }
    }
}

/// Refuses a body that says to be something else than JSON.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::unsupported_media_type()) }
}

/// The body, if it has at most [`BODY_BYTES_MAX`] bytes.
pub(crate) async fn read(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
        Err(_) => Err(Problem::broken_body()),
    }
}
