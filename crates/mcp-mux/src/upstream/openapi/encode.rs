//! Values as text in a request. Each stays where it was put: nothing in it ends the place that it stands in.

use http::HeaderValue;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::parameter::{Form, Parameter};
use super::template::RESERVED;

/// Longest text that an argument becomes, in bytes: servers take no longer address or header.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// A value as one text, for a path, a header or a cookie; nothing where it has none.
pub(super) fn text(value: &Value, form: Form) -> Option<String> {
    let separator = match form {
        Form::Json => return fitting(value.to_string()),
        Form::Joined(separator) => separator,
        Form::Exploded | Form::Deep => ",",
    };
    match value {
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            fitting(items?.join(separator))
        }
        Value::Object(members) => {
            let member = |(name, value)| Some(format!("{name}{separator}{}", scalar(value)?));
            let members: Option<Vec<String>> = members.iter().map(member).collect();
            fitting(members?.join(separator))
        }
        value => fitting(scalar(value)?),
    }
}

/// A value as names and texts of parameters of an address, not yet encoded; nothing where it has none.
pub(super) fn pairs(parameter: &Parameter, value: &Value) -> Option<Vec<(String, String)>> {
    let name = || parameter.name.clone();
    let one = |name: String, value: &Value| Some((name, fitting(scalar(value)?)?));
    match (parameter.form, value) {
        (Form::Exploded | Form::Deep, Value::Array(items)) => items.iter().map(|item| one(name(), item)).collect(),
        (Form::Exploded, Value::Object(members)) => {
            members.iter().map(|(member, value)| one(member.clone(), value)).collect()
        }
        (Form::Deep, Value::Object(members)) => {
            members.iter().map(|(member, value)| one(format!("{}[{member}]", parameter.name), value)).collect()
        }
        (form, value) => Some(vec![(name(), text(value, form)?)]),
    }
}

/// Names and texts as they stand in an address or a form.
pub(super) fn query(pairs: &[(String, String)]) -> String {
    let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A header's value; nothing for a text that could end it.
pub(super) fn header(text: &str) -> Option<HeaderValue> {
    let is_plain = text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_plain.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// A cookie (RFC 6265 §4.1.1): its name must be a token, and its value is encoded.
pub(super) fn cookie(name: &str, value: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    is_name.then(|| format!("{name}={}", utf8_percent_encode(value, RESERVED)))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn fitting(text: String) -> Option<String> {
    (text.len() <= TEXT_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use url::Url;

    use super::super::parameter::ParameterPlace;
    use super::*;

    fn parameter(form: Form) -> Parameter {
        Parameter {
            argument: "p".to_owned(),
            name: "p".to_owned(),
            place: ParameterPlace::Query,
            form,
            is_required: false,
            schema: json!({}),
        }
    }

    #[test]
    fn lists_and_maps_are_written_as_the_document_says() {
        for (form, value, written) in [
            (Form::Exploded, json!([1, "a b"]), "p=1&p=a%20b"),
            (Form::Exploded, json!({"x": 1, "y": true}), "x=1&y=true"),
            (Form::Exploded, json!("a&b=c#d"), "p=a%26b%3Dc%23d"),
            (Form::Joined(","), json!([1, 2]), "p=1%2C2"),
            (Form::Joined("|"), json!(["a", "b"]), "p=a%7Cb"),
            (Form::Joined(","), json!({"x": 1}), "p=x%2C1"),
            (Form::Deep, json!({"x": 1}), "p%5Bx%5D=1"),
            (Form::Json, json!({"x": [1]}), "p=%7B%22x%22%3A%5B1%5D%7D"),
            (Form::Exploded, json!(1.5), "p=1.5"),
        ] {
            assert_eq!(query(&pairs(&parameter(form), &value).unwrap()), written, "{value}");
        }
        for value in [json!([[1]]), json!({"x": {}}), json!("x".repeat(TEXT_BYTES_MAX + 1))] {
            assert!(pairs(&parameter(Form::Exploded), &value).is_none());
        }
    }

    #[test]
    fn headers_and_cookies_cannot_be_ended() {
        for text in ["a\r\nX-Evil: 1", "a\nb", "a\0", "ü", " a", "a ", "\u{7f}"] {
            assert!(header(text).is_none(), "{text:?}");
        }
        assert_eq!(header("a, b; c").unwrap(), "a, b; c");
        assert_eq!(cookie("theme", "a; sid=1\r\n").unwrap(), "theme=a%3B%20sid%3D1%0D%0A");
        for name in ["", "a b", "a=b", "a;b", "ü", "a\r"] {
            assert!(cookie(name, "x").is_none(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_into_an_address_is_what_is_read_there(
            value in "\\PC{0,20}|[&=#?%+;\r\n\u{0}/ ]{0,12}", member in "\\PC{1,8}|[&=#\\[\\]%]{1,4}"
        ) {
            let mut object = serde_json::Map::new();
            object.insert(member.clone(), json!(value));
            for (form, value, name, read) in [
                (Form::Exploded, json!(value), "p".to_owned(), value.clone()),
                (Form::Exploded, Value::Object(object.clone()), member.clone(), value.clone()),
                (Form::Deep, Value::Object(object.clone()), format!("p[{member}]"), value.clone()),
            ] {
                let mut url: Url = "https://api.example/base?fixed=1".parse().unwrap();
                url.set_query(Some(&format!("fixed=1&{}", query(&pairs(&parameter(form), &value).unwrap()))));
                let read_back: Vec<(String, String)> = url.query_pairs().into_owned().collect();
                prop_assert_eq!(read_back, vec![("fixed".to_owned(), "1".to_owned()), (name, read)]);
                prop_assert_eq!((url.path(), url.fragment()), ("/base", None));
            }
        }
    }
}
