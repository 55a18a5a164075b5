//! One JWT, taken apart and not yet believed: what its header and its `iss` say is good for finding a key and nothing else.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::Refusal;
use crate::config::{SigningAlgorithm, TokenType};

const ALGORITHMS: [(&str, SigningAlgorithm); 6] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("RS512", SigningAlgorithm::Rs512),
    ("PS256", SigningAlgorithm::Ps256),
    ("ES256", SigningAlgorithm::Es256),
    ("ES384", SigningAlgorithm::Es384),
    ("EdDSA", SigningAlgorithm::EdDsa),
];

/// A token whose header was read and whose signature was not verified yet.
#[derive(Debug)]
pub(super) struct Token<'t> {
    text: &'t str,
    /// The unverified `iss`.
    pub(super) issuer: Option<String>,
    /// The unverified `exp`, in seconds.
    pub(super) expires_s: Option<i64>,
    /// What the header says; none for those that are never accepted.
    pub(super) algorithm: Option<SigningAlgorithm>,
    pub(super) key_id: Option<String>,
    /// What the header says; none for a type that is never accepted.
    pub(super) kind: Option<TokenType>,
    /// The unverified `id` of its user, if it looks as Open WebUI's sessions do: HS256, and `typ` among its claims is `session`.
    pub(super) session_user: Option<String>,
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

impl<'t> Token<'t> {
    /// Whether a text has the three parts of a JWT. An opaque token has not.
    pub(super) fn is_jwt(text: &str) -> bool {
        text.split('.').count() == 3
    }

    pub(super) fn parse(text: &'t str) -> Result<Self, Refusal> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::NotJwt);
        };
        let header: Header = part(header)?;
        let payload: Map<String, Value> = part(payload)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(Refusal::Critical);
        }
        let issuer = match payload.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer.clone()),
            Some(_) => return Err(Refusal::ClaimShape),
        };
        let kind = match header.typ.unwrap_or_default().to_ascii_lowercase().as_str() {
            "at+jwt" | "application/at+jwt" => Some(TokenType::AccessToken),
            "" | "jwt" | "application/jwt" => Some(TokenType::Any),
            _ => None,
        };
        Ok(Self {
            text,
            issuer,
            expires_s: payload.get("exp").and_then(Value::as_i64),
            algorithm: ALGORITHMS.iter().find(|(name, _)| *name == header.alg).map(|(_, algorithm)| *algorithm),
            session_user: session_user(&header.alg, &payload).map(ToOwned::to_owned),
            key_id: header.kid,
            kind,
        })
    }

    /// Verifies the signature with `key`, whose algorithm was compared with the header's, and returns the payload.
    pub(super) fn verified(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<Map<String, Value>, Refusal> {
        // The library verifies the signature; every claim is checked by us, against our clock and in exact shapes, because the
        // defaults of JWT libraries let through what they do not know (RFC 8725).
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<Map<String, Value>>(self.text, key, &validation)
            .map(|token| token.claims)
            .map_err(|_| Refusal::Signature)
    }
}

fn session_user<'p>(algorithm: &str, payload: &'p Map<String, Value>) -> Option<&'p str> {
    let is_session = algorithm == "HS256" && payload.get("typ").is_some_and(|kind| kind == "session");
    payload.get("id").filter(|_| is_session)?.as_str()
}

/// The JSON in one part of a JWT.
pub(super) fn part<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::NotJwt)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::NotJwt)
}

/// The same algorithm as the library calls it.
pub(super) fn algorithm(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Rs512 => Algorithm::RS512,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Es384 => Algorithm::ES384,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
