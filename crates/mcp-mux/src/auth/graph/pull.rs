//! The directory of Entra ID, asked of Microsoft Graph now and then: all its users, and the members of the groups that grants name. Who is
//! not enabled there any more, or gone, is revoked; nobody gains anything by it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tenant_store::{
    Clock, DIRECTORY_MEMBERS_MAX, DIRECTORY_USERS_MAX, Directory, Group, IssuerName, Leavers, ListedGroup,
    NewDirectoryUser, Pulled, Store, StoreError, Subject,
};
use uuid::Uuid;

use super::client::GraphClient;
use crate::audit::{self, Audit, Event, Pushing, Through};
use crate::auth::fetch::FetchError;
use crate::config::{Config, ConfigError, IssuerConfig};
use crate::egress::Egress;

/// Elements on a page of a list: Graph answers with at most 999.
const PAGE_ITEMS: &str = "500";

/// The groups of an issuer that grants name.
pub type NamedGroups = Arc<dyn Fn(&IssuerName) -> Vec<Group> + Send + Sync>;

/// A directory that is asked.
pub struct GraphDirectory {
    issuer: IssuerName,
    /// What stands before a user's object id in the subject of its tokens.
    user_prefix: String,
    every: Duration,
    client: GraphClient,
    directory: Directory,
    named: NamedGroups,
    clock: Arc<dyn Clock>,
}

/// Why a directory could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Graph did not say it.
    #[error("Microsoft Graph did not answer well")]
    Graph(#[source] Box<dyn Error + Send + Sync>),
    /// Graph leaves out what our application may not read.
    #[error(
        "Microsoft Graph does not say which users are enabled: the application needs the permission User.Read.All, with an \
         administrator's consent"
    )]
    Unsaid,
    /// What it said cannot be stored.
    #[error("what Microsoft Graph said is not taken over")]
    Store(#[from] StoreError),
}

