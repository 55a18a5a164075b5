//! Requests that lead to an upstream: from the parameters to what is asked.

use std::borrow::Cow;

use http::header::HeaderMap;
use serde_json::value::RawValue;

use super::answer::Kind;
use super::envelope::Rpc;
use super::era::{self, Era};
use super::problem::Problem;
use super::{AskMethod, account_missing};
use crate::json::{self, Members};
use crate::mux::{Ask, Input, Task, TaskAct, Thing, Wish};
use crate::protocol::{META_CAPABILITIES, META_LOG_LEVEL, TASKS};
use crate::upstream::{ClientCapabilities, LogLevel, Trace, knows};

/// Longest name or URI that is looked up, in bytes; nothing longer is ever listed.
pub(super) const NAME_BYTES_MAX: usize = 4 * 1024;

/// What a client declares with its request, that it can be asked for.
pub(super) fn declared(era: Era, rpc: &Rpc<'_>) -> ClientCapabilities {
    match era {
        Era::Modern => ClientCapabilities::of(capabilities(rpc)),
        Era::Legacy => ClientCapabilities::default(),
    }
}

fn capabilities<'r>(rpc: &'r Rpc<'_>) -> Option<&'r RawValue> {
    rpc.meta.as_ref().and_then(|meta| meta.get(META_CAPABILITIES))
}

/// Whether the client of `rpc` takes a task for an answer.
pub(super) fn takes_tasks(era: Era, rpc: &Rpc<'_>) -> bool {
    era == Era::Modern && knows(capabilities(rpc), TASKS)
}

/// What `rpc` asks, of a client that can be asked in turn. A legacy one that takes a stream, within a session, has a `level` of log
/// messages.
pub(super) fn read<'r>(
    method: AskMethod,
    (era, headers): (Era, &HeaderMap),
    (can, level): (ClientCapabilities, Option<LogLevel>),
    (rpc, find_task): (&'r Rpc<'_>, impl FnOnce(&str) -> Option<Task>),
) -> Result<Ask<'r>, Problem> {
    let takes_tasks = takes_tasks(era, rpc);
    let progress_token = rpc.progress_token();
    let wish = match method {
        AskMethod::GetPrompt => Wish::Prompt { name: text(rpc, "name")?, arguments: arguments(rpc)? },
        AskMethod::ReadResource => Wish::Resource { uri: uri(rpc)? },
        AskMethod::GetSkill => Wish::Skill { uri: uri(rpc)? },
        AskMethod::Complete => completion(rpc)?,
        AskMethod::CallTool => Wish::Tool {
            name: text(rpc, "name")?,
            arguments: arguments(rpc)?,
            param_headers: era::param_headers(headers, era)?,
        },
        AskMethod::Task(_) if !takes_tasks => return Err(Problem::lacks_tasks()),
        AskMethod::Task(act) => {
            let task = find_task(&text(rpc, "taskId")?).ok_or_else(|| Problem::unknown("task", era))?;
            let responses = rpc.params.get("inputResponses").filter(|_| act == TaskAct::Update);
            Wish::Task { act, task, responses }
        }
    };
    let input = match era {
        // Nothing can be asked for where words are completed or skills described.
        _ if matches!(method, AskMethod::Complete | AskMethod::GetSkill) => Input::None,
        // What a task asks for stands in its state.
        Era::Modern if matches!(method, AskMethod::Task(_)) => match capabilities(rpc) {
            Some(declared) => Input::InAnswer { can, declared, responses: None, state: None },
            None => Input::None,
        },
        Era::Modern => input(can, rpc),
        Era::Legacy if level.is_some() && !can.is_nothing() => Input::InStream(can),
        Era::Legacy => Input::None,
    };
    let log = if era == Era::Modern { log_level(rpc)? } else { level };
    let trace = Trace::from_meta(rpc.meta.as_ref());
    Ok(Ask { wish, trace, progress_token, input, log, takes_tasks })
}

