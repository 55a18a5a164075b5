//! What a bridge is told besides its arguments: the key that opens it, and what its child may see of the environment.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{ConfigError, secret};

/// The environment variable that holds the key where no file does.
const KEY_VARIABLE: &str = "MCP_MUX_BRIDGE_KEY";
/// Fewest characters of a key: a guess must be hopeless.
const KEY_CHARS_MIN: usize = 32;
/// What a child sees of the environment without being given it: where programs, homes and temporary files are, and the language.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// The key that a bridge's callers show, as its digest: comparing digests takes the same time whatever is shown.
#[derive(Clone)]
pub struct BridgeKey([u8; 32]);

impl BridgeKey {
    /// The key in `file` or, without one, in `MCP_MUX_BRIDGE_KEY`.
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let inline = std::env::var(KEY_VARIABLE).ok().map(SecretString::from);
        match (file, inline) {
            (Some(file), None) => Self::parse("--key-file", &secret::read("--key-file", file)?),
            (None, Some(key)) => Self::parse(KEY_VARIABLE, &key),
            (Some(_), Some(_)) => {
                Err(secret::setting("--key-file", format!("is there, and so is {KEY_VARIABLE}: keep one")))
            }
            (None, None) => Err(secret::setting(
                "--key-file",
                format!("is missing, and so is {KEY_VARIABLE}: make a key with `openssl rand -hex 32`"),
            )),
        }
    }

    /// A key that the setting `name` holds.
    pub fn parse(name: &str, key: &SecretString) -> Result<Self, ConfigError> {
        let key = key.expose_secret().as_bytes();
        if key.len() < KEY_CHARS_MIN || !key.iter().all(u8::is_ascii_graphic) {
            let problem = format!("must hold at least {KEY_CHARS_MIN} visible ASCII characters");
            return Err(secret::setting(name, problem));
        }
        Ok(Self(Sha256::digest(key).into()))
    }

    /// Whether `shown` is the key.
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

impl fmt::Debug for BridgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BridgeKey")
    }
}

/// A variable that a child is given: `NAME=VALUE`, or `NAME` for the value that the bridge itself has.
#[derive(Debug, Clone)]
pub struct ChildVariable {
    name: String,
    value: Option<SecretString>,
}

impl FromStr for ChildVariable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("a name is made of letters, digits and underscores".to_owned());
        }
        if name == KEY_VARIABLE {
            return Err("the bridge's own key is not for what it bridges".to_owned());
        }
        Ok(Self { name: name.to_owned(), value: value.map(SecretString::from) })
    }
}

/// The whole environment of a child.
#[derive(Clone)]
pub struct ChildEnvironment(Vec<(OsString, OsString)>);

impl ChildEnvironment {
    /// What every child sees, and `named`. A variable that is to be handed on and is not there is an error.
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    pub fn of(named: &[ChildVariable]) -> Result<Self, ConfigError> {
        let inherited = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let mut all: Vec<_> = inherited.collect();
        for ChildVariable { name, value } in named {
            let value = match value {
                Some(value) => OsString::from(value.expose_secret()),
                None => std::env::var_os(name).ok_or_else(|| {
                    secret::setting(
                        format!("--env {name}"),
                        "hands on a variable that is not set: set it, or give a value",
                    )
                })?,
            };
            all.push((OsString::from(name), value));
        }
        Ok(Self(all))
    }

    /// Names and values; a later one wins.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl fmt::Debug for ChildEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<BridgeKey, ConfigError> {
        BridgeKey::parse("--key-file", &SecretString::from(text))
    }

    #[test]
    fn a_key_is_long_and_visible() {
        assert!(key(&"k".repeat(31)).is_err());
        assert!(key(&format!("{} ", "k".repeat(40))).is_err());
        assert!(key(&"ä".repeat(40)).is_err());
        let key = key(&"k".repeat(32)).unwrap();
        assert!(key.is("k".repeat(32).as_bytes()) && !key.is("k".repeat(33).as_bytes()) && !key.is(b""));
    }

    #[test]
    fn a_variable_is_a_name_and_perhaps_a_value() {
        let variable: ChildVariable = "TOKEN=a=b".parse().unwrap();
        assert_eq!((variable.name.as_str(), variable.value.unwrap().expose_secret()), ("TOKEN", "a=b"));
        assert!("TOKEN".parse::<ChildVariable>().unwrap().value.is_none());
        for wrong in ["", "=x", "A B", KEY_VARIABLE, "MCP_MUX_BRIDGE_KEY=x"] {
            assert!(wrong.parse::<ChildVariable>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_cannot_be_handed_on() {
        let named: ChildVariable = "SURELY_NOBODY_SET_THIS".parse().unwrap();
        assert!(ChildEnvironment::of(&[named]).is_err());
    }

    #[test]
    fn values_are_not_printed() {
        let named: ChildVariable = "TOKEN=hush".parse().unwrap();
        let environment = ChildEnvironment::of(std::slice::from_ref(&named)).unwrap();
        assert!(!format!("{named:?}{environment:?}").contains("hush"));
    }
}
