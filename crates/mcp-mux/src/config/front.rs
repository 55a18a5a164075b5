//! Trusted fronts: programs such as Open WebUI that prove themselves and speak for their users.
//!
//! A front is read into a [`Front`], which cannot be without the proof that its mode needs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tenant_store::IssuerName;
use url::Url;

use super::ConfigError;
use super::directory::DirectoryAccess;
use super::issuer::is_protected;
use super::secret::{self, setting};

/// Shortest shared key or secret, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// Longest time for which an expired assertion may still count.
const LEEWAY_SECONDS_MAX: u64 = 3600;
const LEEWAY_SECONDS_UNSAID: u64 = 30;

const USER_HEADER_UNSAID: &str = "x-openwebui-user-id";
/// How Open WebUI's own headers begin. All but the one above say what its users can change, or nothing about who they are.
const OPEN_WEBUI_PREFIX: &str = "x-openwebui-";

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
    /// For how long after its end such a JWT still counts, in seconds: 30 unless said otherwise. Open WebUI makes one at the start
    /// of a turn, and a long turn outlives it.
    pub leeway_seconds: Option<u64>,
    /// The audience that such a JWT must name, for `jwt`. Open WebUI names none; without this setting, one that does is refused.
    pub audience: Option<String>,
    /// The header that holds the user's id, for `headers`: `X-OpenWebUI-User-Id` unless said otherwise.
    pub user_header: Option<String>,
    /// The header that lists the user's groups, separated by commas. Read only from a front that proved itself by its key. Ids
    /// rather than names: a name may have a comma in it.
    pub groups_header: Option<String>,
    /// Its address, for `session`.
    pub url: Option<Url>,
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
        /// The audience that it must name.
        audience: Option<String>,
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

impl FrontProof {
    /// The headers in which the front names its user, as far as the settings name them.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let (user, groups) = match self {
            Self::Jwt { groups_header, .. } => (None, groups_header.as_ref()),
            Self::Headers { user_header, groups_header, .. } => (Some(user_header), groups_header.as_ref()),
            Self::Session { .. } => (None, None),
        };
        user.into_iter().chain(groups)
    }

    fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretString)> {
        let (key, secret) = match self {
            Self::Jwt { secret, key, .. } => (key.as_ref(), Some(secret)),
            Self::Headers { key, .. } => (Some(key), None),
            Self::Session { .. } => (None, None),
        };
        key.map(|key| ("key", key)).into_iter().chain(secret.map(|secret| ("jwt_secret", secret)))
    }
}

/// Refuses a secret that is there twice. With a key of two fronts nobody could say whose users are meant; and a key is sent with
/// every request, so as a secret too it would sign for whoever has seen one.
pub(super) fn check_secrets(fronts: &[Front], directories: &[DirectoryAccess]) -> Result<(), ConfigError> {
    let mut places: HashMap<[u8; 32], String> = HashMap::new();
    let of_fronts = fronts.iter().flat_map(|front| {
        let place = move |(key, secret)| (format!("fronts.{}.{key}", front.name), secret);
        front.proof.secrets().map(place)
    });
    let of_directories =
        directories.iter().map(|directory| (format!("directories.{}.token", directory.issuer), &directory.token));
    for (place, secret) in of_fronts.chain(of_directories) {
        let digest = Sha256::digest(secret.expose_secret()).into();
        if let Some(earlier) = places.insert(digest, place.clone()) {
            return Err(setting(place, format!("is the same as `{earlier}`: each needs a secret of its own")));
        }
    }
    Ok(())
}

impl FrontConfig {
    /// Reads the secrets and checks that all is there that the mode needs, and nothing that it does not.
    pub fn resolve(&self) -> Result<Front, ConfigError> {
        self.check_mode()?;
        let proof = match self.mode {
            FrontMode::Jwt => self.jwt()?,
            FrontMode::Headers => self.headers()?,
            FrontMode::Session => self.session()?,
        };
        Ok(Front { name: self.name.clone(), proof })
    }

