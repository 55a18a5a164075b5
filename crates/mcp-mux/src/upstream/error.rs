//! What can go wrong on the upstream hop. The sentences are ours and are shown to callers: they hold no address, no secret and
//! no library's words. Details are logged where the failure happens, and the log is the only place for them.

use tenant_store::SecretName;

use super::oauth::OAuthError;
use super::openapi::DocumentError;
use crate::error::Fault;
use crate::telemetry::OTHER;

/// A failed exchange with an upstream. Completes the sentence "upstream `x` of tenant `y` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or it broke.
    #[error("cannot be reached")]
    Unreachable,
    /// Its address is none that the configuration lets us call.
    #[error("has an address that mcp-mux may not call: an operator must look at it")]
    Forbidden,
    /// The deadline passed.
    #[error("did not answer in time")]
    TimedOut,
    /// As many calls run as the operator allows.
    #[error("is busy: too many calls run at once; try again")]
    Busy,
    /// As many bytes of its calls, or of its tenant's, are held as may be.
    #[error("is busy: too many bytes are on their way at once; try again")]
    NoRoom,
    /// It answered, and there is no room to hold that in.
    #[error("gave an answer for which there is no room: too many bytes are on their way at once")]
    NoRoomToRead,
    /// It failed again and again, and is left alone for so many seconds.
    #[error("failed several times in a row and is left alone for a while: try again in {0} s")]
    Resting(u64),
    /// A secret that its configuration names was never stored, or was dropped because the address changed.
    #[error("has no stored secret `{0}`: an operator must set it")]
    CredentialMissing(SecretName),
    /// A stored secret does not open, or cannot be written as a header.
    #[error("has a stored secret `{0}` that cannot be used: an operator must set it again")]
    CredentialUnusable(SecretName),
    /// The key that opens its secrets cannot be had now.
    #[error("cannot be called: its secrets cannot be opened now; try again later")]
    SecretsUnavailable,
    /// It answered 403, or 401 where there is nothing else to show.
    #[error("refused its stored credential: an operator must look at it")]
    CredentialRefused,
    /// It answered 401, which says that it did not execute the request; another access token may be taken.
    #[error("refused the access token that it was shown: an operator must look at what it wants")]
    Unauthorized,
    /// There is no access token to show it.
    #[error("cannot be called: its authorization server {0}")]
    NoToken(OAuthError),
    /// It is called as whoever calls, and this caller showed no access token.
    #[error(
        "is called with your own access token in exchange, and you showed none: sign in at the identity provider itself, not with an \
         API key or through a front"
    )]
    CallerTokenMissing,
    /// It is called with an account of the caller's own there, and the caller has connected none, or one that is not good any more.
    #[error("is called with your own account there, and none of yours is connected: open the link to connect one")]
    AccountMissing,
    /// It answered another status that is no success.
    #[error("answered with HTTP status {0}")]
    Status(u16),
    /// It answered something that is not MCP.
    #[error("answered something that is not MCP")]
    NotMcp,
    /// Its answer is longer than we take.
    #[error("gave an answer that is too large")]
    TooLarge,
    /// Its stream ended before the answer came.
    #[error("broke off before it answered")]
    BrokeOff,
    /// It speaks the transport of 2024-11-05 and wants its messages at another origin, which would get the credential.
    #[error("wants its messages at another origin, where mcp-mux sends none")]
    EndpointElsewhere,
    /// It speaks no protocol version that we speak.
    #[error("speaks no protocol version that mcp-mux speaks")]
    NoCommonVersion,
    /// It asked for input in a way in which the client cannot be asked.
    #[error(
        "asked for input from the user, and your client cannot be asked for that here: it does not say that it can, or has no session"
    )]
    WantsInput,
    /// It is an API, and what describes it is of no use.
    #[error("cannot be used: its OpenAPI document {0}")]
    Document(DocumentError),
    /// It is an API whose document has no such operation any more.
    #[error("does not have this operation any more: list the tools again")]
    OperationGone,
    /// It has no way of telling that something changed, or none that we hear.
    #[error("does not tell of changes")]
    TellsNothing,
    /// The client for it could not be built.
    #[error("cannot be called: mcp-mux could not set up a connection")]
    Setup,
    /// It no longer knows our session; the caller of the link starts a new one.
    #[error("forgot its session")]
    SessionGone,
    /// It no longer speaks the version that was agreed on.
    #[error("changed its protocol version")]
    VersionChanged,
}

impl UpstreamError {
    /// What went wrong, in a word for whoever counts.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden_address",
            Self::TimedOut => "timeout",
            Self::Busy | Self::NoRoom | Self::NoRoomToRead => "busy",
            Self::Resting(_) => "breaker_open",
            Self::CredentialMissing(_) | Self::CredentialUnusable(_) | Self::SecretsUnavailable => {
                "credential_unusable"
            }
            Self::CredentialRefused | Self::Unauthorized => "credential_refused",
            Self::NoToken(_) | Self::CallerTokenMissing => "no_token",
            Self::AccountMissing => "account_missing",
            Self::Status(status) if *status >= 500 => "http_5xx",
            Self::Status(_) => "http_other",
            Self::NotMcp | Self::EndpointElsewhere | Self::NoCommonVersion => "not_mcp",
            Self::TooLarge => "too_large",
            Self::BrokeOff => "broke_off",
            Self::WantsInput => "wants_input",
            Self::Document(_) | Self::OperationGone => "openapi_document",
            Self::TellsNothing | Self::Setup | Self::SessionGone | Self::VersionChanged => OTHER,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Setup
            | Self::Forbidden
            | Self::CredentialMissing(_)
            | Self::CredentialUnusable(_)
            | Self::SecretsUnavailable => Fault::Ours,
            Self::AccountMissing | Self::CallerTokenMissing | Self::NoToken(OAuthError::CallerRefused) => {
                Fault::Downstream
            }
            _ => Fault::Upstream,
        }
    }

    /// Whether it comes before anything was asked of the upstream.
    pub fn is_before_asking(&self) -> bool {
        matches!(
            self,
            Self::Forbidden
                | Self::Busy
                | Self::NoRoom
                | Self::Resting(_)
                | Self::CredentialMissing(_)
                | Self::CredentialUnusable(_)
                | Self::SecretsUnavailable
                | Self::NoToken(_)
                | Self::CallerTokenMissing
                | Self::AccountMissing
                | Self::OperationGone
                | Self::Setup
        )
    }
}
