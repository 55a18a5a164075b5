//! What can go wrong with an account. The sentences are ours and are shown to people: they hold no address, no secret and no
//! word of an authorization server.

use tenant_store::StoreError;

use super::super::error::UpstreamError;
use super::super::oauth::OAuthError;

/// Why an account is not connected, looked up or disconnected. Completes the sentence "the account at upstream `x` of tenant `y` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The upstream is called in another way.
    #[error("cannot be connected: the upstream is not called with accounts of callers' own")]
    NotOffered,
    /// Nobody says who issues its tokens.
    #[error(
        "cannot be connected: the upstream names no authorization server at its own address; an operator must name the `issuer` that is meant"
    )]
    NoIssuer,
    /// The authorization server does not check who began the flow.
    #[error(
        "cannot be connected: its authorization server does not say that it supports PKCE with S256, so none is safe there"
    )]
    NoS256,
    /// There is no client.
    #[error(
        "cannot be connected: its authorization server lets no client register itself; an operator must register mcp-mux there and \
         name it as `client`"
    )]
    NoClient,
    /// The authorization server has no authorization endpoint.
    #[error("cannot be connected: its authorization server has no page for people; an operator must look at it")]
    NoCodes,
    /// The authorization server gave nothing.
    #[error("cannot be connected: its authorization server {0}")]
    Server(#[from] OAuthError),
    /// The secret of the registered client cannot be used.
    #[error("cannot be connected: the upstream {0}")]
    Client(UpstreamError),
    /// The answer is to another flow, of somebody else, elsewhere, or of another browser.
    #[error("was not connected: this answer belongs to no consent that you began here; begin again")]
    OtherFlow,
    /// The answer came too late.
    #[error("was not connected: the consent took longer than ten minutes; begin again")]
    TooLate,
    /// The answer is from another authorization server, or does not say from which.
    #[error("was not connected: the answer does not come from the authorization server that was asked; begin again")]
    OtherIssuer,
    /// The person said no.
    #[error("was not connected: you did not allow it")]
    Declined,
    /// The authorization server sent an error or no code.
    #[error("was not connected: its authorization server gave no code; begin again, or ask an operator to look at it")]
    NoCode,
    /// The upstream changed while the consent ran.
    #[error("was not connected: the upstream's configuration changed meanwhile; begin again")]
    Changed,
    /// The database or its keys cannot be had.
    #[error("cannot be looked up or changed now; try again later")]
    Unavailable,
}

impl AccountError {
    /// The database or its keys failed; the log says how.
    pub(super) fn unstored(error: &StoreError) -> Self {
        tracing::error!(error = error as &dyn std::error::Error, "an account cannot be read or written");
        Self::Unavailable
    }
}
