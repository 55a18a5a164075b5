//! Being signed in to Vault: a token that is got, renewed in time, and got anew when it is not taken any more.

use std::time::Duration;

use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tenant_store::KekError;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Api, Call};
use crate::config::{SecretSource, VaultLogin};

/// How long to wait after a renewal that failed.
const RENEW_RETRY: Duration = Duration::from_secs(5);
/// Longest life of a token that is believed.
const LIFE_MAX: Duration = Duration::from_hours(24 * 32);
/// How often a token that Vault does not take is replaced before its time: what it denies may be denied to any token of ours.
const REPLACED_EVERY: Duration = Duration::from_mins(1);
/// How long to wait where a token never ends.
const ENDLESS: Duration = Duration::from_hours(24);

/// A way to sign in, and the token that came of it.
#[derive(Debug)]
pub(super) struct Session {
    login: VaultLogin,
    held: Mutex<Option<Held>>,
    /// When a token was last replaced because it was not taken.
    replaced: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Held {
    token: SecretString,
    renewable: bool,
    /// When it should be renewed.
    renew_at: Instant,
    ends_at: Option<Instant>,
}

impl Session {
    pub(super) fn new(login: VaultLogin) -> Self {
        Self { login, held: Mutex::new(None), replaced: Mutex::new(None) }
    }

    /// The token of this moment. However many need one, one signs in.
    pub(super) async fn token(&self, api: &Api) -> Result<SecretString, KekError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.ends_at.is_none_or(|end| Instant::now() < end)) {
            return Ok(held.token.clone());
        }
        let new = self.sign_in(api).await?;
        let token = new.token.clone();
        *held = Some(new);
        Ok(token)
    }

    /// Another token than `old`, which was not taken.
    pub(super) async fn another(&self, api: &Api, old: &SecretString) -> Result<SecretString, KekError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.token.expose_secret() != old.expose_secret()) {
            return Ok(held.token.clone());
        }
        let mut replaced = self.replaced.lock().await;
        if replaced.is_some_and(|at| at.elapsed() < REPLACED_EVERY) {
            return Err(KekError::Denied);
        }
        *replaced = Some(Instant::now());
        *held = None;
        let new = self.sign_in(api).await?;
        let token = new.token.clone();
        *held = Some(new);
        Ok(token)
    }

    pub(super) async fn keep_alive(&self, api: &Api) {
        loop {
            if let Err(error) = self.token(api).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot sign in to Vault");
                sleep(RENEW_RETRY).await;
                continue;
            }
            let due = self.held.lock().await.as_ref().map_or_else(Instant::now, |held| held.renew_at);
            sleep_until(due).await;
            self.renew(api).await;
        }
    }

    /// Renews the token, or signs in anew where that is not possible.
    async fn renew(&self, api: &Api) {
        let mut held = self.held.lock().await;
        let Some(old) = held.clone() else { return };
        let renewed = if old.renewable {
            let call = Call { method: Method::POST, path: "auth/token/renew-self", body: Some(json!({})) };
            let answer = api.send(Some(&old.token), &call).await;
            answer.and_then(|answer| from_auth(&answer).ok_or(KekError::Malformed))
        } else {
            self.sign_in(api).await
        };
        let renewed = match renewed {
            Err(KekError::Refused | KekError::Denied) => self.sign_in(api).await,
            renewed => renewed,
        };
        match renewed {
            Ok(new) => *held = Some(new),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the token for Vault could not be renewed");
                *held = Some(Held { renew_at: Instant::now() + RENEW_RETRY, ..old });
            }
        }
    }

    async fn sign_in(&self, api: &Api) -> Result<Held, KekError> {
        let read = |source: &SecretSource| {
            source.read().map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "what signs in to Vault cannot be read");
                // It may be replaced at this very moment.
                KekError::Unreachable
            })
        };
        let (path, body) = match &self.login {
            VaultLogin::Token(token) => return look_up(api, read(token)?).await,
            VaultLogin::AppRole { mount, role_id, secret_id } => {
                let secret_id = read(secret_id)?;
                let body = json!({ "role_id": role_id, "secret_id": secret_id.expose_secret() });
                (format!("auth/{mount}/login"), body)
            }
            VaultLogin::Kubernetes { mount, role, token } => {
                let jwt = read(token)?;
                (format!("auth/{mount}/login"), json!({ "role": role, "jwt": jwt.expose_secret() }))
            }
        };
        let answer = api.send(None, &Call { method: Method::POST, path: &path, body: Some(body) }).await?;
        from_auth(&answer).ok_or(KekError::Malformed)
    }
}

/// How long a token that we were given is good for.
async fn look_up(api: &Api, token: SecretString) -> Result<Held, KekError> {
    let call = Call { method: Method::GET, path: "auth/token/lookup-self", body: None };
    let answer = api.send(Some(&token), &call).await?;
    let data = answer.get("data").ok_or(KekError::Malformed)?;
    Ok(held(token, data.get("ttl"), data.get("renewable")))
}

/// The token in an answer to a sign-in or a renewal.
fn from_auth(answer: &Value) -> Option<Held> {
    let auth = answer.get("auth")?;
    let token = SecretString::from(auth.get("client_token")?.as_str()?);
    Some(held(token, auth.get("lease_duration"), auth.get("renewable")))
}

/// A life of no seconds means that there is no end.
fn held(token: SecretString, life_s: Option<&Value>, renewable: Option<&Value>) -> Held {
    let life =
        life_s.and_then(Value::as_u64).filter(|life| *life > 0).map(|life| Duration::from_secs(life).min(LIFE_MAX));
    let now = Instant::now();
    Held {
        token,
        renewable: renewable.and_then(Value::as_bool).unwrap_or(false),
        renew_at: now + life.map_or(ENDLESS, |life| life * 2 / 3),
        ends_at: life.map(|life| now + life),
    }
}
