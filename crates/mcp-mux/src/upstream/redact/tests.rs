//! What is found, what is left, and at what cost.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const FRAME: &str = r#"{"jsonrpc":"2.0","id":10000007,"result":"#;

/// A result without the secrets.
fn clean(text: &str, secrets: &[&str]) -> Option<String> {
    let mut all = Secrets::default();
    for secret in secrets {
        all.add(&SecretString::from(*secret));
    }
    let all: Vec<&[u8]> = all.0.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
    let cleaned = redacted(format!("{FRAME}{text}}}").as_bytes(), &all)?;
    Some(cleaned.strip_prefix(FRAME).unwrap().strip_suffix('}').unwrap().to_owned())
}

#[test]
fn a_secret_is_found_however_it_is_escaped() {
    for (secret, text, expected) in [
        ("CANARY-key", r#"{"a":"CANARY-key"}"#, r#"{"a":"[redacted]"}"#),
        ("CANARY-key", r#"{"CANARY-key":"xCANARY-keyy CANARY-key"}"#, r#"{"[redacted]":"x[redacted]y [redacted]"}"#),
        ("CANARY-key", r#"["\u0043ANARY-\u006Bey"]"#, r#"["[redacted]"]"#),
        ("CANARY-key", r#"["{\"h\":\"\\u0043ANARY-key\"}"]"#, r#"["{\"h\":\"[redacted]\"}"]"#),
        (
            "CANARY/key=",
            r#"["CANARY\/key=","CANARY\\/key=","CANARY/key="]"#,
            r#"["[redacted]","[redacted]","[redacted]"]"#,
        ),
        (r#"CANARY"key\"#, r#"["CANARY\"key\\","CANARY\\\"key\\\\"]"#, r#"["[redacted]","[redacted]"]"#),
        (r"CANARY\key", r#"["CANARY\\key","CANARY\\\\key"]"#, r#"["[redacted]","[redacted]"]"#),
        (
            r"CANARY\key9",
            r#"["CANARY\u005ckey9","{\"a\":\"CANARY\u005c\u005ckey9\"}"]"#,
            r#"["[redacted]","{\"a\":\"[redacted]\"}"]"#,
        ),
        ("CANARY/key9", r#"["{\"a\":\"CANARY\u005c/key9\"}"]"#, r#"["{\"a\":\"[redacted]\"}"]"#),
        ("CANARY-key9", r#"["{\"a\":\"\u005cu0043ANARY-key9\"}"]"#, r#"["{\"a\":\"[redacted]\"}"]"#),
        ("ubeefcafe1234", r#"["DOM\\ubeefcafe1234"]"#, r#"["DOM\\[redacted]"]"#),
        ("aabaabaaab", r#"["aabaabaabaaab"]"#, r#"["aab[redacted]"]"#),
        ("key12345", "{\"a\":\"line\\nkey12345\"}", "{\"a\":\"line\\n[redacted]\"}"),
        (
            "12345678",
            r#"{"n":12345678,"m":-9.12345678e1,"s":"12345678"}"#,
            r#"{"n":"[redacted]","m":"[redacted]","s":"[redacted]"}"#,
        ),
    ] {
        let cleaned = clean(text, &[secret]);
        assert_eq!(cleaned.as_deref(), Some(expected), "{secret} in {text}");
        assert!(serde_json::from_str::<Value>(expected).is_ok());
    }
}

#[test]
fn what_holds_no_secret_stays_as_it_is() {
    for (secret, text) in [
        ("CANARY-key", r#"{"a":"CANARY-ke","b":"y \u0043ANARY-kez"}"#),
        ("short", r#"{"a":"short"}"#),
        ("a\",\"bcde", r#"["a","bcde"]"#),
        ("abc\":12345", r#"{"abc":12345}"#),
        ("CANARY-key", ""),
        ("CANARY-key", "\\"),
        ("CANARY-key", "\"\\u00\""),
    ] {
        assert_eq!(clean(text, &[secret]), None, "{secret} in {text}");
    }
}

#[test]
fn what_frames_an_answer_and_is_no_number_stays() {
    for (secret, text) in
        [("10000007", r#"{"n":1}"#), ("1],[2],[3", "[[1],[2],[3]]"), ("jsonrpc\":", "{}"), ("true,true", "[true,true]")]
    {
        assert_eq!(clean(text, &[secret]), None, "{secret} in {text}");
    }
    let both = format!(r#"{FRAME}{{"n":10000007,"s":"10000007"}}}}"#);
    let cleaned = redacted(both.as_bytes(), &[b"10000007"]).unwrap();
    assert_eq!(cleaned, format!(r#"{FRAME}{{"n":"[redacted]","s":"[redacted]"}}}}"#));
}

#[test]
fn a_long_number_of_secrets_is_read_once() {
    let digits = "1".repeat(4 * 1024 * 1024);
    let started = std::time::Instant::now();
    assert_eq!(clean(&digits, &["11111111"]).as_deref(), Some(r#""[redacted]""#));
    // Reading it again for each place would take hours.
    assert!(started.elapsed() < std::time::Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn escapes_of_other_characters_cost_no_second_look() {
    let text = br#"["\u00e9\u20ac \n \t \u001b"]"#;
    assert!(!Escapes::of(text).may_hide(text, b"CANARY-key"));
    assert!(Escapes::of(br#"["\u0043"]"#).may_hide(b"", b"CANARY-key"));
    assert!(Escapes::of(br#"["\u0075"]"#).may_hide(b"", b"-key-key"));
    assert!(Escapes::of(br#"["\u005cu0043"]"#).may_hide(b"", b"-key-key"));
}

#[test]
fn several_secrets_may_overlap() {
    let text = r#"["Bearer CANARY-key","CANARY-key2"]"#;
    let cleaned = clean(text, &["Bearer CANARY-key", "CANARY-key", "CANARY-key2"]).unwrap();
    assert_eq!(cleaned, r#"["[redacted]","[redacted]"]"#);
}

#[test]
fn a_match_that_begins_in_an_escape_leaves_valid_json() {
    for (secret, text) in [
        ("nabcdefgh", r#"["\nabcdefgh"]"#),
        ("e9abcdefg", r#"["\u00e9abcdefg"]"#),
        ("abcdefgh\\", r#"["abcdefgh\"x"]"#),
        ("00e9abcd", r#"["\u00e9abcd"]"#),
    ] {
        let cleaned = clean(text, &[secret]).unwrap_or_else(|| text.to_owned());
        assert!(serde_json::from_str::<Value>(&cleaned).is_ok(), "{secret} in {text}: {cleaned}");
    }
}

/// A text as JSON, escaped by chance and put into strings of JSON by chance.
fn escaped(text: &str, how: &[u8]) -> String {
    let mut out = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        match (how.get(index % how.len().max(1)).copied().unwrap_or_default() % 3, character) {
            (0, _) => write!(out, "\\u{:04x}", u32::from(character)).unwrap(),
            (1, '/') => out.push_str("\\/"),
            (_, '"' | '\\') => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
    out + "\""
}

proptest! {
    #[test]
    fn no_escaping_hides_a_secret_and_json_stays_json(
        secret in "[!-~]{8,20}", before in "[ -~é]{0,9}", after in "[ -~é]{0,9}",
        how in prop::collection::vec(0_u8..3, 1..9), again in prop::collection::vec(0_u8..3, 1..9), nested in any::<bool>(),
    ) {
        let plain = format!("{before}{secret}{after}");
        let text = escaped(&plain, &how);
        let text = if nested { escaped(&text, &again) } else { text };
        let cleaned = clean(&text, &[&secret]).expect("it is there");
        let mut read: Value = serde_json::from_str(&cleaned).unwrap();
        if nested {
            read = serde_json::from_str(read.as_str().unwrap()).unwrap();
        }
        prop_assert!(!read.as_str().unwrap().contains(&secret), "{}", cleaned);
        prop_assert!(read.as_str().unwrap().contains("[redacted]"));
    }

    #[test]
    fn no_text_and_no_secret_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..60), secret in "[\\\\u0-9\"a-c]{8,12}") {
        drop(redacted(&text, &[secret.as_bytes()]));
        find(&text, &[secret.as_bytes()]);
    }
}
