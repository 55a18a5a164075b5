//! `X-OpenWebUI-User-Jwt`: HS256 over the user's id, with a secret per front. Open WebUI names no audience in it, so the secret must
//! be no other receiver's; it says nothing about groups.

use std::time::Duration;

use http::HeaderName;
use http::header::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tenant_store::{IssuerName, Timestamp};

use super::super::error::{AuthError, HeaderFault, Refusal};
use super::super::token;
use super::{FrontUser, is_pending};

const HEADER: HeaderName = HeaderName::from_static("x-openwebui-user-jwt");
/// What Open WebUI calls itself in these.
const ISSUER: &str = "open-webui";
const JWT_BYTES_MAX: usize = 8 * 1024;
/// Clocks may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Longest life that such a JWT may be given.
const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// Verifies one front's JWTs.
pub(in crate::auth) struct UserJwt {
    pub(super) name: IssuerName,
    pub(super) groups_header: Option<HeaderName>,
    pub(super) key: DecodingKey,
    pub(super) leeway: Duration,
    pub(super) audience: Option<String>,
}

/// Members of the header that matter.
#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Value>,
    b64: Option<Value>,
}

#[derive(Deserialize)]
struct User {
    iss: String,
    sub: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    aud: Option<Value>,
    email: Option<String>,
    role: Option<String>,
}

impl std::fmt::Debug for UserJwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserJwt").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The one JWT that a request carries, if it carries any.
pub(super) fn header(headers: &HeaderMap) -> Option<Result<&str, AuthError>> {
    let mut values = headers.get_all(HEADER).iter();
    let text = values.next()?.to_str().ok().filter(|text| text.len() <= JWT_BYTES_MAX);
    if values.next().is_some() {
        return Some(Err(HeaderFault::Twice.into()));
    }
    Some(text.ok_or(HeaderFault::Text.into()))
}

/// What verifies the signatures that `secret` makes.
pub(super) fn key(secret: &SecretString) -> DecodingKey {
    DecodingKey::from_secret(secret.expose_secret().as_bytes())
}

impl UserJwt {
    pub(super) fn verify(&self, text: &str, now: Timestamp) -> Result<FrontUser, Refusal> {
        let header: Header = token::part(text.split('.').next().unwrap_or_default())?;
        if header.alg != "HS256" {
            return Err(Refusal::Algorithm);
        }
        if header.crit.is_some() || header.b64.is_some() {
            return Err(Refusal::Critical);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let user = jsonwebtoken::decode::<User>(text, &self.key, &validation).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
            _ => Refusal::ClaimShape,
        })?;
        self.user(user.claims, now)
    }

    fn user(&self, user: User, now: Timestamp) -> Result<FrontUser, Refusal> {
        let seconds = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1_000));
        let expires_at = seconds(user.exp).plus(self.leeway);
        if user.iss != ISSUER {
            Err(Refusal::UnknownIssuer)
        } else if !self.is_for_us(user.aud.as_ref()) {
            Err(Refusal::Audience)
        } else if now >= expires_at {
            Err(Refusal::Expired)
        } else if now.plus(LEEWAY) < seconds(user.iat.max(user.nbf.unwrap_or(user.iat))) {
            Err(Refusal::NotYet)
        } else if seconds(user.exp) > seconds(user.iat).plus(LIFETIME_MAX) {
            Err(Refusal::Lifetime)
        } else if is_pending(user.role.as_deref()) {
            Err(Refusal::Pending)
        } else {
            Ok(FrontUser { id: user.sub, email: user.email, groups: Vec::new(), expires_at })
        }
    }

    /// A JWT that names an audience was made for it, which must then be ours; and one that does not is not for whoever has a name.
    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        match (audience, &self.audience) {
            (None, None) => true,
            (Some(Value::Array(named)), Some(ours)) => named.iter().any(|name| name == ours),
            (Some(named), Some(ours)) => named == ours,
            _ => false,
        }
    }
}
