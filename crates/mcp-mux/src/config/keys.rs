//! Where key-encryption keys come from: files, the environment, or Vault's transit engine.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::secret::{self, setting};
use super::{ConfigError, is_loopback};

/// The key-encryption keys. They wrap the data keys of tenants, which seal secrets. One wraps; the others still unwrap.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// The key that wraps, base64 of 32 random bytes, for processes that get it through the environment.
    pub primary: Option<SecretString>,
    /// A file that holds it; preferred, because an environment leaks more easily.
    pub primary_file: Option<PathBuf>,
    /// Other keys, separated by commas, which still unwrap, for processes that get them through the environment.
    pub retired: Option<SecretString>,
    /// Files of other keys, which still unwrap: earlier ones, and the next one before it wraps.
    pub retired_files: Vec<PathBuf>,
    /// HashiCorp Vault or OpenBao, in place of a primary key.
    pub vault: Option<VaultConfig>,
}

/// A key in the transit engine of HashiCorp Vault or OpenBao. It never leaves Vault: data keys are sent there to be wrapped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Where Vault is, such as `https://vault.example.com:8200`.
    pub address: Url,
    /// The name of the transit key, of a type that takes associated data, such as `aes256-gcm96`.
    pub key: String,
    /// Where the transit engine is mounted.
    #[serde(default = "transit")]
    pub mount: String,
    /// The namespace, where Vault has any.
    pub namespace: Option<String>,
    /// It only unwraps what it wrapped before; a primary key wraps.
    #[serde(default)]
    pub retired: bool,
    /// A token, for processes that get it through the environment.
    pub token: Option<SecretString>,
    /// A file that holds a token; read again when Vault does not take it any more.
    pub token_file: Option<PathBuf>,
    /// Sign in with an AppRole.
    pub approle: Option<AppRoleConfig>,
    /// Sign in with the service account of a Kubernetes pod.
    pub kubernetes: Option<KubernetesConfig>,
}

/// An AppRole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRoleConfig {
    /// Where the method is mounted.
    #[serde(default = "approle")]
    pub mount: String,
    /// The role's id.
    pub role_id: String,
    /// The secret id.
    pub secret_id: Option<SecretString>,
    /// A file that holds the secret id.
    pub secret_id_file: Option<PathBuf>,
}

/// A role for a service account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Where the method is mounted.
    #[serde(default = "kubernetes")]
    pub mount: String,
    /// The role.
    pub role: String,
    /// The file with the service account's token; Kubernetes replaces it now and then.
    #[serde(default = "service_account")]
    pub token_file: PathBuf,
}

/// How to sign in to Vault.
#[derive(Debug, Clone)]
pub enum VaultLogin {
    /// With a token.
    Token(SecretSource),
    /// With an AppRole.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's id.
        role_id: String,
        /// The secret id.
        secret_id: SecretSource,
    },
    /// With a service account.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The service account's token.
        token: SecretSource,
    },
}

/// A secret that may be replaced while the process runs.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// As it was given.
    Given(SecretString),
    /// In a file, read when it is needed.
    File(PathBuf),
}

impl SecretSource {
    /// The secret of this moment.
    pub fn read(&self) -> Result<SecretString, ConfigError> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => secret::read("keys.vault", path),
        }
    }
}

fn transit() -> String {
    "transit".to_owned()
}

fn approle() -> String {
    "approle".to_owned()
}

fn kubernetes() -> String {
    "kubernetes".to_owned()
}

fn service_account() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/token".into()
}

impl KeysConfig {
    /// The keys that the process was given, if it was given one that wraps; there is no default key. The other keys of the ring only
    /// unwrap.
    pub fn ring(&self) -> Result<Option<crypto::KeyRing>, ConfigError> {
        let primary = match (&self.primary, &self.primary_file) {
            (Some(key), None) => Some(parse("keys.primary", key)?),
            (None, Some(file)) => Some(parse("keys.primary_file", &secret::read("keys.primary_file", file)?)?),
            (Some(_), Some(_)) => return Err(setting("keys", "has both `primary` and `primary_file`: keep one")),
            (None, None) => None,
        };
        let wraps_in_vault = self.vault.as_ref().is_some_and(|vault| !vault.retired);
        if primary.is_some() && wraps_in_vault {
            let problem = "has both a primary key and `vault`: keep one, or say `retired = true` in `keys.vault`";
            return Err(setting("keys", problem));
        }
        if primary.is_none() && !wraps_in_vault {
            let problem = "has neither `primary_file` nor `primary` nor `vault`: nothing could be sealed";
            return Err(setting("keys", problem));
        }
        let mut retired = self.retired()?;
        let first = primary.or_else(|| (!retired.is_empty()).then(|| retired.remove(0)));
        Ok(first.map(|first| crypto::KeyRing::new(first, retired)))
    }

