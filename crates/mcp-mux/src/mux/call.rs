//! One request to an upstream: what it is about is looked up among what the caller has, and the tenant's own upstream is asked with
//! the tenant's own credential.

use serde_json::value::RawValue;
use tenant_store::{TenantSlug, UpstreamSlug};
use tokio::time::Instant;

use super::input::{Input, States};
use super::relay::{Relay, Standing};
use super::uris::Uris;
use super::wish::{Target, Wish};
use super::{Endpoint, Mux};
use crate::caller::Caller;
use crate::upstream::{Answer, Proofs, Reply, Rpc, Trace, UpstreamError};

/// A request as it came from the client.
#[derive(Debug)]
pub struct Ask<'r> {
    /// What is asked for.
    pub wish: Wish<'r>,
    /// The trace of the request.
    pub trace: Trace,
    /// The client's progress token, raw, if it wants progress.
    pub progress_token: Option<&'r RawValue>,
    /// What the client could be asked in turn, and what it answers.
    pub input: Input<'r>,
}

/// How a request went.
#[derive(Debug)]
pub enum Outcome {
    /// The upstream answered at once.
    Whole(Answer),
    /// The upstream streams.
    Stream(Box<Relay>),
}

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

/// What is done with an upstream's answer before the caller gets it.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    uris: Uris,
    states: Option<States>,
}

impl Mux {
    /// Asks an upstream for `caller`.
    pub async fn ask(&self, caller: &Caller, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Outcome, CallError> {
        let sight = self.sight(caller, endpoint);
        let thing = ask.wish.thing();
        let target = sight.target(&thing).ok_or(CallError::Unknown(thing.word()))?;
        let deadline = caller.deadline.min(Instant::now() + target.upstream.spec.call_timeout);
        let mut params = ask.wish.params(&target.local);
        let asked = params.len();
        // What binds a state to its request is put together only where there is a state.
        let states = |params: &str| States::of((&self.handles, self.clock.now()), caller, &target, (&ask.wish, params));
        let given = ask.input.given(|| states(&params), self.clock.now()).ok_or(CallError::OtherState)?;
        params.push_str(&given);
        let rpc = Rpc {
            trace: ask.trace.clone(),
            progress: ask.progress_token.is_some(),
            param_headers: param_headers(&ask.wish, &target)?,
            capabilities: ask.input.capabilities(),
            params,
            name: ask.wish.is_named().then_some(target.local.as_str()),
            ..Rpc::new(ask.wish.method())
        };
        let reply = tokio::select! {
            biased;
            () = caller.ended.cancelled() => return Err(CallError::SignedOut),
            reply = self.reply(caller, &target, (&rpc, deadline)) => reply,
        };
        // What was decided before a long call may have been taken back meanwhile.
        if !self.is_current(&sight) && !self.may_use(caller, endpoint, &thing) {
            return Err(CallError::Unknown(thing.word()));
        }
        let may_ask = ask.input.can_be_asked() && asks(&reply);
        let states = may_ask.then(|| states(rpc.params.get(..asked).unwrap_or_default()));
        let finish = Finish { uris: Uris::of(&sight, &target, &ask.wish), states };
        match reply {
            Ok(Reply::Whole(answer)) => {
                finish.finish(answer).map(Outcome::Whole).map_err(|error| failed(target.slugs(), error))
            }
            Ok(Reply::Stream(streaming)) => {
                let token = ask.progress_token.map(ToOwned::to_owned);
                let standing =
                    Standing { mux: self.clone(), caller: caller.clone(), endpoint: endpoint.clone(), thing, finish };
                Ok(Outcome::Stream(Box::new(Relay::new(standing, target.slugs(), *streaming, token, deadline))))
            }
            Err(error) => Err(failed(target.slugs(), error)),
        }
    }

    async fn reply(
        &self,
        caller: &Caller,
        target: &Target<'_>,
        (rpc, deadline): (&Rpc<'_>, Instant),
    ) -> Result<Reply, UpstreamError> {
        let rows = self.store.tenant(target.access.scope());
        let stored = target.shelf.credentials(target.upstream.id);
        let proofs = Proofs { caller: Some(caller), rows: &rows, stored: &stored };
        let link = self.pool.link(target.access.scope(), target.upstream, &proofs, target.shelf.egress_hosts())?;
        link.ask(&proofs, rpc, deadline).await
    }
}

/// Whether the reply asks for input, or may do so in its stream.
fn asks(reply: &Result<Reply, UpstreamError>) -> bool {
    match reply {
        Ok(Reply::Whole(Answer::Result(result))) => States::wanted(result).unwrap_or(false),
        Ok(Reply::Stream(_)) => true,
        _ => false,
    }
}

/// The parameters of a tool that headers repeat. What the client repeated must be the same.
fn param_headers(wish: &Wish<'_>, target: &Target<'_>) -> Result<Vec<(String, String)>, CallError> {
    let (Wish::Tool { arguments, param_headers, .. }, Some(tool)) = (wish, target.tool) else { return Ok(Vec::new()) };
    let found = tool.definition.param_headers(*arguments).ok_or(CallError::ArgumentTwice)?;
    match param_headers {
        Some(repeated) if *repeated != found.iter().cloned().collect() => Err(CallError::HeaderMismatch),
        _ => Ok(found),
    }
}

pub(super) fn failed((tenant, upstream): (TenantSlug, UpstreamSlug), error: UpstreamError) -> CallError {
    CallError::Upstream { tenant, upstream, error }
}

impl Finish {
    /// An answer that can be passed on. A request for input can, where the client could be asked; the state in it is bound to the caller.
    pub(super) fn finish(&self, answer: Answer) -> Result<Answer, UpstreamError> {
        let Answer::Result(result) = answer else { return Ok(answer) };
        let result = if States::wanted(&result)? {
            self.states.as_ref().ok_or(UpstreamError::WantsInput)?.seal(&result)?
        } else {
            self.uris.put(result)
        };
        Ok(Answer::Result(result))
    }
}
