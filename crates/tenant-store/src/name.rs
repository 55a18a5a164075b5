//! Names: texts from outside that became types at the edge. Whatever has one of these types obeys its grammar.

mod grammar;
mod pattern;

pub use grammar::is_visible;
pub use pattern::percent_decodings;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use grammar::{
    Problem, call_address, check_length, host, issuer_address, printable, scope_list, secret_header, slug, unreserved,
    uri, user_name, visible, visible_ascii, word,
};

/// Length of the longest tenant's or upstream's slug, in bytes.
const SLUG_BYTES_MAX: usize = 20;
/// Length of the longest name of a grant, a secret or an issuer, in bytes.
const NAME_BYTES_MAX: usize = 40;
/// Length of the longest id of a key-encryption key, in bytes.
const KEK_ID_BYTES_MAX: usize = 200;
/// Length of the longest group or subject, in bytes.
const CLAIM_BYTES_MAX: usize = 256;
/// Length of the longest name at an upstream, in bytes.
const LOCAL_NAME_BYTES_MAX: usize = 256;
/// Length of the longest exposed name, in bytes: what the narrowest model interfaces take.
const EXPOSED_NAME_BYTES_MAX: usize = 64;
/// Length of the longest prefix of an upstream's tools, in bytes.
const TOOL_PREFIX_BYTES_MAX: usize = 16;
/// Length of the longest tool pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 128;
/// Length of the longest host, in bytes.
const HOST_BYTES_MAX: usize = 253;
/// Length of the longest name of a header or of a parameter in an address, in bytes.
const HEADER_BYTES_MAX: usize = 64;
/// Length of the longest attribute of a directory's user or group, in bytes.
const DIRECTORY_TEXT_BYTES_MAX: usize = 1024;
/// Length of the longest word that an authorization server or a cloud knows us by, in bytes.
const CLIENT_BYTES_MAX: usize = 256;
/// Length of the longest list of OAuth scopes, in bytes.
const SCOPE_BYTES_MAX: usize = 1024;
/// Length of the longest address inside a setting, in bytes.
const ADDRESS_BYTES_MAX: usize = 2048;

/// A text that breaks the rule of what it should be. The message says the rule, and what broke it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {rule}, but {problem}")]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    problem: Problem,
}

