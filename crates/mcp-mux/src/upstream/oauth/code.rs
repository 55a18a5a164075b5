//! Tokens of a principal's account: given for an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5) or a refresh token (§6), and
//! taken back (RFC 7009). And the client that we register for it (RFC 7591).

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tenant_store::{OAuthClientId, SecretForm, Timestamp};
use url::Url;
use url::form_urlencoded::Serializer;

use super::super::secret::check_secret;
use super::client::{Client, ClientSecret};
use super::error::OAuthError;
use super::question::{Failure, Life};
use super::server::{Form, Http, Status};

/// The code of a grant that is used up, taken back or never was (RFC 6749 §5.2).
const INVALID_GRANT: &str = "invalid_grant";
/// Longest scope that is kept, in bytes.
const SCOPE_BYTES_MAX: usize = 1024;

/// Our client at an authorization server that issues the tokens of accounts.
#[derive(Debug)]
pub(in crate::upstream) struct CodeClient {
    pub(in crate::upstream) http: Http,
    /// For whom assertions are signed.
    pub(in crate::upstream) issuer: String,
    pub(in crate::upstream) id: OAuthClientId,
    pub(in crate::upstream) secret: ClientSecret,
}

/// What tokens are asked for with.
#[derive(Debug)]
pub(in crate::upstream) enum CodeGrant<'g> {
    Code { code: &'g SecretString, verifier: &'g SecretString, redirect_uri: &'g str },
    Refresh { token: &'g SecretString },
}

/// Tokens as they were given.
pub(in crate::upstream) struct Granted {
    pub(in crate::upstream) access: SecretString,
    pub(in crate::upstream) refresh: Option<SecretString>,
    /// Nothing, where the authorization server does not say.
    pub(in crate::upstream) life: Option<Duration>,
    pub(in crate::upstream) scope: Option<String>,
}

/// Why none were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum NotGranted {
    /// The code or the refresh token is not good any more.
    Dead,
    Other(OAuthError),
}

/// A client as it was registered.
pub(in crate::upstream) struct Registration {
    pub(in crate::upstream) id: OAuthClientId,
    pub(in crate::upstream) secret: Option<SecretString>,
    /// How it proves itself, in the words of RFC 7591 §2.
    pub(in crate::upstream) auth_method: String,
    /// When the secret ends, in seconds since 1970; zero for never.
    pub(in crate::upstream) secret_ends_at: i64,
}

#[derive(Deserialize)]
struct Success {
    access_token: SecretString,
    token_type: String,
    refresh_token: Option<SecretString>,
    expires_in: Option<Life>,
    scope: Option<String>,
}

/// RFC 7591 §3.2.1.
#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<SecretString>,
    #[serde(default)]
    client_secret_expires_at: i64,
    token_endpoint_auth_method: Option<String>,
}

impl From<OAuthError> for NotGranted {
    fn from(error: OAuthError) -> Self {
        Self::Other(error)
    }
}

impl CodeClient {
    /// Asks `endpoint` for tokens that are good for `resource`.
    pub(in crate::upstream) async fn ask(
        &self,
        endpoint: &Url,
        grant: CodeGrant<'_>,
        resource: &str,
        now: Timestamp,
    ) -> Result<Granted, NotGranted> {
        let mut pairs = match &grant {
            CodeGrant::Code { code, verifier, redirect_uri } => vec![
                ("grant_type", "authorization_code"),
                ("code", code.expose_secret()),
                ("code_verifier", verifier.expose_secret()),
                ("redirect_uri", redirect_uri),
            ],
            CodeGrant::Refresh { token } => {
                vec![("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())]
            }
        };
        pairs.push(("resource", resource));
        let (status, body) = self.http.post(endpoint, self.form(&pairs, now)?).await?;
        match status {
            Status::Ok => Ok(read(&body)?),
            Status::Failing => Err(OAuthError::Unavailable.into()),
            Status::Refused => {
                let failure: Failure = serde_json::from_slice(&body).map_err(|_| OAuthError::NotUnderstood)?;
                if failure.error == INVALID_GRANT {
                    Err(NotGranted::Dead)
                } else {
                    Err(OAuthError::of_code(&failure.error).0.into())
                }
            }
        }
    }

    /// Takes a refresh token back, and with it what was given for it.
    pub(in crate::upstream) async fn revoke(
        &self,
        endpoint: &Url,
        token: &SecretString,
        now: Timestamp,
    ) -> Result<(), OAuthError> {
        let form = self.form(&[("token", token.expose_secret())], now)?;
        match self.http.post(endpoint, form).await?.0 {
            Status::Ok => Ok(()),
            Status::Failing => Err(OAuthError::Unavailable),
            Status::Refused => Err(OAuthError::RequestRefused),
        }
    }

    /// A form with our client's proof in it.
    fn form(&self, pairs: &[(&str, &str)], now: Timestamp) -> Result<Form, OAuthError> {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(pairs);
        let client = Client { id: &self.id, secret: &self.secret };
        let authorization = client.prove(&mut form, &self.issuer, now)?;
        Ok(Form { body: SecretString::from(form.finish()), authorization })
    }
}

/// Registers a client.
pub(in crate::upstream) async fn register(
    http: &Http,
    endpoint: &Url,
    client: &Value,
) -> Result<Registration, OAuthError> {
    let (status, body) = http.post_json(endpoint, client.to_string()).await?;
    match status {
        Status::Ok => {}
        Status::Failing => return Err(OAuthError::Unavailable),
        Status::Refused => return Err(OAuthError::RegistrationRefused),
    }
    let registered: Registered = serde_json::from_slice(&body).map_err(|_| OAuthError::NotUnderstood)?;
    let secret = registered.client_secret;
    let fits = secret.as_ref().is_none_or(|secret| check_secret(SecretForm::ClientSecret, secret).is_ok());
    // Left out, it is the first way that there is (RFC 7591 §2).
    let unsaid = if secret.is_some() { "client_secret_basic" } else { "none" };
    let auth_method = registered.token_endpoint_auth_method.unwrap_or_else(|| unsaid.to_owned());
    let is_known = match auth_method.as_str() {
        "none" => true,
        "client_secret_basic" | "client_secret_post" => secret.is_some(),
        _ => false,
    };
    let id = registered.client_id.parse().map_err(|_| OAuthError::NotUnderstood)?;
    if !fits || !is_known {
        return Err(OAuthError::NotUnderstood);
    }
    Ok(Registration { id, secret, auth_method, secret_ends_at: registered.client_secret_expires_at })
}

/// Tokens that can be shown, or an error.
fn read(body: &[u8]) -> Result<Granted, OAuthError> {
    let success: Success = serde_json::from_slice(body).map_err(|_| OAuthError::NotUnderstood)?;
    let fits = |token: &SecretString| check_secret(SecretForm::BearerToken, token).is_ok();
    let is_bearer = success.token_type.eq_ignore_ascii_case("bearer");
    if !is_bearer || !fits(&success.access_token) || !success.refresh_token.as_ref().is_none_or(fits) {
        return Err(OAuthError::NotUnderstood);
    }
    let life = match success.expires_in {
        None => None,
        Some(life) => Some(life.duration().ok_or(OAuthError::NotUnderstood)?),
    };
    let scope = success.scope.filter(|scope| scope.len() <= SCOPE_BYTES_MAX && !scope.chars().any(char::is_control));
    Ok(Granted { access: success.access_token, refresh: success.refresh_token, life, scope })
}
