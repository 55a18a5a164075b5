//! The groups that Entra ID leaves out of a token because they are too many, asked of Microsoft Graph (`getMemberObjects`) with
//! our own credentials. Its address comes from the configuration; the one that a token names is never looked at.

mod client;
mod pull;

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use serde::Deserialize;
use tenant_store::{Clock, Group};
use uuid::Uuid;

use self::client::GraphClient;
pub use self::pull::{GraphDirectory, NamedGroups, PullError};
use super::claims::group;
use super::error::AuthError;
use super::fetch::FetchError;
use super::weight;
use crate::config::{ConfigError, GraphConfig};
use crate::egress::Client;

/// For how long somebody's groups are believed without asking again.
const GROUPS_LIFE: Duration = Duration::from_mins(5);
/// Most of what is remembered: each person counts as one and its groups.
const WEIGHT_MAX: u64 = 2_000_000;
/// Most groups of one person; Graph returns at most 11,000.
const GROUPS_MAX: usize = 11_000;

/// Nobody's object id.
const NOBODY: Uuid = Uuid::from_u128(0x6d63_702d_6d75_4000_8000_646f_6374_6f72);

/// Asks for people's groups.
pub(super) struct Graph {
    client: Arc<GraphClient>,
    groups: Cache<Uuid, Arc<[Group]>>,
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
            client: Arc::new(GraphClient::new(config, http, clock)?),
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
        let place = ["users", &person.to_string(), "getMemberObjects"];
        let body = self.client.post(&place, r#"{"securityEnabledOnly":false}"#.to_owned()).await?;
        let answer: GroupsAnswer = serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)?;
        // A part of the groups is not the groups: a deny could be in the rest.
        if answer.next.is_some() || answer.value.len() > GROUPS_MAX {
            return Err(FetchError::TooLarge);
        }
        let groups = answer.value.iter().map(|text| group(text));
        groups.collect::<Result<Vec<_>, _>>().map_err(|_| FetchError::NotUnderstood)
    }
}
