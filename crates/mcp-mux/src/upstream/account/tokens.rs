//! The tokens of one account, as its row holds them.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use tenant_store::{
    CredentialKind, CredentialOwner, CredentialSlot, OAuthClientId, OAuthIssuer, OAuthResource, SecretName, StoreError,
    Timestamp, UpstreamId,
};
use url::Url;

use super::super::error::UpstreamError;
use super::super::oauth::{AccessToken, Granted};
use super::client::ClientKind;
use crate::caller::Principal;

/// The name of an account's row.
const NAME: &str = "account";
/// How long before its end a token is not used any more, at most.
const LEEWAY_MAX: Duration = Duration::from_secs(10);
/// The part of a token's life after which it is renewed, in hundredths, and how much earlier that may be: links that began together
/// shall not ask together.
const RENEW_AFTER: u32 = 80;
const JITTER: u32 = 10;
/// The longest life that is believed, and that of a token which does not say when it ends: it is used until it is refused.
const LIFE_MAX: Duration = Duration::from_hours(24 * 366);

/// Where the row of an account is.
pub(super) struct Slot {
    owner: CredentialOwner,
    name: SecretName,
    upstream: UpstreamId,
}

/// A secret that is written out where it is, because all of that is sealed as a whole: a row, or the cookie of a flow.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Revealed(pub(super) SecretString);

/// The tokens of one account, and what they are renewed with.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tokens {
    pub(super) access: Revealed,
    pub(super) refresh: Option<Revealed>,
    pub(super) given_at_ms: i64,
    /// Nothing, where the authorization server does not say.
    pub(super) ends_at_ms: Option<i64>,
    pub(super) scope: Option<String>,
    pub(super) source: Source,
}

/// Who gave the tokens, to which client and for what. It stays as it is for as long as the account lives.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
    pub(super) issuer: OAuthIssuer,
    pub(super) client: ClientKind,
    pub(super) client_id: OAuthClientId,
    pub(super) token_endpoint: Url,
    pub(super) revocation_endpoint: Option<Url>,
    pub(super) resource: OAuthResource,
}

impl Source {
    /// Which client of ours it was.
    pub(super) fn known(&self) -> (&OAuthIssuer, ClientKind, &OAuthClientId) {
        (&self.issuer, self.client, &self.client_id)
    }
}

impl Slot {
    /// The row of `principal` for an upstream. No name that we give it ourselves fails to parse.
    pub(super) fn of(principal: &Principal, upstream: UpstreamId) -> Result<Self, UpstreamError> {
        let owner = CredentialOwner::Principal { issuer: principal.issuer.clone(), subject: principal.subject.clone() };
        Ok(Self { owner, name: NAME.parse().map_err(|_| UpstreamError::Setup)?, upstream })
    }

    pub(super) fn slot(&self) -> CredentialSlot<'_> {
        CredentialSlot { upstream: self.upstream, owner: &self.owner, name: &self.name, kind: CredentialKind::Tokens }
    }
}

impl Tokens {
    pub(super) fn new(granted: Granted, source: Source, now: Timestamp) -> Self {
        Self {
            access: Revealed(granted.access),
            refresh: granted.refresh.map(Revealed),
            given_at_ms: now.as_millis(),
            ends_at_ms: granted.life.map(|life| now.plus(life.min(LIFE_MAX)).as_millis()),
            scope: granted.scope,
            source,
        }
    }

    /// What a refresh gave; what it did not say stays as it was (RFC 6749 §6).
    pub(super) fn renewed(self, granted: Granted, now: Timestamp) -> Self {
        let (refresh, scope) = (self.refresh, self.scope);
        let new = Self::new(granted, self.source, now);
        Self { refresh: new.refresh.or(refresh), scope: new.scope.or(scope), ..new }
    }

    /// Whether they are the same ones.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.access.0.expose_secret() == other.access.0.expose_secret()
    }

    /// As the row holds it before it is sealed.
    pub(super) fn text(&self) -> Option<SecretString> {
        serde_json::to_string(self).ok().map(SecretString::from)
    }

    pub(super) fn parse(text: &SecretString) -> Option<Self> {
        serde_json::from_str(text.expose_secret()).ok()
    }

    /// The access token as a link uses it, by a number that no other token of the account has.
    pub(super) fn access_token(&self, issue: u64, now: Timestamp) -> AccessToken {
        let since = |later: i64, earlier: i64| Duration::from_millis(u64::try_from(later - earlier).unwrap_or(0));
        let (renew_in, ends_in) = match self.ends_at_ms {
            None => (LIFE_MAX, LIFE_MAX),
            Some(ends_at) => {
                let life = since(ends_at, self.given_at_ms);
                let used = since(now.as_millis(), self.given_at_ms);
                // The lowest bits of a random id are as random as any.
                let random = u32::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(JITTER)).unwrap_or(0);
                let renew_after = life * (RENEW_AFTER - random) / 100;
                let ends_after = life.saturating_sub(LEEWAY_MAX.min(life / 10));
                (renew_after.saturating_sub(used), ends_after.saturating_sub(used))
            }
        };
        // What nothing renews is never due.
        let renew_in = if self.refresh.is_some() { renew_in } else { ends_in };
        AccessToken::of(self.access.0.clone(), issue, renew_in, ends_in)
    }
}

/// What a caller hears when a row cannot be read or opened.
pub(super) fn unread(error: &StoreError) -> UpstreamError {
    tracing::error!(error = error as &dyn std::error::Error, "an account cannot be read");
    match error {
        // Nobody can use it any more, and connecting again mends it.
        StoreError::Unopened { .. } => UpstreamError::AccountMissing,
        _ => UpstreamError::SecretsUnavailable,
    }
}

impl Serialize for Revealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}