/// Defines a kind of text. Clones are cheap, and the database keeps it as it is printed.
macro_rules! name {
    ($(#[$docs:meta])+ $name:ident, $grammar:ident, $bytes_max:ident, $what:literal, $rule:literal) => {
        $(#[$docs])+
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        #[sea_orm(value_type = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let text = check_length(text, $bytes_max).and_then(|()| $grammar(text));
                text.map(Self).map_err(|problem| NameError { what: $what, rule: $rule, problem })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        // Lets maps be searched with borrowed text: it compares and hashes as the name does.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        // May be part of a primary key; no database makes names for us.
        impl TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    };
}

name!(
    /// A tenant's short name, which opens the names of its tools.
    TenantSlug, slug, SLUG_BYTES_MAX,
    "a tenant's name", "1 to 20 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// An upstream's short name, unique in its tenant.
    UpstreamSlug, slug, SLUG_BYTES_MAX,
    "an upstream's name", "1 to 20 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// A grant's name, unique in its tenant.
    GrantName, slug, NAME_BYTES_MAX,
    "a grant's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// An access test's name, unique in its tenant.
    AccessTestName, slug, NAME_BYTES_MAX,
    "an access test's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// Who manages objects by manifests: a repository, a team.
    ManagerName, slug, NAME_BYTES_MAX,
    "a manager's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// A secret's name, unique in its upstream. Never the secret.
    SecretName, slug, NAME_BYTES_MAX,
    "a secret's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// What an operator calls an API key.
    ApiKeyName, slug, NAME_BYTES_MAX,
    "an API key's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// The name that the configuration gives an issuer.
    IssuerName, slug, NAME_BYTES_MAX,
    "an issuer's name", "1 to 40 of `a-z` and `0-9`, with single hyphens between them"
);
name!(
    /// What a directory calls a user or a group, or knows it by.
    DirectoryText, printable, DIRECTORY_TEXT_BYTES_MAX,
    "an attribute", "1 to 1024 bytes without control characters"
);
name!(
    /// A key-encryption key: `key_…` for one that the process was given, `vault:mount/name:v3` for one in Vault.
    KekId, printable, KEK_ID_BYTES_MAX,
    "a key-encryption key's id", "1 to 200 bytes without control characters"
);
name!(
    /// A group, as its issuer calls it.
    Group, printable, CLAIM_BYTES_MAX,
    "a group", "1 to 256 bytes without control characters"
);
name!(
    /// The `sub` claim: the issuer's name for a principal, unique only together with the issuer.
    Subject, printable, CLAIM_BYTES_MAX,
    "a subject", "1 to 256 bytes without control characters"
);
name!(
    /// An entry's name at its upstream.
    LocalName, visible, LOCAL_NAME_BYTES_MAX,
    "a tool's name", "1 to 256 bytes without control characters and without invisible ones"
);
name!(
    /// What a prompt, a resource or a template is known by at its upstream.
    OfferKey, visible, ADDRESS_BYTES_MAX,
    "the name of a prompt or the URI of a resource", "1 to 2048 bytes without control characters and without invisible ones"
);
impl LocalName {
    /// The name as far as an exposed name can hold it: each character outside `[A-Za-z0-9_-]` becomes `_`.
    pub fn sanitised(&self) -> String {
        grammar::as_word(&self.0)
    }
}

name!(
    /// An entry's name as clients see it (`tenant__tool`), unique in its tenant. Nothing takes it apart again.
    ExposedName, word, EXPOSED_NAME_BYTES_MAX,
    "an exposed name", "1 to 64 of `A-Z`, `a-z`, `0-9`, `_` and `-`"
);
name!(
    /// What an operator puts before the names of one upstream's tools.
    ToolPrefix, word, TOOL_PREFIX_BYTES_MAX,
    "a prefix", "1 to 16 of `A-Z`, `a-z`, `0-9`, `_` and `-`"
);
name!(
    /// Which tools a grant names: text in which `*` stands for any run of characters, also none.
    ///
    /// Without a `/` it is compared with the name at the upstream, with one with `upstream/name`. The whole must match, and
    /// letters match in their own case only. Where a pattern denies, [`ToolPattern::hits`] reads it more widely.
    ToolPattern, printable, PATTERN_BYTES_MAX,
    "a tool pattern", "1 to 128 bytes without control characters"
);
name!(
    /// The name of a header that carries a secret to an upstream, in lower case. Not one that HTTP, MCP or a proxy needs for
    /// itself.
    HeaderText, secret_header, HEADER_BYTES_MAX,
    "a header's name", "1 to 64 token characters and no name that HTTP, MCP or a proxy needs for itself"
);
name!(
    /// A host, as addresses are compared by it; or, with `*.` before it, every name below it.
    HostPattern, host, HOST_BYTES_MAX,
    "a host", "a name such as `mcp.acme.example`, `*.acme.example` for all names below it, or an address"
);
name!(
    /// The user name of HTTP's basic authentication.
    UserName, user_name, CLIENT_BYTES_MAX,
    "a user name", "1 to 256 bytes without control characters and without `:`, which would end it"
);
name!(
    /// The parameter of an address that carries a secret.
    QueryParameter, unreserved, HEADER_BYTES_MAX,
    "a parameter", "1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `.`, `_` and `~`"
);
name!(
    /// What an authorization server knows us by.
    OAuthClientId, visible_ascii, CLIENT_BYTES_MAX,
    "a client id", "1 to 256 visible ASCII characters"
);
name!(
    /// Which of its keys a client signed with, as the authorization server knows it (`kid`).
    OAuthKeyId, visible_ascii, CLIENT_BYTES_MAX,
    "a key id", "1 to 256 visible ASCII characters"
);
name!(
    /// OAuth scopes with single spaces between them (RFC 6749 §3.3).
    OAuthScope, scope_list, SCOPE_BYTES_MAX,
    "a scope", "1 to 1024 bytes: words of visible ASCII without `\"` and `\\`, with single spaces between them"
);
name!(
    /// For whom a token is asked for, by the name that the authorization server has for it (RFC 8693 §2.1).
    OAuthAudience, visible_ascii, ADDRESS_BYTES_MAX,
    "an audience", "1 to 2048 visible ASCII characters"
);
name!(
    /// For which resource a token is asked for (RFC 8707 §2).
    OAuthResource, uri, ADDRESS_BYTES_MAX,
    "a resource", "an absolute address of up to 2048 visible ASCII characters, without a fragment (`#…`)"
);
name!(
    /// An authorization server, character by character as its metadata names it (RFC 8414 §2).
    OAuthIssuer, issuer_address, ADDRESS_BYTES_MAX,
    "an issuer", "a web address of up to 2048 visible ASCII characters, without user name, query (`?…`) and fragment (`#…`)"
);
name!(
    /// Where an authorization server is asked for tokens.
    OAuthTokenUrl, call_address, ADDRESS_BYTES_MAX,
    "a token endpoint", "a web address of up to 2048 visible ASCII characters, without user name and fragment (`#…`)"
);
name!(
    /// The public half of an AWS access key.
    AwsAccessKeyId, word, CLIENT_BYTES_MAX,
    "an access key id", "1 to 256 of `A-Z`, `a-z`, `0-9`, `_` and `-`"
);
name!(
    /// A region or a service of AWS, as its signatures name it.
    AwsName, slug, HEADER_BYTES_MAX,
    "a region or service of AWS", "1 to 64 of `a-z` and `0-9`, with single hyphens between them"
);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn error<T: FromStr<Err = NameError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn an_error_says_the_rule_and_what_broke_it() {
        assert_eq!(
            error::<TenantSlug>("ac_me"),
            "a tenant's name is 1 to 20 of `a-z` and `0-9`, with single hyphens between them, but this has `_` as character 3"
        );
        assert_eq!(
            error::<ToolPrefix>("0123456789abcdefg"),
            "a prefix is 1 to 16 of `A-Z`, `a-z`, `0-9`, `_` and `-`, but this has 17 bytes, and 16 is the most"
        );
        assert_eq!(
            error::<LocalName>("a\nb"),
            "a tool's name is 1 to 256 bytes without control characters and without invisible ones, but this has `\\n` as character 2"
        );
        assert_eq!(error::<Group>(""), "a group is 1 to 256 bytes without control characters, but this is empty");
    }

    #[test]
    fn the_hyphen_at_fault_is_named() {
        for (text, position) in [("-", 1), ("-a", 1), ("a-", 2), ("a--b", 3), ("a-b-", 4), ("---", 1)] {
            assert!(error::<GrantName>(text).ends_with(&format!("this has `-` as character {position}")), "{text}");
        }
    }

    #[test]
    fn a_header_for_a_secret_is_in_lower_case_and_none_that_others_need() {
        assert_eq!("X-Api-Key".parse::<HeaderText>().unwrap().as_str(), "x-api-key");
        assert_eq!("Authorization".parse::<HeaderText>().unwrap().as_str(), "authorization");
        for text in [
            "Host",
            "Content-Length",
            "transfer-encoding",
            "CONNECTION",
            "te",
            "Upgrade",
            "Cookie",
            "Content-Type",
            "accept",
            "Forwarded",
            "X-Forwarded-For",
            "Proxy-Authorization",
            "Mcp-Session-Id",
            "mcp-",
            "a b",
            "a:b",
            "é",
            "a\r\nb",
            "",
        ] {
            assert!(text.parse::<HeaderText>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_sent_to_an_authorization_server_cannot_be_read_as_something_else() {
        for text in ["", " ", "a  b", " a", "a ", "a\nb", "a\"b", "a\\b", "ü"] {
            assert!(text.parse::<OAuthScope>().is_err(), "{text:?}");
        }
        assert!("mcp:use offline_access https://graph.example/.default".parse::<OAuthScope>().is_ok());
        for text in ["", "a b", "a\r\nb", "ü", "a\0"] {
            assert!(text.parse::<OAuthClientId>().is_err(), "{text:?}");
            assert!(text.parse::<OAuthAudience>().is_err(), "{text:?}");
            assert!(text.parse::<OAuthResource>().is_err(), "{text:?}");
        }
        for text in ["acme", "/mcp", "https://a.example/#x"] {
            assert!(text.parse::<OAuthResource>().is_err(), "{text:?}");
        }
        assert!("urn:acme:mcp".parse::<OAuthResource>().is_ok());
        for text in
            ["as.example", "ftp://as.example", "https://a@as.example", "https://as.example/?x", "https://as.example/#x"]
        {
            assert!(text.parse::<OAuthIssuer>().is_err(), "{text:?}");
        }
        assert_eq!("https://as.example".parse::<OAuthIssuer>().unwrap().as_str(), "https://as.example");
        for text in ["as.example/token", "file:///token", "https://a:b@as.example/token", "https://as.example/token#x"]
        {
            assert!(text.parse::<OAuthTokenUrl>().is_err(), "{text:?}");
        }
        assert!("https://as.example/token?tenant=acme".parse::<OAuthTokenUrl>().is_ok());
        for text in ["svc:admin", "a\nb", ""] {
            assert!(text.parse::<UserName>().is_err(), "{text:?}");
        }
        for text in ["a=b", "a&b", "a b", "ü", ""] {
            assert!(text.parse::<QueryParameter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_written_as_its_text_and_checked_when_read() {
        let slug: TenantSlug = "acme".parse().unwrap();
        assert_eq!(serde_json::to_string(&slug).unwrap(), "\"acme\"");
        assert_eq!(serde_json::from_str::<TenantSlug>("\"acme\"").unwrap(), slug);
        assert!(serde_json::from_str::<TenantSlug>("\"ACME\"").is_err());
        assert_eq!(format!("{slug} {slug:?}"), "acme \"acme\"");
    }

    #[test]
    fn a_map_is_searched_with_borrowed_text() {
        let map = HashMap::from([("acme".parse::<TenantSlug>().unwrap(), 1)]);
        assert_eq!(map.get("acme"), Some(&1));
    }

    #[test]
    fn nothing_that_nobody_sees_tells_two_tools_apart() {
        for hidden in
            ["\u{200b}", "\u{202e}", "\u{feff}", "\u{ad}", "\u{e0041}", "\u{2066}", "\u{fe0f}", "\u{3164}", "\n"]
        {
            assert!(format!("search{hidden}").parse::<LocalName>().is_err(), "{hidden:?}");
        }
        assert!("søk/über.all 検索".parse::<LocalName>().is_ok());
    }

    /// The grammar as it is written down: `^[a-z0-9](-?[a-z0-9])*$`.
    fn is_slug(text: &str) -> bool {
        let mut behind_letter = false;
        let follows = |c: char| {
            let letter = c.is_ascii_lowercase() || c.is_ascii_digit();
            let allowed = letter || (c == '-' && behind_letter);
            behind_letter = letter;
            allowed
        };
        !text.is_empty() && text.chars().all(follows) && !text.ends_with('-')
    }

    proptest! {
        #[test]
        fn a_slug_is_what_its_grammar_says(text in "[a-c1A_é-]{0,8}") {
            prop_assert_eq!(text.parse::<UpstreamSlug>().is_ok(), is_slug(&text));
        }

        #[test]
        fn a_slug_is_printed_as_it_was_read(text in "[a-z0-9](-?[a-z0-9]){0,9}") {
            prop_assert_eq!(text.parse::<TenantSlug>().unwrap().to_string(), text);
        }

        #[test]
        fn lengths_are_counted_in_bytes(text in "\\PC{0,300}") {
            prop_assert_eq!(text.parse::<Group>().is_ok(), (1..=256).contains(&text.len()));
            prop_assert_eq!(text.parse::<ToolPattern>().is_ok(), (1..=128).contains(&text.len()));
        }

        #[test]
        fn a_tools_name_is_counted_in_bytes_too(text in "[ -~à-ÿ]{0,300}") {
            let hides = text.contains('\u{ad}');
            prop_assert_eq!(text.parse::<LocalName>().is_ok(), !hides && (1..=256).contains(&text.len()));
        }

        #[test]
        fn an_exposed_name_is_what_its_grammar_says(text in "[a-zA-Z0-9_.é-]{0,70}") {
            let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            prop_assert_eq!(text.parse::<ExposedName>().is_ok(), allowed && (1..=64).contains(&text.len()));
            prop_assert_eq!(text.parse::<ToolPrefix>().is_ok(), allowed && (1..=16).contains(&text.len()));
        }

        #[test]
        fn no_text_makes_a_name_panic(text in any::<String>()) {
            drop((text.parse::<TenantSlug>(), text.parse::<Subject>(), text.parse::<HeaderText>(), text.parse::<ExposedName>()));
        }
    }
}
