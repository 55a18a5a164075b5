//! Filters (RFC 7644 §3.4.2.2), as far as they are needed: `attribute eq value`, several of them joined by `and`. Whatever else there is, is
//! refused.

use serde_json::Value;

/// Longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 2_048;
/// Most comparisons in a filter.
const FILTER_TERMS_MAX: usize = 10;
/// How the names of attributes may begin that are those of the core schemas.
const CORE: [&str; 2] = ["urn:ietf:params:scim:schemas:core:2.0:user:", "urn:ietf:params:scim:schemas:core:2.0:group:"];

/// One comparison, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Equals {
    /// The attribute's path, in lower case and without the schema of the core.
    pub(super) attribute: String,
    /// What it must equal: a text, a number, `true`, `false` or `null`.
    pub(super) value: Value,
}

/// The comparisons of a filter; nothing, if it is none that is supported.
pub(super) fn parse(text: &str) -> Option<Vec<Equals>> {
    if text.len() > FILTER_BYTES_MAX {
        return None;
    }
    let mut rest = text;
    let mut terms = Vec::new();
    loop {
        let (attribute, behind) = word(rest)?;
        let (operator, behind) = word(behind)?;
        let (value, behind) = value(behind)?;
        if !operator.eq_ignore_ascii_case("eq") || terms.len() == FILTER_TERMS_MAX {
            return None;
        }
        terms.push(Equals { attribute: attribute_name(attribute)?, value });
        if behind.trim().is_empty() {
            return Some(terms);
        }
        // What follows a value must be apart from it.
        let (join, behind) = word(behind.strip_prefix(' ')?)?;
        if !join.eq_ignore_ascii_case("and") {
            return None;
        }
        rest = behind;
    }
}

/// An attribute in lower case, without the schema of the core; nothing, if it is none.
pub(super) fn attribute_name(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let name = CORE.iter().find_map(|core| text.strip_prefix(core)).unwrap_or(&text);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$' | b'.' | b':');
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '$');
    (is_name && name.bytes().all(is_letter)).then(|| name.to_owned())
}

/// The next word, which ends at a space, and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    let end = text.find(' ').unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    (!word.is_empty()).then_some((word, rest))
}

/// The JSON value at the beginning of a text, and what follows it. Lists and objects are none that anything is compared with.
fn value(text: &str) -> Option<(Value, &str)> {
    let text = text.trim_start_matches(' ');
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let (_, rest) = text.split_at_checked(values.byte_offset())?;
    (!value.is_array() && !value.is_object()).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Option<Vec<(String, Value)>> {
        Some(parse(text)?.into_iter().map(|term| (term.attribute, term.value)).collect())
    }

    #[test]
    fn what_providers_ask_is_read() {
        let one = |name: &str, value: Value| Some(vec![(name.to_owned(), value)]);
        assert_eq!(parsed(r#"userName eq "a@b.example""#), one("username", json!("a@b.example")));
        assert_eq!(parsed(r#"  externalId EQ "a\"b \u00fc" "#), one("externalid", json!("a\"b ü")));
        assert_eq!(
            parsed(r#"urn:ietf:params:scim:schemas:core:2.0:User:userName eq "a""#),
            one("username", json!("a"))
        );
        assert_eq!(parsed("active eq true"), one("active", json!(true)));
        assert_eq!(
            parsed(r#"id eq "1" and members eq "a and b""#),
            Some(vec![("id".to_owned(), json!("1")), ("members".to_owned(), json!("a and b"))])
        );
    }

    #[test]
    fn whatever_else_there_is_is_refused() {
        for text in [
            "",
            " ",
            "userName",
            "userName eq",
            "userName pr",
            "userName eq a",
            r#"userName eq "a"#,
            r#"userName co "a""#,
            r#"userName ne "a""#,
            r#"userName eq "a" or userName eq "b""#,
            r#"not (userName eq "a")"#,
            r#"(userName eq "a")"#,
            r#"emails[type eq "work"]"#,
            r#"userName eq "a"and id eq "b""#,
            r#"userName eq "a" and"#,
            r#"userName eq "a" and and id eq "b""#,
            r#"userName eq ["a"]"#,
            r#"userName eq {"a":1}"#,
            r#"'userName' eq "a""#,
            r#"userName eq "a"; DROP TABLE directory_user"#,
            "1 eq 1",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(parse(&format!(r#"userName eq "{}""#, "a".repeat(FILTER_BYTES_MAX))), None);
        let many = [r#"id eq "1""#; FILTER_TERMS_MAX + 1].join(" and ");
        assert_eq!(parse(&many), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_filter_panic(text in any::<String>()) {
            drop(parse(&text));
        }

        #[test]
        fn what_looks_like_a_filter_is_read_or_refused(text in r#"(userName|id|[a-z:.\[\]]{1,9}|é) ?(eq|EQ|co)? ?("[a-z\\"éü ]{0,9}"?|true|1|\[)?( and |  | or |")?(id eq "a")?"#) {
            for term in parse(&text).into_iter().flatten() {
                prop_assert!(text.to_ascii_lowercase().contains(&term.attribute), "{text}");
            }
        }

        #[test]
        fn any_text_can_be_asked_for(text in "\\PC{0,40}") {
            let filter = format!("userName eq {}", json!(text));
            prop_assert_eq!(parsed(&filter), Some(vec![("username".to_owned(), json!(text))]));
        }
    }
}
