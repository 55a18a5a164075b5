//! YAML as a tree in which every node knows where it stands. Nothing is guessed: a number is not a text, and a key comes once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::MergeKeyPolicy;
use serde_saphyr::{
    DuplicateKeyPolicy, Error, MessageFormatter as _, Options, Spanned, UserMessageFormatter, alias_limits, budget,
    options,
};

use super::MANIFEST_BYTES_MAX;
use super::error::{Place, Problem};

/// How many documents a manifest may have.
const DOCUMENTS_MAX: usize = 20_000;
/// How many nodes a manifest may have, counted again wherever an alias repeats them.
const NODES_MAX: usize = 500_000;
/// How deep its nodes may be nested.
const DEPTH_MAX: usize = 16;
/// How many aliases a manifest may have.
const ALIASES_MAX: usize = 1_000;

/// A value and its place.
pub(super) type Node = Spanned<Value>;

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// Any other number.
    OtherNumber,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// The documents of a manifest, without empty ones.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Problem> {
    if text.len() > MANIFEST_BYTES_MAX {
        let message =
            format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes, and this has {}: split it", text.len());
        return Err(Place::BEGIN.problem("", message));
    }
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| problem(&error))
}

fn options() -> Options {
    options! {
        budget: budget! {
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
        },
        alias_limits: alias_limits! { max_total_replayed_events: 2 * NODES_MAX, max_replay_stack_depth: DEPTH_MAX },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn problem(error: &Error) -> Problem {
    let place = error.location().map_or(Place::BEGIN, Place::of);
    place.problem("", message(error))
}

/// Says in our words what the parser found, where its own speak of its settings.
fn message(error: &Error) -> String {
    match error {
        Error::AliasError { error, .. } => message(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{}` is here twice", printable(key)),
        Error::DuplicateMappingKey { .. } => "a key is here twice".to_owned(),
        Error::MergeKeyNotAllowed { .. } => "`<<` is not understood here: write the fields out".to_owned(),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            format!(
                "this is too much: a manifest has at most {DOCUMENTS_MAX} documents, {NODES_MAX} values in {DEPTH_MAX} levels, \
                 and {ALIASES_MAX} aliases"
            )
        }
        other => printable(&UserMessageFormatter.format_message(other)),
    }
}

/// The text with escapes in place of characters that a terminal would obey.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, `true` or `false`, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::OtherNumber, Value::Number))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
