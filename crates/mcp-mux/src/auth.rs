//! From a bearer token to an identity: JWT access tokens (RFC 9068) of configured issuers, verified here and nowhere else.
//!
//! First the token's own `iss` picks an issuer, then everything it says is checked against that issuer's keys and settings.
//! Whatever fails, the client reads the same words; the log alone knows more, and never the token.

mod claims;
mod discovery;
mod error;
mod keys;

pub(crate) use error::{AuthError, Refusal};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use tenant_store::{Clock, Group, Timestamp};

use self::claims::{Claims, Token};
use self::keys::IssuerKeys;
use crate::caller::Principal;
use crate::config::IssuerConfig;
use crate::lifecycle::Tasks;

/// Longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How long a verified token is remembered, at most; never past its expiry.
pub(crate) const VERIFIED_LIFE: Duration = Duration::from_mins(1);

const VERIFIED_TOKENS_MAX: u64 = 50_000;

/// What a verified token says about its holder. It holds no decision: those are made anew for each request.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// The groups that the issuer vouches for.
    pub groups: Arc<[Group]>,
    /// When the token ends.
    pub expires_at: Timestamp,
}

/// Verifies bearer tokens.
#[derive(Debug)]
pub struct Authenticator {
    issuers: HashMap<String, Issuer>,
    clock: Arc<dyn Clock>,
    /// By the hash of the whole token and of the audiences it was verified for.
    verified: Cache<[u8; 32], Verified>,
}

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: Arc<IssuerKeys>,
}

#[derive(Debug, Clone)]
struct Verified {
    identity: Identity,
    until: Timestamp,
}

impl Authenticator {
    /// For tokens of `issuers`. Their keys are fetched in the background, and again when a token names an unknown one.
    pub fn new(issuers: &[IssuerConfig], http: &reqwest::Client, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let issuers = issuers.iter().map(|config| {
            let keys = Arc::new(IssuerKeys::new(config, http.clone(), Arc::clone(&clock)));
            tasks.spawn(Arc::clone(&keys).keep_fresh());
            (config.url.clone(), Issuer { config: config.clone(), keys })
        });
        Self { issuers: issuers.collect(), clock, verified: Cache::new(VERIFIED_TOKENS_MAX) }
    }

    /// Verifies the one bearer token in `headers`. It must have been issued for one of `audiences`, the identifiers of the
    /// route that is called, or for one that its issuer's settings add.
    pub async fn authenticate(&self, headers: &HeaderMap, audiences: &[String]) -> Result<Identity, AuthError> {
        let token = bearer(headers)?;
        let hash = audiences
            .iter()
            .fold(Sha256::new().chain_update(token), |hash, audience| hash.chain_update([0]).chain_update(audience));
        let hash: [u8; 32] = hash.finalize().into();
        let now = self.clock.now();
        if let Some(verified) = self.verified.get(&hash).filter(|verified| now < verified.until) {
            return Ok(verified.identity);
        }
        let identity = self.verify(token, audiences, now).await?;
        let until = now.plus(VERIFIED_LIFE).min(identity.expires_at);
        self.verified.insert(hash, Verified { identity: identity.clone(), until });
        Ok(identity)
    }

    async fn verify(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Identity, AuthError> {
        let token = Token::parse(token)?;
        let issuer = self.issuers.get(&token.issuer).ok_or(Refusal::UnknownIssuer)?;
        let key = issuer.keys.find(token.key_id.as_deref(), token.algorithm).await?;
        if issuer.config.require_at_jwt && !token.is_at_jwt {
            return Err(Refusal::Type.into());
        }
        let claims = Claims::verify(&token, &key)?;
        claims.check(&issuer.config, audiences, now)?;
        Ok(Identity {
            principal: Principal { issuer: issuer.config.name.clone(), subject: claims.subject()? },
            groups: claims.groups(&issuer.config.groups_claim)?,
            expires_at: claims.expires_at(),
        })
    }
}

/// The token of the one `Authorization: Bearer` header (RFC 6750 §2.1). A token anywhere else is none.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Missing);
    }
    let token = token.trim();
    match token.len() {
        // Clients with an empty key field send the bare scheme.
        0 => Err(AuthError::Missing),
        1..=TOKEN_BYTES_MAX => Ok(token),
        _ => Err(Refusal::TooLong.into()),
    }
}
