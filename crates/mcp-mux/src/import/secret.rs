//! Where the value of a secret is found, as a command that hands it to `mcp-mux secret set` without showing it to anybody: not on
//! the screen, and not to who lists processes.

use serde_json::Value;
use tenant_store::{SecretName, TenantSlug, UpstreamSlug};

/// A secret that an imported upstream needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededSecret {
    /// Of which tenant.
    pub tenant: TenantSlug,
    /// Of which upstream.
    pub upstream: UpstreamSlug,
    /// Its name there.
    pub name: SecretName,
    /// Where its value is.
    pub(super) found: Found,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// In the file, at the end of these keys.
    File(Vec<String>, Form),
    /// In a variable of the environment. It is what stands behind the word, if there is one.
    Environment(String, &'static str),
    /// Nowhere that a command could take it from.
    Nowhere(&'static str),
}

/// What has to be made of a text in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// It is the value.
    Whole,
    /// It is the value behind `Bearer`.
    WithoutBearer,
    /// It is the value without the word before it.
    Behind(&'static str),
    /// It is an address, and the value is that of a parameter.
    Parameter(String),
}

impl NeededSecret {
    /// The command for a shell, in which `$SOURCE` is the file.
    pub fn command(&self) -> String {
        let set = format!("mcp-mux secret set {}/{}/{}", self.tenant, self.upstream, self.name);
        match &self.found {
            Found::File(path, form) => {
                let path = ascii_json(&Value::from(path.clone()));
                let filter = format!("getpath({path}) | strings{}", form.filter());
                format!("jq -er {} < \"$SOURCE\" | {set}", quoted(&filter))
            }
            Found::Environment(variable, "") => format!("printf %s \"${{{variable}:?}}\" | {set}"),
            Found::Environment(variable, word) => format!("printf '{word} %s' \"${{{variable}:?}}\" | {set}"),
            Found::Nowhere(why) => format!("# {why}: {set} < FILE"),
        }
    }
}

impl Form {
    /// The end of a filter of jq. Nothing of it comes from the file but the name of a parameter, which has no special characters
    /// other than the full stop.
    fn filter(&self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::WithoutBearer => r#" | sub("^ *bearer +"; ""; "i")"#.to_owned(),
            Self::Behind(word) => format!(" | \"{word} \" + ."),
            Self::Parameter(name) => {
                format!(r#" | capture("[?&]{}=(?<value>[^&#]*)").value"#, name.replace('.', r"\\."))
            }
        }
    }
}

/// JSON of printable ASCII characters.
fn ascii_json(value: &Value) -> String {
    let mut shown = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii_graphic() || c == ' ' {
            shown.push(c);
        } else {
            shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

/// The text as one word of a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
