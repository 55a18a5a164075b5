//! `X-OpenWebUI-User-Jwt`: HS256 over the user's id, with a secret per front. It has no audience, so the secret must be no other
//! receiver's; it says nothing about groups.

use std::time::Duration;

use http::HeaderName;
use http::header::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tenant_store::{IssuerName, Timestamp};

use super::super::error::{AuthError, Refusal};
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
    key: DecodingKey,
    leeway: Duration,
}

#[derive(Deserialize)]
struct User {
    iss: String,
    sub: String,
    exp: i64,
    iat: i64,
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
        return Some(Err(AuthError::Malformed));
    }
    Some(text.ok_or(AuthError::Malformed))
}

impl UserJwt {
    pub(super) fn new(
        name: IssuerName,
        secret: &SecretString,
        leeway: Duration,
        groups_header: Option<HeaderName>,
    ) -> Self {
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { name, groups_header, key, leeway }
    }

    pub(super) fn verify(&self, text: &str, now: Timestamp) -> Result<FrontUser, Refusal> {
        let header = jsonwebtoken::decode_header(text).map_err(|_| Refusal::NotJwt)?;
        if header.alg != Algorithm::HS256 {
            return Err(Refusal::Algorithm);
        }
        if header.crit.is_some() {
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
        } else if now >= expires_at {
            Err(Refusal::Expired)
        } else if now.plus(LEEWAY) < seconds(user.iat) {
            Err(Refusal::NotYet)
        } else if seconds(user.exp) > seconds(user.iat).plus(LIFETIME_MAX) {
            Err(Refusal::Lifetime)
        } else if is_pending(user.role.as_deref()) {
            Err(Refusal::Pending)
        } else {
            Ok(FrontUser { id: user.sub, email: user.email, groups: Vec::new(), expires_at })
        }
    }
}