impl From<FetchError> for PullError {
    fn from(error: FetchError) -> Self {
        Self::Graph(error.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedUser {
    id: Uuid,
    user_principal_name: Option<String>,
    display_name: Option<String>,
    account_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    display_name: Option<String>,
}

#[derive(Deserialize)]
struct Member {
    id: Uuid,
}

impl std::fmt::Debug for GraphDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphDirectory").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl GraphDirectory {
    /// Those of `config`.
    pub fn all(
        config: &Config,
        egress: &Egress,
        (clock, store): (&Arc<dyn Clock>, &Store),
        named: &NamedGroups,
    ) -> Result<Vec<Self>, ConfigError> {
        let of = |issuer: &IssuerConfig| Self::of(issuer, egress, (clock, store), named).transpose();
        config.issuers.iter().filter_map(of).collect()
    }

    /// That of an issuer, if it is to be asked.
    fn of(
        issuer: &IssuerConfig,
        egress: &Egress,
        (clock, store): (&Arc<dyn Clock>, &Store),
        named: &NamedGroups,
    ) -> Result<Option<Self>, ConfigError> {
        let Some((graph, every)) = issuer.graph.as_ref().and_then(|graph| Some((graph, graph.directory_every()?)))
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            issuer: issuer.name.clone(),
            user_prefix: issuer.directory_prefix(graph)?,
            every,
            client: GraphClient::new(graph, egress.client(&issuer.addresses()), Arc::clone(clock))?,
            directory: store.directory(&issuer.name),
            named: Arc::clone(named),
            clock: Arc::clone(clock),
        }))
    }

    /// Whose it is.
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// Asks now and then, for ever. What changes is recorded.
    pub async fn keep(&self, audit: &Audit) {
        loop {
            let users = self.recording(audit).await;
            let pulled = self.pull_users(Leavers::Few).await;
            drop(users);
            match pulled {
                Ok(users) => tracing::info!(
                    principal.issuer = %self.issuer, added = users.added, changed = users.changed, removed = users.removed,
                    "a directory was asked for its users"
                ),
                Err(error) => self.log(&error, "users"),
            }
            // Whoever is gone is revoked by now, whatever becomes of the groups.
            let groups = self.recording(audit).await;
            if let Err(error) = self.pull_groups().await {
                self.log(&error, "groups");
            }
            drop(groups);
            tokio::time::sleep(self.every).await;
        }
    }

    async fn recording(&self, audit: &Audit) -> Pushing {
        audit.pushing(&self.directory, self.clock.now(), Through::Graph { operator: None }).await
    }

    /// What was changed since it was asked last, as an operator had it done; nothing, if nothing was.
    pub fn pushed_by(&self, operator: String) -> Option<Event> {
        audit::pushed(&self.directory, self.clock.now(), Through::Graph { operator: Some(operator) })
    }

    fn log(&self, error: &PullError, what: &str) {
        tracing::error!(
            principal.issuer = %self.issuer, what, error = error as &dyn Error,
            "a directory cannot be taken over; what it said last counts"
        );
    }

    /// Asks for all users once.
    pub async fn pull_users(&self, expected: Leavers) -> Result<Pulled, PullError> {
        let began = self.clock.now();
        let listed = self.users().await?;
        Ok(self.directory.pull_users(&listed, began, expected).await?)
    }

    /// Asks once for the groups that grants name.
    pub async fn pull_groups(&self) -> Result<Pulled, PullError> {
        let mut listed = Vec::new();
        for name in (self.named)(&self.issuer) {
            listed.extend(self.group(name).await?);
        }
        Ok(self.directory.pull_groups(listed).await?)
    }

    async fn users(&self) -> Result<Vec<NewDirectoryUser>, PullError> {
        let query = [("$select", "id,userPrincipalName,displayName,accountEnabled"), ("$top", PAGE_ITEMS)];
        let count_max = usize::try_from(DIRECTORY_USERS_MAX).unwrap_or(usize::MAX);
        let listed: Vec<ListedUser> = self.client.list(&["users"], &query, count_max).await?;
        listed.into_iter().map(|user| self.user(user)).collect()
    }

    fn user(&self, user: ListedUser) -> Result<NewDirectoryUser, PullError> {
        let ListedUser { id, user_principal_name, display_name, account_enabled } = user;
        let own = id.to_string();
        let name = user_principal_name.and_then(|name| name.parse().ok());
        let user_name = match name {
            Some(name) => name,
            None => own.parse().map_err(|_| FetchError::NotUnderstood)?,
        };
        Ok(NewDirectoryUser {
            subject: self.subject(id)?,
            external_id: own.parse().ok(),
            user_name,
            display_name: display_name.and_then(|name| name.parse().ok()),
            is_active: account_enabled.ok_or(PullError::Unsaid)?,
        })
    }

    /// As tokens call that user.
    fn subject(&self, id: Uuid) -> Result<Subject, FetchError> {
        format!("{}{id}", self.user_prefix).parse().map_err(|_| FetchError::NotUnderstood)
    }

    /// A group that grants name, with all its members, those of groups in it too. None, if it is no group's object id or there is none.
    async fn group(&self, name: Group) -> Result<Option<ListedGroup>, PullError> {
        let Ok(id) = name.as_str().parse::<Uuid>() else { return Ok(None) };
        let id = id.to_string();
        let described: Described = match self.client.get(&["groups", &id], &[("$select", "id,displayName")]).await {
            Ok(described) => described,
            Err(FetchError::Status(404)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Users among them, and devices and groups: of these no token speaks.
        let query = [("$select", "id"), ("$top", PAGE_ITEMS)];
        let count_max = usize::try_from(DIRECTORY_MEMBERS_MAX).unwrap_or(usize::MAX);
        let members: Vec<Member> = self.client.list(&["groups", &id, "transitiveMembers"], &query, count_max).await?;
        let members = members.into_iter().map(|member| self.subject(member.id)).collect::<Result<_, _>>()?;
        let display_name = described.display_name.and_then(|name| name.parse().ok());
        let display_name = match display_name {
            Some(name) => name,
            None => id.parse().map_err(|_| FetchError::NotUnderstood)?,
        };
        Ok(Some(ListedGroup { name, external_id: id.parse().ok(), display_name, members }))
    }
}
