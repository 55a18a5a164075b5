//! One token: taken apart, its signature verified, its claims checked. Every rule is spelt out here, because the defaults of
//! JWT libraries let through what they do not know (RFC 8725).

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use tenant_store::{Group, Subject, Timestamp};

use super::error::{AuthError, Refusal};
use crate::config::IssuerConfig;

/// Clocks may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Longest life of an access token; Entra ID's live up to 90 minutes, some providers' a day.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// Most groups of a principal.
const GROUPS_MAX: usize = 2_000;

/// Algorithms that are accepted: asymmetric ones only, so that no public key can pass for a shared secret.
const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("RS512", Algorithm::RS512),
    ("EdDSA", Algorithm::EdDSA),
];

/// Claims that only ID tokens carry (OpenID Connect Core §3).
const ID_TOKEN_CLAIMS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// A token whose header was read and whose signature was not verified yet.
#[derive(Debug)]
pub(super) struct Token<'t> {
    text: &'t str,
    /// The unverified `iss`: good for finding keys and nothing else.
    pub(super) issuer: String,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) is_at_jwt: bool,
}

/// Members of the header that matter. Key material in a header (`jwk`, `jku`, `x5u`, `x5c`) is never looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

#[derive(Deserialize)]
struct UnverifiedIssuer {
    iss: String,
}

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Refusal> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::NotJwt);
        };
        let header: Header = part(header)?;
        let UnverifiedIssuer { iss } = part(payload)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(Refusal::Critical);
        }
        let algorithm = ALGORITHMS.iter().find(|(name, _)| *name == header.alg).map(|(_, algorithm)| *algorithm);
        let kind = header.typ.unwrap_or_default().to_ascii_lowercase();
        let is_at_jwt = matches!(kind.as_str(), "at+jwt" | "application/at+jwt");
        if !is_at_jwt && !matches!(kind.as_str(), "" | "jwt" | "application/jwt") {
            return Err(Refusal::Type);
        }
        Ok(Self { text, issuer: iss, algorithm: algorithm.ok_or(Refusal::Algorithm)?, key_id: header.kid, is_at_jwt })
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::NotJwt)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::NotJwt)
}

/// The claims of a token whose signature is good.
#[derive(Debug)]
pub(super) struct Claims {
    required: Required,
    all: Map<String, Value>,
}

/// Claims without which a token is none (RFC 9068 §2.2), in the only shapes that are accepted. Times are seconds.
#[derive(Debug, Deserialize)]
struct Required {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    iat: Option<i64>,
    nbf: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Verifies the signature with `key`, whose algorithm was compared with the header's.
    pub(super) fn verify(token: &Token<'_>, key: &DecodingKey) -> Result<Self, Refusal> {
        // The library verifies the signature; every claim is checked below, against our clock and in exact shapes.
        let mut validation = Validation::new(token.algorithm);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let all = jsonwebtoken::decode::<Map<String, Value>>(token.text, key, &validation)
            .map_err(|_| Refusal::Signature)?
            .claims;
        let required = serde_json::from_value(Value::Object(all.clone())).map_err(|_| Refusal::ClaimShape)?;
        Ok(Self { required, all })
    }

    /// Checks everything that the claims say about the token itself.
    pub(super) fn check(&self, issuer: &IssuerConfig, audiences: &[String], now: Timestamp) -> Result<(), AuthError> {
        let Required { iss, aud, exp, iat, nbf, .. } = &self.required;
        if *iss != issuer.url {
            return Err(Refusal::UnknownIssuer.into());
        }
        let accepted = |audience: &String| audiences.contains(audience) || issuer.audiences.contains(audience);
        let for_us = match aud {
            Audience::One(audience) => accepted(audience),
            Audience::Many(audiences) => audiences.iter().any(accepted),
        };
        if !for_us {
            return Err(Refusal::Audience.into());
        }
        if now >= seconds(*exp).plus(LEEWAY) {
            return Err(Refusal::Expired.into());
        }
        let from_future = |moment: &Option<i64>| moment.is_some_and(|moment| now.plus(LEEWAY) < seconds(moment));
        if from_future(nbf) || from_future(iat) {
            return Err(Refusal::NotYet.into());
        }
        let begins = iat.map_or(now, seconds);
        if seconds(*exp) > begins.plus(LIFETIME_MAX) {
            return Err(Refusal::Lifetime.into());
        }
        self.check_kind()
    }

    fn check_kind(&self) -> Result<(), AuthError> {
        let is_id = self.all.get("typ").and_then(Value::as_str) == Some("ID");
        if is_id || ID_TOKEN_CLAIMS.iter().any(|claim| self.all.contains_key(*claim)) {
            return Err(Refusal::IdToken.into());
        }
        if self.all.contains_key("cnf") {
            return Err(Refusal::Confirmation.into());
        }
        let named = self.all.get("_claim_names").and_then(|names| names.get("groups"));
        if named.is_some() || self.all.contains_key("hasgroups") {
            return Err(AuthError::GroupsOverage);
        }
        Ok(())
    }

    pub(super) fn subject(&self) -> Result<Subject, Refusal> {
        self.required.sub.parse().map_err(|_| Refusal::ClaimShape)
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        seconds(self.required.exp).plus(LEEWAY)
    }

    /// The groups at `path`: the claim of exactly that name, or a dotted path into objects. An absent claim means no groups;
    /// another shape refuses the token, because a misread list could be a wrong one.
    pub(super) fn groups(&self, path: &str) -> Result<Arc<[Group]>, Refusal> {
        let mut steps = path.split('.');
        let first = steps.next().and_then(|step| self.all.get(step));
        let nested = || steps.try_fold(first?, |value, step| value.get(step));
        let texts: Vec<&str> = match self.all.get(path).or_else(nested) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(group)) => vec![group],
            Some(Value::Array(groups)) if groups.len() <= GROUPS_MAX => {
                groups.iter().map(|group| group.as_str().ok_or(Refusal::Groups)).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(Refusal::Groups),
        };
        texts.into_iter().map(|text| text.parse().map_err(|_| Refusal::Groups)).collect()
    }
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}
