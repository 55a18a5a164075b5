//! Signing in with a browser: mcp-mux as a client of OpenID Connect, with a code, PKCE, a nonce and a state (OpenID Connect Core 1.0
//! §3.1, RFC 7636, RFC 9700 §2.1).
//!
//! Who signs in becomes the principal that the issuer's access tokens name, with the groups that the ID token lists. An ID token that
//! does not say which groups there are makes nobody: a grant that denies could be among those that are left out.

mod client;
mod error;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use tenant_store::{Clock, Group, IssuerName};
use tokio::sync::Semaphore;
use url::Url;

use self::client::{IdToken, LoginClient};
pub use self::error::LoginError;
use super::AUTHENTICATE_TIMEOUT;
use super::claims::Claims;
use super::graph::Graph;
use crate::caller::Principal;
use crate::config::{Config, ConfigError, IssuerConfig, Profile, PublicUrl};
use crate::egress::Egress;

/// Most sign-ins that one provider is asked to begin at once, and to end at once. Anybody may begin one, which costs nobody a
/// sign-in at another provider.
const SIGN_INS_AT_ONCE_MAX: usize = 32;
/// How long a sign-in that ended is remembered: as long as its cookie is good. And how many of one provider at most.
const SPENT_LIFE: Duration = Duration::from_mins(10);
const SPENT_MAX: u64 = 100_000;
/// Longest name of somebody that a page shows, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// The issuers at which people can sign in with a browser.
#[derive(Debug)]
pub struct Login {
    issuers: HashMap<IssuerName, LoginIssuer>,
}

struct LoginIssuer {
    config: IssuerConfig,
    profile: Profile,
    client: LoginClient,
    graph: Option<Graph>,
    beginning: Semaphore,
    ending: Semaphore,
    /// The states of sign-ins that ended here: each has the provider asked once.
    spent: Cache<String, ()>,
}

/// A sign-in that runs: what must come back with the browser. It is for the cookie of that browser, sealed.
#[derive(Serialize, Deserialize)]
pub struct Begun {
    issuer: IssuerName,
    state: String,
    nonce: String,
    #[serde(serialize_with = "reveal")]
    verifier: SecretString,
}

/// The query with which a browser comes back.
pub struct Returned {
    /// What is exchanged for tokens.
    pub code: Option<SecretString>,
    /// What we sent along.
    pub state: Option<String>,
    /// Which provider says this (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

/// Who signed in.
pub struct SignedIn {
    /// The same principal as an access token of the issuer makes.
    pub principal: Principal,
    /// The groups that the ID token lists.
    pub groups: Vec<Group>,
    /// What a page may call them; it proves nothing.
    pub shown: String,
}

impl Login {
    /// For the issuers of `config` that have login settings. Asks nobody yet.
    pub fn new(
        config: &Config,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
        public_url: &PublicUrl,
    ) -> Result<Self, ConfigError> {
        let mut issuers = HashMap::new();
        for issuer in &config.issuers {
            let Some(settings) = &issuer.login else { continue };
            let http = egress.client(&issuer.addresses());
            let graph =
                issuer.graph.as_ref().map(|graph| Graph::new(graph, http.clone(), Arc::clone(clock))).transpose()?;
            // One for each issuer, so that a code of one is never taken for another's (RFC 9700 §4.4.2.2).
            let redirect_uri = public_url.join(&format!("/sign-in/{}/callback", issuer.name));
            let client = LoginClient::new(issuer, settings, (http, Arc::clone(clock)), redirect_uri)?;
            let mut profile = issuer.profile();
            profile.subject_claims = settings.subject_claims.clone().unwrap_or(profile.subject_claims);
            let issuer = LoginIssuer {
                config: issuer.clone(),
                profile,
                client,
                graph,
                beginning: Semaphore::new(SIGN_INS_AT_ONCE_MAX),
                ending: Semaphore::new(SIGN_INS_AT_ONCE_MAX),
                spent: Cache::builder()
                    .max_capacity(SPENT_MAX)
                    .time_to_live(SPENT_LIFE)
                    .eviction_policy(EvictionPolicy::lru())
                    .build(),
            };
            issuers.insert(issuer.config.name.clone(), issuer);
        }
        Ok(Self { issuers })
    }

