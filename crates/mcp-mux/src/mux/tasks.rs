//! Tasks (extension `io.modelcontextprotocol/tasks`, SEP-2663): an upstream answers a call with a task, and the client asks for its
//! state until it is done.
//!
//! An upstream sees one credential for many callers, so whoever knows a task's id could ask for it; we know whose it is. What the client
//! gets in the id's place is sealed and bound to the caller and the endpoint, and holds the tool that began the task: who may not call
//! that tool any more has no such task, and neither has anybody where the upstream is gone or at another address.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tenant_store::{LocalName, TenantId, Timestamp, UpstreamId};
use url::Url;

use super::call::{Ask, CallError, Outcome};
use super::handle::{Bond, Purpose};
use super::input;
use super::wish::{Target, Wish};
use super::{Endpoint, Handles, Mux};
use crate::audit::Shown;
use crate::caller::Caller;
use crate::hex;
use crate::json::{self, Members};
use crate::upstream::{Answer, ClientCapabilities, Load, UpstreamError};

/// How long a client can come back to a task, whatever the upstream says of it.
const TASK_LIFE: Duration = Duration::from_hours(30 * 24);
/// Longest id of a task at an upstream, in bytes. A header repeats it.
const TASK_ID_BYTES_MAX: usize = 1024;
/// How much of a digest stands for an address.
const ADDRESS_BYTES: usize = 16;
/// Longest time of creation that is remembered, in bytes.
const CREATED_BYTES_MAX: usize = 64;
/// The member that holds a task's id, and the one that says when it was created.
const TASK_ID: &str = "taskId";
const CREATED: &str = "createdAt";
/// What a task has only once it was asked for its state.
const LATER: [&str; 6] = ["inputRequests", "requestState", "result", "error", "content", "structuredContent"];

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
#[derive(Debug, Clone)]
pub struct Task {
    /// What the caller knows it by.
    id: String,
    origin: Origin,
}

/// Where a task is, and how it came there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Origin {
    tenant: TenantId,
    upstream: UpstreamId,
    /// What stands for the address of the upstream.
    address: String,
    /// The tool that began it, by its name at the upstream.
    tool: LocalName,
    /// What the upstream knows the task by.
    own: String,
    /// When it was created, as the upstream says. One that counts its tasks anew has others under the same ids.
    created: String,
}

/// What becomes of tasks in an answer.
#[derive(Debug, Clone)]
pub(super) enum TaskIds {
    /// The answer is to nothing that could begin a task, or to a client that takes none.
    Refused,
    /// The answer may be a new task.
    New(Box<Sealer>),
    /// The answer is to that request about a task, of a client that can be asked for this.
    Known(TaskAct, Box<Task>, ClientCapabilities),
}

/// Seals the ids of new tasks of one call.
#[derive(Debug, Clone)]
pub(super) struct Sealer {
    handles: Handles,
    bond: Bond,
    ends_at: Timestamp,
    /// All but what the upstream says, and what stands for its address.
    origin: Origin,
    url: Url,
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
    /// Whether the task that `ask` is to change is still the one that it was when it began: one that counts its tasks anew has another one
    /// under the same id. Whoever answers or calls off that one must not know it by ours.
    pub(super) async fn check_task(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (task, ask): (&Task, &Ask<'_>),
        shown: &Shown,
    ) -> Result<Option<Outcome>, CallError> {
        let wish = Wish::Task { act: TaskAct::Get, task: task.clone(), responses: None };
        let look = Ask {
            wish,
            progress_token: None,
            trace: ask.trace.clone(),
            input: ask.input.clone(),
            log: None,
            takes_tasks: true,
        };
        // The client did not ask for that: what it asks for has its event already.
        let (sight, thing) = (self.sight(caller, endpoint), look.wish.thing());
        let target = sight.target_of(&look.wish, &thing).ok_or(CallError::Unknown(thing.word()))?;
        let target = Target { shown: shown.clone(), ..target };
        let asked = Box::pin(self.ask_at(caller, endpoint, &look, (&sight, thing.clone(), target))).await?;
        let (state, load) = match asked {
            Outcome::Whole(state, load) => (state, load),
            Outcome::Unasked(state) => (state, Load::default()),
            Outcome::Stream(relay) => {
                let (state, load) = relay.answer().await;
                (state?, load)
            }
        };
        Ok(match state {
            Answer::Result(_) => None,
            error @ Answer::Error(_) => Some(Outcome::Whole(error, load)),
        })
    }

    /// The task that `caller` knows by `id` at `endpoint`. Whether it still may be used is decided when it is.
    pub fn task(&self, caller: &Caller, endpoint: &Endpoint, id: &str) -> Option<Task> {
        let origin = self.handles.open(&bond(caller, endpoint), self.clock.now(), id.as_bytes())?;
        Some(Task { id: id.to_owned(), origin: serde_json::from_slice(&origin).ok()? })
    }
}

impl Task {
    /// The tool that began it: at which upstream, and by which name there.
    pub(super) fn begun_by(&self) -> (TenantId, UpstreamId, &LocalName) {
        let Origin { tenant, upstream, tool, .. } = &self.origin;
        (*tenant, *upstream, tool)
    }

