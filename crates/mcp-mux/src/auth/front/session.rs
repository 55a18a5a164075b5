//! The user's own Open WebUI session, which Open WebUI is asked about. It gives us full power over the user's account there, so it
//! is shown to nobody but the configured front, and kept nowhere.

use futures::future::try_join;
use secrecy::SecretString;
use serde::Deserialize;
use tenant_store::{Group, IssuerName, Timestamp};
use url::Url;

use super::super::claims::{GROUPS_MAX, group};
use super::super::error::{AuthError, Refusal};
use super::super::fetch::{self, FetchError};
use super::{FrontUser, Identity, is_pending};

/// One front that is asked.
#[derive(Debug)]
pub(in crate::auth) struct Session {
    name: IssuerName,
    user_url: String,
    groups_url: String,
    http: reqwest::Client,
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

impl Session {
    pub(super) fn new(name: IssuerName, url: &Url, http: reqwest::Client) -> Self {
        let base = url.as_str().trim_end_matches('/');
        let (user_url, groups_url) = (format!("{base}/api/v1/auths/"), format!("{base}/api/v1/groups/"));
        Self { name, user_url, groups_url, http }
    }

    /// Whose session `token` is, and which groups that user is in. `expires_at` is what the token says of itself.
    pub(in crate::auth) async fn identity(&self, token: &str, expires_at: Timestamp) -> Result<Identity, AuthError> {
        let token = SecretString::from(token);
        let (user, groups) = try_join(self.ask(&self.user_url, &token), self.ask(&self.groups_url, &token)).await?;
        let unusable = |_| self.unavailable(&FetchError::NotUnderstood);
        let user: User = serde_json::from_slice(&user).map_err(unusable)?;
        let listed: Vec<ListedGroup> = serde_json::from_slice(&groups).map_err(unusable)?;
        if is_pending(Some(&user.role)) {
            return Err(Refusal::Pending.into());
        }
        let groups = groups_of(&user, &listed)?;
        FrontUser { id: user.id, email: user.email, groups, expires_at }.identity(&self.name)
    }

    async fn ask(&self, url: &str, token: &SecretString) -> Result<Vec<u8>, AuthError> {
        let url = Url::parse(url).map_err(|_| AuthError::ProviderUnavailable)?;
        fetch::get_as(&self.http, &url, token).await.map_err(|error| match error {
            FetchError::Status(401 | 403) => Refusal::Inactive.into(),
            error => self.unavailable(&error),
        })
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
