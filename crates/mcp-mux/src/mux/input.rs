//! Requests for input: an upstream needs something of the client before it can answer. Modern upstreams say so in their answer (MCP
//! 2026-07-28 `basic/patterns/mrtr`), legacy ones in a request to the client in the stream of the call (2025-11-25
//! `client/elicitation`), and modern and legacy clients are asked in the same two ways.
//!
//! The upstream sees one credential for many callers, so it cannot tell whose state comes back; we can. What a client keeps between two
//! requests is sealed and bound to the caller, the tenant, the upstream, the method, the name and the arguments, and ends.

use std::time::Duration;

use memchr::memmem;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tenant_store::Timestamp;
use uuid::Uuid;

use super::call::CallError;
use super::flows;
use super::handle::{Bond, Handles, Purpose};
use super::wish::{Target, Wish};
use crate::caller::Caller;
use crate::hex;
use crate::json::{self, Members};
use crate::upstream::{ClientCapabilities, UpstreamError, error_code};

/// How long a state is good.
const STATE_LIFE: Duration = Duration::from_hours(1);
/// Longest id of a request that an upstream makes, in bytes of JSON.
pub(super) const ID_BYTES_MAX: usize = 256;
/// Longest state of an upstream, in bytes.
const STATE_BYTES_MAX: usize = 32 * 1024;
/// Most questions in one answer.
const REQUESTS_MAX: usize = 32;
/// What a client can be asked for; nothing else that it declares is an upstream's business.
const ASKABLE: [&str; 3] = ["elicitation", "sampling", "roots"];
/// The code with which a legacy server says that addresses must be opened first (MCP 2025-11-25 `client/elicitation`).
pub const URL_ELICITATION_REQUIRED: i64 = -32042;
/// The key of the only question of a legacy upstream.
const QUESTION: &str = "question";
/// A state that an upstream gave.
const STATE_OF_UPSTREAM: u8 = b'u';
/// A state that leads to a parked call.
const STATE_PARKED: u8 = b'p';
/// A state that goes with our own question whether the arguments may be sent.
const STATE_SENDING: u8 = b's';
/// Members that answers of modern clients have and legacy upstreams do not know.
const MODERN_ONLY: [&str; 1] = ["resultType"];

/// What a client could be asked, how, and what it answers.
#[derive(Debug, Clone, Default)]
pub enum Input<'r> {
    /// It cannot be asked.
    #[default]
    None,
    /// A modern client, which is asked in the answer and asks again.
    InAnswer {
        /// What it can be asked for.
        can: ClientCapabilities,
        /// The same as it declares it with this request.
        declared: &'r RawValue,
        /// `inputResponses`
        responses: Option<&'r RawValue>,
        /// `requestState`
        state: Option<&'r RawValue>,
    },
    /// A legacy client in a session, which is asked in the stream of the call.
    InStream(ClientCapabilities),
}

/// What a client brings along.
pub(super) enum Given {
    /// `,"key":value…` for the upstream, which knows nothing of the request yet.
    Fresh(String),
    /// The same for an upstream that has these very arguments and asked something.
    Continued(String),
    /// Whether the user agrees that these very arguments are sent.
    Sending(bool),
    /// The parked call that it asked about, and the answer.
    Answer(Uuid, Box<RawValue>),
}

/// Seals and opens the states of one request.
#[derive(Debug, Clone)]
pub(super) struct States {
    handles: Handles,
    bond: Bond,
    ends_at: Timestamp,
}

/// One question to a client.
#[derive(Debug)]
pub(super) struct Asked {
    /// Under which its answer is looked for.
    pub(super) key: String,
    /// `"method":…,"params":…`
    pub(super) request: String,
}

