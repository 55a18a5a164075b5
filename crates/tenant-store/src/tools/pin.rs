//! What of a definition is pinned: all that tells a model or a person what a tool is and does.
//!
//! Two texts that differ in nothing but the order of members, white space and the spelling of strings say the same. Numbers are
//! taken as they are spelt, because two readers may round them differently.

use std::fmt;
use std::str::FromStr;

use sea_orm::DeriveValueType;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Digest, DigestError};

/// What is not pinned: pictures, and notes for programs.
const UNPINNED: [&str; 2] = ["icons", META];
const META: &str = "_meta";
/// The notes that are pinned: they tie a tool to an app's page, which people see (MCP Apps, SEP-1865).
const PINNED_META: [&str; 2] = ["ui", "ui/resourceUri"];
/// Deepest nesting in which members are put in order. What lies deeper counts byte for byte.
const DEPTH_MAX: usize = 128;

/// The digest of what is pinned of a definition, printed in hexadecimal. Whoever approves a definition names it by this.
#[derive(Clone, Copy, PartialEq, Eq, DeriveValueType)]
#[sea_orm(value_type = "String")]
pub struct Pin(Digest);

impl Pin {
    /// The pin of a definition: of every member but its icons and its notes for programs, in whatever order.
    pub fn of(definition: &RawValue) -> Self {
        let mut pinned = String::with_capacity(definition.get().len());
        match serde_json::from_str::<Object<'_>>(definition.get()) {
            Ok(Object(members)) => {
                let is_pinned = |(key, _): &(String, &RawValue)| !UNPINNED.contains(&key.as_str());
                let meta = members.iter().find(|(key, _)| key == META).map(|(_, meta)| *meta);
                let members = members.iter().filter(|member| is_pinned(member));
                write_object(&members.cloned().collect::<Vec<_>>(), DEPTH_MAX, &mut pinned);
                pinned.push_str(&pinned_meta(meta));
            }
            Err(_) => write(definition, DEPTH_MAX, &mut pinned),
        }
        Self(Digest(Sha256::digest(pinned).into()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// Whether two texts say the same, all of it.
pub(super) fn say_the_same(one: &str, other: &str) -> bool {
    let ordered = |text: &str| {
        let raw = serde_json::from_str::<&RawValue>(text).ok()?;
        let mut ordered = String::with_capacity(text.len());
        write(raw, DEPTH_MAX, &mut ordered);
        Some(ordered)
    };
    one == other || ordered(one).is_some_and(|one| Some(one) == ordered(other))
}

fn pinned_meta(meta: Option<&RawValue>) -> String {
    let mut pinned = String::new();
    let Some(meta) = meta else { return pinned };
    match serde_json::from_str::<Object<'_>>(meta.get()) {
        Ok(Object(mut members)) => {
            members.retain(|(key, _)| PINNED_META.contains(&key.as_str()));
            if !members.is_empty() {
                write_object(&members, DEPTH_MAX, &mut pinned);
            }
        }
        Err(_) => write(meta, DEPTH_MAX, &mut pinned),
    }
    pinned
}

/// The members of an object, ordered by key. An object with a key twice is none: two readers could take it for two.
#[derive(Debug)]
struct Object<'t>(Vec<(String, &'t RawValue)>);

impl<'de: 't, 't> Deserialize<'de> for Object<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                members.sort_by(|(one, _), (other, _)| one.cmp(other));
                if members.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
                    return Err(serde::de::Error::custom("a key occurs twice"));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Writes a value with the members of every object in order, as deep as `depth`. What cannot be read in one way only is written as it is.
fn write(raw: &RawValue, depth: usize, out: &mut String) {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') if depth > 0 => match serde_json::from_str::<Object<'_>>(text) {
            Ok(Object(members)) => write_object(&members, depth, out),
            Err(_) => out.push_str(text),
        },
        Some(b'[') if depth > 0 => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(items) => {
                out.push('[');
                for item in items {
                    write(item, depth - 1, out);
                    out.push(',');
                }
                out.push(']');
            }
            Err(_) => out.push_str(text),
        },
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(string) => out.push_str(&Value::from(string).to_string()),
            Err(_) => out.push_str(text),
        },
        _ => out.push_str(text),
    }
}

fn write_object(members: &[(String, &RawValue)], depth: usize, out: &mut String) {
    out.push('{');
    for (key, value) in members {
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write(value, depth.saturating_sub(1), out);
        out.push(',');
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin::of(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn order_white_space_and_the_spelling_of_strings_are_no_part_of_a_pin() {
        let one = pin(r#"{"name":"a","inputSchema":{"type":"object","properties":{"é":{"enum":[1,2]}}}}"#);
        let other = pin(
            "{ \"inputSchema\" : {\"properties\":{\"\\u00e9\":{\"enum\":[1, 2]}},\"type\":\"object\"},\"name\":\"\\u0061\"}",
        );
        assert_eq!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn whatever_else_a_definition_says_is_pinned() {
        let text = r#"{"name":"a","title":"T","description":"d","inputSchema":{"a":[1,2]},"outputSchema":{},"annotations":{"readOnlyHint":true},"x":1.0}"#;
        for (old, new) in [
            (r#""a","#, r#""b","#),
            ("\"T\"", "\"t\""),
            ("\"d\"", "\"d \""),
            ("[1,2]", "[2,1]"),
            (r#""outputSchema":{}"#, r#""outputSchema":true"#),
            ("true", "false"),
            ("1.0", "1.00"),
            // A reader takes the first of them, another one the last.
            (r#"{"a":[1,2]}"#, r#"{"a":[9],"a":[1,2]}"#),
        ] {
            assert!(text.contains(old));
            assert_ne!(pin(text), pin(&text.replacen(old, new, 1)), "{old}");
        }
    }

    #[test]
    fn of_the_notes_for_programs_only_what_ties_a_tool_to_an_app_is_pinned() {
        let with = |meta: &str| pin(&format!(r#"{{"name":"a","_meta":{meta},"icons":[]}}"#));
        assert_eq!(with(r#"{"version":1}"#), with(r#"{"version":2}"#));
        assert_eq!(with("{}"), pin(r#"{"name":"a","icons":[{"src":"https://a.example"}]}"#));
        assert_ne!(with(r#"{"ui":{"resourceUri":"ui://a"}}"#), with(r#"{"ui":{"resourceUri":"ui://b"}}"#));
        assert_ne!(with(r#"{"ui/resourceUri":"ui://a"}"#), with("{}"));
    }

    #[test]
    fn texts_say_the_same_only_with_all_that_is_in_them() {
        assert!(say_the_same(r#"{"a":1,"b":[{"c":2,"d":3}]}"#, r#"{"b":[{"d":3,"c":2}],"a":1}"#));
        assert!(!say_the_same(r#"{"a":1,"_meta":{"v":1}}"#, r#"{"a":1,"_meta":{"v":2}}"#));
        assert!(!say_the_same("", r"{}"));
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(200), "]".repeat(200));
        assert!(!say_the_same(&deep(r#"{"a":1,"b":2}"#), &deep(r#"{"b":2,"a":1}"#)), "too deep to be put in order");
    }
}
