//! Identity providers: one table of settings for all of them, with presets for those whose tokens are known to differ.
//!
//! A preset is a [`Profile`] and nothing else: no code asks which provider it talks to. Whatever a setting says wins over it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};
use tenant_store::IssuerName;
use url::Url;

use super::secret::{self, setting};
use super::{ConfigError, is_loopback};

/// Longest life of an access token that a setting may allow: two days.
const MAX_LIFETIME_SECONDS_MAX: u64 = 2 * 24 * 3600;

/// One identity provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The name by which grants refer to it.
    pub name: IssuerName,
    /// Its issuer identifier, compared with `iss` character by character (RFC 8414 §2).
    pub url: String,
    /// Whose tokens these are like; says what the settings below it are when they are absent.
    #[serde(default)]
    pub preset: Preset,
    /// How its tokens are verified.
    #[serde(default)]
    pub mode: TokenMode,
    /// Where its keys are; found by discovery when absent.
    pub jwks_url: Option<Url>,
    /// Values of `aud` accepted on every route, besides the URL of the route that is called; some providers put a client
    /// id there.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// OAuth scopes that clients are told to ask for; the required ones when absent.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// OAuth scopes that a token must have, as its scope claim spells them.
    #[serde(default)]
    pub required_scopes: Vec<String>,
    /// OAuth clients whose tokens are accepted; all when empty.
    #[serde(default)]
    pub allowed_clients: Vec<String>,
    /// Values of the header `typ` that are accepted.
    pub token_types: Option<Vec<TokenType>>,
    /// Signature algorithms that are accepted.
    pub algorithms: Option<Vec<SigningAlgorithm>>,
    /// Claims that list OAuth scopes.
    pub scope_claims: Option<Vec<ClaimPath>>,
    /// Claims that name the OAuth client; the first that is there counts.
    pub client_claims: Option<Vec<ClaimPath>>,
    /// Claims that list groups.
    pub group_claims: Option<Vec<ClaimPath>>,
    /// Claims that list roles; grants name them as the group `role:NAME`.
    pub role_claims: Option<Vec<ClaimPath>>,
    /// Claims that together name the user within the issuer.
    pub subject_claims: Option<Vec<ClaimPath>>,
    /// Claims of which an access token has at least one, and an ID token has none.
    pub access_claims: Option<Vec<ClaimPath>>,
    /// Whether tokens that a program got for itself, without a user, are accepted.
    #[serde(default)]
    pub app_only: AppOnly,
    /// What tells such a token, besides a `sub` that is the client itself.
    pub app_only_marks: Option<Vec<ClaimMark>>,
    /// Longest life of a token, from `iat` to `exp`, in seconds.
    pub max_lifetime_seconds: Option<u64>,
    /// How to ask the provider about a token; needed for `mode = "introspect"`.
    pub introspection: Option<IntrospectionConfig>,
    /// How to ask Microsoft Graph for the groups that Entra ID leaves out of a token because they are too many.
    pub graph: Option<GraphConfig>,
}

/// Providers whose tokens are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Any provider that follows RFC 9068 more or less.
    #[default]
    Oidc,
    /// Microsoft Entra ID, v2.0 tokens.
    Entra,
    /// Keycloak.
    Keycloak,
    /// Okta, with a custom authorization server.
    Okta,
    /// Auth0.
    Auth0,
}

/// How an issuer's tokens are verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenMode {
    /// By their signature: they are JWTs.
    #[default]
    Jwt,
    /// By asking the provider about each (RFC 7662): they are opaque, or must be revocable.
    Introspect,
}

/// Whether tokens without a user are accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppOnly {
    /// They are not.
    #[default]
    Refuse,
    /// They are; grants name them by their subject or their roles.
    Allow,
}

/// The header `typ` of a JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TokenType {
    /// `at+jwt`, which says that it is an access token (RFC 9068 §2.1).
    #[serde(rename = "at+jwt")]
    AccessToken,
    /// `JWT`, or nothing.
    #[serde(rename = "JWT")]
    Any,
}

