//! How a request to an upstream went, as it is measured.

use super::super::answer::{Answer, error_code, is_tool_error};
use super::super::error::UpstreamError;
use super::{Link, Reply};
use crate::telemetry::{Ending, OTHER, Operation};

impl Link {
    /// What became of a request. Of a stream, that is known at its end.
    pub(super) fn note(&self, mut operation: Operation, reply: &mut Result<Reply, UpstreamError>) {
        operation.speaks(self.agreed.load().as_ref().map(|agreed| agreed.version()));
        match reply {
            Ok(Reply::Whole(answer)) => operation.end(of_answer(answer)),
            Ok(Reply::Stream(streaming)) => streaming.running.is_measured(operation),
            Err(error) => operation.end(Ending::Failed(error.word())),
        }
    }
}

/// What an upstream said.
pub(super) fn of_answer(answer: &Answer) -> Ending {
    match answer {
        Answer::Result(result) if is_tool_error(result) => Ending::ToolError,
        Answer::Result(_) => Ending::Done,
        Answer::Error(error) => error_code(error).map_or(Ending::Failed(OTHER), Ending::Code),
    }
}
