//! One tool call: the name is looked up among those the caller has, and the tenant's own upstream is asked with the tenant's
//! own credential.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tenant_store::{TenantSlug, UpstreamSlug};
use tokio::time::Instant;

use super::relay::{Relay, Standing};
use super::{Endpoint, Mux, Sight};
use crate::caller::Caller;
use crate::catalog::Entry;
use crate::json::Members;
use crate::policy::{Action, decide};
use crate::upstream::{Answer, Proofs, Reply, Rpc, Trace, UpstreamError};

/// A call as it came from the client.
#[derive(Debug)]
pub struct ToolCall<'r> {
    /// The name under which the client knows the tool.
    pub name: &'r str,
    /// The arguments, passed on byte for byte.
    pub arguments: Option<&'r RawValue>,
    /// The trace of the request.
    pub trace: Trace,
    /// What the client repeated of the arguments as `Mcp-Param-…` headers, by lower-case name and decoded; `None` where its era
    /// has no such headers.
    pub param_headers: Option<BTreeMap<String, String>>,
    /// The client's progress token, raw, if it wants progress.
    pub progress_token: Option<&'r RawValue>,
}

/// How a call went.
#[derive(Debug)]
pub enum Outcome {
    /// The upstream answered at once.
    Whole(Answer),
    /// The upstream streams.
    Stream(Box<Relay>),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller has no such tool: it does not exist, or not for this caller. Nobody can tell which.
    #[error("unknown tool")]
    UnknownTool,
    /// The caller's proof of identity ended while the call ran, or was taken back.
    #[error("your sign-in ended while the tool ran: sign in again")]
    SignedOut,
    /// An argument that is repeated as a header could be read in two ways.
    #[error("arguments that headers repeat must lie in small objects in which no key occurs twice")]
    ArgumentTwice,
    /// A header repeats an argument and says something else, or is missing (SEP-2243).
    #[error("the headers Mcp-Param-… differ from the arguments")]
    HeaderMismatch,
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

impl Mux {
    /// Whether `caller` may call the tool of that name now.
    pub(super) fn may_call(&self, caller: &Caller, endpoint: &Endpoint, name: &str) -> bool {
        self.sight(caller, endpoint).callable(name).is_some()
    }

    /// Calls a tool for `caller`.
    pub async fn call(&self, caller: &Caller, endpoint: &Endpoint, call: &ToolCall<'_>) -> Result<Outcome, CallError> {
        let sight = self.sight(caller, endpoint);
        let entry = sight.callable(call.name).ok_or(CallError::UnknownTool)?;
        let access = sight.reach.access(entry.tenant).ok_or(CallError::UnknownTool)?;
        let shelf = sight.snapshot.shelf(access).ok_or(CallError::UnknownTool)?;

        let upstream = &entry.upstream;
        let stored = shelf.credentials(upstream.id);
        let deadline = caller.deadline.min(Instant::now() + upstream.spec.call_timeout);
        let param_headers = entry.definition.param_headers(call.arguments).ok_or(CallError::ArgumentTwice)?;
        if call.param_headers.as_ref().is_some_and(|repeated| *repeated != param_headers.iter().cloned().collect()) {
            return Err(CallError::HeaderMismatch);
        }
        let rpc = Rpc {
            trace: call.trace.clone(),
            progress: call.progress_token.is_some(),
            param_headers,
            ..Rpc::tool_call(entry.local().as_str(), call.arguments)
        };
        let reply = async {
            let rows = self.store.tenant(access.scope());
            let proofs = Proofs { caller: Some(caller), rows: &rows, stored: &stored };
            let link = self.pool.link(access.scope(), upstream, &proofs, shelf.egress_hosts())?;
            link.ask(&proofs, &rpc, deadline).await
        };
        let reply = tokio::select! {
            biased;
            () = caller.ended.cancelled() => return Err(CallError::SignedOut),
            reply = reply => reply,
        };
        // What was decided before a long call may have been taken back meanwhile.
        if !self.is_current(&sight) && !self.may_call(caller, endpoint, call.name) {
            return Err(CallError::UnknownTool);
        }
        match reply {
            Ok(Reply::Whole(answer)) => accept(answer).map(Outcome::Whole).map_err(|error| failed(entry, error)),
            Ok(Reply::Stream(streaming)) => {
                let token = call.progress_token.map(ToOwned::to_owned);
                let standing = Standing {
                    mux: self.clone(),
                    caller: caller.clone(),
                    endpoint: endpoint.clone(),
                    name: call.name.to_owned(),
                };
                Ok(Outcome::Stream(Box::new(Relay::new(standing, entry, *streaming, token, deadline))))
            }
            Err(error) => Err(failed(entry, error)),
        }
    }
}

impl Sight {
    /// The tool of that name, if it may be called. The view was made by the same decision; deciding again, for this very action,
    /// keeps a mistake in building or caching views from ever becoming a call.
    fn callable(&self, name: &str) -> Option<&Arc<Entry>> {
        let entry = self.view.entry(name)?;
        decide(&self.reach, Action::Call, &entry.facts()).is_allowed().then_some(entry)
    }
}

pub(super) fn failed(entry: &Entry, error: UpstreamError) -> CallError {
    CallError::Upstream { tenant: entry.tenant_slug.clone(), upstream: entry.upstream.slug.clone(), error }
}

/// An answer that can be passed on. A request for input cannot: the state in it must be bound to the caller first.
pub(super) fn accept(answer: Answer) -> Result<Answer, UpstreamError> {
    if let Answer::Result(result) = &answer {
        let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
        if members.get_str("resultType").is_some_and(|kind| kind == "input_required") {
            return Err(UpstreamError::WantsInput);
        }
    }
    Ok(answer)
}
