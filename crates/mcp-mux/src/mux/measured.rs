//! How a request to an upstream went, as it is measured: by what its client reads.

use super::call::CallError;
use super::wish::{Target, Thing};
use crate::audit;
use crate::telemetry::{Decision, Ending, OTHER, Operation, Place};
use crate::upstream::{Answer, error_code};

/// The JSON-RPC codes of our own refusals.
const INVALID_PARAMS: i64 = -32_602;
const HEADER_MISMATCH: i64 = -32_020;
const LIMITED: i64 = -32_000;

/// It may be made, there. The thing is one that there is.
pub(super) fn leads_to(operation: &mut Operation, (thing, target): (&Thing, &Target<'_>)) {
    operation.is_decided(Decision::Allow);
    if let Thing::Tool(name) | Thing::Prompt(name) = thing {
        operation.is_about(name);
    }
    operation.leads_to(Place { tenant: target.access.tenant_slug().clone(), upstream: target.upstream.clone() });
}

/// How it went; what the record says of it is known by then.
pub(super) fn end(mut operation: Operation, answer: Result<&Answer, &CallError>, outcome: audit::Outcome) {
    match answer {
        Err(CallError::Unknown(_) | CallError::SignedOut) => operation.is_decided(Decision::Deny),
        Err(CallError::Limited { .. } | CallError::Unrecorded) => operation.is_decided(Decision::Limited),
        _ => {}
    }
    operation.end(ending(answer, outcome));
}

fn ending(answer: Result<&Answer, &CallError>, outcome: audit::Outcome) -> Ending {
    match answer {
        Ok(Answer::Result(_)) if outcome == audit::Outcome::ToolError => Ending::ToolError,
        Ok(Answer::Result(_)) => Ending::Done,
        Ok(Answer::Error(error)) => error_code(error).map_or(Ending::Failed(OTHER), Ending::Code),
        Err(CallError::Limited { .. } | CallError::Unrecorded) => Ending::Code(LIMITED),
        Err(CallError::HeaderMismatch) => Ending::Code(HEADER_MISMATCH),
        Err(CallError::Upstream { error, .. }) => Ending::Failed(error.word()),
        Err(CallError::SignedOut) => Ending::Failed("signed_out"),
        Err(CallError::Unanswered { .. }) => Ending::Failed("unanswered"),
        Err(_) => Ending::Code(INVALID_PARAMS),
    }
}
