//! One request for an access token (RFC 6749 §4.4.2, RFC 8693 §2.1), and the answer to it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tenant_store::{Clock, RequestedType, SecretForm, TenantId, TokenRequest, UpstreamId};
use tokio::time::Instant;
use url::form_urlencoded::Serializer;

use super::super::secret::check_secret;
use super::client::{Client, ClientSecret};
use super::error::OAuthError;
use super::server::{Form, Server, Status};
use crate::audit::{Used, Using};
use crate::caller::{Principal, RequestId};

/// The life of a token whose authorization server does not say how long it lives.
const LIFE_UNSAID: Duration = Duration::from_mins(5);
/// The shortest and the longest life that is believed.
const LIFE_MIN: Duration = Duration::from_secs(1);
const LIFE_MAX: Duration = Duration::from_hours(24);

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// One request for an access token, with all that it takes. It can be asked in the background, after its caller has gone.
pub(in crate::upstream) struct Question {
    pub(in crate::upstream) server: Arc<Server>,
    pub(in crate::upstream) request: TokenRequest,
    pub(in crate::upstream) secret: ClientSecret,
    pub(in crate::upstream) grant: AuthorizationGrant,
    pub(in crate::upstream) occasion: Occasion,
    pub(in crate::upstream) clock: Arc<dyn Clock>,
}

/// What the token is given for.
#[derive(Debug)]
pub(in crate::upstream) enum AuthorizationGrant {
    /// That we are who we are.
    ClientCredentials,
    /// That somebody called us with this token.
    TokenExchange { subject: Arc<SecretString>, requested: RequestedType },
}

/// Who needs the token, for the log, and what it is asked for with, for the record.
#[derive(Debug)]
pub(in crate::upstream) struct Occasion {
    pub(in crate::upstream) tenant: TenantId,
    pub(in crate::upstream) upstream: UpstreamId,
    pub(in crate::upstream) caller: Option<(Principal, RequestId)>,
    /// Counted as this, once it is asked.
    pub(in crate::upstream) using: Using,
    pub(in crate::upstream) used: Arc<Used>,
}

/// A token as it was given.
pub(super) struct Given {
    pub(super) secret: SecretString,
    /// When it was asked for: its life counts from there.
    pub(super) at: Instant,
    pub(super) life: Duration,
}

/// RFC 6749 §5.1, RFC 8693 §2.2.1. Whatever else is in it stays unread.
#[derive(Deserialize)]
struct Success {
    access_token: SecretString,
    token_type: String,
    expires_in: Option<Life>,
    issued_token_type: Option<String>,
}

/// Seconds; some write them as a text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Life {
    Number(f64),
    Text(String),
}

impl Life {
    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Self::Number(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).ok(),
            Self::Text(text) => text.parse().ok().map(Duration::from_secs),
        }
    }
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error: String,
}

impl Question {
    /// Asks, and writes into the log that it was asked and what came of it.
    pub(super) async fn ask(&self) -> Result<Given, OAuthError> {
        let Occasion { using, used, .. } = &self.occasion;
        using.shown().note(used);
        let answer = self.exchange().await;
        if answer.is_ok() {
            using.went_well();
        }
        let answer =
            if self.is_exchange() { answer.map_err(|(error, code)| (error.of_exchange(), code)) } else { answer };
        self.log(answer.as_ref().map(drop).map_err(|error| *error));
        answer.map_err(|(error, _)| error)
    }

    fn is_exchange(&self) -> bool {
        matches!(self.grant, AuthorizationGrant::TokenExchange { .. })
    }

    async fn exchange(&self) -> Result<Given, (OAuthError, &'static str)> {
        let plain = |error| (error, "none");
        let (url, audience) = self.server.endpoint().await.map_err(plain)?;
        let form = self.form(&audience).ok_or(plain(OAuthError::NotWritten))?;
        let at = Instant::now();
        let (status, body) = self.server.post(url, form).await.map_err(plain)?;
        match status {
            Status::Ok => read(&body, at).and_then(|given| self.unlike_the_callers(given)).map_err(plain),
            Status::Failing => Err(plain(OAuthError::Unavailable)),
            Status::Refused => {
                let failure: Failure = serde_json::from_slice(&body).map_err(|_| plain(OAuthError::NotUnderstood))?;
                Err(OAuthError::of_code(&failure.error))
            }
        }
    }

    /// A caller's own token is shown to no upstream, also where an authorization server gives it back.
    fn unlike_the_callers(&self, given: Given) -> Result<Given, OAuthError> {
        let AuthorizationGrant::TokenExchange { subject, .. } = &self.grant else { return Ok(given) };
        if given.secret.expose_secret() == subject.expose_secret() { Err(OAuthError::Echoed) } else { Ok(given) }
    }

