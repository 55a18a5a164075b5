//! The client behind us, as far as upstreams may make use of it: what it can be asked for, and which log messages it wants.

use serde_json::value::RawValue;

use crate::json::{self, Members};

/// What a session with a legacy upstream is begun with, and what a modern upstream is told with each request. Clients that differ in
/// it share no session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// What it can be asked for.
    pub can: ClientCapabilities,
    /// From which level on it wants log messages; none, where it wants none.
    pub log: Option<LogLevel>,
}

/// What a client says that it can be asked for (MCP 2025-11-25 `client/…`): elicitation, sampling, roots. Nothing else that it
/// declares is an upstream's business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClientCapabilities(u8);

/// The capabilities that are known.
const NAMED: [&str; 3] = ["elicitation", "sampling", "roots"];
/// Each of them and each of its parts, and the bit that stands for it.
const CAPABILITIES: [(u8, &str, &str); 7] = [
    (1 << 0, "elicitation", ""),
    (1 << 1, "elicitation", "form"),
    (1 << 2, "elicitation", "url"),
    (1 << 3, "sampling", ""),
    (1 << 4, "sampling", "tools"),
    (1 << 5, "sampling", "context"),
    (1 << 6, "roots", ""),
];

/// How grave a log message is (RFC 5424 §6.2.1), the least grave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl ClientCapabilities {
    /// What the JSON object `declared` says.
    pub fn of(declared: Option<&RawValue>) -> Self {
        let Some(declared) = declared.and_then(|declared| Members::parse(declared.get()).ok()) else { return Self(0) };
        let mut bits = 0;
        for capability in NAMED {
            let value = declared.get(capability).filter(|value| json::is_object(value));
            let parts = value.and_then(|value| Members::parse(value.get()).ok());
            let Some(parts) = parts else { continue };
            for (bit, of, part) in CAPABILITIES {
                let has = part.is_empty() || parts.get(part).is_some_and(json::is_object);
                if of == capability && has {
                    bits |= bit;
                }
            }
        }
        Self(bits)
    }

    /// The same from what [`Self::bits`] gave.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// A number that stands for them.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether there is nothing that it can be asked for.
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// The same where one client serves several tenants. What it would tell of its other servers, or of its folders, is not for one
    /// tenant's upstream.
    pub fn among_tenants(self) -> Self {
        let told = CAPABILITIES.iter().filter(|(_, of, part)| *of == "roots" || *part == "context");
        Self(told.fold(self.0, |bits, (bit, _, _)| bits & !bit))
    }

    /// Whether it opens an address for its user, who agrees.
    pub fn has_url_elicitation(self) -> bool {
        self.has("elicitation", "url")
    }

    /// Whether it can answer a request of this method, with these parameters.
    pub fn can_answer(self, method: &str, params: Option<&RawValue>) -> bool {
        match method {
            "elicitation/create" => {
                let mode = params.and_then(|raw| Members::parse(raw.get()).ok()?.get_str("mode"));
                match mode.as_deref() {
                    // Who declares no mode means forms, for there was nothing else at first.
                    None | Some("form") => self.has("elicitation", "form") || self.elicits_in_no_named_mode(),
                    Some("url") => self.has_url_elicitation(),
                    Some(_) => false,
                }
            }
            "sampling/createMessage" => {
                let context = params.and_then(|raw| Members::parse(raw.get()).ok()?.get_str("includeContext"));
                let is_asked_for = context.is_some_and(|context| context != "none");
                self.has("sampling", "") && (!is_asked_for || self.has("sampling", "context"))
            }
            "roots/list" => self.has("roots", ""),
            _ => false,
        }
    }

    /// The members of the object that declares them.
    pub fn members(self) -> String {
        let declared = |capability: &str| {
            let parts = CAPABILITIES
                .iter()
                .filter(|(bit, of, part)| *of == capability && !part.is_empty() && self.0 & bit != 0);
            let parts: Vec<_> = parts.map(|(_, _, part)| format!("\"{part}\":{{}}")).collect();
            format!("\"{capability}\":{{{}}}", parts.join(","))
        };
        let named = NAMED.into_iter().filter(|capability| self.has(capability, ""));
        named.map(declared).collect::<Vec<_>>().join(",")
    }

    fn elicits_in_no_named_mode(self) -> bool {
        self.has("elicitation", "") && !self.has_url_elicitation()
    }

    fn has(self, capability: &str, part: &str) -> bool {
        CAPABILITIES.iter().any(|(bit, of, what)| *of == capability && *what == part && self.0 & bit != 0)
    }
}

