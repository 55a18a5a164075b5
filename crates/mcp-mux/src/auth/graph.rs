//! The groups that Entra ID leaves out of a token because they are too many, asked of Microsoft Graph (`getMemberObjects`) with
//! our own credentials. Its address comes from the configuration; the one that a token names is never looked at.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use secrecy::SecretString;
use serde::Deserialize;
use tenant_store::{Clock, Group, Timestamp};
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use super::claims::group;
use super::error::AuthError;
use super::fetch::{self, FetchError};
use super::weight;
use crate::config::{ConfigError, GraphConfig};

/// For how long somebody's groups are believed without asking again.
const GROUPS_LIFE: Duration = Duration::from_mins(5);
/// Most of what is remembered: each person counts as one and its groups.
const WEIGHT_MAX: u64 = 2_000_000;
/// Most groups of one person; Graph returns at most 11,000.
const GROUPS_MAX: usize = 11_000;
/// What is left of a token's life when the next one is fetched.
const TOKEN_MARGIN: Duration = Duration::from_mins(2);

/// Asks for people's groups.
pub(super) struct Graph {
    url: Url,
    token_url: Url,
    client_id: String,
    secret: SecretString,
    scope: String,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    token: Mutex<Option<GraphToken>>,
    groups: Cache<Uuid, Arc<[Group]>>,
}

struct GraphToken {
    text: SecretString,
    until: Timestamp,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    expires_in: u64,
}

#[derive(Deserialize)]
struct GroupsAnswer {
    value: Vec<String>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

impl Graph {
    pub(super) fn new(config: &GraphConfig, http: reqwest::Client, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Ok(Self {
            scope: format!("{}/.default", config.url.origin().ascii_serialization()),
            url: config.url.clone(),
            token_url: config.token_url()?,
            client_id: config.client_id.clone(),
            secret: config.secret()?,
            http,
            clock,
            token: Mutex::new(None),
            groups: Cache::builder()
                .max_capacity(WEIGHT_MAX)
                .weigher(|_, groups: &Arc<[Group]>| weight(groups))
                .time_to_live(GROUPS_LIFE)
                .build(),
        })
    }

    /// All groups of a person, also those that come through other groups. However many ask at once, Graph is asked once.
    pub(super) async fn groups_of(&self, person: Uuid) -> Result<Vec<Group>, AuthError> {
        let asked = self.groups.try_get_with(person, self.ask(person)).await;
        asked.map(|groups| groups.to_vec()).map_err(|error| error.as_ref().clone())
    }

    /// Whether we are let in there at all.
    pub(super) async fn can_sign_in(&self) -> Result<(), FetchError> {
        self.token().await.map(drop)
    }

    async fn ask(&self, person: Uuid) -> Result<Arc<[Group]>, AuthError> {
        let answer = async {
            let token = self.token().await?;
            let mut url = self.url.clone();
            let mut path = url.path_segments_mut().map_err(|()| FetchError::NotUnderstood)?;
            path.pop_if_empty().extend(["users", &person.to_string(), "getMemberObjects"]);
            drop(path);
            let body = r#"{"securityEnabledOnly":false}"#.to_owned();
            let body = fetch::post_json_as(&self.http, &url, &token, body).await?;
            let answer: GroupsAnswer = serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)?;
            // A part of the groups is not the groups: a deny could be in the rest.
            if answer.next.is_some() || answer.value.len() > GROUPS_MAX {
                return Err(FetchError::TooLarge);
            }
            let groups = answer.value.iter().map(|text| group(text));
            groups.collect::<Result<Vec<_>, _>>().map_err(|_| FetchError::NotUnderstood)
        };
        match answer.await {
            Ok(groups) => Ok(groups.into()),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Microsoft Graph did not say somebody's groups"
                );
                Err(AuthError::ProviderUnavailable)
            }
        }
    }

    /// Our own token for Graph (client credentials, RFC 6749 §4.4).
    async fn token(&self) -> Result<SecretString, FetchError> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| self.clock.now() < token.until) {
            return Ok(token.text.clone());
        }
        let form = [("grant_type", "client_credentials"), ("scope", self.scope.as_str())];
        let client = (self.client_id.as_str(), &self.secret);
        let body = fetch::post_form(&self.http, &self.token_url, client, &form).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)?;
        let life = Duration::from_secs(answer.expires_in).saturating_sub(TOKEN_MARGIN);
        let text = answer.access_token;
        *held = Some(GraphToken { text: text.clone(), until: self.clock.now().plus(life) });
        Ok(text)
    }
}