    fn form(&self, audience: &str) -> Option<Form> {
        let TokenRequest { client_id, scope, resource, audience: wanted, .. } = &self.request;
        let mut form = Serializer::new(String::new());
        match &self.grant {
            AuthorizationGrant::ClientCredentials => {
                form.append_pair("grant_type", "client_credentials");
            }
            AuthorizationGrant::TokenExchange { subject, requested } => {
                let requested = match requested {
                    RequestedType::AccessToken => ACCESS_TOKEN,
                    RequestedType::Jwt => JWT,
                };
                form.append_pair("grant_type", EXCHANGE)
                    .append_pair("subject_token", subject.expose_secret())
                    .append_pair("subject_token_type", ACCESS_TOKEN)
                    .append_pair("requested_token_type", requested);
            }
        }
        let target = [("scope", scope.as_ref().map(AsRef::as_ref)), ("resource", resource.as_ref().map(AsRef::as_ref))];
        for (name, value) in target.into_iter().chain([("audience", wanted.as_ref().map(AsRef::as_ref))]) {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let client = Client { id: client_id, secret: &self.secret };
        let authorization = client.prove(&mut form, audience, self.clock.now()).ok()?;
        Some(Form { body: SecretString::from(form.finish()), authorization })
    }

    /// Who asked for what, and never a token or a word of the authorization server.
    fn log(&self, answer: Result<(), (OAuthError, &'static str)>) {
        let Occasion { tenant, upstream, caller, .. } = &self.occasion;
        let caller = caller.as_ref().filter(|_| self.is_exchange());
        let issuer = caller.map(|(principal, _)| tracing::field::display(&principal.issuer));
        let subject = caller.map(|(principal, _)| tracing::field::display(&principal.subject));
        let request = caller.map(|(_, request)| tracing::field::display(request));
        match answer {
            Ok(()) if self.is_exchange() => tracing::info!(
                request.id = request, principal.issuer = issuer, principal.id = subject, tenant.id = %tenant, upstream.id = %upstream,
                "a caller's access token was exchanged for one of the upstream's"
            ),
            Ok(()) => {
                tracing::info!(tenant.id = %tenant, upstream.id = %upstream, "got an access token for an upstream");
            }
            Err((error, code)) => tracing::warn!(
                request.id = request, principal.issuer = issuer, principal.id = subject, tenant.id = %tenant, upstream.id = %upstream,
                code, error = &error as &dyn std::error::Error, "an authorization server gave no access token"
            ),
        }
    }
}

/// A token that can be shown as `Bearer`, or an error.
fn read(body: &[u8], at: Instant) -> Result<Given, OAuthError> {
    let success: Success = serde_json::from_slice(body).map_err(|_| OAuthError::NotUnderstood)?;
    let is_access_token = success.issued_token_type.is_none_or(|kind| kind == ACCESS_TOKEN || kind == JWT);
    let is_bearer = success.token_type.eq_ignore_ascii_case("bearer");
    check_secret(SecretForm::BearerToken, &success.access_token).map_err(|_| OAuthError::NotUnderstood)?;
    let life = success.expires_in.as_ref().map_or(Some(LIFE_UNSAID), Life::duration);
    let life = life.ok_or(OAuthError::NotUnderstood)?.clamp(LIFE_MIN, LIFE_MAX);
    if is_access_token && is_bearer {
        Ok(Given { secret: success.access_token, at, life })
    } else {
        Err(OAuthError::NotUnderstood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(text: &str) -> Result<Duration, OAuthError> {
        read(text.as_bytes(), Instant::now()).map(|given| given.life)
    }

    #[test]
    fn an_answer_is_a_bearer_token_with_a_life_or_nothing() {
        let token = |more: &str| format!(r#"{{"access_token":"CANARY-t","token_type":"bearer"{more}}}"#);
        for (more, seconds) in [
            ("", 300),
            (r#","expires_in":60"#, 60),
            (r#","expires_in":"60""#, 60),
            (r#","expires_in":0"#, 1),
            (r#","expires_in":-5"#, 1),
            (r#","expires_in":1e9"#, 86_400),
            (r#","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","scope":"x","id_token":7"#, 300),
        ] {
            assert_eq!(life(&token(more)), Ok(Duration::from_secs(seconds)), "{more}");
        }
        for text in [
            String::new(),
            "[]".to_owned(),
            "<html>".to_owned(),
            r#"{"access_token":"CANARY-t"}"#.to_owned(),
            r#"{"token_type":"Bearer"}"#.to_owned(),
            r#"{"access_token":"","token_type":"Bearer"}"#.to_owned(),
            r#"{"access_token":"CANARY-t","token_type":"N_A"}"#.to_owned(),
            r#"{"access_token":"CANARY-t","token_type":"DPoP"}"#.to_owned(),
            r#"{"access_token":"a\r\nX-Evil: CANARY-1","token_type":"Bearer"}"#.to_owned(),
            r#"{"access_token":["CANARY-t"],"token_type":"Bearer"}"#.to_owned(),
            token(r#","expires_in":"soon""#),
            token(r#","expires_in":1e300"#),
            token(r#","issued_token_type":"urn:ietf:params:oauth:token-type:refresh_token""#),
            token(r#","issued_token_type":"urn:ietf:params:oauth:token-type:id_token""#),
        ] {
            assert_eq!(life(&text), Err(OAuthError::NotUnderstood), "{text}");
        }
    }
}
