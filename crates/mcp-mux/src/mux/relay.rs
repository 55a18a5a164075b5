//! Carrying a stream of one call from the upstream hop to the downstream hop.
//!
//! The answer passes with only its id changed, and progress with only its token changed. Everything else that an upstream puts
//! into such a stream is dropped: a log message or a request in it cannot be told to be this caller's.

use serde_json::value::RawValue;
use tenant_store::{TenantSlug, UpstreamSlug};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::{CallError, Finish};
use super::wish::Thing;
use super::{Endpoint, Mux};
use crate::caller::Caller;
use crate::json::{self, Members};
use crate::upstream::{Answer, Event, Streaming, UpstreamError, parse_answer};

/// Whose call it is, and whether it still may be.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) mux: Mux,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    pub(super) thing: Thing,
    pub(super) finish: Finish,
}

/// The stream of one call.
#[derive(Debug)]
pub struct Relay {
    standing: Standing,
    decide_at: Instant,
    tenant: TenantSlug,
    upstream: UpstreamSlug,
    streaming: Streaming,
    progress_token: Option<Box<RawValue>>,
    deadline: Instant,
    ended: bool,
}

/// What comes next in a relayed stream.
#[derive(Debug)]
pub enum Step {
    /// A notification for the client, as a whole JSON-RPC message.
    Notification(String),
    /// The end of the call.
    Answer(Result<Answer, CallError>),
}

impl Relay {
    pub(super) fn new(
        standing: Standing,
        (tenant, upstream): (TenantSlug, UpstreamSlug),
        streaming: Streaming,
        progress_token: Option<Box<RawValue>>,
        deadline: Instant,
    ) -> Self {
        Self {
            decide_at: Instant::now() + standing.mux.recheck_every,
            standing,
            tenant,
            upstream,
            streaming,
            progress_token,
            deadline,
            ended: false,
        }
    }

    /// When nobody waits any more.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next step; `None` after the answer.
    pub async fn next(&mut self) -> Option<Step> {
        while !self.ended {
            let step = tokio::select! {
                biased;
                () = self.standing.caller.ended.cancelled() => Some(self.end(CallError::SignedOut)),
                () = sleep_until(self.decide_at) => self.decide(),
                event = timeout_at(self.deadline, self.streaming.events.next()) => match event {
                    Err(_) => Some(self.fail(UpstreamError::TimedOut)),
                    Ok(None) => Some(self.fail(UpstreamError::BrokeOff)),
                    Ok(Some(Err(error))) => Some(self.fail(error)),
                    Ok(Some(Ok(event))) => self.pass(&event),
                },
            };
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// Reads on to the answer, for a client that takes no stream.
    pub async fn answer(mut self) -> Result<Answer, CallError> {
        loop {
            match self.next().await {
                Some(Step::Answer(answer)) => return answer,
                Some(Step::Notification(_)) => {}
                None => unreachable!("a relay ends with an answer, and this one has not ended"),
            }
        }
    }

    fn pass(&mut self, event: &Event) -> Option<Step> {
        if event.0.trim().is_empty() {
            return None;
        }
        if json::is_too_deep(event.0.as_bytes()) {
            return Some(self.fail(UpstreamError::NotMcp));
        }
        let Ok(message) = Members::parse(&event.0) else { return Some(self.fail(UpstreamError::NotMcp)) };
        let is_both = ["id", "result", "error"].iter().any(|key| message.get(key).is_some());
        if message.get("method").is_some() && is_both {
            // A request, which is not relayed, or a message that two readers would take for two: a forged answer to another call.
            return None;
        }
        if message.get("method").is_none() {
            let answer = parse_answer(event.0.as_bytes(), self.streaming.id);
            return Some(match answer.and_then(|answer| self.standing.finish.finish(answer)) {
                Ok(answer) => {
                    self.ended = true;
                    self.streaming.running.finish();
                    Step::Answer(Ok(answer))
                }
                Err(error) => self.fail(error),
            });
        }
        let is_progress = message.get_str("method").is_some_and(|method| method == "notifications/progress");
        if is_progress { self.progress(&event.0).map(Step::Notification) } else { None }
    }

    /// A progress notification under the client's own token, if it is about this call and the client wants it.
    fn progress(&self, text: &str) -> Option<String> {
        let ours = self.progress_token.as_ref()?;
        let params = Members::parse(text).ok()?.get("params")?;
        let token = Members::parse(params.get()).ok()?.get("progressToken")?;
        if token.get() != self.streaming.id.to_string() {
            return None;
        }
        let span = json::span_in(text, token.get())?;
        Some(json::splice(text, vec![(span, ours.get().to_owned())]))
    }

    /// Grants may have changed while the call ran.
    fn decide(&mut self) -> Option<Step> {
        let Standing { mux, caller, endpoint, thing, .. } = &self.standing;
        self.decide_at = Instant::now() + mux.recheck_every;
        if mux.may_use(caller, endpoint, thing) { None } else { Some(self.end(CallError::Unknown(thing.word()))) }
    }

    fn end(&mut self, error: CallError) -> Step {
        self.ended = true;
        Step::Answer(Err(error))
    }

    fn fail(&mut self, error: UpstreamError) -> Step {
        if !matches!(error, UpstreamError::TimedOut | UpstreamError::TooLarge) {
            self.streaming.running.finish();
        }
        let (tenant, upstream) = (self.tenant.clone(), self.upstream.clone());
        self.end(CallError::Upstream { tenant, upstream, error })
    }
}