impl Input<'_> {
    /// What the client can be asked for.
    pub(super) fn capabilities(&self) -> ClientCapabilities {
        match self {
            Self::None => ClientCapabilities::default(),
            Self::InAnswer { can, .. } | Self::InStream(can) => *can,
        }
    }

    /// What is declared to a modern upstream, as the members of an object: as the client said it, if that is all that it `can`.
    pub(super) fn declared(&self, can: ClientCapabilities) -> String {
        let Self::InAnswer { declared, .. } = self else { return can.members() };
        if can != self.capabilities() {
            return can.members();
        }
        let declared = Members::parse(declared.get()).ok();
        let members = ASKABLE.iter().filter_map(|name| {
            let value = declared.as_ref()?.get(name).filter(|value| json::is_object(value))?;
            Some(format!("{}:{}", json::quote(name), value.get()))
        });
        members.collect::<Vec<_>>().join(",")
    }

    /// What the client brings along, with the state as it was before it was sealed.
    pub(super) fn given(&self, states: impl FnOnce() -> States, now: Timestamp) -> Result<Given, CallError> {
        let Self::InAnswer { responses, state, .. } = self else { return Ok(Given::Fresh(String::new())) };
        let mut given = responses.map(|raw| format!(",\"inputResponses\":{}", raw.get())).unwrap_or_default();
        if let Some(state) = state {
            match states().open(state, now).ok_or(CallError::OtherState)? {
                State::OfUpstream(state) => {
                    given = given + ",\"requestState\":" + &json::quote(&state);
                    return Ok(Given::Continued(given));
                }
                State::Sending => {
                    let answer = flows::answer_in(*responses).ok_or(CallError::NoAnswer)?;
                    return Ok(Given::Sending(flows::is_accepted(answer)));
                }
                State::Parked(id) => {
                    let answer = json::member(*responses, QUESTION).filter(|raw| json::is_object(raw));
                    let text = json::without(answer.ok_or(CallError::NoAnswer)?.get(), &MODERN_ONLY).into_owned();
                    let answer = RawValue::from_string(text).map_err(|_| CallError::NoAnswer)?;
                    return Ok(Given::Answer(id, answer));
                }
            }
        }
        Ok(Given::Fresh(given))
    }
}

impl Given {
    /// `,"key":value…` for the upstream.
    pub(super) fn params(&self) -> &str {
        match self {
            Self::Fresh(params) | Self::Continued(params) => params,
            Self::Sending(_) | Self::Answer(..) => "",
        }
    }
}

/// What a state holds.
enum State {
    OfUpstream(String),
    Parked(Uuid),
    Sending,
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
        let digest = hex::encode(&Sha256::digest(params));
        let what = [&upstream.tenant.to_string(), &upstream.id.to_string(), wish.method(), &digest];
        let bond = Bond::new(Purpose::RequestState, caller, &what);
        Self { handles: handles.clone(), bond, ends_at: now.plus(STATE_LIFE) }
    }

    /// A request for input to a client that `can` answer it, with its state sealed.
    pub(super) fn seal(&self, result: &RawValue, can: ClientCapabilities) -> Result<Box<RawValue>, UpstreamError> {
        questions(result, can)?;
        let text = result.get();
        let members = Members::parse(text).map_err(|_| UpstreamError::NotMcp)?;
        let Some(raw) = members.get("requestState") else { return Ok(result.to_owned()) };
        let state = json::as_str(raw).filter(|state| state.len() <= STATE_BYTES_MAX).ok_or(UpstreamError::NotMcp)?;
        let sealed = self.seal_value(STATE_OF_UPSTREAM, state.as_bytes())?;
        let span = json::span_in(text, raw.get()).ok_or(UpstreamError::Setup)?;
        let text = json::splice(text, vec![(span, json::quote(&sealed))]);
        RawValue::from_string(text).map_err(|_| UpstreamError::Setup)
    }

    /// A request for input in the words of a legacy upstream, whose call is parked under `id`.
    pub(super) fn seal_parked(&self, id: Uuid, question: &str) -> Result<Box<RawValue>, UpstreamError> {
        let state = self.seal_value(STATE_PARKED, id.as_bytes())?;
        let text = format!(
            "{{\"resultType\":\"input_required\",\"inputRequests\":{{\"{QUESTION}\":{{{question}}}}},\"requestState\":{}}}",
            json::quote(&state)
        );
        RawValue::from_string(text).map_err(|_| UpstreamError::Setup)
    }

    /// What goes with our own question whether the arguments may be sent.
    pub(super) fn seal_sending(&self) -> Result<String, UpstreamError> {
        self.seal_value(STATE_SENDING, &[])
    }

    fn seal_value(&self, kind: u8, value: &[u8]) -> Result<String, UpstreamError> {
        let value = [&[kind], value].concat();
        self.handles.seal(&self.bond, self.ends_at, &value).ok_or(UpstreamError::Setup)
    }

    fn open(&self, state: &RawValue, now: Timestamp) -> Option<State> {
        let value = self.handles.open(&self.bond, now, json::as_str(state)?.as_bytes())?;
        match value.split_first()? {
            (&STATE_OF_UPSTREAM, state) => Some(State::OfUpstream(String::from_utf8(state.to_vec()).ok()?)),
            (&STATE_PARKED, id) => Some(State::Parked(Uuid::from_slice(id).ok()?)),
            (&STATE_SENDING, []) => Some(State::Sending),
            _ => None,
        }
    }
}