/// Signature algorithms (RFC 7518 §3.1, RFC 8037): asymmetric ones only, so that no public key can pass for a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    #[serde(rename = "RS512")]
    Rs512,
    /// RSASSA-PSS with SHA-256
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Where a claim is: its exact name, or a path into objects with dots between its steps.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimPath(String);

/// A claim that tells something about a token: `claim=value`, `claim=prefix*`, or `!claim` for one that is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMark {
    /// Where it looks.
    pub claim: ClaimPath,
    /// What it wants to find there.
    pub wanted: Wanted,
}

/// What a [`ClaimMark`] wants to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Absent,
    /// Exactly this text.
    Text(String),
    /// A text that begins so.
    Prefix(String),
}

/// How to ask a provider about a token (RFC 7662).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionConfig {
    /// The endpoint; found by discovery when absent.
    pub url: Option<Url>,
    /// The name under which we ask.
    pub client_id: String,
    /// Our secret at the provider.
    pub client_secret: Option<SecretString>,
    /// A file that holds it; preferred.
    pub client_secret_file: Option<PathBuf>,
}

/// How to ask Microsoft Graph for somebody's groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphConfig {
    /// The directory, as a GUID.
    pub tenant_id: String,
    /// The name under which we ask: an application with the permission `GroupMember.Read.All`.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Option<SecretString>,
    /// A file that holds it; preferred.
    pub client_secret_file: Option<PathBuf>,
    /// Microsoft Graph; national clouds have their own.
    #[serde(default = "default_graph_url")]
    pub url: Url,
    /// Where tokens for Graph come from; `https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token` when absent.
    pub token_url: Option<Url>,
}

#[expect(clippy::expect_used, reason = "a literal, which a test parses")]
fn default_graph_url() -> Url {
    Url::parse("https://graph.microsoft.com/v1.0").expect("a literal URL")
}

/// What an issuer's tokens are like and which of them are accepted: the preset with the settings over it.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Accepted values of the header `typ`.
    pub token_types: Vec<TokenType>,
    /// Accepted algorithms.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Claims that list OAuth scopes.
    pub scope_claims: Vec<ClaimPath>,
    /// Claims that name the OAuth client.
    pub client_claims: Vec<ClaimPath>,
    /// Claims that list groups.
    pub group_claims: Vec<ClaimPath>,
    /// Claims that list roles.
    pub role_claims: Vec<ClaimPath>,
    /// Claims that together name the user.
    pub subject_claims: Vec<ClaimPath>,
    /// Claims of which an access token has at least one; empty when nothing tells.
    pub access_claims: Vec<ClaimPath>,
    /// What tells a token without a user.
    pub app_only_marks: Vec<ClaimMark>,
    /// Longest life of a token.
    pub max_lifetime: Duration,
}

impl Profile {
    /// What is known about a provider's tokens.
    fn preset(preset: Preset) -> Self {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256, Rs512};
        let oidc = Self {
            token_types: vec![TokenType::AccessToken, TokenType::Any],
            algorithms: vec![Rs256, Rs512, Ps256, Es256, Es384, EdDsa],
            scope_claims: paths(&["scope", "scp"]),
            client_claims: paths(&["client_id", "azp"]),
            group_claims: paths(&["groups"]),
            role_claims: Vec::new(),
            subject_claims: paths(&["sub"]),
            access_claims: Vec::new(),
            app_only_marks: Vec::new(),
            max_lifetime: Duration::from_hours(24),
        };
        match preset {
            Preset::Oidc => oidc,
            Preset::Entra => Self {
                algorithms: vec![Rs256],
                scope_claims: paths(&["scp"]),
                client_claims: paths(&["azp", "appid"]),
                role_claims: paths(&["roles"]),
                subject_claims: paths(&["tid", "oid"]),
                access_claims: paths(&["scp", "roles"]),
                app_only_marks: vec![text("idtyp", "app"), absent("scp")],
                max_lifetime: Duration::from_hours(2),
                ..oidc
            },
            Preset::Keycloak => Self {
                scope_claims: paths(&["scope"]),
                client_claims: paths(&["azp", "client_id"]),
                role_claims: paths(&["realm_access.roles"]),
                app_only_marks: vec![prefix("preferred_username", "service-account-")],
                ..oidc
            },
            Preset::Okta => Self {
                algorithms: vec![Rs256],
                scope_claims: paths(&["scp"]),
                client_claims: paths(&["cid"]),
                access_claims: paths(&["cid"]),
                ..oidc
            },
            Preset::Auth0 => Self {
                algorithms: vec![Rs256, Ps256],
                scope_claims: paths(&["scope", "permissions"]),
                client_claims: paths(&["azp", "client_id"]),
                app_only_marks: vec![text("gty", "client-credentials")],
                ..oidc
            },
        }
    }
}