    /// The same place under what the task is known by there; none, if the upstream has moved.
    pub(super) fn at<'s>(&self, target: &Target<'s>) -> Option<Target<'s>> {
        let Origin { address, own, .. } = &self.origin;
        let Target { access, shelf, upstream, ref shown, .. } = *target;
        (*address == address_of(&upstream.spec.url)).then(|| Target {
            local: own.clone(),
            tool: None,
            access,
            shelf,
            upstream,
            shown: shown.clone(),
        })
    }

    pub(super) fn ids(&self, act: TaskAct, can: ClientCapabilities) -> TaskIds {
        TaskIds::Known(act, Box::new(self.clone()), can)
    }
}

impl TaskIds {
    /// For a call of the tool of `target`, if it is one, by `caller`.
    pub(super) fn new(mux: &Mux, caller: &Caller, endpoint: &Endpoint, target: &Target<'_>) -> Self {
        let Some(tool) = target.tool else { return Self::Refused };
        let (tenant, upstream) = target.place();
        let (tool, url) = (tool.local().clone(), target.upstream.spec.url.clone());
        let origin =
            Origin { tenant, upstream, address: String::new(), tool, own: String::new(), created: String::new() };
        let (handles, ends_at) = (mux.handles.clone(), mux.clock.now().plus(TASK_LIFE));
        Self::New(Box::new(Sealer { handles, bond: bond(caller, endpoint), ends_at, origin, url }))
    }

    /// A new task, under an id that is good for its caller. A client that takes none would not know what it is; and one that says what
    /// is said of a task's state later would be read by some, and was checked by nobody.
    pub(super) fn created(&self, result: &RawValue) -> Result<Box<RawValue>, UpstreamError> {
        let Self::New(sealer) = self else { return Err(UpstreamError::NotMcp) };
        let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
        if LATER.iter().any(|key| members.get(key).is_some_and(|raw| raw.get() != "null")) {
            return Err(UpstreamError::NotMcp);
        }
        let (raw, own) = task_id(&members)?.ok_or(UpstreamError::NotMcp)?;
        let created = created(&members).ok_or(UpstreamError::NotMcp)?;
        let origin = Origin { own, created, address: address_of(&sealer.url), ..sealer.origin.clone() };
        let origin = serde_json::to_vec(&origin).map_err(|_| UpstreamError::Setup)?;
        let id = sealer.handles.seal(&sealer.bond, sealer.ends_at, &origin).ok_or(UpstreamError::Setup)?;
        replaced(result, raw, &id)
    }

    /// What an upstream says about a task, under the id that its caller knows. It must be that task, and ask for nothing that the client
    /// cannot be asked for.
    pub(super) fn put(&self, result: Box<RawValue>) -> Result<Box<RawValue>, UpstreamError> {
        let Self::Known(act, task, can) = self else { return Ok(result) };
        input::questions(&result, *can)?;
        let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
        let Some((raw, own)) = task_id(&members)? else {
            // Only a word that something was taken says nothing about a task.
            return if *act == TaskAct::Get { Err(UpstreamError::NotMcp) } else { Ok(result) };
        };
        if own != task.origin.own || created(&members).as_ref() != Some(&task.origin.created) {
            return Err(UpstreamError::NotMcp);
        }
        replaced(&result, raw, &task.id)
    }
}

fn bond(caller: &Caller, endpoint: &Endpoint) -> Bond {
    Bond::new(Purpose::Task, caller, &[endpoint.slug()])
}

/// What stands for the address that requests go to.
fn address_of(url: &Url) -> String {
    let digest = Sha256::digest(url.as_str());
    let (digest, _) = digest.split_at(ADDRESS_BYTES);
    hex::encode(digest)
}

