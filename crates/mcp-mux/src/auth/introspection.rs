//! Asking a provider whether a token is good (RFC 7662). Who cannot be asked is not believed.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use secrecy::SecretString;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tenant_store::{Clock, Timestamp};
use tokio::sync::Semaphore;
use url::Url;

use super::claims::Claims;
use super::discovery::Discovery;
use super::error::{AuthError, Refusal};
use super::fetch::{self, FETCH_TIMEOUT, FetchError};
use crate::config::{ConfigError, IntrospectionConfig};
use crate::egress::Client;

/// For how long an active token is believed without asking again.
pub(super) const ACTIVE_LIFE: Duration = Duration::from_secs(30);

/// For how long a token that is not active is refused without asking again.
const INACTIVE_LIFE: Duration = Duration::from_secs(10);
/// The life of a token whose provider does not say when it ends.
const UNSAID_LIFE: Duration = Duration::from_hours(1);
/// Most refused tokens that are remembered.
const INACTIVE_MAX: u64 = 10_000;
/// Most questions to one provider at a time.
const QUESTIONS_MAX: usize = 32;
/// How long a question waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// One provider's introspection endpoint.
#[derive(Debug)]
pub(super) struct Introspection {
    issuer: String,
    configured: Option<Url>,
    discovery: Discovery,
    client_id: String,
    secret: SecretString,
    http: Client,
    inactive: Cache<[u8; 32], ()>,
    turns: Semaphore,
}

impl Introspection {
    pub(super) fn new(
        issuer: &str,
        settings: &IntrospectionConfig,
        http: Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            issuer: issuer.to_owned(),
            configured: settings.url.clone(),
            discovery: Discovery::new(issuer, http.clone(), clock),
            client_id: settings.client_id.clone(),
            secret: settings.secret()?,
            http,
            inactive: Cache::builder().max_capacity(INACTIVE_MAX).time_to_live(INACTIVE_LIFE).build(),
            turns: Semaphore::new(QUESTIONS_MAX),
        })
    }

    /// What the provider says about a token that is active.
    pub(super) async fn ask(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if self.inactive.contains_key(&hash) {
            return Err(Refusal::Inactive.into());
        }
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(AuthError::ProviderUnavailable)?;
        let answer = self.answer(token).await?;
        if answer.get("active") != Some(&Value::Bool(true)) {
            self.inactive.insert(hash, ()).await;
            return Err(Refusal::Inactive.into());
        }
        Ok(Claims::parse(self.as_claims(answer, now))?)
    }

    async fn answer(&self, token: &str) -> Result<Map<String, Value>, AuthError> {
        let answer = async {
            let form = [("token", token), ("token_type_hint", "access_token")];
            let client = (self.client_id.as_str(), &self.secret);
            let body = fetch::post_form(&self.http, &self.place().await?, client, &form).await?;
            serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)
        };
        match tokio::time::timeout(FETCH_TIMEOUT, answer).await.unwrap_or(Err(FetchError::Late)) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.discovery.doubt().await;
                Err(unavailable(&self.issuer, &error))
            }
        }
    }

    /// Where to ask.
    async fn place(&self) -> Result<Url, FetchError> {
        let missing = FetchError::Discovery("it names no introspection endpoint");
        match &self.configured {
            Some(url) => Ok(url.clone()),
            None => self.discovery.endpoints().await?.introspection.ok_or(missing),
        }
    }

    /// The answer as claims. The provider that was asked is the issuer unless it says otherwise; a token without an end is asked
    /// about again and again, so any end will do. One without a user is its client's own (RFC 9068 §2.2).
    fn as_claims(&self, mut answer: Map<String, Value>, now: Timestamp) -> Map<String, Value> {
        answer.entry("iss").or_insert_with(|| Value::String(self.issuer.clone()));
        if let Some(client) = answer.get("client_id").cloned() {
            answer.entry("sub").or_insert(client);
        }
        answer.entry("exp").or_insert_with(|| Value::from(now.plus(UNSAID_LIFE).as_millis() / 1_000));
        answer
    }
}

fn unavailable(issuer: &str, error: &FetchError) -> AuthError {
    tracing::warn!(%issuer, error = error as &dyn std::error::Error, "a token's issuer could not be asked about it");
    AuthError::ProviderUnavailable
}
