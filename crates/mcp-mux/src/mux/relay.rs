//! Carrying one call between the upstream hop and the downstream hop: what the upstream sends, in the stream of the call or in its
//! session's own, and whatever it asks the client meanwhile.
//!
//! The answer passes with only its id changed, and progress with only its token changed. Log messages pass from the level on that the
//! client wants: they are this caller's, for they came in a stream of this caller's own call. Requests for input pass where the
//! client can be asked. Everything else that an upstream puts into such a stream is dropped.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tenant_store::{TenantId, TenantSlug, UpstreamId, UpstreamSlug};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::{Asking, CallError, Finish, Finished, Request, failed};
use super::flows::{self, Found};
use super::ground::Grounds;
use super::input::{self, Asked};
use super::matter::Matter;
use super::pace::{Pace, wait_until};
use super::parked::Parked;
use super::record::Recording;
use super::round::{self, Round, Then};
use super::stage::{Happened, Stage};
use super::wish::Thing;
use super::{Endpoint, Mux};
use crate::audit::Shown;
use crate::caller::Caller;
use crate::json::{self, Members};
use crate::upstream::{
    Answer, ClientCapabilities, Event, Load, LogLevel, Reply, Streaming, UpstreamError, parse_answer,
};

/// How often an upstream may ask in one call.
const QUESTIONS_MAX: usize = 32;
/// How many pings and refused requests of an upstream are answered in one call.
const REFUSALS_MAX: usize = 1_000;
/// Longest request of an upstream, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an upstream hears that asks for something which its client cannot do.
const NOT_SUPPORTED: &str = r#""error":{"code":-32601,"message":"the client cannot do this"}"#;
/// What an upstream hears that asks whether anybody is there.
const PONG: &str = r#""result":{}"#;

/// Whose call it is, and whether it still may be.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) mux: Mux,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    pub(super) thing: Thing,
    /// Where it leads, in words for the caller.
    pub(super) place: (TenantSlug, UpstreamSlug),
    /// And in fact.
    pub(super) target: (TenantId, UpstreamId),
    pub(super) call_timeout: Duration,
    pub(super) progress_token: Option<Box<RawValue>>,
    pub(super) log: Option<LogLevel>,
    pub(super) finish: Finish,
    /// In whose room what goes to the client is held. Nothing is held by it.
    pub(super) load: Load,
    /// What the upstream is shown, as the record will say it.
    pub(super) shown: Shown,
}

/// One call.
#[derive(Debug)]
pub struct Relay {
    standing: Arc<Standing>,
    stage: Stage,
    decide_at: Instant,
    grounds: Grounds,
    deadline: Instant,
    /// How many more times the upstream may ask.
    questions_left: usize,
    /// How many more of its requests are answered without the client.
    refusals_left: usize,
    pace: Pace,
    /// What holds what was read last.
    load: Load,
    /// Told how it ends. When it is dropped before, nobody waited.
    recording: Option<Recording>,
}

/// What comes next for the client.
#[derive(Debug)]
pub enum Step {
    /// A notification or a request for the client, as a whole JSON-RPC message.
    Message(String),
    /// The end of the call.
    Answer(Result<Answer, CallError>),
}

impl Relay {
    /// The upstream streams.
    pub(super) fn reading(standing: Standing, streaming: Streaming, deadline: Instant) -> Self {
        let load = streaming.events.load().clone();
        Self { load, ..Self::at(standing, Stage::Reading(streaming), deadline) }
    }

    /// The upstream asked for input in its answer.
    pub(super) fn asking(standing: Standing, result: &RawValue) -> Result<Self, CallError> {
        let deadline = standing.caller.deadline;
        let mut relay = Self::at(standing, Stage::Ended, deadline);
        relay.stage = relay.round(result)?;
        Ok(relay)
    }

