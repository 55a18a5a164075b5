//! Messages on their way to the child and back: an id, a progress token and, between the eras, `_meta` are spliced in. Every other
//! byte stays, but for line ends between the tokens of a request, since a line is one message.

use serde_json::value::RawValue;

use crate::gateway::envelope::Rpc;
use crate::json::{self, Members};
use crate::protocol::{META_CAPABILITIES, META_VERSION, MODERN_VERSION};

const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

/// What a child said, as far as its envelope tells.
#[derive(Debug)]
pub(super) enum Spoken<'t> {
    /// The answer to our request of that id, and where the id stands.
    Answer(u64, &'t RawValue),
    /// Progress of our request of that id, and where the token stands.
    Progress(u64, &'t RawValue),
    /// A request, which has an id of the child's.
    Request(&'t RawValue),
    /// The one request that is answered: whether we are alive.
    Ping(&'t RawValue),
    /// A notification that nobody can be told of.
    Notification,
    /// No message.
    Noise,
}

/// Reads one line.
pub(super) fn spoken(line: &str) -> Spoken<'_> {
    let Ok(message) = Members::parse(line) else { return Spoken::Noise };
    let Some(method) = message.get_str("method") else {
        return match message.get("id").and_then(|id| Some((ours(id)?, id))) {
            Some((number, id)) if message.get("result").is_some() || message.get("error").is_some() => {
                Spoken::Answer(number, id)
            }
            _ => Spoken::Noise,
        };
    };
    match message.get("id") {
        Some(id) if method == "ping" => Spoken::Ping(id),
        Some(id) => Spoken::Request(id),
        None if method == "notifications/progress" => {
            let params = message.get("params").and_then(|params| Members::parse(params.get()).ok());
            let token = params.and_then(|params| params.get("progressToken"));
            token.and_then(|token| Some(Spoken::Progress(ours(token)?, token))).unwrap_or(Spoken::Notification)
        }
        None => Spoken::Notification,
    }
}

/// Our ids are whole numbers. A child that gives one back as a string gives back another id.
fn ours(id: &RawValue) -> Option<u64> {
    id.get().parse().ok()
}

/// `line` with `theirs` in place of `ours`, which is a part of it.
pub(super) fn put_back(line: &str, ours: &RawValue, theirs: &RawValue) -> Option<String> {
    let span = json::span_in(line, ours.get())?;
    Some(json::splice(line, vec![(span, theirs.get().to_owned())]))
}

/// A client's request as a line for the child, under our `id`. `modern` puts what each request of that era says into one of a
/// legacy client.
pub(super) fn line(text: &str, rpc: &Rpc<'_>, id: u64, modern: bool) -> Option<String> {
    let mut edits = vec![(json::span_in(text, rpc.id.get())?, id.to_string())];
    if let Some(token) = rpc.progress_token() {
        edits.push((json::span_in(text, token.get())?, id.to_string()));
    }
    if modern {
        edits.push(envelope(text, rpc)?);
    }
    Some(json::splice(text, edits).replace(['\n', '\r'], " "))
}

/// The edit that puts a modern request's `_meta` into a legacy one.
fn envelope(text: &str, rpc: &Rpc<'_>) -> Option<(std::ops::Range<usize>, String)> {
    let message = Members::parse(text).ok()?;
    let Some(params) = message.get("params") else {
        let whole = text.find('{')?..text.len();
        return Some(json::insertion_into_object(
            text,
            whole,
            &format!("\"params\":{{\"_meta\":{{{}}}}}", members(None)),
        ));
    };
    let Some(meta) = Members::parse(params.get()).ok()?.get("_meta") else {
        let span = json::span_in(text, params.get())?;
        return Some(json::insertion_into_object(text, span, &format!("\"_meta\":{{{}}}", members(None))));
    };
    let span = json::span_in(text, meta.get())?;
    Some(json::insertion_into_object(text, span, &members(rpc.meta.as_ref())))
}

/// The members of a modern request's `_meta`, without those that stand there.
fn members(there: Option<&Members<'_>>) -> String {
    let client = format!("{{\"name\":\"mcp-mux-bridge\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let all =
        [(META_VERSION, json::quote(MODERN_VERSION)), (META_CLIENT, client), (META_CAPABILITIES, "{}".to_owned())];
    let missing = all.iter().filter(|(key, _)| there.is_none_or(|there| there.get(key).is_none()));
    missing.map(|(key, value)| format!("\"{key}\":{value}")).collect::<Vec<_>>().join(",")
}

/// `server/discover` under our id.
pub(super) fn discover(id: u64) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"server/discover\",\"params\":{{\"_meta\":{{{}}}}}}}",
        members(None)
    )
}

/// `initialize` under our id. No capability is declared: callers share the child, which must not be able to ask one of them.
pub(super) fn initialize(id: u64, version: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"{version}\",\
         \"capabilities\":{{}},\"clientInfo\":{{\"name\":\"mcp-mux-bridge\",\"version\":\"{}\"}}}}}}",
        env!("CARGO_PKG_VERSION")
    )
}

