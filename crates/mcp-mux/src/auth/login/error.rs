//! Why nobody signed in. The sentences are shown to people in their browser: they hold no address, no secret and no word of a
//! provider.

use http::StatusCode;

use super::super::error::Refusal;

/// A sign-in that did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No such issuer, or one without login settings.
    #[error("Nobody signs in here at that identity provider.")]
    UnknownIssuer,
    /// Too many sign-ins run.
    #[error("Too many people sign in at once: try again in a moment.")]
    Busy,
    /// The provider cannot be asked.
    #[error("The identity provider cannot be reached: try again in a moment.")]
    Unavailable,
    /// What the provider publishes cannot be used.
    #[error("The identity provider cannot be used for signing in: an operator must look at the log.")]
    Unusable,
    /// The answer is to another sign-in, of another browser, or too late.
    #[error("This answer belongs to no sign-in that began in this browser within the last ten minutes: begin again.")]
    OtherAnswer,
    /// The answer is from another provider, or does not say from which.
    #[error("This answer does not come from the identity provider that was asked: begin again.")]
    OtherIssuer,
    /// The person said no.
    #[error("You did not sign in.")]
    Declined,
    /// The provider sent an error or no code.
    #[error("The identity provider did not sign you in: begin again, or ask an operator to look at it.")]
    NoCode,
    /// The signature, issuer, audience, nonce or time of the ID token is wrong.
    #[error("The identity provider's ID token was refused: begin again, or ask an operator to look at the log.")]
    Refused,
    /// A claim of the ID token is missing or malformed.
    #[error("The identity provider's ID token cannot be used: an operator must look at the log.")]
    Claims(#[from] Refusal),
    /// The ID token says nothing about groups.
    #[error(
        "The identity provider's ID token does not say which groups you are in, so nothing can be shown: an operator must have it put \
         groups into ID tokens."
    )]
    GroupsMissing,
    /// The groups are too many for a token.
    #[error(
        "You are in too many groups for the identity provider's ID token to list them, so nothing can be shown: ask an operator to have \
         it send application roles or only assigned groups."
    )]
    GroupsOverage,
}

impl LoginError {
    /// The status of the page that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownIssuer => StatusCode::NOT_FOUND,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unusable => StatusCode::BAD_GATEWAY,
            _ => StatusCode::FORBIDDEN,
        }
    }
}
