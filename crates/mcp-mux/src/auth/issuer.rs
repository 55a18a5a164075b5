//! One identity provider: verifies its tokens by their signature or by asking it, and makes an identity of what they say.

use std::sync::Arc;
use std::time::Duration;

use tenant_store::{Clock, Group, Timestamp};

use super::Identity;
use super::claims::{Claims, GoodFor};
use super::error::{AuthError, Refusal};
use super::graph::Graph;
use super::introspection::Introspection;
use super::keys::IssuerKeys;
use super::token::Token;
use crate::caller::{Bounds, Principal};
use crate::config::{ConfigError, IssuerConfig, Profile, TokenMode};
use crate::egress::Egress;
use crate::lifecycle::Tasks;

/// One identity provider.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: IssuerConfig,
    pub(super) profile: Profile,
    verifier: Verifier,
    graph: Option<Graph>,
}

#[derive(Debug)]
enum Verifier {
    Keys(Arc<IssuerKeys>),
    Introspection(Box<Introspection>),
}

/// For how long a verified token may be believed: a time, and while no key is taken away that may have verified it.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) life: Duration,
    pub(super) keys: Option<(Arc<IssuerKeys>, u64)>,
}

impl Trust {
    pub(super) fn holds(&self) -> bool {
        self.keys.as_ref().is_none_or(|(keys, generation)| keys.generation() == *generation)
    }
}

/// For whom a token must have been issued, and when that is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement<'a> {
    /// The identifiers of the route that is called.
    pub(super) audiences: &'a [String],
    pub(super) now: Timestamp,
}

impl Issuer {
    /// Fetches keys in the background, where it needs them.
    pub(super) fn new(
        config: &IssuerConfig,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, ConfigError> {
        let http = egress.client(&config.addresses());
        let verifier = match &config.introspection {
            Some(settings) if config.mode == TokenMode::Introspect => Verifier::Introspection(Box::new(
                Introspection::new(&config.url, settings, http.clone(), Arc::clone(clock))?,
            )),
            _ => {
                let keys = Arc::new(IssuerKeys::new(config, http.clone(), Arc::clone(clock), tasks.clone()));
                tasks.spawn(Arc::clone(&keys).keep_fresh());
                Verifier::Keys(keys)
            }
        };
        let graph = config.graph.as_ref().map(|graph| Graph::new(graph, http, Arc::clone(clock))).transpose()?;
        Ok(Self { config: config.clone(), profile: config.profile(), verifier, graph })
    }

    /// Whether it is asked about each token, and so takes tokens that are no JWTs.
    pub(super) fn introspects(&self) -> bool {
        matches!(self.verifier, Verifier::Introspection(_))
    }

    /// Under which conditions what it says may be believed without asking again. Taken before it is asked.
    pub(super) fn trust(&self) -> Trust {
        match &self.verifier {
            Verifier::Keys(keys) => {
                Trust { life: super::VERIFIED_LIFE, keys: Some((Arc::clone(keys), keys.generation())) }
            }
            Verifier::Introspection(_) => Trust { life: super::introspection::ACTIVE_LIFE, keys: None },
        }
    }

    /// Verifies a token that is a JWT.
    pub(super) async fn verify(
        &self,
        text: &str,
        token: &Token<'_>,
        judgement: Judgement<'_>,
    ) -> Result<(Identity, GoodFor), AuthError> {
        let Verifier::Keys(keys) = &self.verifier else { return self.introspect(text, judgement).await };
        let algorithm = token.algorithm.filter(|algorithm| self.profile.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        if !token.kind.is_some_and(|kind| self.profile.token_types.contains(&kind)) {
            return Err(Refusal::Type.into());
        }
        let key = keys.find(token.key_id.as_deref(), algorithm).await?;
        let claims = Claims::parse(token.verified(&key, super::token::algorithm(algorithm))?)?;
        self.identity(&claims, judgement).await
    }

    /// Asks the provider about a token of any shape.
    pub(super) async fn introspect(
        &self,
        text: &str,
        judgement: Judgement<'_>,
    ) -> Result<(Identity, GoodFor), AuthError> {
        let Verifier::Introspection(introspection) = &self.verifier else { return Err(Refusal::NotJwt.into()) };
        let claims = introspection.ask(text, judgement.now).await?;
        self.identity(&claims, judgement).await
    }

    async fn identity(&self, claims: &Claims, judgement: Judgement<'_>) -> Result<(Identity, GoodFor), AuthError> {
        claims.check(&self.config, &self.profile, judgement.audiences, judgement.now)?;
        let subject = claims.subject(&self.profile)?;
        let good_for = claims.good_for(&self.config)?;
        let mut groups = claims.groups(&self.profile)?;
        // Nobody but the token says what roles there are.
        if claims.lacks(&self.profile.role_claims) {
            return Err(AuthError::GroupsOverage);
        }
        if claims.lacks(&self.profile.group_claims) {
            groups.extend(self.left_out_groups(claims).await?);
        }
        let identity = Identity {
            principal: Principal { issuer: self.config.name.clone(), subject },
            client: claims.client(&self.profile)?,
            by_access_token: true,
            email: claims.email(),
            groups: groups.into(),
            bounds: Bounds::Everything,
            expires_at: claims.expires_at(),
        };
        Ok((identity, good_for))
    }

    /// Never at an address from the token: where Graph is, the configuration says.
    async fn left_out_groups(&self, claims: &Claims) -> Result<Vec<Group>, AuthError> {
        let graph = self.graph.as_ref().ok_or(AuthError::GroupsOverage)?;
        graph.groups_of(claims.object_id().ok_or(AuthError::GroupsOverage)?).await
    }
}
