//! How people sign in at an issuer with a browser: mcp-mux as a client of OpenID Connect.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::ConfigError;
use super::issuer::is_scope;
use super::profile::ClaimPath;
use super::secret::{self, setting};

/// The client that mcp-mux is at an issuer. With neither secret it is a public one, which PKCE protects.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginConfig {
    /// The name under which mcp-mux is registered there.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Option<SecretString>,
    /// A file that holds it; preferred.
    pub client_secret_file: Option<PathBuf>,
    /// OAuth scopes to ask for besides `openid`: whatever puts groups into ID tokens, where that takes a scope.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claims of the ID token that together name the user as access tokens do; those of the issuer when absent.
    pub subject_claims: Option<Vec<ClaimPath>>,
}

impl LoginConfig {
    /// A public client that asks for nothing but who somebody is.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: None,
            client_secret_file: None,
            scopes: Vec::new(),
            subject_claims: None,
        }
    }

    /// The client's secret, if it has one.
    pub fn secret(&self) -> Result<Option<SecretString>, ConfigError> {
        if self.client_secret.is_none() && self.client_secret_file.is_none() {
            return Ok(None);
        }
        let (inline, file) = (self.client_secret.as_ref(), self.client_secret_file.as_ref());
        secret::resolve("issuers.login.client_secret", inline, file).map(Some)
    }

    pub(super) fn check(&self, place: &str) -> Result<(), ConfigError> {
        if self.client_id.trim().is_empty() {
            return Err(setting(format!("{place}.login.client_id"), "is empty: register mcp-mux at the provider"));
        }
        if !self.scopes.iter().all(|scope| is_scope(scope)) {
            let problem = "holds what is no OAuth scope (RFC 6749 section 3.3): one word for each";
            return Err(setting(format!("{place}.login.scopes"), problem));
        }
        if self.subject_claims.as_ref().is_some_and(Vec::is_empty) {
            return Err(setting(format!("{place}.login.subject_claims"), "is empty: nobody could sign in"));
        }
        self.secret().map(drop)
    }
}