    /// A setting that its mode does not read would be one that somebody relies on in vain.
    fn check_mode(&self) -> Result<(), ConfigError> {
        use FrontMode::{Headers, Jwt, Session};
        let settings: [(&str, bool, &[FrontMode]); 7] = [
            ("key", self.key.is_some() || self.key_file.is_some(), &[Jwt, Headers]),
            ("jwt_secret", self.jwt_secret.is_some() || self.jwt_secret_file.is_some(), &[Jwt]),
            ("leeway_seconds", self.leeway_seconds.is_some(), &[Jwt]),
            ("audience", self.audience.is_some(), &[Jwt]),
            ("user_header", self.user_header.is_some(), &[Headers]),
            ("groups_header", self.groups_header.is_some(), &[Jwt, Headers]),
            ("url", self.url.is_some(), &[Session]),
        ];
        match settings.iter().find(|(_, is_there, modes)| *is_there && !modes.contains(&self.mode)) {
            Some((key, ..)) => Err(self.says(key, "is not read in this front's `mode`: remove it, or change the mode")),
            None => Ok(()),
        }
    }

    fn jwt(&self) -> Result<FrontProof, ConfigError> {
        let secret = self.secret("jwt_secret", self.jwt_secret.as_ref(), self.jwt_secret_file.as_ref())?;
        let key = self.secret("key", self.key.as_ref(), self.key_file.as_ref())?;
        let groups_header = self.groups_header()?;
        if groups_header.is_some() && key.is_none() {
            return Err(self.says("groups_header", "needs a `key`: the JWT does not vouch for other headers"));
        }
        let leeway_seconds = self.leeway_seconds.unwrap_or(LEEWAY_SECONDS_UNSAID);
        if leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(self.says("leeway_seconds", "must be at most 3600"));
        }
        if self.audience.as_ref().is_some_and(String::is_empty) {
            return Err(self.says("audience", "is empty: name the audience, or remove it"));
        }
        Ok(FrontProof::Jwt {
            secret: secret.ok_or_else(|| self.says("jwt_secret", "is missing: it signs the user's name"))?,
            leeway: Duration::from_secs(leeway_seconds),
            audience: self.audience.clone(),
            key,
            groups_header,
        })
    }

    fn headers(&self) -> Result<FrontProof, ConfigError> {
        let key = self.secret("key", self.key.as_ref(), self.key_file.as_ref())?;
        let name = self.user_header.as_deref().unwrap_or(USER_HEADER_UNSAID);
        let user_header =
            header(name).ok_or_else(|| self.says("user_header", "is no name of a header that begins with `X-`"))?;
        if user_header.as_str().starts_with(OPEN_WEBUI_PREFIX) && user_header != USER_HEADER_UNSAID {
            let problem = "holds no user's id: of Open WebUI's own headers only `X-OpenWebUI-User-Id` does, and names and addresses are what users can change";
            return Err(self.says("user_header", problem));
        }
        let groups_header = self.groups_header()?;
        if groups_header.as_ref() == Some(&user_header) {
            return Err(self.says("groups_header", "is also `user_header`: one header cannot hold both"));
        }
        Ok(FrontProof::Headers {
            key: key.ok_or_else(|| self.says("key", "is missing: without it everybody could name a user"))?,
            user_header,
            groups_header,
        })
    }

    fn session(&self) -> Result<FrontProof, ConfigError> {
        let is_bare = |url: &Url| {
            let has_user = !url.username().is_empty() || url.password().is_some();
            url.query().is_none() && url.fragment().is_none() && !has_user
        };
        let url = self.url.clone().filter(|url| is_protected(url) && is_bare(url));
        let problem = "must be the front's https URL, without a user, a query or a fragment";
        Ok(FrontProof::Session { url: url.ok_or_else(|| self.says("url", problem))? })
    }

    fn says(&self, key: &str, problem: &str) -> ConfigError {
        setting(format!("fronts.{}.{key}", self.name), problem)
    }

    fn groups_header(&self) -> Result<Option<HeaderName>, ConfigError> {
        let Some(name) = &self.groups_header else { return Ok(None) };
        header(name).map(Some).ok_or_else(|| self.says("groups_header", "is no name of a header that begins with `X-`"))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "CANARY-0123456789abcdef0123456789abcdef";
    const OTHER: &str = "CANARY-fedcba9876543210fedcba9876543210";

    /// What is wrong with a front called `webui`.
    fn problem(settings: &Value) -> Option<String> {
        let mut settings = settings.clone();
        settings["name"] = json!("webui");
        let config: FrontConfig = serde_json::from_value(settings).unwrap();
        config.resolve().err().map(|error| error.to_string())
    }

    #[test]
    fn a_mode_has_what_it_needs() {
        for settings in [
            json!({"mode": "jwt", "jwt_secret": SECRET}),
            json!({"mode": "jwt", "jwt_secret": SECRET, "key": OTHER, "groups_header": "X-Groups", "audience": "mcp-mux"}),
            json!({"mode": "headers", "key": SECRET}),
            json!({"mode": "headers", "key": SECRET, "user_header": "X-OpenWebUI-User-Id"}),
            json!({"mode": "headers", "key": SECRET, "user_header": "X-User-Id", "groups_header": "X-Groups"}),
            json!({"mode": "session", "url": "https://webui.example.com"}),
            json!({"mode": "session", "url": "https://example.com/webui/"}),
        ] {
            assert_eq!(problem(&settings), None, "{settings}");
        }
    }

    #[test]
    fn a_setting_that_its_mode_does_not_read_is_refused() {
        for (mode, key, value) in [
            ("jwt", "user_header", json!("X-User-Id")),
            ("jwt", "url", json!("https://webui.example.com")),
            ("headers", "jwt_secret", json!(OTHER)),
            ("headers", "leeway_seconds", json!(30)),
            ("headers", "audience", json!("mcp-mux")),
            ("session", "key", json!(OTHER)),
            ("session", "user_header", json!("X-User-Id")),
            ("session", "groups_header", json!("X-Groups")),
            ("session", "leeway_seconds", json!(30)),
        ] {
            let mut settings = match mode {
                "jwt" => json!({"jwt_secret": SECRET}),
                "headers" => json!({"key": SECRET}),
                _ => json!({"url": "https://webui.example.com"}),
            };
            settings["mode"] = json!(mode);
            assert_eq!(problem(&settings), None, "{mode}");
            settings[key] = value;
            let said = problem(&settings).unwrap_or_default();
            assert!(said.starts_with(&format!("`fronts.webui.{key}` is not read")), "{mode} {key}: {said}");
        }
    }

    #[test]
    fn a_header_that_holds_no_id_names_no_user() {
        for name in
            ["X-OpenWebUI-User-Name", "x-openwebui-user-email", "X-OpenWebUI-Chat-Id", "Authorization", "X User"]
        {
            let settings = json!({"mode": "headers", "key": SECRET, "user_header": name});
            assert!(problem(&settings).is_some_and(|said| said.contains("user_header")), "{name}");
        }
        let twice = json!({"mode": "headers", "key": SECRET, "user_header": "X-Staff", "groups_header": "x-staff"});
        assert!(problem(&twice).is_some_and(|said| said.contains("groups_header")));
    }

    #[test]
    fn the_address_of_a_front_is_nothing_but_that() {
        for url in [
            "http://webui.example.com",
            "https://me@webui.example.com",
            "https://:me@webui.example.com",
            "https://webui.example.com/?next=",
            "https://webui.example.com/#users",
        ] {
            assert!(problem(&json!({"mode": "session", "url": url})).is_some(), "{url}");
        }
    }

    #[test]
    fn each_front_has_secrets_of_its_own() {
        let front = |name: &str, settings: Value| {
            let mut settings = settings;
            settings["name"] = json!(name);
            serde_json::from_value::<FrontConfig>(settings).unwrap().resolve().unwrap()
        };
        let headers = |name: &str, key: &str| front(name, json!({"mode": "headers", "key": key}));
        let jwt = |name: &str, secret: &str| front(name, json!({"mode": "jwt", "jwt_secret": secret}));
        let both = |secret: &str, key: &str| front("c", json!({"mode": "jwt", "jwt_secret": secret, "key": key}));

        assert!(check_secrets(&[headers("a", SECRET), jwt("b", OTHER)], &[]).is_ok());
        for fronts in [
            vec![headers("a", SECRET), headers("b", SECRET)],
            vec![jwt("a", SECRET), jwt("b", SECRET)],
            vec![headers("a", SECRET), jwt("b", SECRET)],
            vec![both(SECRET, SECRET)],
        ] {
            let error = check_secrets(&fronts, &[]).unwrap_err().to_string();
            assert!(error.contains("is the same as") && !error.contains("CANARY"), "{error}");
        }
    }
}
