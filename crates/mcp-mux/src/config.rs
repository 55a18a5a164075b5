//! Process configuration: `mcp-mux.toml`, then `MCP_MUX__SECTION__KEY` from the environment, which wins.
//!
//! The only module that reads the environment. What it returns is checked: an unknown key, a missing key or a value that
//! cannot work is an error that names the setting, and nothing has a default that would open a door.

mod audit;
mod bridge;
mod directory;
mod egress;
mod front;
mod http;
mod issuer;
mod keys;
mod limits;
mod login;
mod profile;
mod secret;
mod telemetry;
mod unreadable;

pub use audit::{AUDIT_KEEP_DAYS, AuditConfig, OnFull};
pub use bridge::{BridgeKey, ChildEnvironment, ChildVariable};
pub use directory::{DirectoryAccess, DirectoryConfig, DirectoryNames, GroupAttribute, UserAttribute};
pub use egress::{EgressConfig, Network, Ports};
pub use front::{Front, FrontConfig, FrontMode, FrontProof};
pub use http::{AdminConfig, HttpConfig};
pub use issuer::{AppOnly, GraphConfig, IntrospectionConfig, IssuerConfig, Preset, TokenMode};
pub use keys::{AppRoleConfig, KeysConfig, KubernetesConfig, SecretSource, VaultConfig, VaultLogin};
pub use limits::{LimitsConfig, TenantLimitsConfig};
pub use login::LoginConfig;
pub use profile::{ClaimMark, ClaimPath, Profile, SigningAlgorithm, TokenType, Wanted};
pub use telemetry::{LogFormat, OtlpConfig, TelemetryConfig};

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Environment, File, FileFormat};
use secrecy::SecretString;
use serde::Deserialize;
use tenant_store::IssuerName;
use url::{Host, Url};

use self::secret::setting;

/// Largest request body, in bytes. A body over this is answered with 413 and never buffered whole.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Least length of exposed names: room for the longest tenant, what follows it, and a hash that tells tools apart.
const NAME_CHARS_LEAST: usize = 32;

/// Everything a process is told at its start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address that clients type, without the path: metadata and audiences are built from it, never from a request.
    pub public_url: PublicUrl,
    /// The listener.
    #[serde(default)]
    pub http: HttpConfig,
    /// The listener for operators' own programs.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Where everything is remembered.
    pub database: DatabaseConfig,
    /// The keys that wrap what seals credentials.
    pub keys: KeysConfig,
    /// The identity providers whose tokens are accepted.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// The programs that prove themselves and speak for their users. There is at least one issuer or front.
    #[serde(default)]
    pub fronts: Vec<FrontConfig>,
    /// The issuers that push their users and groups.
    #[serde(default)]
    pub directories: Vec<DirectoryConfig>,
    /// Where connections may lead that tenants or remote documents choose.
    #[serde(default)]
    pub egress: EgressConfig,
    /// How tool lists are kept fresh.
    #[serde(default)]
    pub catalog: CatalogConfig,
    /// How often calls may be made.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// The audit record.
    #[serde(default)]
    pub audit: AuditConfig,
}

/// The database.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite://path/to/file.db?mode=rwc`, or `postgres://role:password@host/database`, where more than one process serves.
    pub url: Option<SecretString>,
    /// A file that holds the URL, for container secrets.
    pub url_file: Option<PathBuf>,
    /// PostgreSQL only: the URL of the role that owns the tables. With it a database that is out of date is migrated at the start;
    /// without it, `mcp-mux migrate` does that elsewhere. The role of `url` must be another one.
    pub owner_url: Option<SecretString>,
    /// A file that holds it.
    pub owner_url_file: Option<PathBuf>,
}

/// How tool lists are kept fresh.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogConfig {
    /// Seconds between two looks at an upstream's tools.
    pub refresh_seconds: u64,
    /// Longest exposed name, in characters: 64 is what model interfaces take, less a client's own prefix.
    pub name_chars_max: usize,
    /// Most definitions on one page of a list. Many clients read the first page only.
    pub page_items: usize,
}

impl CatalogConfig {
    /// The time between two looks at an upstream's tools.
    pub fn refresh_every(&self) -> Duration {
        Duration::from_secs(self.refresh_seconds)
    }
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self { refresh_seconds: 300, name_chars_max: 48, page_items: 1_000 }
    }
}

/// The address that clients type: `http` or `https`, a host, perhaps a port, and nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Url")]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// The absolute URL of `path`, which begins with a slash. Canonical as RFC 8707 §2 wants it: no trailing slash, no
    /// query, no fragment.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    /// The host and, if it is not the scheme's own, the port.
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Whether browsers reach it over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The origin that a page served from this address would send.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl TryFrom<Url> for PublicUrl {
    type Error = String;

    fn try_from(url: Url) -> Result<Self, String> {
        let bare = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/";
        let loopback = is_loopback(&url);
        if !bare || url.host().is_none() {
            Err(format!("`{url}` must be scheme, host and port only, such as https://mcp.example.com"))
        } else if url.scheme() == "https" || (url.scheme() == "http" && loopback) {
            Ok(Self(url))
        } else {
            Err(format!("`{url}` must be https; plain http is for loopback addresses only"))
        }
    }
}