/// What a result is (`resultType`, MCP 2026-07-28 `basic`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResultKind {
    /// What was asked for.
    Complete,
    /// A request for input.
    WantsInput,
    /// A task.
    Task,
}

impl ResultKind {
    pub(super) fn of(result: &RawValue) -> Result<Self, UpstreamError> {
        // Most upstreams say it first, and no answer that was taken says it twice.
        let text = result.get();
        if text.starts_with("{\"resultType\":\"complete\"") || memmem::find(text.as_bytes(), b"resultType").is_none() {
            return Ok(Self::Complete);
        }
        let members = Members::parse(text).map_err(|_| UpstreamError::NotMcp)?;
        Ok(match members.get_str("resultType").as_deref() {
            Some("input_required") => Self::WantsInput,
            Some("task") => Self::Task,
            _ => Self::Complete,
        })
    }
}

/// What the error of a legacy upstream that wants an address opened (-32042, MCP 2025-11-25 `client/elicitation`) is in a result.
pub(super) fn url_elicitations(error: &RawValue) -> Option<Box<RawValue>> {
    if error_code(error) != Some(URL_ELICITATION_REQUIRED) {
        return None;
    }
    let elicitations = json::member(json::member(Some(error), "data"), "elicitations")?;
    let elicitations: Vec<&RawValue> = serde_json::from_str(elicitations.get()).ok()?;
    let is_url = |raw: &&RawValue| {
        Members::parse(raw.get()).is_ok_and(|params| params.get_str("mode").as_deref() == Some("url"))
    };
    if elicitations.is_empty() || elicitations.len() > REQUESTS_MAX || !elicitations.iter().all(is_url) {
        return None;
    }
    let requests = elicitations.iter().enumerate().map(|(index, params)| {
        format!("\"url-{index}\":{{\"method\":\"elicitation/create\",\"params\":{}}}", params.get())
    });
    let requests = requests.collect::<Vec<_>>().join(",");
    RawValue::from_string(format!("{{\"resultType\":\"input_required\",\"inputRequests\":{{{requests}}}}}")).ok()
}

