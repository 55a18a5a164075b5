//! The strings and numbers of a JSON text. A parser stops where it finds what it cannot hold, a lone surrogate or a number without end, and what
//! comes behind that would be hidden from whoever looks. This reads on, whatever comes.

use std::borrow::Cow;

/// Each string that is no key, and each number, in their order.
#[derive(Debug)]
pub(super) struct Texts<'t>(&'t str);

impl<'t> Texts<'t> {
    pub(super) fn of(json: &'t str) -> Self {
        Self(json)
    }

    /// Takes the string whose first quotation mark has been taken.
    fn string(&mut self) -> Cow<'t, str> {
        let mut end = 0;
        let bytes = self.0.as_bytes();
        while let Some(byte) = bytes.get(end).filter(|byte| **byte != b'"') {
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        let inside = self.0.get(..end).unwrap_or(self.0);
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        if inside.contains('\\') { Cow::Owned(unescaped(inside)) } else { Cow::Borrowed(inside) }
    }

    fn is_before_value(&self) -> bool {
        self.0.trim_start().starts_with(':')
    }
}

impl<'t> Iterator for Texts<'t> {
    type Item = Cow<'t, str>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.0.find(|letter: char| letter == '"' || letter == '-' || letter.is_ascii_digit())?;
            let rest = self.0.get(start..)?;
            if let Some(rest) = rest.strip_prefix('"') {
                self.0 = rest;
                let text = self.string();
                // Keys are the same for everybody.
                if self.is_before_value() {
                    continue;
                }
                return Some(text);
            }
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
            let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
            let (number, behind) = rest.split_at(end);
            self.0 = behind;
            return Some(Cow::Borrowed(whole(number)));
        }
    }
}

/// A number without a fraction that is none: `40028871.0` is as long a number as `40028871`.
fn whole(number: &str) -> &str {
    match number.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => number,
    }
}

/// What a string says. What stands for no letter is shown as that.
fn unescaped(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let unit = match letter {
            '\\' => match letters.next() {
                Some('n' | 'r' | 't' | 'b' | 'f') => Some(u16::from(b' ')),
                Some('u') => {
                    let digits: String = letters.by_ref().take(4).collect();
                    Some(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd))
                }
                Some(escaped) => u16::try_from(u32::from(escaped)).ok(),
                None => None,
            },
            letter => {
                units.extend(letter.encode_utf16(&mut [0; 2]).iter());
                continue;
            }
        };
        units.extend(unit);
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn texts(json: &str) -> Vec<String> {
        Texts::of(json).map(Cow::into_owned).collect()
    }

    #[test]
    fn what_a_parser_stumbles_over_hides_nothing() {
        let json = r#"{"a":1e999,"b":"x\ud800y","c":["t\u00fcr \"q\" \\",40028871.0],"d":{"e":123456789012345678901234567890,"f":null}}"#;
        let found = texts(json);
        assert_eq!(found, ["1e999", "x\u{fffd}y", "t\u{fc}r \"q\" \\", "40028871", "123456789012345678901234567890"]);
    }

    proptest! {
        #[test]
        fn every_string_is_found_and_no_key(strings in proptest::collection::vec(".*", 0..8), key in "[a-z\"]{1,8}") {
            let mut value = json!(strings);
            value = json!({ key: value });
            prop_assert_eq!(texts(&value.to_string()), strings.iter().map(|text| spaced(text)).collect::<Vec<_>>());
            prop_assert!(serde_json::from_str::<Value>(&value.to_string()).is_ok());
        }

        #[test]
        fn no_text_makes_it_fail(text in ".*") {
            texts(&text);
        }
    }

    /// As the scanner shows line breaks and their like.
    fn spaced(text: &str) -> String {
        text.replace(['\n', '\r', '\t', '\u{8}', '\u{c}'], " ")
    }
}
