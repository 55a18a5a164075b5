//! Identity providers: one table of settings for all of them, with presets for those whose tokens are known to differ.
//!
//! A preset is a [`Profile`] and nothing else: no code asks which provider it talks to. Whatever a setting says wins over it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tenant_store::IssuerName;
use url::Url;

use super::login::LoginConfig;
use super::profile::{ClaimMark, ClaimPath, Profile, SigningAlgorithm, TokenType};
use super::secret::{self, setting};
use super::{ConfigError, is_loopback};

/// How many seconds may lie between two readings of a directory.
const DIRECTORY_EVERY_SECONDS: RangeInclusive<u64> = 30..=86_400;
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
    /// What an access token has at least one of, and an ID token none.
    pub access_claims: Option<Vec<ClaimMark>>,
    /// Whether tokens that a program got for itself, without a user, are accepted.
    #[serde(default)]
    pub app_only: AppOnly,
    /// What tells such a token, besides a `sub` that is the client itself.
    pub app_only_marks: Option<Vec<ClaimMark>>,
    /// Longest life of a token, from `iat` to `exp`, in seconds.
    pub max_lifetime_seconds: Option<u64>,
    /// How to ask the provider about a token; needed for `mode = "introspect"`.
    pub introspection: Option<IntrospectionConfig>,
    /// Authorization servers, besides itself, that may be shown its access tokens in exchange for others (RFC 8693): each `issuer` or
    /// `tokenUrl`, character by character as manifests name it.
    #[serde(default)]
    pub token_exchange: Vec<String>,
    /// How to ask Microsoft Graph for the groups that Entra ID leaves out of a token because they are too many.
    pub graph: Option<GraphConfig>,
    /// How people sign in there with a browser, to connect accounts of their own at upstreams; nobody can when absent.
    pub login: Option<LoginConfig>,
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
    /// The name under which we ask: an application with the permissions `User.ReadBasic.All` and `GroupMember.Read.All`.
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
    /// Seconds between two readings of all users and of the groups that grants name, for which the application needs `User.Read.All`; never
    /// when absent.
    pub directory_every_seconds: Option<u64>,
}

#[expect(clippy::expect_used, reason = "a literal, which a test parses")]
fn default_graph_url() -> Url {
    Url::parse("https://graph.microsoft.com/v1.0").expect("a literal URL")
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
            token_exchange: Vec::new(),
            graph: None,
            login: None,
        }
    }

    /// What its tokens are like.
    pub fn profile(&self) -> Profile {
        let preset = Profile::preset(self.preset);
        let or = |own: &Option<Vec<ClaimPath>>, preset: Vec<ClaimPath>| own.clone().unwrap_or(preset);
        let profile = Profile {
            token_types: self.token_types.clone().unwrap_or(preset.token_types),
            algorithms: self.algorithms.clone().unwrap_or(preset.algorithms),
            scope_claims: or(&self.scope_claims, preset.scope_claims),
            client_claims: or(&self.client_claims, preset.client_claims),
            group_claims: or(&self.group_claims, preset.group_claims),
            role_claims: or(&self.role_claims, preset.role_claims),
            subject_claims: or(&self.subject_claims, preset.subject_claims),
            access_claims: self.access_claims.clone().unwrap_or(preset.access_claims),
            app_only_marks: self.app_only_marks.clone().unwrap_or(preset.app_only_marks),
            max_lifetime: self.max_lifetime_seconds.map_or(preset.max_lifetime, Duration::from_secs),
        };
        match self.mode {
            TokenMode::Jwt => profile,
            TokenMode::Introspect => profile.of_answers(),
        }
    }

    /// Every address that the settings name: the operator's own word on where to ask.
    pub fn addresses(&self) -> Vec<Url> {
        let introspection = self.introspection.as_ref().and_then(|introspection| introspection.url.clone());
        let graph = self.graph.as_ref().map(|graph| [Some(graph.url.clone()), graph.token_url().ok()]);
        let named = [Url::parse(&self.url).ok(), self.jwks_url.clone(), introspection];
        named.into_iter().chain(graph.into_iter().flatten()).flatten().collect()
    }

    /// The OAuth scopes that clients are told to ask for, each once and in order.
    pub fn advertised_scopes(&self) -> Vec<String> {
        let mut scopes = if self.scopes.is_empty() { self.required_scopes.clone() } else { self.scopes.clone() };
        scopes.sort();
        scopes.dedup();
        scopes
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
        self.check_scopes(place)?;
        self.check_audiences(place, &profile)?;
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
        if let Some(graph) = &self.graph {
            graph.check(place)?;
            graph.directory_every().map(|_| self.directory_prefix(graph)).transpose()?;
        }
        self.login.as_ref().map_or(Ok(()), |login| login.check(place))
    }

    /// What stands before a user's object id in the subject of its tokens, where Graph is asked for the directory.
    pub fn directory_prefix(&self, graph: &GraphConfig) -> Result<String, ConfigError> {
        let claims = self.profile().subject_claims;
        let claims: Vec<&str> = claims.iter().map(ClaimPath::as_str).collect();
        match claims[..] {
            ["tid", "oid"] => Ok(format!("{}/", graph.tenant_id.to_lowercase())),
            ["oid"] => Ok(String::new()),
            _ => Err(setting(
                format!("issuers.{}.subject_claims", self.name),
                "must be `[\"tid\", \"oid\"]` or `[\"oid\"]` where `graph.directory_every_seconds` is set: a directory knows object ids",
            )),
        }
    }

    /// Scopes stand in challenges, which must be written whatever they are.
    fn check_scopes(&self, place: &str) -> Result<(), ConfigError> {
        for (key, scopes) in [("scopes", &self.scopes), ("required_scopes", &self.required_scopes)] {
            if !scopes.iter().all(|scope| is_scope(scope)) {
                let problem = "holds what is no OAuth scope (RFC 6749 section 3.3): one word of printable ASCII without quotes and backslashes for each";
                return Err(setting(format!("{place}.{key}"), problem));
            }
        }
        Ok(())
    }

    /// The `aud` of an ID token is a client's id. Where such an id is an audience, something must tell the two kinds apart.
    fn check_audiences(&self, place: &str, profile: &Profile) -> Result<(), ConfigError> {
        let tells_apart = !self.required_scopes.is_empty()
            || !profile.access_claims.is_empty()
            || !profile.token_types.contains(&TokenType::Any);
        let is_uri = |audience: &String| Url::parse(audience).is_ok();
        if self.mode == TokenMode::Introspect || tells_apart || self.audiences.iter().all(is_uri) {
            return Ok(());
        }
        let problem = "holds the id of a client, so that ID tokens would be accepted: set `required_scopes`, or `access_claims` to what only access tokens have, or `token_types = [\"at+jwt\"]`";
        Err(setting(format!("{place}.audiences"), problem))
    }
}

/// A `scope-token` of RFC 6749 §3.3.
pub(super) fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
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

    /// The time between two readings of the directory, if it is read.
    pub fn directory_every(&self) -> Option<Duration> {
        self.directory_every_seconds.map(Duration::from_secs)
    }

    fn check(&self, place: &str) -> Result<(), ConfigError> {
        if self.directory_every_seconds.is_some_and(|seconds| !DIRECTORY_EVERY_SECONDS.contains(&seconds)) {
            return Err(setting(format!("{place}.graph.directory_every_seconds"), "must be from 30 to 86400"));
        }
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