/// The questions in a request for input, as requests to a legacy client, and the state that goes back with the answers.
pub(super) fn questions(
    result: &RawValue,
    can: ClientCapabilities,
) -> Result<(Vec<Asked>, Option<Box<RawValue>>), UpstreamError> {
    let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
    let requests = members.get("inputRequests").map_or("{}", RawValue::get);
    let requests = if requests == "null" { "{}" } else { requests };
    let requests = Members::parse(requests).map_err(|_| UpstreamError::NotMcp)?;
    let ask = |(key, raw): (&str, &RawValue)| {
        let request = Members::parse(raw.get()).map_err(|_| UpstreamError::NotMcp)?;
        let method = request.get_str("method").ok_or(UpstreamError::NotMcp)?;
        let params = request.get("params");
        if !can.can_answer(&method, params) {
            return Err(UpstreamError::WantsInput);
        }
        Ok(Asked { key: key.to_owned(), request: as_request(&method, params) })
    };
    let asked: Vec<_> = requests.iter().map(ask).collect::<Result<_, _>>()?;
    if asked.len() > REQUESTS_MAX {
        return Err(UpstreamError::NotMcp);
    }
    let state = members.get("requestState").map(ToOwned::to_owned);
    Ok((asked, state))
}

/// `"method":…,"params":…` of a request to a legacy client, to which an address to open has an id.
pub(super) fn as_request(method: &str, params: Option<&RawValue>) -> String {
    let Some(params) = params else { return format!("\"method\":{}", json::quote(method)) };
    let text = params.get();
    let members = Members::parse(text).ok();
    let lacks_id = members.is_some_and(|params| {
        params.get_str("mode").as_deref() == Some("url") && params.get("elicitationId").is_none()
    });
    let params = if lacks_id {
        let id = format!("\"elicitationId\":\"{}\"", Uuid::new_v4());
        json::splice(text, vec![json::insertion_into_object(text, 0..text.len(), &id)])
    } else {
        text.to_owned()
    };
    format!("\"method\":{},\"params\":{params}", json::quote(method))
}

/// `,"inputResponses":…,"requestState":…` with what a legacy client answered.
pub(super) fn responses(answers: &[(String, Box<RawValue>)], state: Option<&RawValue>) -> String {
    let answers = answers.iter().map(|(key, answer)| format!("{}:{}", json::quote(key), answer.get()));
    let state = state.map(|state| format!(",\"requestState\":{}", state.get())).unwrap_or_default();
    format!(",\"inputResponses\":{{{}}}{state}", answers.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn questions_become_requests_and_their_answers_responses() {
        let can = ClientCapabilities::of(Some(&raw(r#"{"elicitation":{"form":{},"url":{}},"roots":{}}"#)));
        let result = raw(
            r#"{"resultType":"input_required","requestState":"s\u0041","inputRequests":{"a":{"method":"elicitation/create","params":{ "message":"é" }},"b":{"method":"roots/list"},"c":{"method":"elicitation/create","params":{"mode":"url","url":"https://acme.example","message":"m"}}}}"#,
        );
        let (asked, state) = questions(&result, can).unwrap();
        let keys: Vec<_> = asked.iter().map(|asked| asked.key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(asked[0].request, r#""method":"elicitation/create","params":{ "message":"é" }"#);
        assert_eq!(asked[1].request, r#""method":"roots/list""#);
        assert!(asked[2].request.contains(r#""params":{"elicitationId":""#), "{}", asked[2].request);
        let answers = [("a".to_owned(), raw(r#"{"action":"decline"}"#)), ("b".to_owned(), raw(r#"{"roots":[]}"#))];
        assert_eq!(
            responses(&answers, state.as_deref()),
            r#","inputResponses":{"a":{"action":"decline"},"b":{"roots":[]}},"requestState":"s\u0041""#
        );
    }

    #[test]
    fn a_client_is_asked_for_nothing_that_it_did_not_declare() {
        let can = ClientCapabilities::of(Some(&raw(r#"{"elicitation":{}}"#)));
        for request in [r#"{"method":"sampling/createMessage","params":{}}"#, r#"{"method":"tools/call","params":{}}"#]
        {
            let result = raw(&format!(r#"{{"resultType":"input_required","inputRequests":{{"a":{request}}}}}"#));
            assert_eq!(questions(&result, can).unwrap_err(), UpstreamError::WantsInput, "{request}");
        }
    }
}
