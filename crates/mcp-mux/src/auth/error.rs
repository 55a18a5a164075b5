//! Why nobody was let in. What the client reads depends on the kind alone; the reason behind a refusal is for the log.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// When to try again what nobody could say: by then a provider is asked again for keys that it may have made since.
const RETRY_AFTER: Duration = super::keys::GATE;

/// A request whose caller could not be verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It carries no bearer token.
    #[error("the request carries no bearer token")]
    Missing,
    /// It carries no bearer token, and no issuer is configured where one could be had.
    #[error("the request carries no proof of a front, and no API key")]
    MissingProof,
    /// It carries several, or something that is no token.
    #[error("the request's authorization cannot be read")]
    Malformed,
    /// A front has proved itself, or would have, and what it says of its user cannot be read.
    #[error("a header in which the front names its user cannot be read")]
    FrontHeader(#[from] HeaderFault),
    /// It carries a token that is not good here.
    #[error("the token was refused")]
    Invalid(#[from] Refusal),
    /// The issuer left the groups out of the token because they are too many.
    #[error("the issuer left the groups out of the token because they are too many")]
    GroupsOverage,
    /// It carries a token in its address.
    #[error("the request's address carries a token")]
    InQuery,
    /// Its token is good and lacks an OAuth scope. These, separated by spaces, are what its issuer is to be asked for.
    #[error("the token lacks an OAuth scope")]
    InsufficientScope(Arc<str>),
    /// An operator revoked whose token it is.
    #[error("the principal is revoked")]
    Revoked,
    /// So many tokens from the same address were no good that no other one is looked at for that long.
    #[error("too many proofs from the same address were refused")]
    TooManyAttempts(Duration),
    /// Whoever could say whether the token is good, or whose it is, cannot be asked.
    #[error("the identity provider cannot be asked")]
    ProviderUnavailable,
}

/// Why a header in which a front names its user, or that user's groups, cannot be read. For the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Two are two claims to be somebody.
    #[error("it is there twice")]
    Twice,
    /// It is longer than it may be, or not of visible characters.
    #[error("it is too long, or no text")]
    Text,
    /// A percent sign begins no byte, or the bytes are no text.
    #[error("its percent-encoding is wrong")]
    Encoding,
    /// The front sent a template as it was written, without filling it in.
    #[error("it holds a template that the front did not fill in")]
    Template,
    /// It lists too many groups, or something that is none.
    #[error("it is no list of groups")]
    Groups,
}

/// Why a token is not good. For the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any token should be.
    #[error("it is too long")]
    TooLong,
    /// Not three base64url parts of JSON.
    #[error("it is not a JWT")]
    NotJwt,
    /// Its header names an algorithm that is not accepted, or none.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// Its header asks for extensions (`crit`).
    #[error("its header has critical extensions")]
    Critical,
    /// Its header's type is not that of an access token.
    #[error("its type is not that of an access token")]
    Type,
    /// Its issuer is not configured.
    #[error("its issuer is not configured")]
    UnknownIssuer,
    /// No key of its issuer has its key id.
    #[error("its key is not one of the issuer's")]
    UnknownKey,
    /// Its signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// A claim that is required is missing or has another shape.
    #[error("a required claim is missing or malformed")]
    ClaimShape,
    /// It was issued for something else.
    #[error("it was issued for another audience")]
    Audience,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet, or claims to come from the future.
    #[error("it is not valid yet")]
    NotYet,
    /// It was issued to an OAuth client that may not call.
    #[error("it was issued to a client that is not allowed")]
    Client,
    /// A program got it for itself, without a user.
    #[error("it has no user")]
    AppOnly,
    /// Its provider says that it is not active, or not any more.
    #[error("its provider says that it is not active")]
    Inactive,
    /// It is the API key of another product.
    #[error("it is the API key of another product")]
    ForeignKey,
    /// It looks like one of our API keys, and is none, or not any more.
    #[error("it is no API key, or not any more")]
    ApiKey,
    /// Its user signed up at the front and was not let in yet.
    #[error("its user was not let in by the front")]
    Pending,
    /// A front proves in the same request that it speaks for somebody else.
    #[error("the token and the front name different users")]
    Contradiction,
    /// It lives longer than access tokens may.
    #[error("it lives too long")]
    Lifetime,
    /// It is an ID token.
    #[error("it is an ID token")]
    IdToken,
    /// It is a refresh token, or another one that is for the provider alone.
    #[error("it is a refresh token, or of another kind than an access token")]
    OtherKind,
    /// It is bound to a key that the request does not prove (`cnf`).
    #[error("it is bound to a key that was not proven")]
    Confirmation,
    /// A claim that lists groups, roles or scopes is no list of names, or too long.
    #[error("its groups, roles or scopes are malformed")]
    Groups,
}

impl AuthError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed | Self::FrontHeader(_) | Self::InQuery => StatusCode::BAD_REQUEST,
            Self::InsufficientScope(_) | Self::GroupsOverage | Self::Revoked => StatusCode::FORBIDDEN,
            Self::ProviderUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyAttempts(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Missing | Self::MissingProof | Self::Invalid(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// The `error` of the challenge (RFC 6750 §3.1): none when no credential was sent, when it was not judged, or when no other
    /// token would help.
    pub fn challenge_error(&self) -> Option<&'static str> {
        match self {
            Self::Missing
            | Self::MissingProof
            | Self::ProviderUnavailable
            | Self::GroupsOverage
            | Self::Revoked
            | Self::TooManyAttempts(_) => None,
            Self::Malformed | Self::FrontHeader(_) | Self::InQuery => Some("invalid_request"),
            Self::InsufficientScope(_) => Some("insufficient_scope"),
            Self::Invalid(_) => Some("invalid_token"),
        }
    }

    /// After what time the same request may be let in.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ProviderUnavailable => Some(RETRY_AFTER),
            Self::TooManyAttempts(wait) => Some(*wait),
            _ => None,
        }
    }

    /// Whether it is something that no issuer gave to anybody, as whoever makes tokens up would show it.
    pub(super) fn is_an_attempt(&self) -> bool {
        use Refusal::{Algorithm, Inactive, NotJwt, Signature, TooLong, UnknownIssuer, UnknownKey};
        let Self::Invalid(refusal) = self else { return false };
        matches!(refusal, Algorithm | Inactive | NotJwt | Signature | TooLong | UnknownIssuer | UnknownKey)
    }

    /// What the client reads.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing => "sign in: the header WWW-Authenticate says where",
            Self::MissingProof => {
                "nobody signs in here: send the key or the signed header of a configured front, or an API key"
            }
            Self::FrontHeader(_) => {
                "a header in which the front names its user or groups cannot be read: send each once, and look at the templates of the connection"
            }
            Self::Malformed => "send exactly one header `Authorization: Bearer <token>`",
            Self::InQuery => "send the token in the header Authorization, never in the address",
            Self::InsufficientScope(_) => {
                "this token may not be used here: sign in again and grant the scope that the header WWW-Authenticate names"
            }
            Self::Invalid(_) => "this token is not good here: sign in again",
            Self::GroupsOverage => {
                "you are in too many groups for your token to list them: ask your administrator to send application roles or only assigned groups"
            }
            Self::Revoked => "your access was revoked: ask an operator",
            Self::TooManyAttempts(_) => {
                "too many tokens that come from your address are not good here: no other one is looked at for a while"
            }
            Self::ProviderUnavailable => "the identity provider cannot be reached: try again in a moment",
        }
    }
}
