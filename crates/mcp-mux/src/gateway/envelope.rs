//! The JSON-RPC envelope (JSON-RPC 2.0 §4), read strictly: two programs that read the same bytes must never see two different
//! messages, so a key that occurs twice or in another spelling is refused.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::members;
use super::problem::Problem;
use crate::json::{self, Members};
use crate::upstream::Answer;

/// Longest request id, in bytes of JSON.
pub(crate) const ID_BYTES_MAX: usize = 256;

const ENVELOPE_KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS_KEYS: [&str; 11] = [
    "name",
    "arguments",
    "uri",
    "ref",
    "argument",
    "context",
    "_meta",
    "cursor",
    "inputResponses",
    "requestState",
    "taskId",
];

/// One message of a client.
#[derive(Debug)]
pub(crate) enum Message<'b> {
    Request(Rpc<'b>),
    Notification(Notification<'b>),
    Response(Response<'b>),
}

/// A notification of a client.
#[derive(Debug)]
pub(crate) struct Notification<'b> {
    pub(crate) method: Cow<'b, str>,
    pub(crate) params: Option<&'b RawValue>,
}

/// What a client answers to a request.
#[derive(Debug)]
pub(crate) struct Response<'b> {
    pub(crate) id: Cow<'b, str>,
    pub(crate) answer: Answer,
}

/// One request of a client.
#[derive(Debug)]
pub(crate) struct Rpc<'b> {
    /// The id, raw, as it must come back.
    pub(crate) id: &'b RawValue,
    pub(crate) method: Cow<'b, str>,
    pub(crate) params: Members<'b>,
    pub(crate) meta: Option<Members<'b>>,
}

impl Rpc<'_> {
    /// The token under which the client wants to hear of progress: a string or a number.
    pub(crate) fn progress_token(&self) -> Option<&RawValue> {
        let is_token = |raw: &str| {
            raw.len() <= ID_BYTES_MAX && raw.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
        };
        self.meta.as_ref()?.get("progressToken").filter(|raw| is_token(raw.get()))
    }
}

/// Reads a message.
pub(crate) fn parse(body: &[u8]) -> Result<Message<'_>, Problem> {
    if json::is_too_deep(body) {
        return Err(Problem::parse_error("the body is nested too deeply"));
    }
    let envelope = Members::parse_slice(body).map_err(|_| unread(body))?;
    if let Some(key) = envelope.misspelt(&ENVELOPE_KEYS) {
        return Err(Problem::invalid_request(format!("the key `{}` is misspelt", key.to_ascii_lowercase())));
    }
    if envelope.get_str("jsonrpc").as_deref() != Some("2.0") {
        return Err(Problem::invalid_request("`jsonrpc` must be \"2.0\""));
    }
    let Some(method) = envelope.get("method") else { return response(&envelope) };
    let method = json::as_str(method).ok_or(Problem::invalid_request("`method` must be a string"))?;
    let Some(id) = envelope.get("id") else {
        return Ok(Message::Notification(Notification { method, params: envelope.get("params") }));
    };
    if !is_id(id.get()) {
        return Err(Problem::invalid_request("`id` must be a string or an integer"));
    }
    let rpc = request(id, method, &envelope).map_err(|problem| problem.answering(id))?;
    Ok(Message::Request(rpc))
}

/// What is wrong with a body that is no object of single keys.
fn unread(body: &[u8]) -> Problem {
    match serde_json::from_slice::<&RawValue>(body) {
        Err(_) => Problem::parse_error("the body is not JSON"),
        Ok(whole) if whole.get().starts_with('[') => {
            Problem::invalid_request("batches are not supported: send one message per request")
        }
        Ok(_) => Problem::invalid_request("a message is an object in which no key occurs twice"),
    }
}

fn request<'b>(id: &'b RawValue, method: Cow<'b, str>, envelope: &Members<'b>) -> Result<Rpc<'b>, Problem> {
    let params = members(envelope.get("params"), "`params` must be an object in which no key occurs twice")?;
    if let Some(key) = params.misspelt(&PARAMS_KEYS) {
        return Err(Problem::invalid_params(format!("the key `{}` is misspelt", key.to_ascii_lowercase())));
    }
    let meta =
        params.get("_meta").map(|raw| members(Some(raw), "`_meta` must be an object in which no key occurs twice"));
    Ok(Rpc { id, method, params, meta: meta.transpose()? })
}

fn response<'b>(envelope: &Members<'b>) -> Result<Message<'b>, Problem> {
    let answer = match (envelope.get("result"), envelope.get("error")) {
        (Some(result), None) if json::is_object(result) => Answer::Result(result.to_owned()),
        (None, Some(error)) if json::is_object(error) => Answer::Error(error.to_owned()),
        (None, None) => return Err(Problem::invalid_request("a message has a `method`, a `result` or an `error`")),
        _ => return Err(Problem::invalid_request("a response has an object as its `result` or as its `error`")),
    };
    // Requests of ours have strings as their ids: another id is of none of them.
    let id = envelope.get_str("id").unwrap_or_default();
    Ok(Message::Response(Response { id, answer }))
}

fn is_id(raw: &str) -> bool {
    let integer = raw.parse::<i64>().is_ok();
    raw.len() <= ID_BYTES_MAX && (integer || raw.starts_with('"'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(body: &str) -> i64 {
        parse(body.as_bytes()).unwrap_err().code
    }

    #[test]
    fn a_request_is_read() {
        let body = r#"{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"name":"a","_meta":{"x":1}}}"#;
        let Message::Request(rpc) = parse(body.as_bytes()).unwrap() else { panic!("{body}") };
        assert_eq!((rpc.id.get(), rpc.method.as_ref()), ("\"7\"", "tools/call"));
        assert!(rpc.meta.unwrap().get("x").is_some());
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"x","name":"y"}}"#), -32602);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"x","NAME":"y"}}"#), -32602);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(code("{"), -32700);
        assert_eq!(code(""), -32700);
        assert_eq!(code(&"[".repeat(100_000)), -32700);
        assert_eq!(code(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#), -32600);
        assert_eq!(code(r#"{"id":1,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#), -32602);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }

        #[test]
        fn no_text_of_json_pieces_makes_the_reader_panic(text in r#"[{}\[\]",:0-9a-z\\ ]{0,80}"#) {
            drop(parse(text.as_bytes()));
        }
    }
}
