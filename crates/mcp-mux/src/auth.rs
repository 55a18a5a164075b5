//! From what a request shows to an identity: an access token of a configured issuer, or the proof of a trusted front.
//! Verified here and nowhere else.
//!
//! What is shown decides who judges it, and a wrong proof is never saved by another one beside it. Whatever fails, the client
//! reads the same words; the log alone knows more, and never the token.

mod api_keys;
mod claims;
mod directories;
mod discovery;
pub mod doctor;
mod error;
pub mod explain;
mod fetch;
mod front;
mod graph;
mod introspection;
mod issuer;
mod keys;
mod login;
mod token;

pub use api_keys::ApiKeys;
pub use directories::{Directories, Proved, Unproved};
pub use error::{AuthError, HeaderFault, Refusal};
pub use graph::{GraphDirectory, NamedGroups, PullError};
pub use login::{Begun, Login, LoginError, Returned, SignedIn};

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::Uri;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use moka::sync::Cache;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tenant_store::{Clock, Group, Revision, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use self::claims::GoodFor;
use self::front::Fronts;
use self::issuer::{Issuer, Judgement, Trust};
use self::token::Token;
use crate::caller::{Bounds, Caller, Principal};
use crate::config::{Config, ConfigError};
use crate::egress::Egress;
use crate::lifecycle::Tasks;
use crate::limits::Attempts;

/// Longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How long a verified token is remembered, at most; never past its expiry.
pub(crate) const VERIFIED_LIFE: Duration = Duration::from_mins(1);

/// How long it may take to find out who calls, whoever must be asked.
const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of what is remembered of verified tokens: each counts as one and its groups.
const VERIFIED_WEIGHT_MAX: u64 = 2_000_000;
/// How many tokens are known to have been good while bad ones are counted, and for how long if nobody shows them.
const GOOD_BEFORE_MAX: u64 = 200_000;
const GOOD_BEFORE_IDLE: Duration = Duration::from_hours(1);
/// How the API keys of Open WebUI and of model providers begin. They are somebody's password elsewhere, and never asked about.
const FOREIGN_KEY_PREFIX: &str = "sk-";

/// What a proof says about its holder. It holds no decision: those are made anew for each request.
#[derive(Clone)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// The OAuth client that the token was issued to.
    pub client: Option<Arc<str>>,
    /// Whether an access token of an issuer proved it: the only proof that can be exchanged for another token.
    pub(crate) by_access_token: bool,
    /// Compared with what a front says about the same user, and used for nothing else.
    pub(crate) email: Option<Arc<str>>,
    /// The groups that the issuer vouches for.
    pub groups: Arc<[Group]>,
    /// What the proof is good for at most, whatever grants say.
    pub bounds: Bounds,
    /// When the proof ends.
    pub expires_at: Timestamp,
}

impl Identity {
    /// Whether it is that caller's, in the same groups and within the same bounds.
    pub(crate) fn is_of(&self, caller: &Caller) -> bool {
        (&self.principal, &self.client) == (&caller.principal, &caller.client)
            && self.bounds == caller.bounds
            && (Arc::ptr_eq(&self.groups, &caller.groups) || is_same_set(&self.groups, &caller.groups))
    }
}

/// Whether two lists hold the same groups, in whatever order the provider names them.
fn is_same_set(one: &[Group], other: &[Group]) -> bool {
    one.iter().collect::<HashSet<_>>() == other.iter().collect::<HashSet<_>>()
}

// By hand: e-mail addresses stay out of logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Verifies who calls.
#[derive(Debug)]
pub struct Authenticator {
    issuers: HashMap<String, Issuer>,
    fronts: Fronts,
    api_keys: Option<Arc<ApiKeys>>,
    attempts: Attempts,
    /// Until when tokens are good that were verified, by their hashes: whoever has one is shut out by nobody at the same address.
    good_before: Cache<[u8; 32], Timestamp, RandomState>,
    clock: Arc<dyn Clock>,
    /// By the hash of the whole token.
    verified: Cache<[u8; 32], Verified, RandomState>,
}

#[derive(Debug, Clone)]
struct Verified {
    identity: Identity,
    good_for: GoodFor,
    until: Timestamp,
    trust: Trust,
}

impl Verified {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.until && self.trust.holds()
    }
}