    /// The user is asked whether what was found in the arguments of `called` may be sent.
    pub(super) fn sending(
        standing: Standing,
        (found, called): (Found, &str),
        request: Arc<Request>,
    ) -> Result<Self, CallError> {
        let deadline = standing.caller.deadline;
        let mut relay = Self::at(standing, Stage::Ended, deadline);
        let asked = vec![found.asked(called)];
        relay.stage = Stage::Asking(relay.ask(asked, Then::Send(request, Box::new(found)))?);
        Ok(relay)
    }

    /// The client comes back with what a parked call waits for.
    pub(super) fn resuming(standing: Standing, parked: Parked, answer: &RawValue) -> Self {
        let Parked { streaming, asked, questions_left } = parked;
        standing.shown.goes();
        let deadline = standing.caller.deadline.min(Instant::now() + standing.call_timeout);
        let mut relay = Self::at(standing, Stage::Ended, deadline);
        relay.questions_left = questions_left;
        relay.stage = relay.telling(streaming, asked, format!("\"result\":{}", answer.get()));
        relay
    }

    fn at(standing: Standing, stage: Stage, deadline: Instant) -> Self {
        let decide_at = Instant::now() + standing.mux.recheck_every;
        let grounds = standing.mux.grounds(standing.target.0, None);
        Self {
            grounds,
            standing: Arc::new(standing),
            stage,
            decide_at,
            deadline,
            questions_left: QUESTIONS_MAX,
            refusals_left: REFUSALS_MAX,
            pace: Pace::default(),
            load: Load::default(),
            recording: None,
        }
    }

    /// From here on its end is recorded there.
    pub(super) fn record(&mut self, recording: Recording) {
        self.recording = Some(recording);
    }

    /// What the call is about.
    pub fn matter(&self) -> Matter {
        let Standing { endpoint, thing, target, .. } = &*self.standing;
        Matter { endpoint: endpoint.clone(), thing: thing.clone(), target: *target }
    }

    /// Its caller's token, which is cancelled when the caller's proof is not good any more.
    pub fn ended(&self) -> &CancellationToken {
        &self.standing.caller.ended
    }