fn paths(names: &[&str]) -> Vec<ClaimPath> {
    names.iter().map(|name| ClaimPath((*name).to_owned())).collect()
}

fn text(claim: &str, text: &str) -> ClaimMark {
    ClaimMark { claim: ClaimPath(claim.to_owned()), wanted: Wanted::Text(text.to_owned()) }
}

fn prefix(claim: &str, text: &str) -> ClaimMark {
    ClaimMark { claim: ClaimPath(claim.to_owned()), wanted: Wanted::Prefix(text.to_owned()) }
}

fn absent(claim: &str) -> ClaimMark {
    ClaimMark { claim: ClaimPath(claim.to_owned()), wanted: Wanted::Absent }
}

impl IssuerConfig {
    /// An issuer with nothing but its name and its identifier: JWTs of any OpenID Connect provider.
    pub fn new(name: IssuerName, url: impl Into<String>) -> Self {
        Self {
            name,
            url: url.into(),
            preset: Preset::Oidc,
            mode: TokenMode::Jwt,
            jwks_url: None,
            audiences: Vec::new(),
            scopes: Vec::new(),
            required_scopes: Vec::new(),
            allowed_clients: Vec::new(),
            token_types: None,
            algorithms: None,
            scope_claims: None,
            client_claims: None,
            group_claims: None,
            role_claims: None,
            subject_claims: None,
            access_claims: None,
            app_only: AppOnly::Refuse,
            app_only_marks: None,
            max_lifetime_seconds: None,
            introspection: None,
            graph: None,
        }
    }

    /// What its tokens are like.
    pub fn profile(&self) -> Profile {
        let preset = Profile::preset(self.preset);
        let or = |own: &Option<Vec<ClaimPath>>, preset: Vec<ClaimPath>| own.clone().unwrap_or(preset);
        Profile {
            token_types: self.token_types.clone().unwrap_or(preset.token_types),
            algorithms: self.algorithms.clone().unwrap_or(preset.algorithms),
            scope_claims: or(&self.scope_claims, preset.scope_claims),
            client_claims: or(&self.client_claims, preset.client_claims),
            group_claims: or(&self.group_claims, preset.group_claims),
            role_claims: or(&self.role_claims, preset.role_claims),
            subject_claims: or(&self.subject_claims, preset.subject_claims),
            access_claims: or(&self.access_claims, preset.access_claims),
            app_only_marks: self.app_only_marks.clone().unwrap_or(preset.app_only_marks),
            max_lifetime: self.max_lifetime_seconds.map_or(preset.max_lifetime, Duration::from_secs),
        }
    }

    /// The OAuth scopes that clients are told to ask for.
    pub fn advertised_scopes(&self) -> &[String] {
        if self.scopes.is_empty() { &self.required_scopes } else { &self.scopes }
    }

