//! What the value of a secret must look like, by what it is used for. Judged when an operator stores it, and again when it is used:
//! nothing that could end a header, an address or a form and begin another ever gets there.

use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::SecretForm;

use super::pem::{SigningKey, check_pair};

/// Length of the longest value that is sent in a request, in bytes: servers take no longer headers.
const VALUE_BYTES_MAX: usize = 8 * 1024;

const WORD: &str = "must be 1 to 8192 visible ASCII characters without spaces";
const TEXT: &str = "must be 1 to 8192 visible ASCII characters, with spaces only inside";
const PRINTABLE: &str = "must be 1 to 8192 bytes without control characters";

/// Checks a value. What is wrong is said without a byte of it.
pub(crate) fn check_secret(form: SecretForm, value: &SecretString) -> Result<(), &'static str> {
    let text = value.expose_secret();
    let fits = (1..=VALUE_BYTES_MAX).contains(&text.len());
    match form {
        SecretForm::BearerToken | SecretForm::AwsSecretAccessKey | SecretForm::AwsSessionToken => {
            rule(fits && text.bytes().all(|byte| byte.is_ascii_graphic()), WORD)
        }
        SecretForm::HeaderValue | SecretForm::ClientSecret => rule(fits && is_header_text(text), TEXT),
        SecretForm::Password | SecretForm::QueryValue => rule(fits && !text.chars().any(char::is_control), PRINTABLE),
        SecretForm::SigningKey => SigningKey::parse(value).map(drop),
        SecretForm::CertificatePair => check_pair(value),
    }
}

/// Only visible ASCII and inner spaces: anything else could end the header and begin another.
fn is_header_text(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn rule(holds: bool, rule: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(rule) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What could break out of a header, an address or a form, or be read in two ways.
    const CORPUS: [&str; 18] = [
        "",
        "a\r\nX-Evil: 1",
        "a\nb",
        "a\rb",
        "\na",
        "a\n",
        "a\0b",
        "\0",
        "a\tb",
        "\u{7f}",
        "a\u{1b}[31m",
        "a\u{85}b",
        "a\u{b}b",
        "a\u{c}b",
        "a\u{8}b",
        "\r\n\r\n{}",
        "a\u{9f}",
        "\u{1}",
    ];

    #[test]
    fn no_form_takes_a_value_that_could_end_what_carries_it() {
        for form in [
            SecretForm::BearerToken,
            SecretForm::HeaderValue,
            SecretForm::Password,
            SecretForm::QueryValue,
            SecretForm::ClientSecret,
            SecretForm::SigningKey,
            SecretForm::CertificatePair,
            SecretForm::AwsSecretAccessKey,
            SecretForm::AwsSessionToken,
        ] {
            for text in CORPUS {
                assert!(check_secret(form, &SecretString::from(text)).is_err(), "{form:?} {text:?}");
            }
            let long = SecretString::from("a".repeat(VALUE_BYTES_MAX + 1));
            assert!(check_secret(form, &long).is_err(), "{form:?}");
        }
    }

    #[test]
    fn each_form_takes_what_it_is_for() {
        for (form, good, bad) in [
            (SecretForm::BearerToken, vec!["abc.DEF-_~+/="], vec!["a b", "ü", " a"]),
            (SecretForm::HeaderValue, vec!["Token abc=", "a"], vec![" a", "a ", "ü"]),
            (SecretForm::ClientSecret, vec!["a:b &=%", "x"], vec![" a", "ü"]),
            (SecretForm::Password, vec!["p:ä ß ", " "], vec![]),
            (SecretForm::QueryValue, vec!["a&b=c#d ü"], vec![]),
            (SecretForm::AwsSecretAccessKey, vec!["wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"], vec!["a b"]),
        ] {
            for text in good {
                assert_eq!(check_secret(form, &SecretString::from(text)), Ok(()), "{form:?} {text:?}");
            }
            for text in bad {
                assert!(check_secret(form, &SecretString::from(text)).is_err(), "{form:?} {text:?}");
            }
        }
    }
}