/// The id of the task in a result, as it is written and as it is meant.
fn task_id<'r>(members: &Members<'r>) -> Result<Option<(&'r RawValue, String)>, UpstreamError> {
    let Some(raw) = members.get(TASK_ID) else { return Ok(None) };
    let is_one = |id: &str| (1..=TASK_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
    let id = json::as_str(raw).filter(|id| is_one(id));
    Ok(Some((raw, id.ok_or(UpstreamError::NotMcp)?.into_owned())))
}

/// When the task of a result was created.
fn created(members: &Members<'_>) -> Option<String> {
    members.get_str(CREATED).filter(|text| text.len() <= CREATED_BYTES_MAX).map(Cow::into_owned)
}

fn replaced(result: &RawValue, raw: &RawValue, id: &str) -> Result<Box<RawValue>, UpstreamError> {
    let span = json::span_in(result.get(), raw.get()).ok_or(UpstreamError::Setup)?;
    let text = json::splice(result.get(), vec![(span, json::quote(id))]);
    RawValue::from_string(text).map_err(|_| UpstreamError::Setup)
}

#[cfg(test)]
mod tests {
    use tenant_store::Clock as _;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn known() -> TaskIds {
        let can = ClientCapabilities::of(Some(&raw(r#"{"elicitation":{}}"#)));
        let now = tenant_store::SystemClock.now();
        let origin = Origin {
            tenant: TenantId::new(now),
            upstream: UpstreamId::new(now),
            address: String::new(),
            tool: "t".parse().unwrap(),
            own: "a\"1".to_owned(),
            created: "now".to_owned(),
        };
        TaskIds::Known(TaskAct::Get, Box::new(Task { id: "sealed".to_owned(), origin }), can)
    }

    fn new() -> TaskIds {
        let TaskIds::Known(_, task, _) = known() else { unreachable!("it is known") };
        let keys = crypto::KeyRing::new(crypto::Key::generate().unwrap(), Vec::new());
        let url = Url::parse("https://acme.example/mcp").unwrap();
        let bond = bond(&Caller::of_test("alice", None), &Endpoint::Aggregate);
        let ends_at = tenant_store::SystemClock.now().plus(TASK_LIFE);
        TaskIds::New(Box::new(Sealer { handles: Handles::new(keys), bond, ends_at, origin: task.origin, url }))
    }

    #[test]
    fn a_task_comes_back_under_the_id_that_its_caller_knows_and_nothing_else_changes() {
        let put = |text: &str| known().put(raw(text)).map(|put| put.get().to_owned());
        let said = r#"{ "resultType":"complete","taskId" : "a\u00221","createdAt":"now", "ttlMs":1.0,"result":{"taskId":"a\"1"}}"#;
        let expected = r#"{ "resultType":"complete","taskId" : "sealed","createdAt":"now", "ttlMs":1.0,"result":{"taskId":"a\"1"}}"#;
        assert_eq!(put(said).unwrap(), expected);
        let acknowledged = r#"{"resultType":"complete"}"#;
        assert_eq!(put(acknowledged).unwrap_err(), UpstreamError::NotMcp, "it is no state");
        let TaskIds::Known(_, task, can) = known() else { unreachable!("it is known") };
        let taken = TaskIds::Known(TaskAct::Update, task, can).put(raw(acknowledged));
        assert_eq!(taken.unwrap().get(), acknowledged);
        assert!(put(r#"{"taskId":"a\"1","createdAt":"now","inputRequests":null}"#).is_ok());
    }

    #[test]
    fn another_task_or_two_readings_of_one_are_no_answer() {
        for text in [
            r#"{"taskId":"b","createdAt":"now"}"#,
            r#"{"taskId":"a\"1","createdAt":"later"}"#,
            r#"{"taskId":"a\"1"}"#,
            r#"{"taskId":7,"createdAt":"now"}"#,
            r#"{"taskId":"","createdAt":"now"}"#,
            r#"{"taskId":"a\"1","taskId":"b","createdAt":"now"}"#,
            "[]",
        ] {
            assert_eq!(known().put(raw(text)).unwrap_err(), UpstreamError::NotMcp, "{text}");
        }
    }

    #[test]
    fn a_task_asks_for_nothing_that_the_client_did_not_declare() {
        let asks = |method: &str| {
            let asked = format!(r#"{{"k":{{"method":"{method}","params":{{}}}}}}"#);
            let text = format!(r#"{{"taskId":"a\"1","createdAt":"now","inputRequests":{asked}}}"#);
            known().put(raw(&text)).map(drop)
        };
        assert_eq!(asks("elicitation/create"), Ok(()));
        assert_eq!(asks("sampling/createMessage"), Err(UpstreamError::WantsInput));
    }

    #[test]
    fn who_takes_no_task_gets_none() {
        let task = raw(r#"{"resultType":"task","taskId":"1","createdAt":"now"}"#);
        assert_eq!(TaskIds::Refused.created(&task).unwrap_err(), UpstreamError::NotMcp);
        assert_eq!(known().created(&task).unwrap_err(), UpstreamError::NotMcp);
        assert!(!new().created(&task).unwrap().get().contains(r#""taskId":"1""#));
    }

    #[test]
    fn a_new_task_has_an_id_and_a_time_and_says_nothing_else_yet() {
        for more in [
            r#""inputRequests":{}"#,
            r#""result":{}"#,
            r#""error":{}"#,
            r#""content":[]"#,
            r#""structuredContent":{}"#,
            r#""requestState":"s""#,
            r#""taskId":"2""#,
        ] {
            let task = raw(&format!(r#"{{"taskId":"1","createdAt":"now",{more}}}"#));
            assert_eq!(new().created(&task).unwrap_err(), UpstreamError::NotMcp, "{more}");
        }
        for task in [r#"{"taskId":"1"}"#, r#"{"createdAt":"now"}"#, r#"{"taskId":"\n","createdAt":"now"}"#] {
            assert_eq!(new().created(&raw(task)).unwrap_err(), UpstreamError::NotMcp, "{task}");
        }
    }
}
