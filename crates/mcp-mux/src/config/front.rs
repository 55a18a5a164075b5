//! Trusted fronts: programs such as Open WebUI that prove themselves and speak for their users.
//!
//! A front is read into a [`Front`], which cannot be without the proof that its mode needs.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tenant_store::IssuerName;
use url::Url;

use super::ConfigError;
use super::issuer::is_protected;
use super::secret::{self, setting};

/// Shortest shared key or secret, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// Longest time for which an expired assertion may still count.
const LEEWAY_SECONDS_MAX: u64 = 3600;

/// One trusted front, as it is configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontConfig {
    /// The name by which grants refer to its users: they are a namespace of their own, as those of an issuer are.
    pub name: IssuerName,
    /// How it proves itself and names its user.
    pub mode: FrontMode,
    /// The shared key that it sends as `Authorization: Bearer`: needed for `headers`, possible for `jwt`.
    pub key: Option<SecretString>,
    /// A file that holds it; preferred.
    pub key_file: Option<PathBuf>,
    /// The secret that signs `X-OpenWebUI-User-Jwt`, for `jwt`.
    pub jwt_secret: Option<SecretString>,
    /// A file that holds it; preferred.
    pub jwt_secret_file: Option<PathBuf>,
    /// For how long after its end such a JWT still counts, in seconds. Open WebUI makes one at the start of a turn, and a long
    /// turn outlives it.
    #[serde(default = "default_leeway_seconds")]
    pub leeway_seconds: u64,
    /// The header that holds the user's id, for `headers`.
    #[serde(default = "default_user_header")]
    pub user_header: String,
    /// The header that lists the user's groups, separated by commas. Read only from a front that proved itself by its key. Ids
    /// rather than names: a name may have a comma in it.
    pub groups_header: Option<String>,
    /// Its address, for `session`.
    pub url: Option<Url>,
}

fn default_leeway_seconds() -> u64 {
    30
}

fn default_user_header() -> String {
    "X-OpenWebUI-User-Id".to_owned()
}

/// How a front proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrontMode {
    /// By an HS256 signature over the user's name.
    Jwt,
    /// By a shared key, beside plain headers.
    Headers,
    /// By the user's own session, which it is asked about.
    Session,
}

/// One trusted front, with all that its mode needs.
#[derive(Debug, Clone)]
pub struct Front {
    /// The name of its users' namespace.
    pub name: IssuerName,
    /// How it proves itself.
    pub proof: FrontProof,
}

/// How a front proves itself, and where it names its user.
#[derive(Debug, Clone)]
pub enum FrontProof {
    /// `X-OpenWebUI-User-Jwt`.
    Jwt {
        /// The secret that signs it.
        secret: SecretString,
        /// For how long after its end it counts.
        leeway: Duration,
        /// The shared key that must come with it, if there is one.
        key: Option<SecretString>,
        /// The header that lists groups; only with a key.
        groups_header: Option<HeaderName>,
    },
    /// Plain headers.
    Headers {
        /// The shared key that must come with them.
        key: SecretString,
        /// The header that holds the user's id.
        user_header: HeaderName,
        /// The header that lists groups.
        groups_header: Option<HeaderName>,
    },
    /// The user's own session.
    Session {
        /// The front's address.
        url: Url,
    },
}

impl FrontConfig {
    /// Reads the secrets and checks that all is there that the mode needs, and nothing that it does not.
    pub fn resolve(&self) -> Result<Front, ConfigError> {
        let says = |key: &str, problem: &str| setting(format!("fronts.{}.{key}", self.name), problem);
        let key = self.secret("key", self.key.as_ref(), self.key_file.as_ref())?;
        let jwt_secret = self.secret("jwt_secret", self.jwt_secret.as_ref(), self.jwt_secret_file.as_ref())?;
        if self.mode != FrontMode::Jwt && jwt_secret.is_some() {
            return Err(says("jwt_secret", "is for `mode = \"jwt\"` only"));
        }
        if self.mode != FrontMode::Session && self.url.is_some() {
            return Err(says("url", "is for `mode = \"session\"` only"));
        }
        let proof = match self.mode {
            FrontMode::Jwt => {
                let groups_header = self.groups_header()?;
                if groups_header.is_some() && key.is_none() {
                    return Err(says("groups_header", "needs a `key`: the JWT does not vouch for other headers"));
                }
                if self.leeway_seconds > LEEWAY_SECONDS_MAX {
                    return Err(says("leeway_seconds", "must be at most 3600"));
                }
                FrontProof::Jwt {
                    secret: jwt_secret.ok_or_else(|| says("jwt_secret", "is missing: it signs the user's name"))?,
                    leeway: Duration::from_secs(self.leeway_seconds),
                    key,
                    groups_header,
                }
            }
            FrontMode::Headers => FrontProof::Headers {
                key: key.ok_or_else(|| says("key", "is missing: without it everybody could name a user"))?,
                user_header: header(&self.user_header).ok_or_else(|| says("user_header", "is not a header's name"))?,
                groups_header: self.groups_header()?,
            },
            FrontMode::Session => {
                if key.is_some() || self.groups_header.is_some() {
                    return Err(says("mode", "`session` takes neither a key nor a groups header"));
                }
                let url = self.url.clone().filter(is_protected);
                FrontProof::Session { url: url.ok_or_else(|| says("url", "must be the front's https URL"))? }
            }
        };
        Ok(Front { name: self.name.clone(), proof })
    }

    fn groups_header(&self) -> Result<Option<HeaderName>, ConfigError> {
        let Some(name) = &self.groups_header else { return Ok(None) };
        let place = format!("fronts.{}.groups_header", self.name);
        header(name).map(Some).ok_or_else(|| setting(place, "is not a header's name"))
    }

    fn secret(
        &self,
        key: &str,
        inline: Option<&SecretString>,
        file: Option<&PathBuf>,
    ) -> Result<Option<SecretString>, ConfigError> {
        if inline.is_none() && file.is_none() {
            return Ok(None);
        }
        let place = format!("fronts.{}.{key}", self.name);
        let secret = secret::resolve(&place, inline, file)?;
        let visible = secret.expose_secret().bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        if secret.expose_secret().len() < SECRET_BYTES_MIN || !visible {
            return Err(setting(place, "must have at least 32 visible characters, as `openssl rand -hex 32` prints"));
        }
        Ok(Some(secret))
    }
}

/// The name of a header that a front may use; none that means something to us already.
fn header(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    name.as_str().starts_with("x-").then_some(name)
}