impl Authenticator {
    /// For the issuers and fronts of `config`. Keys are fetched in the background, and again when a token names an unknown one.
    pub fn new(config: &Config, egress: &Egress, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<Self, ConfigError> {
        let issuers = config.issuers.iter().map(|config| {
            let issuer = Issuer::new(config, egress, &clock, tasks)?;
            Ok((config.url.clone(), issuer))
        });
        Ok(Self {
            issuers: issuers.collect::<Result<_, ConfigError>>()?,
            fronts: Fronts::new(&config.fronts, egress)?,
            api_keys: None,
            attempts: Attempts::new(&config.limits),
            good_before: Cache::builder()
                .max_capacity(GOOD_BEFORE_MAX)
                .time_to_idle(GOOD_BEFORE_IDLE)
                .build_with_hasher(RandomState::default()),
            clock,
            verified: Cache::builder()
                .max_capacity(VERIFIED_WEIGHT_MAX)
                .weigher(|_, verified: &Verified| weight(&verified.identity.groups))
                .time_to_live(VERIFIED_LIFE)
                .build_with_hasher(RandomState::default()),
        })
    }

    /// Also for the API keys of the database.
    #[must_use]
    pub fn with_api_keys(self, keys: Arc<ApiKeys>) -> Self {
        Self { api_keys: Some(keys), ..self }
    }

    /// Counts something that proved nothing, where others judge it; otherwise for how long nothing more may come from there.
    pub fn count_attempt(&self, from: Option<IpAddr>) -> Result<(), Duration> {
        from.map_or(Ok(()), |from| self.attempts.count(from, Instant::now()))
    }

    /// Verifies what a request shows. A token must have been issued for one of `audiences`, the identifiers of the route that is
    /// called, or for one that its issuer's settings add. What proves nothing is counted for the address that it comes `from`.
    pub async fn authenticate(
        &self,
        shown: (&Uri, &HeaderMap),
        audiences: &[String],
        from: Option<IpAddr>,
    ) -> Result<Identity, AuthError> {
        let judged = tokio::time::timeout(AUTHENTICATE_TIMEOUT, self.judge(shown, audiences, from)).await;
        judged.unwrap_or(Err(AuthError::ProviderUnavailable))
    }

    async fn judge(
        &self,
        (uri, headers): (&Uri, &HeaderMap),
        audiences: &[String],
        from: Option<IpAddr>,
    ) -> Result<Identity, AuthError> {
        if has_token(uri) {
            return Err(AuthError::InQuery);
        }
        let now = self.clock.now();
        let Some(token) = bearer(headers)? else {
            let missing = if self.issuers.is_empty() { AuthError::MissingProof } else { AuthError::Missing };
            return self.fronts.by_jwt(headers, now).unwrap_or(Err(missing));
        };
        let identity = if let Some(front) = self.fronts.of_key(token) {
            front.identity(headers, now)?
        } else if let Some(identity) = self.by_api_key(token, now) {
            identity?
        } else {
            self.known_or_verified(token, Judgement { audiences, now }, from).await?
        };
        self.fronts.agree(&identity, headers, now)?;
        Ok(identity)
    }

    /// Tells of changes of the API keys, to whoever showed one.
    pub fn api_key_changes(&self, headers: &HeaderMap) -> Option<watch::Receiver<Revision>> {
        let token = bearer(headers).ok().flatten()?;
        let keys = self.api_keys.as_ref().filter(|_| token.starts_with(crate::api_key::PREFIX))?;
        Some(keys.changes())
    }

    /// The headers in which configured fronts name their users.
    pub fn identity_headers(&self) -> &[HeaderName] {
        self.fronts.identity_headers()
    }

    /// How long an identity is good for from now on.
    pub fn remaining(&self, identity: &Identity) -> Duration {
        let millis = identity.expires_at.as_millis().saturating_sub(self.clock.now().as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// An API key is judged anew each time, so that one which was taken back is not remembered.
    fn by_api_key(&self, token: &str, now: Timestamp) -> Option<Result<Identity, AuthError>> {
        let keys = self.api_keys.as_ref().filter(|_| token.starts_with(crate::api_key::PREFIX))?;
        Some(keys.identity(token, now))
    }

    async fn known_or_verified(
        &self,
        token: &str,
        judgement: Judgement<'_>,
        from: Option<IpAddr>,
    ) -> Result<Identity, AuthError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.verified.get(&hash).filter(|verified| verified.holds(judgement.now)) {
            // It was verified for another route, perhaps.
            let is_for_us = verified.good_for.includes(judgement.audiences);
            return if is_for_us { Ok(verified.identity) } else { Err(Refusal::Audience.into()) };
        }
        let from = from.filter(|_| self.good_before.get(&hash).is_none_or(|until| until <= judgement.now));
        if let Some(from) = from {
            self.attempts.count(from, Instant::now()).map_err(AuthError::TooManyAttempts)?;
        }
        // Boxed: what happens seldom would be carried along with every request.
        let verified = Box::pin(self.verify(token, judgement)).await;
        if let Some(from) = from.filter(|_| !verified.as_ref().is_err_and(AuthError::is_an_attempt)) {
            self.attempts.give_back(from);
        }
        let verified = verified?;
        self.verified.insert(hash, verified.clone());
        if self.attempts.are_counted() {
            self.good_before.insert(hash, verified.identity.expires_at);
        }
        Ok(verified.identity)
    }

    /// The identity behind a token, where it is good, and for how long that may be believed.
    async fn verify(&self, text: &str, judgement: Judgement<'_>) -> Result<Verified, AuthError> {
        let (identity, good_for, trust) = self.identity(text, judgement).await?;
        let until = judgement.now.plus(trust.life).min(identity.expires_at);
        Ok(Verified { identity, good_for, until, trust })
    }

    async fn identity(&self, text: &str, judgement: Judgement<'_>) -> Result<(Identity, GoodFor, Trust), AuthError> {
        if text.starts_with(FOREIGN_KEY_PREFIX) {
            return Err(Refusal::ForeignKey.into());
        }
        if !Token::is_jwt(text) {
            let mut asked = self.issuers.values().filter(|issuer| issuer.introspects());
            let issuer = asked.next().ok_or(Refusal::NotJwt)?;
            let trust = issuer.trust();
            let (identity, good_for) = issuer.introspect(text, judgement).await?;
            return Ok((identity, good_for, trust));
        }
        let token = Token::parse(text)?;
        if let Some(name) = &token.issuer {
            let issuer = self.issuers.get(name).ok_or(Refusal::UnknownIssuer)?;
            let trust = issuer.trust();
            let (identity, good_for) = issuer.verify(text, &token, judgement).await?;
            return Ok((identity, good_for, trust));
        }
        // Open WebUI's sessions name no issuer. What does not look like one is not shown to Open WebUI.
        let (Some(session), Some(user)) = (self.fronts.session(), &token.session_user) else {
            return Err(Refusal::UnknownIssuer.into());
        };
        let expires_at = Timestamp::from_millis(token.expires_s.ok_or(Refusal::ClaimShape)?.saturating_mul(1_000));
        if judgement.now >= expires_at {
            return Err(Refusal::Expired.into());
        }
        let identity = session.identity(text, user, expires_at).await?;
        Ok((identity, GoodFor::Everything, Trust { life: VERIFIED_LIFE, keys: None }))
    }
}

/// What remembering groups costs.
fn weight(groups: &[Group]) -> u32 {
    u32::try_from(groups.len().saturating_add(1)).unwrap_or(u32::MAX)
}

/// Whether an address carries a token, which would then be in every log on its way (RFC 6750 §2.3, MCP authorization).
fn has_token(uri: &Uri) -> bool {
    let pairs = uri.query().map(|query| url::form_urlencoded::parse(query.as_bytes()));
    pairs.into_iter().flatten().any(|(name, _)| name == "access_token")
}

/// The access token that proved `identity`, if one did, from the headers that it came in.
pub(crate) fn access_token(identity: &Identity, headers: &HeaderMap) -> Option<Arc<SecretString>> {
    let token = bearer(headers).ok().flatten().filter(|_| identity.by_access_token)?;
    Some(Arc::new(SecretString::from(token)))
}

/// The token of the one `Authorization: Bearer` header (RFC 6750 §2.1). Another scheme is a proof that we cannot judge, and what
/// stands beside it does not count instead.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !text.is_empty() && !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Malformed);
    }
    let token = token.trim();
    match token.len() {
        // Clients with an empty key field send the bare scheme.
        0 => Ok(None),
        1..=TOKEN_BYTES_MAX => Ok(Some(token)),
        _ => Err(Refusal::TooLong.into()),
    }
}
