//! Why a request has no answer, in words for its caller.

use tenant_store::{TenantSlug, UpstreamSlug};

use crate::limits::Limited;
use crate::upstream::UpstreamError;

/// After so long a call that could not be recorded may be tried again.
pub const UNRECORDED_RETRY_SECONDS: u64 = 5;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller has no such thing: it does not exist, or not for this caller. Nobody can tell which.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// The caller's proof of identity ended while the call ran, or was taken back.
    #[error("your sign-in ended while the tool ran: sign in again")]
    SignedOut,
    /// An argument that is repeated as a header could be read in two ways.
    #[error("arguments that headers repeat must lie in small objects in which no key occurs twice")]
    ArgumentTwice,
    /// A header repeats an argument and says something else, or is missing (SEP-2243).
    #[error("the headers Mcp-Param-… differ from the arguments")]
    HeaderMismatch,
    /// A `requestState` that we did not give to this caller for this request, or that has ended.
    #[error("`requestState` does not belong to this request, or has ended: begin again without it")]
    OtherState,
    /// The call that asked for input does not wait here: it waited too long, was answered already, or waits at another replica.
    #[error("the call that asked for this does not wait here any more: begin again without `requestState`")]
    NotParked,
    /// A `requestState` without what was asked for.
    #[error("`inputResponses` has no answer to what was asked")]
    NoAnswer,
    /// The client was asked for input in the stream of the call, and did not give it.
    #[error("upstream `{upstream}` of tenant `{tenant}` needs input from the user, and the client did not give it")]
    Unanswered {
        /// The tenant's short name, which the caller knows from the tool's name.
        tenant: TenantSlug,
        /// The upstream's short name.
        upstream: UpstreamSlug,
    },
    /// Too many calls were made.
    #[error("{}: try again in {seconds} s", .limited.as_str())]
    Limited {
        /// By whom or of what.
        limited: Limited,
        /// After so many seconds one may be made again.
        seconds: u64,
    },
    /// The call could not be recorded, so it is not made.
    #[error("calls cannot be recorded at present, so none is made: try again in {UNRECORDED_RETRY_SECONDS} s")]
    Unrecorded,
    /// Text of another tenant stands in the arguments, and does not go there.
    #[error(
        "these arguments hold text that came from {} a short time ago, which does not go to tenant `{to}`: leave it out",
        .from.as_ref().map_or("another tenant".to_owned(), |from| format!("tenant `{from}`"))
    )]
    Flow {
        /// Whose text it is; none, where that is not one that the caller is let in for here.
        from: Option<TenantSlug>,
        /// Who was to get it.
        to: TenantSlug,
    },
    /// The upstream failed. The sentence names tenant and upstream and nothing else about them.
    #[error("upstream `{upstream}` of tenant `{tenant}` {error}")]
    Upstream {
        /// The tenant's short name, which the caller knows from the tool's name.
        tenant: TenantSlug,
        /// The upstream's short name.
        upstream: UpstreamSlug,
        /// What happened.
        error: UpstreamError,
    },
}
