//! Tasks (extension `io.modelcontextprotocol/tasks`, SEP-2663): an upstream answers a call with a task, and the client asks for its
//! state until it is done.
//!
//! An upstream sees one credential for many callers, so whoever knows a task's id could ask for it; we know whose it is. What the client
//! gets in the id's place is sealed and bound to the caller and the endpoint, and holds the tool that began the task: who may not call
//! that tool any more, or finds another upstream behind its name, has no such task.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tenant_store::{TenantId, Timestamp, UpstreamId};

use super::handle::{Bond, Purpose};
use super::input;
use super::wish::Target;
use super::{Endpoint, Handles, Mux};
use crate::caller::Caller;
use crate::json::{self, Members};
use crate::upstream::{ClientCapabilities, UpstreamError};

/// How long a client can come back to a task, whatever the upstream says of it.
const TASK_LIFE: Duration = Duration::from_hours(30 * 24);
/// Longest id of a task at an upstream, in bytes. A header repeats it.
const TASK_ID_BYTES_MAX: usize = 1024;
/// The member that holds a task's id.
const TASK_ID: &str = "taskId";

/// What is done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAct {
    /// `tasks/get`
    Get,
    /// `tasks/update`
    Update,
    /// `tasks/cancel`
    Cancel,
}

/// A task of a caller's.
#[derive(Debug)]
pub struct Task {
    /// What the caller knows it by.
    id: String,
    origin: Origin,
}

/// Where a task is, and how it came there.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    tenant: TenantId,
    upstream: UpstreamId,
    /// The tool that began it, by the name that the caller used.
    tool: String,
    /// What the upstream knows the task by.
    own: String,
}

/// What becomes of the ids of tasks in an answer.
#[derive(Debug, Clone)]
pub(super) enum TaskIds {
    /// The answer is to nothing that could begin a task, or to a client that takes none.
    Refused,
    /// The answer may be a new task.
    New(Box<Sealer>),
    /// The answer is about a task, whose id and whose id at the upstream are these, to a client that can be asked for this.
    Known(String, String, ClientCapabilities),
}

/// Seals the ids of new tasks of one call.
#[derive(Debug, Clone)]
pub(super) struct Sealer {
    handles: Handles,
    bond: Bond,
    ends_at: Timestamp,
    place: (TenantId, UpstreamId),
    tool: String,
}

impl TaskAct {
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Get => "tasks/get",
            Self::Update => "tasks/update",
            Self::Cancel => "tasks/cancel",
        }
    }
}

impl Mux {
    /// The task that `caller` knows by `id` at `endpoint`. Whether it still may be used is decided when it is.
    pub fn task(&self, caller: &Caller, endpoint: &Endpoint, id: &str) -> Option<Task> {
        let origin = self.handles.open(&bond(caller, endpoint), self.clock.now(), id.as_bytes())?;
        Some(Task { id: id.to_owned(), origin: serde_json::from_slice(&origin).ok()? })
    }
}

impl Task {
    /// The tool that began it.
    pub(super) fn tool(&self) -> &str {
        &self.origin.tool
    }

    /// The same place under what the task is known by there; none, if its tool leads elsewhere now.
    pub(super) fn at<'s>(&self, target: &Target<'s>) -> Option<Target<'s>> {
        let Origin { tenant, upstream, own, .. } = &self.origin;
        let is_there = target.place() == (*tenant, *upstream);
        is_there.then(|| Target {
            local: own.clone(),
            tool: None,
            access: target.access,
            shelf: target.shelf,
            upstream: target.upstream,
        })
    }

    pub(super) fn ids(&self, can: ClientCapabilities) -> TaskIds {
        TaskIds::Known(self.id.clone(), self.origin.own.clone(), can)
    }
}

impl TaskIds {
    /// For a call of `tool` by `caller`.
    pub(super) fn new((mux, tool): (&Mux, &str), caller: &Caller, endpoint: &Endpoint, target: &Target<'_>) -> Self {
        let (bond, place) = (bond(caller, endpoint), target.place());
        let (handles, ends_at) = (mux.handles.clone(), mux.clock.now().plus(TASK_LIFE));
        Self::New(Box::new(Sealer { handles, bond, ends_at, place, tool: tool.to_owned() }))
    }