    /// The issuers at which people can sign in, in the order of their names.
    pub fn issuers(&self) -> Vec<&IssuerName> {
        let mut names: Vec<&IssuerName> = self.issuers.keys().collect();
        names.sort_by_key(|name| name.as_str());
        names
    }

    /// Begins a sign-in at `issuer`: where the browser is sent, and what must come back with it.
    pub async fn begin(&self, issuer: &IssuerName) -> Result<(Url, Begun), LoginError> {
        let issuer = self.issuers.get(issuer).ok_or(LoginError::UnknownIssuer)?;
        let _running = issuer.beginning.try_acquire().map_err(|_| LoginError::Busy)?;
        within(issuer.client.begin(&issuer.config.name)).await
    }

    /// Ends a sign-in with what its browser came back with.
    pub async fn finish(&self, begun: &Begun, returned: &Returned) -> Result<SignedIn, LoginError> {
        let issuer = self.issuers.get(&begun.issuer).ok_or(LoginError::OtherAnswer)?;
        let is_ours = |state: &String| bool::from(state.as_bytes().ct_eq(begun.state.as_bytes()));
        if !returned.state.as_ref().is_some_and(is_ours) {
            return Err(LoginError::OtherAnswer);
        }
        let _running = issuer.ending.try_acquire().map_err(|_| LoginError::Busy)?;
        within(issuer.finish(begun, returned)).await
    }
}

/// However many documents must be read, nobody waits for longer.
async fn within<T>(work: impl Future<Output = Result<T, LoginError>>) -> Result<T, LoginError> {
    tokio::time::timeout(AUTHENTICATE_TIMEOUT, work).await.unwrap_or(Err(LoginError::Unavailable))
}

impl LoginIssuer {
    async fn finish(&self, begun: &Begun, returned: &Returned) -> Result<SignedIn, LoginError> {
        self.client.check_sender(returned.iss.as_deref()).await?;
        let code = match (&returned.code, returned.error.as_deref()) {
            (Some(code), None) => code,
            (None, Some("access_denied")) => return Err(LoginError::Declined),
            _ => return Err(LoginError::NoCode),
        };
        if !self.spent.entry(begun.state.clone()).or_insert(()).is_fresh() {
            return Err(LoginError::OtherAnswer);
        }
        let token = self.client.exchange(begun, code).await?;
        self.signed_in(token).await
    }

    /// Who a verified ID token makes.
    async fn signed_in(&self, IdToken(claims): IdToken) -> Result<SignedIn, LoginError> {
        let claims = Claims::parse(claims)?;
        let subject = claims.subject(&self.profile)?;
        let mut groups = claims.groups(&self.profile)?;
        if claims.lacks(&self.profile.role_claims) {
            return Err(LoginError::GroupsOverage);
        }
        let knows_groups = !self.profile.group_claims.is_empty() || !self.profile.role_claims.is_empty();
        if claims.lacks(&self.profile.group_claims) {
            let graph = self.graph.as_ref().ok_or(LoginError::GroupsOverage)?;
            let person = claims.object_id().ok_or(LoginError::GroupsOverage)?;
            groups.extend(graph.groups_of(person).await.map_err(|_| LoginError::Unavailable)?);
        } else if knows_groups && !claims.names_groups(&self.profile) {
            return Err(LoginError::GroupsMissing);
        }
        let shown = claims.shown_name().unwrap_or(subject.as_str()).chars().take(SHOWN_CHARS_MAX).collect();
        let principal = Principal { issuer: self.config.name.clone(), subject };
        Ok(SignedIn { principal, groups, shown })
    }
}

/// Into the sealed cookie.
fn reveal<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

impl fmt::Debug for LoginIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginIssuer").field("issuer", &self.config.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Begun {
    /// Where.
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned").finish_non_exhaustive()
    }
}

// By hand: names of people stay out of logs.
impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("principal", &self.principal).finish_non_exhaustive()
    }
}