    /// When nobody waits any more.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next step; `None` after the answer. Nothing is lost when it is not waited for to its end.
    pub async fn next(&mut self) -> Option<Step> {
        while !matches!(self.stage, Stage::Ended) {
            let resumes_at = self.pace.resumes_at();
            let happens = async {
                wait_until(resumes_at).await;
                self.stage.next().await
            };
            let step = tokio::select! {
                biased;
                () = self.standing.caller.ended.cancelled() => Some(self.end(Err(CallError::SignedOut))),
                () = sleep_until(self.decide_at) => self.decide(),
                () = self.grounds.moved(&self.standing.mux) => self.decide(),
                happened = timeout_at(self.deadline, happens) => match happened {
                    Ok(happened) => self.take(happened),
                    Err(_) => Some(self.late()),
                },
            };
            if let Some(Step::Answer(answer)) = &step
                && let Some(recording) = self.recording.take()
            {
                recording.finish(answer.as_ref());
            }
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// What holds what was said last. Whoever keeps that for the client keeps this as long.
    pub fn load(&self) -> Load {
        self.load.clone()
    }

    /// Room for so many bytes that wait for the client, while the upstream says more; or why there is none.
    pub fn hold(&self, bytes: usize) -> Result<Load, CallError> {
        let load = self.standing.load.apart();
        if load.take(bytes) { Ok(load) } else { Err(failed(self.standing.place.clone(), UpstreamError::NoRoomToRead)) }
    }

    /// Nobody goes on with it, for that reason.
    pub fn give_up(&mut self, error: &CallError) {
        if let Some(recording) = self.recording.take() {
            recording.finish(Err(error));
        }
    }

    /// Reads on to the answer, for a client that takes no stream, and says what holds it.
    pub async fn answer(mut self) -> (Result<Answer, CallError>, Load) {
        loop {
            match self.next().await {
                Some(Step::Answer(answer)) => return (answer, self.load()),
                Some(Step::Message(_)) => {}
                None => unreachable!("a relay ends with an answer, and this one has not ended"),
            }
        }
    }

    fn take(&mut self, happened: Happened) -> Option<Step> {
        match happened {
            Happened::Event(None) => Some(self.fail(UpstreamError::BrokeOff)),
            Happened::Event(Some(Err(error))) => Some(self.fail(error)),
            Happened::Event(Some(Ok(_))) if !self.pace.count(Instant::now()) => {
                Some(self.fail(UpstreamError::TooLarge))
            }
            Happened::Event(Some(Ok(event))) => self.pass(&event),
            Happened::Send(request) => Some(Step::Message(request)),
            Happened::Answered => self.tell().err().map(|error| self.end(Err(error))),
            Happened::Told(Err(error)) => Some(self.end(Err(error))),
            Happened::Told(Ok(Reply::Stream(streaming))) => {
                self.load = streaming.events.load().clone();
                self.stage = Stage::Reading(*streaming);
                None
            }
            Happened::Told(Ok(Reply::Whole(answer))) => match self.hold(answer.bytes()) {
                Ok(load) => {
                    self.load = load;
                    self.finish(answer)
                }
                Err(error) => Some(self.end(Err(error))),
            },
        }
    }

    /// One message of the upstream's stream.
    fn pass(&mut self, event: &Event) -> Option<Step> {
        if event.0.trim().is_empty() {
            return None;
        }
        if json::is_too_deep(event.0.as_bytes()) {
            return Some(self.fail(UpstreamError::NotMcp));
        }
        let Ok(message) = Members::parse(&event.0) else { return Some(self.fail(UpstreamError::NotMcp)) };
        let is_answer = ["result", "error"].iter().any(|key| message.get(key).is_some());
        if let (Stage::Reading(streaming), false) = (&mut self.stage, is_answer) {
            streaming.running.stirs();
        }
        match (message.get("method"), message.get("id")) {
            // A message that two readers would take for two: a forged answer to another call.
            (Some(_), _) if is_answer => None,
            (None, _) => self.answered(event),
            (Some(method), id) => match (json::as_str(method)?.as_ref(), id) {
                ("notifications/progress", None) => self.progress(&message).map(Step::Message),
                ("notifications/message", None) => self.log(&message).map(Step::Message),
                (method, Some(id)) => self.question(method, id, message.get("params")),
                _ => None,
            },
        }
    }

    fn answered(&mut self, event: &Event) -> Option<Step> {
        let Stage::Reading(Streaming { id, .. }) = &self.stage else { return None };
        match parse_answer(event.0.as_bytes(), *id) {
            Ok(answer) => self.finish(answer),
            Err(error) => Some(self.fail(error)),
        }
    }

    /// A progress notification under the client's own token, if it is about this call and the client wants it.
    fn progress(&self, message: &Members<'_>) -> Option<String> {
        let Stage::Reading(streaming) = &self.stage else { return None };
        let ours = self.standing.progress_token.as_ref()?;
        let params = message.get("params")?;
        let token = Members::parse(params.get()).ok()?.get("progressToken")?;
        if token.get() != streaming.id.to_string() {
            return None;
        }
        let span = json::span_in(params.get(), token.get())?;
        let params = json::splice(params.get(), vec![(span, ours.get().to_owned())]);
        Some(notification("notifications/progress", &params))
    }

    /// A log message, if the client wants it.
    fn log(&self, message: &Members<'_>) -> Option<String> {
        let params = message.get("params")?;
        let level = Members::parse(params.get()).ok()?.get_str("level").and_then(|name| LogLevel::parse(&name))?;
        let is_wanted = self.standing.log.is_some_and(|wanted| level >= wanted);
        is_wanted.then(|| notification("notifications/message", params.get()))
    }

    /// A request of a legacy upstream.
    fn question(&mut self, method: &str, id: &RawValue, params: Option<&RawValue>) -> Option<Step> {
        let Stage::Reading(streaming) = &self.stage else { return None };
        let session = streaming.running.asks()?;
        if id.get().len() > input::ID_BYTES_MAX {
            return None;
        }
        let is_small = params.is_none_or(|params| params.get().len() <= REQUEST_BYTES_MAX);
        let can = |can: ClientCapabilities| {
            is_small && can.can_answer(method, params) && session.can.can_answer(method, params)
        };
        match &self.standing.finish.asking {
            Asking::InAnswer(declared, _) | Asking::InStream(declared, _)
                if self.questions_left == 0 && can(*declared) =>
            {
                Some(self.fail(UpstreamError::NotMcp))
            }
            Asking::InAnswer(declared, _) if can(*declared) => {
                self.questions_left -= 1;
                Some(self.park(method, id, params))
            }
            Asking::InStream(declared, _) if can(*declared) => {
                self.questions_left -= 1;
                let asked = Asked { key: String::new(), request: input::as_request(method, params) };
                self.ask_legacy(asked, id).err().map(|error| self.end(Err(error)))
            }
            _ => {
                // Who asks again and again is not answered for ever.
                if let Some(left) = self.refusals_left.checked_sub(1) {
                    self.refusals_left = left;
                    streaming.running.answer_soon(id, if method == "ping" { PONG } else { NOT_SUPPORTED });
                }
                None
            }
        }
    }

    /// The question as the answer of the call, which waits for the next request of its caller.
    fn park(&mut self, method: &str, id: &RawValue, params: Option<&RawValue>) -> Step {
        let Stage::Reading(mut streaming) = mem::replace(&mut self.stage, Stage::Ended) else {
            unreachable!("what asks is read from")
        };
        let Standing { mux, caller, finish, place, .. } = &*self.standing;
        let Asking::InAnswer(_, states) = &finish.asking else { unreachable!("who is asked in the answer is parked") };
        streaming.running.rest();
        let parked = Parked { streaming, asked: id.to_owned(), questions_left: self.questions_left };
        let answer = mux.parked.park(caller, parked).ok_or(UpstreamError::Busy).and_then(|id| {
            let asked = states.seal_parked(id, &input::as_request(method, params));
            asked.map(Answer::Result)
        });
        Step::Answer(answer.map_err(|error| failed(place.clone(), error)))
    }

    /// The question as a request to the client.
    fn ask_legacy(&mut self, asked: Asked, id: &RawValue) -> Result<(), CallError> {
        let Stage::Reading(mut streaming) = mem::replace(&mut self.stage, Stage::Ended) else { return Ok(()) };
        streaming.running.rest();
        let round = self.ask(vec![asked], Then::Answer(Box::new(streaming), id.to_owned()))?;
        self.stage = Stage::Asking(round);
        Ok(())
    }

    /// The questions in a modern upstream's answer as requests to the client.
    fn round(&mut self, result: &RawValue) -> Result<Stage, CallError> {
        let failed = |error| failed(self.standing.place.clone(), error);
        let Asking::InStream(can, request) = &self.standing.finish.asking else {
            return Err(failed(UpstreamError::WantsInput));
        };
        if self.questions_left == 0 {
            return Err(failed(UpstreamError::NotMcp));
        }
        let (asked, state) = input::questions(result, *can).map_err(failed)?;
        let then = Then::AskAgain(Arc::clone(request), state);
        self.questions_left -= 1;
        self.ask(asked, then).map(Stage::Asking)
    }

    fn ask(&mut self, asked: Vec<Asked>, then: Then) -> Result<Round, CallError> {
        let Standing { mux, caller, place, .. } = &*self.standing;
        let busy = || failed(place.clone(), UpstreamError::Busy);
        let round = Round::open((&mux.questions, caller), asked, then).ok_or_else(busy)?;
        // People take their time.
        self.deadline = caller.deadline;
        Ok(round)
    }

    /// Tells the upstream what the client answered.
    fn tell(&mut self) -> Result<(), CallError> {
        let Stage::Asking(round) = mem::replace(&mut self.stage, Stage::Ended) else { return Ok(()) };
        self.deadline = self.standing.caller.deadline.min(Instant::now() + self.standing.call_timeout);
        let Round { answers, then, .. } = round;
        self.stage = match then {
            Then::Answer(streaming, id) => {
                let outcome = round::outcome(answers).ok_or_else(|| self.unanswered())?;
                self.telling(*streaming, id, outcome)
            }
            Then::AskAgain(request, state) => {
                let results = round::results(answers).ok_or_else(|| self.unanswered())?;
                let given = input::responses(&results, state.as_deref());
                Stage::Telling(Box::pin(Mux::ask_again(Arc::clone(&self.standing), request, given)))
            }
            Then::Send(request, found) => {
                let Standing { mux, caller, .. } = &*self.standing;
                let answers = round::results(answers).unwrap_or_default();
                if answers.is_empty() || !answers.iter().all(|(_, answer)| flows::is_accepted(answer)) {
                    return Err(mux.kept_back(caller, &found, "declined"));
                }
                mux.sent(caller, &found, "approved");
                Stage::Telling(Box::pin(Mux::ask_again(Arc::clone(&self.standing), request, String::new())))
            }
        };
        Ok(())
    }

    /// Answers the request `id` that a legacy upstream made.
    fn telling(&self, mut streaming: Streaming, id: Box<RawValue>, outcome: String) -> Stage {
        let (place, deadline, standing) = (self.standing.place.clone(), self.deadline, Arc::clone(&self.standing));
        Stage::Telling(Box::pin(async move {
            let told = async {
                standing.mux.check_place(&standing, &streaming.running)?;
                streaming.running.answer(&id, &outcome, deadline).await
            };
            told.await.map(|()| Reply::Stream(Box::new(streaming))).map_err(|error| failed(place, error))
        }))
    }

    /// The upstream's answer.
    fn finish(&mut self, answer: Answer) -> Option<Step> {
        if let Stage::Reading(streaming) = &mut self.stage {
            streaming.running.answered(&answer);
        }
        match self.standing.finish.finish(answer) {
            Ok(Finished::Answer(answer)) => Some(self.end(Ok(answer))),
            Ok(Finished::Questions(result)) => match self.round(&result) {
                Ok(stage) => {
                    self.stage = stage;
                    None
                }
                Err(error) => Some(self.end(Err(error))),
            },
            Err(error) => Some(self.fail(error)),
        }
    }

    /// Grants may have changed while the call ran.
    fn decide(&mut self) -> Option<Step> {
        let standing = Arc::clone(&self.standing);
        self.decide_at = Instant::now() + standing.mux.recheck_every;
        let may_go_on = standing.mux.may_use(&standing.caller, &self.matter());
        if may_go_on { None } else { Some(self.end(Err(standing.mux.taken_back(&standing.caller, &standing.thing)))) }
    }

    fn late(&mut self) -> Step {
        if matches!(self.stage, Stage::Asking(_)) {
            let unanswered = self.unanswered();
            return self.end(Err(unanswered));
        }
        self.fail(UpstreamError::TimedOut)
    }

    fn unanswered(&self) -> CallError {
        let (tenant, upstream) = self.standing.place.clone();
        CallError::Unanswered { tenant, upstream }
    }

    fn end(&mut self, answer: Result<Answer, CallError>) -> Step {
        self.stage = Stage::Ended;
        Step::Answer(answer)
    }

    fn fail(&mut self, error: UpstreamError) -> Step {
        if let Stage::Reading(streaming) = &mut self.stage {
            streaming.running.failed(&error);
            if !matches!(error, UpstreamError::TimedOut | UpstreamError::TooLarge | UpstreamError::NoRoomToRead) {
                streaming.running.finish();
            }
        }
        self.end(Err(failed(self.standing.place.clone(), error)))
    }
}

/// A notification for the client, with nothing else of the upstream's around it: some readers would take it for an answer.
fn notification(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}")
}