    /// A new task, under an id that is good for its caller. A client that takes none would not know what it is.
    pub(super) fn created(&self, result: &RawValue) -> Result<Box<RawValue>, UpstreamError> {
        let Self::New(sealer) = self else { return Err(UpstreamError::NotMcp) };
        let Sealer { handles, bond, ends_at, place: (tenant, upstream), tool } = &**sealer;
        let (raw, own) = task_id(result)?.ok_or(UpstreamError::NotMcp)?;
        let origin = Origin { tenant: *tenant, upstream: *upstream, tool: tool.clone(), own };
        let origin = serde_json::to_vec(&origin).map_err(|_| UpstreamError::Setup)?;
        let id = handles.seal(bond, *ends_at, &origin).ok_or(UpstreamError::Setup)?;
        replaced(result, raw, &id)
    }

    /// What an upstream says about a task, under the id that its caller knows. It must be that task, and ask for nothing that the client
    /// cannot be asked for.
    pub(super) fn put(&self, result: Box<RawValue>) -> Result<Box<RawValue>, UpstreamError> {
        let Self::Known(id, known, can) = self else { return Ok(result) };
        input::questions(&result, *can)?;
        match task_id(&result)? {
            None => Ok(result),
            Some((raw, own)) if own == *known => replaced(&result, raw, id),
            Some(_) => Err(UpstreamError::NotMcp),
        }
    }
}

fn bond(caller: &Caller, endpoint: &Endpoint) -> Bond {
    Bond::new(Purpose::Task, caller, &[endpoint.slug()])
}

/// The id of the task in a result, as it is written and as it is meant.
fn task_id(result: &RawValue) -> Result<Option<(&RawValue, String)>, UpstreamError> {
    let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
    let Some(raw) = members.get(TASK_ID) else { return Ok(None) };
    let id = json::as_str(raw).filter(|id| !id.is_empty() && id.len() <= TASK_ID_BYTES_MAX);
    Ok(Some((raw, id.ok_or(UpstreamError::NotMcp)?.into_owned())))
}

fn replaced(result: &RawValue, raw: &RawValue, id: &str) -> Result<Box<RawValue>, UpstreamError> {
    let span = json::span_in(result.get(), raw.get()).ok_or(UpstreamError::Setup)?;
    let text = json::splice(result.get(), vec![(span, json::quote(id))]);
    RawValue::from_string(text).map_err(|_| UpstreamError::Setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn known() -> TaskIds {
        let can = ClientCapabilities::of(Some(&raw(r#"{"elicitation":{}}"#)));
        TaskIds::Known("sealed".to_owned(), "a\"1".to_owned(), can)
    }

    #[test]
    fn a_task_comes_back_under_the_id_that_its_caller_knows_and_nothing_else_changes() {
        let put = |text: &str| known().put(raw(text)).map(|put| put.get().to_owned());
        let said = r#"{ "resultType":"complete","taskId" : "a\u00221", "ttlMs":1.0,"result":{"taskId":"a\"1"}}"#;
        let expected = r#"{ "resultType":"complete","taskId" : "sealed", "ttlMs":1.0,"result":{"taskId":"a\"1"}}"#;
        assert_eq!(put(said).unwrap(), expected);
        let acknowledged = r#"{"resultType":"complete"}"#;
        assert_eq!(put(acknowledged).unwrap(), acknowledged);
    }

    #[test]
    fn another_task_or_two_readings_of_one_are_no_answer() {
        for text in
            [r#"{"taskId":"b"}"#, r#"{"taskId":7}"#, r#"{"taskId":""}"#, r#"{"taskId":"a\"1","taskId":"b"}"#, "[]"]
        {
            assert_eq!(known().put(raw(text)).unwrap_err(), UpstreamError::NotMcp, "{text}");
        }
    }

    #[test]
    fn a_task_asks_for_nothing_that_the_client_did_not_declare() {
        let asks = |method: &str| {
            let text = format!(r#"{{"taskId":"a\"1","inputRequests":{{"k":{{"method":"{method}","params":{{}}}}}}}}"#);
            known().put(raw(&text)).map(drop)
        };
        assert_eq!(asks("elicitation/create"), Ok(()));
        assert_eq!(asks("sampling/createMessage"), Err(UpstreamError::WantsInput));
    }

    #[test]
    fn who_takes_no_task_gets_none() {
        let task = raw(r#"{"resultType":"task","taskId":"1"}"#);
        assert_eq!(TaskIds::Refused.created(&task).unwrap_err(), UpstreamError::NotMcp);
        assert_eq!(known().created(&task).unwrap_err(), UpstreamError::NotMcp);
    }
}