    fn retired(&self) -> Result<Vec<crypto::Key>, ConfigError> {
        let given = self.retired.iter().flat_map(|keys| keys.expose_secret().split(','));
        let given = given.map(|key| parse("keys.retired", &SecretString::from(key)));
        let files = self.retired_files.iter();
        let files = files.map(|file| parse("keys.retired_files", &secret::read("keys.retired_files", file)?));
        given.chain(files).collect()
    }
}

impl VaultConfig {
    /// How to sign in: exactly one way.
    pub fn login(&self) -> Result<VaultLogin, ConfigError> {
        let source = |name: &str, given: &Option<SecretString>, file: &Option<PathBuf>| match (given, file) {
            (Some(secret), None) => Ok(SecretSource::Given(secret.clone())),
            (None, Some(file)) => Ok(SecretSource::File(file.clone())),
            (Some(_), Some(_)) => Err(setting(name, "is there twice, once as a `_file`: keep one")),
            (None, None) => Err(setting(name, "is missing; so is its `_file`, which is the better place")),
        };
        if self.address.scheme() != "https" && !is_loopback(&self.address) {
            return Err(setting("keys.vault.address", "must be https: keys travel there"));
        }
        let by_token = self.token.is_some() || self.token_file.is_some();
        match (by_token, &self.approle, &self.kubernetes) {
            (true, None, None) => Ok(VaultLogin::Token(source("keys.vault.token", &self.token, &self.token_file)?)),
            (false, Some(role), None) => Ok(VaultLogin::AppRole {
                mount: role.mount.clone(),
                role_id: role.role_id.clone(),
                secret_id: source("keys.vault.approle.secret_id", &role.secret_id, &role.secret_id_file)?,
            }),
            (false, None, Some(role)) => Ok(VaultLogin::Kubernetes {
                mount: role.mount.clone(),
                role: role.role.clone(),
                token: SecretSource::File(role.token_file.clone()),
            }),
            _ => {
                Err(setting("keys.vault", "must have exactly one of `token_file`, `token`, `approle` and `kubernetes`"))
            }
        }
    }
}

fn parse(setting: &'static str, text: &SecretString) -> Result<crypto::Key, ConfigError> {
    crypto::Key::parse(text).map_err(|source| ConfigError::Key { setting, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretString {
        crypto::Key::generate().unwrap().encode()
    }

    fn vault(retired: bool) -> VaultConfig {
        VaultConfig {
            address: "https://vault.example.com:8200".parse().unwrap(),
            key: "mcp-mux".to_owned(),
            mount: transit(),
            namespace: None,
            retired,
            token: Some("CANARY-token".into()),
            token_file: None,
            approle: None,
            kubernetes: None,
        }
    }

    #[test]
    fn there_is_no_default_key() {
        assert!(KeysConfig::default().ring().is_err());
        let retired = SecretString::from(format!("{},{}", key().expose_secret(), key().expose_secret()));
        assert!(
            KeysConfig { retired: Some(retired), ..KeysConfig::default() }.ring().is_err(),
            "retired keys do not wrap"
        );
    }

    #[test]
    fn one_wraps_and_others_unwrap() {
        let retired = SecretString::from(format!("{}, {}", key().expose_secret(), key().expose_secret()));
        let keys = KeysConfig { primary: Some(key()), retired: Some(retired.clone()), ..KeysConfig::default() };
        assert_eq!(keys.ring().unwrap().unwrap().ids().count(), 3);
        let keys = KeysConfig { retired: Some(retired), vault: Some(vault(false)), ..KeysConfig::default() };
        assert_eq!(keys.ring().unwrap().unwrap().ids().count(), 2, "on the way from files to Vault");
    }

    #[test]
    fn two_that_wrap_are_refused() {
        let keys = |retired| KeysConfig { primary: Some(key()), vault: Some(vault(retired)), ..KeysConfig::default() };
        assert!(keys(false).ring().is_err());
        assert!(keys(true).ring().is_ok(), "on the way from Vault to files");
    }

    #[test]
    fn one_way_to_sign_in_to_vault_is_enough() {
        assert!(matches!(vault(false).login(), Ok(VaultLogin::Token(_))));
        assert!(VaultConfig { token: None, ..vault(false) }.login().is_err());
        assert!(VaultConfig { address: "http://vault.example.com".parse().unwrap(), ..vault(false) }.login().is_err());
        let role = KubernetesConfig { mount: kubernetes(), role: "mux".to_owned(), token_file: service_account() };
        assert!(VaultConfig { kubernetes: Some(role.clone()), ..vault(false) }.login().is_err());
        assert!(VaultConfig { kubernetes: Some(role), token: None, ..vault(false) }.login().is_ok());
    }
}
