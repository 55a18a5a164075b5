//! How a request went that we answered ourselves, as it is measured.

use axum::body::Body;
use http::Response;

use super::problem::Problem;
use crate::telemetry::{Ending, OTHER};

/// How it went.
pub(super) fn ending(answered: &Result<Response<Body>, Problem>) -> Ending {
    match answered {
        Ok(response) if response.status().is_success() => Ending::Done,
        // In words of rmcp's, which are not read again.
        Ok(_) => Ending::Failed(OTHER),
        Err(problem) => Ending::Code(problem.code),
    }
}