    /// Checks what types cannot say; `place` is how the file names this issuer.
    pub(super) fn check(&self, place: &str) -> Result<(), ConfigError> {
        let says = |key: &str, problem: &str| Err(setting(format!("{place}.{key}"), problem));
        let url = Url::parse(&self.url).ok();
        if !url.as_ref().is_some_and(is_protected) {
            return says("url", "must be an https URL, as the provider's discovery document spells it");
        }
        if self.jwks_url.as_ref().is_some_and(|url| !is_protected(url)) {
            return says("jwks_url", "must be https");
        }
        let profile = self.profile();
        for (key, is_empty) in [
            ("token_types", profile.token_types.is_empty()),
            ("algorithms", profile.algorithms.is_empty()),
            ("subject_claims", profile.subject_claims.is_empty()),
        ] {
            if is_empty {
                return says(key, "is empty: no token could be accepted");
            }
        }
        if !self.required_scopes.is_empty() && profile.scope_claims.is_empty() {
            return says("scope_claims", "is empty, but `required_scopes` is not");
        }
        if !self.allowed_clients.is_empty() && profile.client_claims.is_empty() {
            return says("client_claims", "is empty, but `allowed_clients` is not");
        }
        if self.max_lifetime_seconds.is_some_and(|seconds| !(60..=MAX_LIFETIME_SECONDS_MAX).contains(&seconds)) {
            return says("max_lifetime_seconds", "must be from 60 to 172800");
        }
        match (self.mode, &self.introspection) {
            (TokenMode::Introspect, None) => {
                return says("introspection", "is missing: `mode = \"introspect\"` asks the provider about each token");
            }
            (TokenMode::Introspect, Some(introspection)) => introspection.check(place)?,
            (TokenMode::Jwt, Some(_)) => {
                return says("introspection", "is there, but `mode` is not `introspect`: keep one");
            }
            (TokenMode::Jwt, None) => {}
        }
        self.graph.as_ref().map_or(Ok(()), |graph| graph.check(place))
    }
}

/// Keys, secrets and claims travel over https; plain http is for this machine.
pub(super) fn is_protected(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

impl IntrospectionConfig {
    /// Our secret at the provider.
    pub fn secret(&self) -> Result<SecretString, ConfigError> {
        secret::resolve(
            "issuers.introspection.client_secret",
            self.client_secret.as_ref(),
            self.client_secret_file.as_ref(),
        )
    }

    fn check(&self, place: &str) -> Result<(), ConfigError> {
        if self.url.as_ref().is_some_and(|url| !is_protected(url)) {
            return Err(setting(format!("{place}.introspection.url"), "must be https"));
        }
        self.secret().map(drop)
    }
}

impl GraphConfig {
    /// Our secret at the directory.
    pub fn secret(&self) -> Result<SecretString, ConfigError> {
        secret::resolve("issuers.graph.client_secret", self.client_secret.as_ref(), self.client_secret_file.as_ref())
    }

    /// Where tokens for Graph come from.
    pub fn token_url(&self) -> Result<Url, ConfigError> {
        let known = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", self.tenant_id);
        let parsed = self.token_url.clone().map_or_else(|| Url::parse(&known), Ok);
        parsed.map_err(|_| setting("issuers.graph.tenant_id", "must be the directory's GUID"))
    }

    fn check(&self, place: &str) -> Result<(), ConfigError> {
        let is_guid = uuid::Uuid::try_parse(&self.tenant_id).is_ok();
        if !is_guid {
            return Err(setting(format!("{place}.graph.tenant_id"), "must be the directory's GUID"));
        }
        if !is_protected(&self.url) || self.token_url.as_ref().is_some_and(|url| !is_protected(url)) {
            return Err(setting(format!("{place}.graph"), "has a URL that is not https"));
        }
        self.secret().map(drop)
    }
}

impl ClaimPath {
    /// The path as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for ClaimPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Err(de::Error::custom("a claim has a name")) } else { Ok(Self(text)) }
    }
}

impl<'de> Deserialize<'de> for ClaimMark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mark = String::deserialize(deserializer)?;
        let parsed = match (mark.strip_prefix('!'), mark.split_once('=')) {
            (Some(claim), _) if !claim.is_empty() => absent(claim),
            (None, Some((claim, value))) if !claim.is_empty() => match value.strip_suffix('*') {
                Some(begin) => prefix(claim, begin),
                None => text(claim, value),
            },
            _ => return Err(de::Error::custom("a mark is `claim=value`, `claim=prefix*` or `!claim`")),
        };
        Ok(parsed)
    }
}
