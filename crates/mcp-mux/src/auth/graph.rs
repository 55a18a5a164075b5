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
use crate::egress::Client;

/// For how long somebody's groups are believed without asking again.
const GROUPS_LIFE: Duration = Duration::from_mins(5);
/// Most of what is remembered: each person counts as one and its groups.
const WEIGHT_MAX: u64 = 2_000_000;
/// Most groups of one person; Graph returns at most 11,000.
const GROUPS_MAX: usize = 11_000;
/// For how long nobody asks for our own token after that failed: all who wait for it would otherwise fail one after the other.
const FAILED_LIFE: Duration = Duration::from_secs(5);
/// What is left of a token's life when the next one is fetched.
const TOKEN_MARGIN: Duration = Duration::from_mins(2);

/// Nobody's object id.
const NOBODY: Uuid = Uuid::from_u128(0x6d63_702d_6d75_4000_8000_646f_6374_6f72);

/// Asks for people's groups.
pub(super) struct Graph {
    url: Url,
    token_url: Url,
    client_id: String,
    secret: SecretString,
    scope: String,
    http: Client,
    clock: Arc<dyn Clock>,
    /// Held while it is fetched, so that however many need it, one fetches.
    token: Mutex<OwnToken>,
    groups: Cache<Uuid, Arc<[Group]>>,
}

/// Our own token for Graph.
enum OwnToken {
    None,
    Held { text: SecretString, until: Timestamp },
    Failed { until: Timestamp },
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
    pub(super) fn new(config: &GraphConfig, http: Client, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Ok(Self {
            scope: format!("{}/.default", config.url.origin().ascii_serialization()),
            url: config.url.clone(),
            token_url: config.token_url()?,
            client_id: config.client_id.clone(),
            secret: config.secret()?,
            http,
            clock,
            token: Mutex::new(OwnToken::None),
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

    /// Whether we may ask there for somebody's groups: an invented person has none, and is not found.
    pub(super) async fn may_ask(&self) -> Result<(), FetchError> {
        match self.answer(NOBODY).await {
            Ok(_) | Err(FetchError::Status(404)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, person: Uuid) -> Result<Arc<[Group]>, AuthError> {
        match self.answer(person).await {
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

    async fn answer(&self, person: Uuid) -> Result<Vec<Group>, FetchError> {
        let token = self.token().await?;
        let mut url = self.url.clone();
        let mut path = url.path_segments_mut().map_err(|()| FetchError::NotUnderstood)?;
        path.pop_if_empty().extend(["users", &person.to_string(), "getMemberObjects"]);
        drop(path);
        let body = r#"{"securityEnabledOnly":false}"#.to_owned();
        let body = fetch::post_json_as(&self.http, &url, &token, body).await;
        if let Err(FetchError::Status(401 | 403)) = body {
            // What it may do was fixed when it was made: once somebody consents to more, only a new one has it.
            *self.token.lock().await = OwnToken::None;
        }
        let answer: GroupsAnswer = serde_json::from_slice(&body?).map_err(|_| FetchError::NotUnderstood)?;
        // A part of the groups is not the groups: a deny could be in the rest.
        if answer.next.is_some() || answer.value.len() > GROUPS_MAX {
            return Err(FetchError::TooLarge);
        }
        let groups = answer.value.iter().map(|text| group(text));
        groups.collect::<Result<Vec<_>, _>>().map_err(|_| FetchError::NotUnderstood)
    }

    /// Our own token for Graph (client credentials, RFC 6749 §4.4).
    async fn token(&self) -> Result<SecretString, FetchError> {
        let mut own = self.token.lock().await;
        let now = self.clock.now();
        match &*own {
            OwnToken::Held { text, until } if now < *until => return Ok(text.clone()),
            OwnToken::Failed { until } if now < *until => return Err(FetchError::FailedBefore),
            _ => {}
        }
        let fetched = self.fetch_token().await;
        let now = self.clock.now();
        *own = match &fetched {
            Ok((text, life)) => OwnToken::Held { text: text.clone(), until: now.plus(*life) },
            Err(_) => OwnToken::Failed { until: now.plus(FAILED_LIFE) },
        };
        fetched.map(|(text, _)| text)
    }

    async fn fetch_token(&self) -> Result<(SecretString, Duration), FetchError> {
        let form = [("grant_type", "client_credentials"), ("scope", self.scope.as_str())];
        let client = (self.client_id.as_str(), &self.secret);
        let body = fetch::post_form(&self.http, &self.token_url, client, &form).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)?;
        Ok((answer.access_token, Duration::from_secs(answer.expires_in).saturating_sub(TOKEN_MARGIN)))
    }
}
