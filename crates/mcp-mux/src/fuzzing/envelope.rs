//! Messages of clients, and the edits that are made in them.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::gateway::envelope::{Message, Rpc, parse};
use crate::json::{self, Members, as_str, insertion_into_object, is_too_deep, quote, span_in, splice, strict, without};

/// An object as `serde_json` reads it, by its own means.
type Plain<'t> = BTreeMap<String, &'t RawValue>;

/// What is taken for a message is JSON in which everybody reads the same, and what is changed in it leaves JSON.
pub fn envelope(bytes: &[u8]) {
    assert_eq!(is_too_deep(bytes), json::is_too_deep_for_sure(bytes, json::DEPTH_MAX), "two ways to count the depth");
    if let Some(value) = strict(bytes) {
        assert_eq!(serde_json::from_slice::<Value>(bytes).expect("strict JSON is JSON"), value);
    }
    let message = parse(bytes);
    if let Ok(message) = &message {
        reads_as_everybody_does(bytes, message);
    }
    if let Ok(whole) = serde_json::from_slice::<&RawValue>(bytes)
        && let Ok(members) = Members::parse(whole.get())
    {
        changes_what_it_should(whole.get(), &members);
        goes_without(whole.get(), &members);
    }
}

fn reads_as_everybody_does(bytes: &[u8], message: &Message<'_>) {
    let text = std::str::from_utf8(bytes).expect("a message is UTF-8");
    let plain: Plain<'_> = serde_json::from_str(text).expect("a message is a JSON object");
    let method =
        plain.get("method").map(|raw| serde_json::from_str::<String>(raw.get()).expect("a method is a string"));
    match message {
        Message::Request(rpc) => {
            assert_eq!(method.as_deref(), Some(rpc.method.as_ref()));
            assert_eq!(plain.get("id").map(|raw| raw.get()), Some(rpc.id.get()));
            has_these_params(plain.get("params").copied(), rpc);
        }
        Message::Notification(notification) => {
            assert_eq!(method.as_deref(), Some(notification.method.as_ref()));
            assert!(!plain.contains_key("id"), "a notification has no id");
            assert_eq!(plain.get("params").map(|raw| raw.get()), notification.params.map(RawValue::get));
        }
        Message::Response(response) => {
            assert_eq!(method, None);
            assert_eq!(plain.get("id").and_then(|raw| as_str(raw)).unwrap_or_default(), response.id);
        }
    }
}

fn has_these_params(params: Option<&RawValue>, rpc: &Rpc<'_>) {
    let plain: Plain<'_> =
        params.map(|raw| serde_json::from_str(raw.get()).expect("`params` is an object")).unwrap_or_default();
    assert_eq!(rpc.params.iter().count(), plain.len());
    for (key, value) in rpc.params.iter() {
        assert_eq!(plain.get(key).map(|raw| raw.get()), Some(value.get()), "{key:?}");
    }
    let meta =
        plain.get("_meta").map(|raw| serde_json::from_str::<Plain<'_>>(raw.get()).expect("`_meta` is an object"));
    assert_eq!(meta.as_ref().map(BTreeMap::len), rpc.meta.as_ref().map(|meta| meta.iter().count()));
    let token = meta.as_ref().and_then(|meta| meta.get("progressToken"));
    let ours = rpc.progress_token().map(RawValue::get);
    assert!(ours.is_none() || ours == token.map(|raw| raw.get()));
}

/// Every second value is replaced and a member put in front, at once: the object has that, and all the rest as it was.
fn changes_what_it_should(object: &str, members: &Members<'_>) {
    let is_replaced = |at: usize| at.is_multiple_of(2);
    let stand_in = |at: usize, key: &str| quote(&format!("{key}\u{7}\"{at}"));
    let mut edits = vec![insertion_into_object(object, 0..object.len(), "\"put in front\":[1]")];
    for (at, (key, value)) in members.iter().enumerate() {
        let span = span_in(object, value.get()).expect("a value lies in its object");
        if is_replaced(at) {
            edits.push((span, stand_in(at, key)));
        }
    }
    let text = splice(object, edits);
    assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "no JSON: {text}");
    let plain: Plain<'_> = serde_json::from_str(&text).expect("what was an object is one");
    let is_new = members.get("put in front").is_none();
    assert_eq!(plain.len(), members.iter().count() + usize::from(is_new));
    for (at, (key, value)) in members.iter().enumerate() {
        let wanted = if is_replaced(at) { stand_in(at, key) } else { value.get().to_owned() };
        assert_eq!(plain.get(key).map(|raw| raw.get()), Some(wanted.as_str()), "{key:?} of {text}");
    }
    assert!(!is_new || plain.get("put in front").is_some_and(|raw| raw.get() == "[1]"));
}

/// The first and the last member are taken out: neither is there, and all the rest is as it was.
fn goes_without(object: &str, members: &Members<'_>) {
    let names: Vec<&str> = members.iter().map(|(key, _)| key).collect();
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return };
    let gone = [*first, *last, "absent"];
    let text = without(object, &gone);
    let plain: Plain<'_> = serde_json::from_str(&text).expect("what was an object is one");
    for (key, value) in members.iter() {
        let left = plain.get(key).map(|raw| raw.get());
        let is_gone = gone.contains(&key) && left.is_none();
        // A name that cannot be written as it is may stay: none of those that are taken out is one.
        let may_stay = !gone.contains(&key) || key.contains(['"', '\\']) || key.contains(char::is_control);
        assert!(is_gone || (may_stay && left == Some(value.get())), "{key:?} of {text}");
    }
}
