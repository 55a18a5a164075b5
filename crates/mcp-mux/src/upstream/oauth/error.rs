//! Why there is no access token, in our own words: an authorization server's text may hold anything and is never shown or logged.

/// The error codes that are known (RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 8707 §2), and what each comes to.
const CODES: [(&str, OAuthError); 9] = [
    ("invalid_client", OAuthError::ClientRefused),
    ("unauthorized_client", OAuthError::ClientRefused),
    ("invalid_grant", OAuthError::GrantRefused),
    ("access_denied", OAuthError::GrantRefused),
    ("invalid_request", OAuthError::RequestRefused),
    ("unsupported_grant_type", OAuthError::RequestRefused),
    ("invalid_scope", OAuthError::TargetRefused),
    ("invalid_target", OAuthError::TargetRefused),
    ("temporarily_unavailable", OAuthError::Unavailable),
];

/// Why there is no access token. Completes the sentence "upstream `x` of tenant `y` cannot be called: its authorization server …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// No connection, it broke, or no answer came in time.
    #[error("cannot be reached; try again in half a minute")]
    Unreachable,
    /// Its address is none that the configuration lets us call.
    #[error("has an address that mcp-mux may not call: an operator must look at it")]
    Forbidden,
    /// It answered that it cannot answer.
    #[error("cannot answer now; try again in half a minute")]
    Unavailable,
    /// It does not know the client, or not this proof, or not for this.
    #[error("refused mcp-mux as its client: an operator must look at the client's id, secret and rights")]
    ClientRefused,
    /// It did not take what the token was to be given for.
    #[error("gave no token: an operator must look at what the client may do there")]
    GrantRefused,
    /// It did not take the caller's own token.
    #[error(
        "did not take your access token in exchange: sign in again, or ask an operator whether you may use this upstream"
    )]
    CallerRefused,
    /// It knows no such scope, resource or audience.
    #[error("refused the scope, resource or audience: an operator must look at them")]
    TargetRefused,
    /// It does not understand the request, or knows no such way to ask.
    #[error("does not take this kind of request: an operator must look at what it supports")]
    RequestRefused,
    /// Its answer is not what the specifications say.
    #[error("gave an answer that is no access token")]
    NotUnderstood,
    /// Its metadata is missing, or belongs to somebody else.
    #[error("has no metadata that can be used: an operator must look at the issuer, or give its token endpoint")]
    NotDiscovered,
    /// It registers no client, or not ours.
    #[error("did not register mcp-mux as a client: an operator must register one there and name it as `client`")]
    RegistrationRefused,
    /// The request cannot be made.
    #[error("cannot be asked: mcp-mux could not write the request")]
    NotWritten,
}

impl OAuthError {
    /// What an error code comes to, and the code itself if it is one that is known.
    pub(super) fn of_code(code: &str) -> (Self, &'static str) {
        let known = CODES.iter().find(|(known, _)| *known == code);
        known.map_or((Self::RequestRefused, "another"), |(known, error)| (*error, known))
    }

    /// The same where a caller's token was to be exchanged. Whatever is wrong with that token is `invalid_request` (RFC 8693 §2.2.2).
    pub(super) fn of_exchange(self) -> Self {
        match self {
            Self::GrantRefused | Self::RequestRefused => Self::CallerRefused,
            error => error,
        }
    }
}