/// Whether the JSON object `declared` says that its client knows `extension`.
pub(crate) fn knows(declared: Option<&RawValue>, extension: &str) -> bool {
    json::member(json::member(declared, "extensions"), extension).is_some_and(json::is_object)
}

impl LogLevel {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The level of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ClientCapabilities {
        ClientCapabilities::of(Some(&RawValue::from_string(text.to_owned()).unwrap()))
    }

    #[test]
    fn what_can_be_asked_is_declared_anew_and_nothing_else() {
        for (declared, members) in [
            (
                r#"{"elicitation":{},"roots":{"listChanged":true},"experimental":{"x":{}}}"#,
                r#""elicitation":{},"roots":{}"#,
            ),
            (
                r#"{"sampling":{"tools":{},"x":1},"elicitation":{"form":{},"url":{}}}"#,
                r#""elicitation":{"form":{},"url":{}},"sampling":{"tools":{}}"#,
            ),
            (r#"{"elicitation":true,"sampling":null}"#, ""),
            ("[]", ""),
        ] {
            assert_eq!(of(declared).members(), members);
            assert_eq!(ClientCapabilities::from_bits(of(declared).bits()), of(declared));
        }
    }

    #[test]
    fn only_what_was_declared_is_asked() {
        let url = RawValue::from_string(r#"{"mode":"url","url":"https://acme.example"}"#.to_owned()).unwrap();
        let form = RawValue::from_string(r#"{"message":"x"}"#.to_owned()).unwrap();
        let other = RawValue::from_string(r#"{"mode":"voice"}"#.to_owned()).unwrap();
        for (declared, forms, urls) in [
            (r#"{"elicitation":{}}"#, true, false),
            (r#"{"elicitation":{"form":{}}}"#, true, false),
            (r#"{"elicitation":{"url":{}}}"#, false, true),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, true, true),
            (r#"{"sampling":{},"roots":{}}"#, false, false),
        ] {
            let can = of(declared);
            assert_eq!(can.can_answer("elicitation/create", Some(&form)), forms, "{declared}");
            assert_eq!(can.can_answer("elicitation/create", Some(&url)), urls, "{declared}");
            assert!(!can.can_answer("elicitation/create", Some(&other)), "{declared}");
            assert_eq!(can.can_answer("sampling/createMessage", None), declared.contains("sampling"));
            assert_eq!(can.can_answer("roots/list", None), declared.contains("roots"));
            assert!(!can.can_answer("tools/call", None));
        }
        let context = RawValue::from_string(r#"{"includeContext":"thisServer"}"#.to_owned()).unwrap();
        let no_context = RawValue::from_string(r#"{"includeContext":"none"}"#.to_owned()).unwrap();
        let can = of(r#"{"sampling":{"context":{}},"roots":{},"elicitation":{}}"#);
        assert!(can.can_answer("sampling/createMessage", Some(&context)));
        assert_eq!(can.among_tenants(), of(r#"{"sampling":{},"elicitation":{}}"#));
        assert!(!can.among_tenants().can_answer("sampling/createMessage", Some(&context)));
        assert!(can.among_tenants().can_answer("sampling/createMessage", Some(&no_context)));
        assert!(!can.among_tenants().can_answer("roots/list", None));
    }
}