/// Whether a URL stays on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Why a process cannot start with what it was told. Nothing of a value is repeated that could be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or the environment could not be read into a [`Config`].
    #[error("the configuration cannot be used: {0}")]
    Unreadable(String),
    /// A setting is missing or cannot work.
    #[error("`{setting}` {problem}")]
    Setting {
        /// The setting, as it is written in the file.
        setting: String,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// A file that a setting names could not be read.
    #[error("`{setting}` names {}, which cannot be read", path.display())]
    File {
        /// The setting, as it is written in the file.
        setting: String,
        /// The file it names.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key file holds something else than a key.
    #[error(
        "`{setting}` does not hold a key: it must be base64 of 32 random bytes, as `openssl rand -base64 32` prints"
    )]
    Key {
        /// The setting, as it is written in the file.
        setting: &'static str,
        /// Why not.
        #[source]
        source: crypto::KeyError,
    },
}

impl Config {
    /// Whether an issuer has a directory, which pushes or is asked.
    pub fn has_directory(&self, issuer: &IssuerName) -> bool {
        let is_asked =
            |known: &IssuerConfig| known.graph.as_ref().is_some_and(|graph| graph.directory_every().is_some());
        self.directories.iter().any(|directory| directory.issuer == *issuer)
            || self.issuers.iter().any(|known| known.name == *issuer && is_asked(known))
    }

    /// Reads `file`, then the environment, and checks the whole.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::File {
            setting: "--config".to_owned(),
            path: file.to_owned(),
            source,
        })?;
        let environment = Environment::with_prefix("MCP_MUX").prefix_separator("__").separator("__");
        let mut config = Self::parse(&text, environment)?;
        config.telemetry.traces = OtlpConfig::from_environment()?;
        Ok(config)
    }

    fn parse(text: &str, environment: Environment) -> Result<Self, ConfigError> {
        let config: Self = config::Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Unreadable(unreadable::words(&error)))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.issuers.is_empty() && self.fronts.is_empty() {
            return Err(setting("issuers", "is empty: name at least one identity provider, or nobody could call"));
        }
        let mut seen = HashSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let place = format!("issuers[{index}]");
            if !seen.insert(issuer.name.as_str()) || !seen.insert(issuer.url.as_str()) {
                return Err(setting(place, "repeats the name or the url of an earlier issuer"));
            }
            issuer.check(&place)?;
        }
        let mut fronts = Vec::with_capacity(self.fronts.len());
        for (index, front) in self.fronts.iter().enumerate() {
            if !seen.insert(front.name.as_str()) {
                return Err(setting(
                    format!("fronts[{index}]"),
                    "repeats the name of an issuer or of an earlier front",
                ));
            }
            fronts.push(front.resolve()?);
        }
        let directories = directory::check(&self.directories, &self.issuers)?;
        front::check_secrets(&fronts, &directories)?;
        self.http.check()?;
        self.audit.check()?;
        self.keys.vault.as_ref().map(VaultConfig::login).transpose()?;
        self.check_unnamed_tokens()?;
        if !(NAME_CHARS_LEAST..=64).contains(&self.catalog.name_chars_max) {
            return Err(setting("catalog.name_chars_max", "must be from 32 to 64"));
        }
        if self.catalog.refresh_seconds == 0 {
            return Err(setting("catalog.refresh_seconds", "must be at least 1"));
        }
        if self.catalog.page_items == 0 {
            return Err(setting("catalog.page_items", "must be at least 1"));
        }
        Ok(())
    }
}

impl Config {
    /// An opaque token and a front's session do not say whose they are, and are shown to nobody who did not make them.
    fn check_unnamed_tokens(&self) -> Result<(), ConfigError> {
        let introspecting = self.issuers.iter().filter(|issuer| issuer.mode == TokenMode::Introspect).count();
        if introspecting > 1 {
            return Err(setting(
                "issuers",
                "has two with `mode = \"introspect\"`: an opaque token does not say whose it is",
            ));
        }
        let sessions = self.fronts.iter().filter(|front| front.mode == FrontMode::Session).count();
        if sessions > 1 {
            return Err(setting("fronts", "has two with `mode = \"session\"`: a session does not say whose it is"));
        }
        Ok(())
    }
}

/// Who runs this program, by the name that they go by and the number that the operating system knows them by: for records of
/// what operators do.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
pub fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let name = named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    format!("{name} (uid {})", rustix::process::getuid().as_raw())
}

impl Config {
    /// Where each issuer's access tokens may be shown in exchange for others: at itself, and at whom the operator lists.
    pub fn exchangers(&self) -> Exchangers {
        let servers = |issuer: &IssuerConfig| {
            let listed = issuer.token_exchange.iter().cloned();
            (issuer.name.clone(), listed.chain([issuer.url.clone()]).collect())
        };
        Arc::new(self.issuers.iter().map(servers).collect())
    }
}

/// The authorization servers, each by its whole address, that may be shown an issuer's tokens.
pub type Exchangers = Arc<HashMap<IssuerName, HashSet<String>>>;

impl DatabaseConfig {
    /// The URL, from wherever it is kept.
    pub fn resolve(&self) -> Result<SecretString, ConfigError> {
        match (&self.url, &self.url_file) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(file)) => secret::read("database.url_file", file),
            (Some(_), Some(_)) => Err(setting("database", "has both `url` and `url_file`: keep one")),
            (None, None) => Err(setting("database", "has neither `url` nor `url_file`: say where the data is kept")),
        }
    }

    /// The owner's URL, if there is one.
    pub fn resolve_owner(&self) -> Result<Option<SecretString>, ConfigError> {
        match (&self.owner_url, &self.owner_url_file) {
            (None, None) => Ok(None),
            (url, file) => secret::resolve("database.owner_url", url.as_ref(), file.as_ref()).map(Some),
        }
    }

    /// A database at that URL, which needs no other role.
    pub fn at(url: impl Into<SecretString>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