/// From which level on a modern client wants to hear what an upstream logs (MCP 2026-07-28 `server/utilities/logging`).
fn log_level(rpc: &Rpc<'_>) -> Result<Option<LogLevel>, Problem> {
    let Some(level) = rpc.meta.as_ref().and_then(|meta| meta.get(META_LOG_LEVEL)) else { return Ok(None) };
    let level = json::as_str(level).and_then(|name| LogLevel::parse(&name));
    level.map(Some).ok_or_else(|| Problem::bad_meta(META_LOG_LEVEL, "a log level"))
}

/// The level that a legacy client sets.
pub(super) fn level(rpc: &Rpc<'_>) -> Result<LogLevel, Problem> {
    let level = rpc.params.get_str("level").and_then(|name| LogLevel::parse(&name));
    level.ok_or_else(|| Problem::invalid_params("`params.level` must be a log level, such as \"info\""))
}

/// What a modern client could be asked. An answer to a question of ours is none of an upstream's business.
fn input<'r>(can: ClientCapabilities, rpc: &'r Rpc<'_>) -> Input<'r> {
    let Some(declared) = capabilities(rpc) else { return Input::None };
    let responses = rpc
        .params
        .get("inputResponses")
        .filter(|raw| Members::parse(raw.get()).is_ok_and(|given| given.get(account_missing::REQUEST_KEY).is_none()));
    let state = rpc.params.get("requestState").filter(|raw| raw.get() != "null");
    Input::InAnswer { can, declared, responses, state }
}

fn completion<'r>(rpc: &'r Rpc<'_>) -> Result<Wish<'r>, Problem> {
    let no_ref = || Problem::invalid_params("`params.ref` must name a prompt or a resource");
    let of = rpc.params.get("ref").and_then(|raw| Members::parse(raw.get()).ok()).ok_or_else(no_ref)?;
    let named = |key: &str| of.get_str(key).map(Cow::into_owned).filter(|name| name.len() <= NAME_BYTES_MAX);
    let of = match of.get_str("type").as_deref() {
        Some("ref/prompt") => named("name").map(Thing::Prompt),
        Some("ref/resource") => named("uri").map(Thing::Resource),
        _ => None,
    };
    let no_argument = Problem::invalid_params("`params.argument` must be an object");
    let argument = rpc.params.get("argument").filter(|raw| json::is_object(raw)).ok_or(no_argument)?;
    let context = rpc.params.get("context").filter(|raw| raw.get() != "null");
    Ok(Wish::Completion { of: of.ok_or_else(no_ref)?, argument, context })
}

/// The URI that a request names.
pub(super) fn uri<'r>(rpc: &'r Rpc<'_>) -> Result<Cow<'r, str>, Problem> {
    text(rpc, "uri")
}

fn text<'r>(rpc: &'r Rpc<'_>, key: &str) -> Result<Cow<'r, str>, Problem> {
    let text = rpc.params.get_str(key).filter(|text| text.len() <= NAME_BYTES_MAX);
    text.ok_or_else(|| {
        Problem::invalid_params(format!("`params.{key}` must be a string of at most {NAME_BYTES_MAX} bytes"))
    })
}

fn arguments<'r>(rpc: &'r Rpc<'_>) -> Result<Option<&'r RawValue>, Problem> {
    let arguments = rpc.params.get("arguments").filter(|raw| raw.get() != "null");
    if arguments.is_some_and(|raw| !json::is_object(raw)) {
        return Err(Problem::invalid_params("`params.arguments` must be an object"));
    }
    Ok(arguments)
}

/// How the answer looks.
pub(super) fn kind(wish: &Wish<'_>) -> Kind {
    match wish {
        Wish::Tool { .. } => Kind::Tool,
        Wish::Resource { .. } | Wish::Skill { .. } => Kind::Read,
        Wish::Task { .. } => Kind::Task,
        Wish::Prompt { .. } | Wish::Completion { .. } => Kind::Other,
    }
}
