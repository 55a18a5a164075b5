//! The user's own Open WebUI session, which Open WebUI is asked about. It gives us full power over the user's account there, so it
//! is shown to nobody but the configured front, and what is remembered of it is a hash.
//!
//! Who shows a session has not proved anything yet, so what that may cost Open WebUI is bounded: one question at a time about a
//! session, a bounded number about all, and none about a session that was refused a moment ago.

use std::time::Duration;

use moka::future::Cache;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tenant_store::{Group, IssuerName, Timestamp};
use tokio::sync::Semaphore;
use url::Url;

use super::super::claims::{GROUPS_MAX, group};
use super::super::error::{AuthError, Refusal};
use super::super::fetch::{self, FetchError};
use super::{FrontUser, Identity, is_pending};
use crate::egress::Client;

/// For how long a session that was refused is refused without asking again.
const REFUSED_LIFE: Duration = Duration::from_secs(10);
/// Most refused sessions that are remembered.
const REFUSED_MAX: u64 = 10_000;
/// Most sessions that are asked about at a time.
const QUESTIONS_MAX: usize = 32;
/// How long a question waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// One front that is asked.
#[derive(Debug)]
pub(in crate::auth) struct Session {
    name: IssuerName,
    user_url: String,
    groups_url: String,
    http: Client,
    /// The sessions that are asked about now, and those that were refused, by their hash. Who was let in is not kept here.
    answers: Cache<[u8; 32], Result<Identity, Refusal>>,
    turns: Semaphore,
}

#[derive(Deserialize)]
struct User {
    id: String,
    email: Option<String>,
    role: String,
}

/// One group as Open WebUI lists it. An administrator is shown all groups, so what counts there is the list of members.
#[derive(Deserialize)]
struct ListedGroup {
    id: String,
    user_ids: Option<Vec<String>>,
}

/// What a session says of itself, which only its front can verify.
#[derive(Clone, Copy)]
struct Shown<'t> {
    token: &'t str,
    user: &'t str,
    expires_at: Timestamp,
}

impl Session {
    pub(super) fn new(name: IssuerName, url: &Url, http: Client) -> Self {
        let base = url.as_str().trim_end_matches('/');
        let (user_url, groups_url) = (format!("{base}/api/v1/auths/"), format!("{base}/api/v1/groups/"));
        let answers = Cache::builder().max_capacity(REFUSED_MAX).time_to_live(REFUSED_LIFE).build();
        Self { name, user_url, groups_url, http, answers, turns: Semaphore::new(QUESTIONS_MAX) }
    }

    /// Whose session `token` is, and which groups that user is in. `user` and `expires_at` are what the token says of itself.
    pub(in crate::auth) async fn identity(
        &self,
        token: &str,
        user: &str,
        expires_at: Timestamp,
    ) -> Result<Identity, AuthError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let shown = Shown { token, user, expires_at };
        let answer =
            self.answers.try_get_with(hash, self.judged(shown)).await.map_err(|error| AuthError::clone(&error))?;
        if answer.is_ok() {
            self.answers.invalidate(&hash).await;
        }
        Ok(answer?)
    }

    /// What the front says about a session. What is an error here says nothing about the session, and is not remembered.
    async fn judged(&self, shown: Shown<'_>) -> Result<Result<Identity, Refusal>, AuthError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(AuthError::ProviderUnavailable)?;
        match self.asked(shown).await {
            Ok(identity) => Ok(Ok(identity)),
            Err(AuthError::Invalid(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        }
    }

    /// Two questions, one after the other: an invented session costs the front one.
    async fn asked(&self, shown: Shown<'_>) -> Result<Identity, AuthError> {
        let token = SecretString::from(shown.token);
        let user: User = self.ask(&self.user_url, &token).await?;
        if user.id != shown.user {
            return Err(Refusal::Contradiction.into());
        }
        if is_pending(Some(&user.role)) {
            return Err(Refusal::Pending.into());
        }
        let listed: Vec<ListedGroup> = self.ask(&self.groups_url, &token).await?;
        let groups = groups_of(&user, &listed)?;
        FrontUser { id: user.id, email: user.email, groups, expires_at: shown.expires_at }.identity(&self.name)
    }

    async fn ask<T: DeserializeOwned>(&self, url: &str, token: &SecretString) -> Result<T, AuthError> {
        let url = Url::parse(url).map_err(|_| AuthError::ProviderUnavailable)?;
        let answer = fetch::get_as(&self.http, &url, token).await.map_err(|error| match error {
            FetchError::Status(401 | 403) => Refusal::Inactive.into(),
            error => self.unavailable(&error),
        })?;
        serde_json::from_slice(&answer).map_err(|_| self.unavailable(&FetchError::NotUnderstood))
    }

    fn unavailable(&self, error: &FetchError) -> AuthError {
        tracing::warn!(front = %self.name, error = error as &dyn std::error::Error, "a front could not be asked about a session");
        AuthError::ProviderUnavailable
    }
}

fn groups_of(user: &User, listed: &[ListedGroup]) -> Result<Vec<Group>, Refusal> {
    if listed.len() > GROUPS_MAX {
        return Err(Refusal::Groups);
    }
    let is_member = |listed: &&ListedGroup| match &listed.user_ids {
        Some(members) => members.contains(&user.id),
        None => user.role != "admin",
    };
    listed.iter().filter(is_member).map(|listed| group(&listed.id)).collect()
}
