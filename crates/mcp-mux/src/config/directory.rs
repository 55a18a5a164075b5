//! Directories: identity providers that push their users and groups (SCIM 2.0), and which of what they push is a name that tokens and
//! grants use.

use std::collections::HashSet;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tenant_store::{Group, IssuerName, Subject};

use super::secret::{self, setting};
use super::{ConfigError, IssuerConfig};

/// Least length of a token that a provider shows, in bytes.
const TOKEN_BYTES_MIN: usize = 32;
/// How groups are called that are a token's roles. No directory has such.
const ROLE_PREFIX: &str = "role:";

/// An identity provider that pushes its users and groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The issuer whose users and groups they are.
    pub issuer: IssuerName,
    /// What the provider shows as bearer: at least 32 characters.
    pub token: Option<SecretString>,
    /// A file that holds it; preferred.
    pub token_file: Option<PathBuf>,
    /// Which attribute of a user is the subject of its tokens.
    pub user: UserAttribute,
    /// What stands before that attribute in the subject.
    #[serde(default)]
    pub user_prefix: String,
    /// Which attribute of a group is the name that tokens and grants use.
    pub group: GroupAttribute,
}

/// An attribute that names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum UserAttribute {
    /// What the provider calls it.
    #[serde(rename = "externalId")]
    ExternalId,
    /// By what it signs in.
    #[serde(rename = "userName")]
    UserName,
}

/// An attribute that names a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum GroupAttribute {
    /// What people read.
    #[serde(rename = "displayName")]
    DisplayName,
    /// What the provider calls it.
    #[serde(rename = "externalId")]
    ExternalId,
}

/// A directory with its token.
#[derive(Debug, Clone)]
pub struct DirectoryAccess {
    /// The issuer.
    pub issuer: IssuerName,
    /// What the provider shows.
    pub token: SecretString,
    /// What is a name.
    pub names: DirectoryNames,
}

/// Which attributes are the names that tokens and grants use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryNames {
    /// Which attribute of a user is the subject.
    pub user: UserAttribute,
    /// What stands before it.
    pub user_prefix: String,
    /// Which attribute of a group is its name.
    pub group: GroupAttribute,
}

impl UserAttribute {
    /// As SCIM spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExternalId => "externalId",
            Self::UserName => "userName",
        }
    }
}

impl GroupAttribute {
    /// As SCIM spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DisplayName => "displayName",
            Self::ExternalId => "externalId",
        }
    }
}

impl DirectoryNames {
    /// The subject of a user whose naming attribute is `value`; none, if that can be none.
    pub fn subject(&self, value: &str) -> Option<Subject> {
        format!("{}{value}", self.user_prefix).parse().ok()
    }

    /// The name of a group whose naming attribute is `value`; none, if that can be none. No group is called as roles are.
    pub fn group_name(&self, value: &str) -> Option<Group> {
        if value.starts_with(ROLE_PREFIX) { None } else { value.parse().ok() }
    }
}

impl DirectoryConfig {
    /// Reads the token.
    pub fn resolve(&self) -> Result<DirectoryAccess, ConfigError> {
        let place = |key: &str| format!("directories.{}.{key}", self.issuer);
        let token = secret::resolve(&place("token"), self.token.as_ref(), self.token_file.as_ref())?;
        let is_visible = token.expose_secret().bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        if token.expose_secret().len() < TOKEN_BYTES_MIN || !is_visible {
            let problem = "must have at least 32 visible characters, as `openssl rand -hex 32` prints";
            return Err(setting(place("token"), problem));
        }
        let names = DirectoryNames { user: self.user, user_prefix: self.user_prefix.clone(), group: self.group };
        if names.subject("0").is_none() {
            return Err(setting(place("user_prefix"), "is too long, or has control characters: no subject begins so"));
        }
        Ok(DirectoryAccess { issuer: self.issuer.clone(), token, names })
    }
}

/// Each belongs to an issuer, and to another one than all others.
pub(super) fn check(
    directories: &[DirectoryConfig],
    issuers: &[IssuerConfig],
) -> Result<Vec<DirectoryAccess>, ConfigError> {
    let mut seen = HashSet::new();
    let mut resolved = Vec::with_capacity(directories.len());
    for (index, directory) in directories.iter().enumerate() {
        let place = format!("directories[{index}].issuer");
        if !issuers.iter().any(|issuer| issuer.name == directory.issuer) {
            return Err(setting(place, "names no issuer of `[[issuers]]`"));
        }
        let is_asked =
            |issuer: &IssuerConfig| issuer.graph.as_ref().is_some_and(|graph| graph.directory_every().is_some());
        if issuers.iter().any(|issuer| issuer.name == directory.issuer && is_asked(issuer)) {
            return Err(setting(
                place,
                "is that of an issuer whose `graph.directory_every_seconds` is set: keep one of the two",
            ));
        }
        if !seen.insert(&directory.issuer) {
            return Err(setting(place, "is that of an earlier directory: an issuer has one at most"));
        }
        resolved.push(directory.resolve()?);
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "CANARY-0123456789abcdef0123456789abcdef";

    fn directory(changes: &Value) -> DirectoryConfig {
        let mut settings = json!({"issuer": "corp", "token": TOKEN, "user": "userName", "group": "displayName"});
        for (key, value) in changes.as_object().unwrap() {
            settings[key] = value.clone();
        }
        serde_json::from_value(settings).unwrap()
    }

    fn problem(directories: &[DirectoryConfig]) -> Option<String> {
        let issuers = [IssuerConfig::new("corp".parse().unwrap(), "https://idp.example.com")];
        check(directories, &issuers).err().map(|error| error.to_string())
    }

    #[test]
    fn a_directory_belongs_to_one_issuer_and_has_a_token() {
        assert_eq!(problem(&[directory(&json!({}))]), None);
        for (changes, said) in [
            (json!({"issuer": "partner"}), "`directories[0].issuer` names no issuer"),
            (json!({"token": null}), "`directories.corp.token` is missing"),
            (json!({"token": "CANARY-short"}), "`directories.corp.token` must have at least 32"),
            (json!({"token": format!("{TOKEN} ")}), "`directories.corp.token` must have at least 32"),
            (json!({"user_prefix": "a\n"}), "`directories.corp.user_prefix` is too long"),
        ] {
            let problem = problem(&[directory(&changes)]).unwrap_or_default();
            assert!(problem.starts_with(said) && !problem.contains("CANARY"), "{problem}");
        }
        let twice = problem(&[directory(&json!({})), directory(&json!({}))]).unwrap_or_default();
        assert!(twice.contains("`directories[1].issuer` is that of an earlier"), "{twice}");
    }

    #[test]
    fn a_subject_has_its_prefix_and_no_group_is_called_as_a_role() {
        let names = directory(&json!({"user_prefix": "2c/"})).resolve().unwrap().names;
        assert_eq!(names.subject("7f").map(|subject| subject.to_string()), Some("2c/7f".to_owned()));
        assert_eq!(names.subject(&"a".repeat(300)), None);
        assert_eq!(names.group_name("role:admin"), None);
        assert!(names.group_name("admins").is_some());
    }
}