/// The end of the handshake.
pub(super) fn initialized() -> String {
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()
}

/// Nobody waits for our request `id` any more.
pub(super) fn cancelled(id: u64, modern: bool) -> String {
    let meta = if modern { format!(",\"_meta\":{{{}}}", members(None)) } else { String::new() };
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
         \"params\":{{\"requestId\":{id},\"reason\":\"nobody waits for it any more\"{meta}}}}}"
    )
}

/// The answer to a request of the child.
pub(super) fn reply(id: &RawValue, member: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{member}}}", id.get())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::envelope::{Message, parse};

    fn to_child(text: &str, modern: bool) -> String {
        let Message::Request(rpc) = parse(text.as_bytes()).unwrap() else { panic!("{text}") };
        line(text, &rpc, 7, modern).unwrap()
    }

    #[test]
    fn only_id_and_progress_token_of_a_request_change() {
        let text = r#" { "method":"tools/call", "x":1.50,"id":"a", "jsonrpc":"2.0","params":{"_meta":{"progressToken":"t","y":2},"n":1e999}}"#;
        let wanted = r#" { "method":"tools/call", "x":1.50,"id":7, "jsonrpc":"2.0","params":{"_meta":{"progressToken":7,"y":2},"n":1e999}}"#;
        assert_eq!(to_child(text, false), wanted);
    }

    #[test]
    fn a_request_is_one_line() {
        let text = "{\r\n\"jsonrpc\":\"2.0\",\n\"id\":1,\"method\":\"a\\nb\"\n}\n";
        assert_eq!(to_child(text, false), "{  \"jsonrpc\":\"2.0\", \"id\":7,\"method\":\"a\\nb\" } ");
    }

    #[test]
    fn a_legacy_request_gets_what_a_modern_child_wants() {
        let known = format!(r#""{META_CLIENT}":{{"name":"c"}}"#);
        for params in [
            "",
            r#","params":{}"#,
            r#","params":{"a":1}"#,
            r#","params":{"_meta":{}}"#,
            &format!(r#","params":{{"_meta":{{{known}}}}}"#),
        ] {
            let line = to_child(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m"{params}}}"#), true);
            let message: serde_json::Value = serde_json::from_str(&line).unwrap();
            let meta = &message["params"]["_meta"];
            assert_eq!((&message["id"], &meta[META_VERSION]), (&7.into(), &MODERN_VERSION.into()), "{line}");
            assert!(meta[META_CAPABILITIES].is_object() && meta[META_CLIENT].is_object(), "{line}");
            assert_eq!(line.matches(META_CLIENT).count(), 1, "{line}");
        }
    }

    #[test]
    fn what_a_child_says_is_told_apart() {
        let says = |text: &str| format!("{:?}", spoken(text));
        assert!(says(r#"{"result":{},"jsonrpc":"2.0","id":7}"#).starts_with("Answer(7,"));
        assert!(says(r#"{"jsonrpc":"2.0","id":7,"error":{}}"#).starts_with("Answer(7,"));
        assert!(says(r#"{"method":"notifications/progress","params":{"progressToken":7}}"#).starts_with("Progress(7,"));
        assert!(says(r#"{"method":"roots/list","id":7}"#).starts_with("Request("));
        assert!(says(r#"{"method":"ping","id":7}"#).starts_with("Ping("));
        for other in [r#"{"method":"notifications/progress","params":{"progressToken":"7"}}"#, r#"{"method":"x"}"#] {
            assert_eq!(says(other), "Notification", "{other}");
        }
        for noise in
            ["Server started", "", "[]", r#"{"id":7}"#, r#"{"id":"7","result":{}}"#, r#"{"id":7,"id":8,"result":{}}"#]
        {
            assert_eq!(says(noise), "Noise", "{noise}");
        }
    }

    #[test]
    fn an_answer_goes_back_under_its_clients_id() {
        let text = r#"{"result": {"n":1.0, "id":7},"jsonrpc":"2.0","id":7 }"#;
        let Spoken::Answer(7, id) = spoken(text) else { panic!() };
        let theirs: &RawValue = serde_json::from_str("\"a\"").unwrap();
        assert_eq!(put_back(text, id, theirs).unwrap(), r#"{"result": {"n":1.0, "id":7},"jsonrpc":"2.0","id":"a" }"#);
    }

    proptest! {
        #[test]
        fn nothing_that_a_child_says_makes_us_panic(text in r#"[{}\[\]",:0-9a-z\\ ]{0,80}"#) {
            let _ = spoken(&text);
        }
    }
}
