//! Requests for input (MCP 2026-07-28 `basic/patterns/mrtr`): an upstream answers that it needs something of the client, which asks
//! again with that and with the upstream's `requestState`.
//!
//! The upstream sees one credential for many callers, so it cannot tell whose state comes back; we can. Its state is sealed and bound to
//! the caller, the tenant, the upstream, the method, the name and the arguments, and ends.

use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tenant_store::Timestamp;

use super::handle::{Bond, Handles, Purpose};
use super::wish::{Target, Wish};
use crate::caller::Caller;
use crate::json::{self, Members};
use crate::upstream::UpstreamError;

/// How long a state is good.
const STATE_LIFE: Duration = Duration::from_hours(1);
/// Longest state of an upstream, in bytes.
const STATE_BYTES_MAX: usize = 32 * 1024;
/// What a client can be asked for; nothing else that it declares is an upstream's business.
const ASKABLE: [&str; 3] = ["elicitation", "sampling", "roots"];

/// What a client could be asked, and what it answers.
#[derive(Debug, Clone, Default)]
pub struct Input<'r> {
    /// The capabilities that it declares with this request. None where its era has no such thing.
    pub declared: Option<&'r RawValue>,
    /// `inputResponses`
    pub responses: Option<&'r RawValue>,
    /// `requestState`
    pub state: Option<&'r RawValue>,
}

/// Seals and opens the states of one request.
#[derive(Debug, Clone)]
pub(super) struct States {
    handles: Handles,
    bond: Bond,
    ends_at: Timestamp,
}

impl Input<'_> {
    /// Whether the client's era has such requests.
    pub(super) fn can_be_asked(&self) -> bool {
        self.declared.is_some()
    }

    /// What is declared to the upstream, as the members of an object.
    pub(super) fn capabilities(&self) -> String {
        let declared = self.declared.and_then(|declared| Members::parse(declared.get()).ok());
        let members = ASKABLE.iter().filter_map(|name| {
            let value = declared.as_ref()?.get(name).filter(|value| json::is_object(value))?;
            Some(format!("{}:{}", json::quote(name), value.get()))
        });
        members.collect::<Vec<_>>().join(",")
    }

    /// `,"key":value…` for the upstream, with the state as it was there. None, if the state is not of this request.
    pub(super) fn given(&self, states: impl FnOnce() -> States, now: Timestamp) -> Option<String> {
        let mut given = self.responses.map(|raw| format!(",\"inputResponses\":{}", raw.get())).unwrap_or_default();
        if let Some(state) = self.state {
            let states = states();
            let state = states.handles.open(&states.bond, now, json::as_str(state)?.as_bytes())?;
            let state = String::from_utf8(state).ok()?;
            given = given + ",\"requestState\":" + &json::quote(&state);
        }
        Some(given)
    }
}

impl States {
    pub(super) fn of(
        (handles, now): (&Handles, Timestamp),
        caller: &Caller,
        target: &Target<'_>,
        (wish, params): (&Wish<'_>, &str),
    ) -> Self {
        let upstream = target.upstream;
        // What the request says besides, so that an answer to one question is none to another.
        let digest = Sha256::digest(params);
        let digest = digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let what = [&upstream.tenant.to_string(), &upstream.id.to_string(), wish.method(), &digest];
        let bond = Bond::new(Purpose::RequestState, caller, &what);
        Self { handles: handles.clone(), bond, ends_at: now.plus(STATE_LIFE) }
    }

    /// Whether `result` asks for input.
    pub(super) fn wanted(result: &RawValue) -> Result<bool, UpstreamError> {
        if !result.get().contains("resultType") {
            return Ok(false);
        }
        let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
        Ok(members.get_str("resultType").is_some_and(|kind| kind == "input_required"))
    }

    /// A request for input, with its state sealed.
    pub(super) fn seal(&self, result: &RawValue) -> Result<Box<RawValue>, UpstreamError> {
        let text = result.get();
        let members = Members::parse(text).map_err(|_| UpstreamError::NotMcp)?;
        let Some(raw) = members.get("requestState") else { return Ok(result.to_owned()) };
        let state = json::as_str(raw).filter(|state| state.len() <= STATE_BYTES_MAX).ok_or(UpstreamError::NotMcp)?;
        let sealed = self.handles.seal(&self.bond, self.ends_at, state.as_bytes()).ok_or(UpstreamError::Setup)?;
        let span = json::span_in(text, raw.get()).ok_or(UpstreamError::Setup)?;
        let text = json::splice(text, vec![(span, json::quote(&sealed))]);
        RawValue::from_string(text).map_err(|_| UpstreamError::Setup)
    }
}
