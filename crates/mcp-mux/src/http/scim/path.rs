//! The paths of PATCH (RFC 7644 §3.5.2): `active`, `name.familyName`, `members[value eq "…"]`.

use super::filter::{self, Equals};

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 2_048;

/// What an operation is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The attribute, in lower case and without the schema of the core.
    pub(super) attribute: String,
    /// Which of its values; all, if nothing is said.
    pub(super) which: Which,
    /// What part of it, in lower case.
    pub(super) part: Option<String>,
}

/// Which values of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those of which all of this holds.
    Equal(Vec<Equals>),
    /// Those of which something holds that is not supported. Of attributes that are not kept it does not matter.
    Others,
}

/// What a path leads to; nothing, if it is none.
pub(super) fn parse(text: &str) -> Option<Target> {
    let text = text.trim();
    if text.len() > PATH_BYTES_MAX {
        return None;
    }
    let Some((name, rest)) = text.split_once('[') else {
        let name = filter::attribute_name(text)?;
        // The version of a schema has a dot, too.
        let (attribute, part) = match name.split_once('.').filter(|_| !name.starts_with("urn:")) {
            Some((attribute, part)) => (attribute.to_owned(), Some(simple(part)?)),
            None => (name, None),
        };
        return Some(Target { attribute, which: Which::All, part });
    };
    let (inside, behind) = rest.split_at_checked(closing(rest)?)?;
    let part = match behind.strip_prefix(']')? {
        "" => None,
        part => Some(simple(&filter::attribute_name(part.strip_prefix('.')?)?)?),
    };
    let which = filter::parse(inside).map_or(Which::Others, Which::Equal);
    Some(Target { attribute: filter::attribute_name(name)?, which, part })
}

fn simple(part: &str) -> Option<String> {
    (!part.is_empty() && !part.contains(['.', ':'])).then(|| part.to_owned())
}

/// Where the bracket is closed, outside of quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ']' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn target(attribute: &str, which: Which, part: Option<&str>) -> Target {
        Target { attribute: attribute.to_owned(), which, part: part.map(ToOwned::to_owned) }
    }

    /// Asserts that a path is read so.
    fn leads(text: &str, to: Target) {
        assert_eq!(parse(text), Some(to), "{text}");
    }

    fn equal(attribute: &str, value: &str) -> Which {
        Which::Equal(vec![Equals { attribute: attribute.to_owned(), value: json!(value) }])
    }

    #[test]
    fn the_paths_that_providers_send_are_read() {
        leads("active", target("active", Which::All, None));
        leads("name.familyName", target("name", Which::All, Some("familyname")));
        leads(r#"members[value eq "dus_1"]"#, target("members", equal("value", "dus_1"), None));
        leads(r#"emails[type eq "work"].value"#, target("emails", equal("type", "work"), Some("value")));
        let odd = r#"emails[type pr and not (value co "]")].value"#;
        leads(odd, target("emails", Which::Others, Some("value")));
        leads("urn:ietf:params:scim:schemas:core:2.0:User:userName", target("username", Which::All, None));
        let department = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department";
        leads(department, target(&department.to_ascii_lowercase(), Which::All, None));
        leads(r#"members[value eq "a]\"]b"]"#, target("members", equal("value", "a]\"]b"), None));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for text in [
            "",
            " ",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "a b",
            "1a",
            "a[",
            "a[]b",
            "a]",
            r#"a[value eq "x]"#,
            r#"a[value eq "x"]."#,
            r#"a[value eq "x"].b.c"#,
            r#"a[value eq "x"]]"#,
            r#"[value eq "x"]"#,
            "é",
            "a\u{0}",
            "/active",
            "a,b",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&"a".repeat(PATH_BYTES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_path_panic(text in any::<String>()) {
            drop(parse(&text));
        }

        #[test]
        fn what_looks_like_a_path_is_read_or_refused(text in r#"(members|urn:a:2.0|é|a)(\.[a-z]{0,3})?(\[(value eq "[a-z\\"\]é]{0,5}"?)?\]?){0,2}(\.[a-z.é]{0,4})?"#) {
            if let Some(target) = parse(&text) {
                prop_assert!(text.to_ascii_lowercase().starts_with(&target.attribute), "{text}");
            }
        }

        #[test]
        fn any_member_can_be_named(text in "\\PC{0,40}") {
            leads(&format!("members[value eq {}]", json!(text)), target("members", equal("value", &text), None));
        }
    }
}
