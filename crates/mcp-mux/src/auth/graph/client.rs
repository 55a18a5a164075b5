//! Asking Microsoft Graph as ourselves. Its address comes from the configuration, and it leads nowhere else.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tenant_store::{Clock, Timestamp};
use tokio::sync::Mutex;
use url::Url;

use crate::auth::fetch::{self, FetchError};
use crate::config::{ConfigError, GraphConfig};
use crate::egress::Client;

/// For how long nobody asks for our own token after that failed: all who wait for it would otherwise fail one after the other.
const FAILED_LIFE: Duration = Duration::from_secs(5);
/// What is left of a token's life when the next one is fetched.
const TOKEN_MARGIN: Duration = Duration::from_mins(2);
/// Most pages of one list.
const PAGES_MAX: usize = 1_000;

/// Asks as ourselves.
pub(super) struct GraphClient {
    url: Url,
    token_url: Url,
    client_id: String,
    secret: SecretString,
    scope: String,
    http: Client,
    clock: Arc<dyn Clock>,
    /// Held while it is fetched, so that however many need it, one fetches.
    token: Mutex<OwnToken>,
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

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    value: Vec<T>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<Url>,
}

impl GraphClient {
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
        })
    }

    /// Posts a question to a place below the address, which these segments lead to.
    pub(super) async fn post(&self, place: &[&str], body: String) -> Result<Vec<u8>, FetchError> {
        let token = self.token().await?;
        let answer = fetch::post_json_as(&self.http, &self.at(place)?, &token, body).await;
        self.judged(answer).await
    }

    /// A document below the address.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        place: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, FetchError> {
        let mut url = self.at(place)?;
        url.query_pairs_mut().extend_pairs(query);
        self.read(&url).await
    }

    /// A list below the address, page after page, up to `count_max` elements. A part of a list is never taken for the whole.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        place: &[&str],
        query: &[(&str, &str)],
        count_max: usize,
    ) -> Result<Vec<T>, FetchError> {
        let mut all = Vec::new();
        let mut page: Page<T> = self.get(place, query).await?;
        for _ in 0..PAGES_MAX {
            all.append(&mut page.value);
            if all.len() > count_max {
                return Err(FetchError::TooLarge);
            }
            let Some(next) = page.next else { return Ok(all) };
            // Our token goes where the configuration says and nowhere else.
            if next.origin() != self.url.origin() {
                return Err(FetchError::NotUnderstood);
            }
            page = self.read(&next).await?;
        }
        Err(FetchError::TooLarge)
    }

    fn at(&self, place: &[&str]) -> Result<Url, FetchError> {
        let mut url = self.url.clone();
        let mut path = url.path_segments_mut().map_err(|()| FetchError::NotUnderstood)?;
        path.pop_if_empty().extend(place);
        drop(path);
        Ok(url)
    }

    async fn read<T: DeserializeOwned>(&self, url: &Url) -> Result<T, FetchError> {
        let token = self.token().await?;
        let body = self.judged(fetch::get_as(&self.http, url, &token).await).await?;
        serde_json::from_slice(&body).map_err(|_| FetchError::NotUnderstood)
    }

    /// What a token may do was fixed when it was made: once somebody consents to more, only a new one has it.
    async fn judged(&self, answer: Result<Vec<u8>, FetchError>) -> Result<Vec<u8>, FetchError> {
        if let Err(FetchError::Status(401 | 403)) = answer {
            *self.token.lock().await = OwnToken::None;
        }
        answer
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
