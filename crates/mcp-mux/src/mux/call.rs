//! One request to an upstream: what it is about is looked up among what the caller has, and the tenant's own upstream is asked with
//! the tenant's own credential.

use std::sync::Arc;

use serde_json::value::RawValue;
use tenant_store::{FlowPolicy, TenantId, TenantSlug, UpstreamId, UpstreamSlug};
use tokio::time::Instant;

use super::counted::limited;
pub use super::error::CallError;
use super::flows::Found;
use super::input::{Given, Input, ResultKind, States, url_elicitations};
use super::matter::Matter;
use super::measured;
use super::record::Came;
use super::relay::{Relay, Standing};
use super::tasks::{TaskAct, TaskIds};
use super::uris::Uris;
use super::wish::{Target, Thing, Wish};
use super::{Endpoint, Mux, Sight, arguments};
use crate::audit;
use crate::caller::Caller;
use crate::catalog::{Entry, Face};
use crate::protocol::TASKS;
use crate::telemetry::Operation;
use crate::upstream::{
    Answer, ClientCapabilities, Link, Load, LogLevel, Peer, Proofs, Reply, Rpc, Running, Trace, UpstreamError,
};

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
    /// From which level on the client wants log messages.
    pub log: Option<LogLevel>,
    /// Whether the client takes a task for an answer.
    pub takes_tasks: bool,
}

/// How a request went.
#[derive(Debug)]
pub enum Outcome {
    /// The upstream answered at once. It is held by that.
    Whole(Answer, Load),
    /// We answered ourselves, without asking the upstream.
    Unasked(Answer),
    /// There is a stream.
    Stream(Box<Relay>),
}

/// What is done with an upstream's answer before the caller gets it.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    uris: Uris,
    tasks: TaskIds,
    pub(super) asking: Asking,
}

/// How the client is asked for input.
#[derive(Debug, Clone)]
pub(super) enum Asking {
    /// Not at all.
    Never,
    /// In the answer. What it can be asked for, and how what it keeps is sealed.
    InAnswer(ClientCapabilities, States),
    /// In the stream of the call. What it can be asked for, and what the upstream is asked anew with the answers.
    InStream(ClientCapabilities, Arc<Request>),
}

/// An answer as it can be passed on, or not yet.
pub(super) enum Finished {
    /// The answer.
    Answer(Answer),
    /// A request for input that goes to the client in the stream.
    Questions(Box<RawValue>),
}

/// A request to an upstream, kept to be made again with what the client answers.
#[derive(Debug)]
pub(super) struct Request {
    method: &'static str,
    is_named: bool,
    params: String,
    trace: Trace,
    declared: String,
    progress: bool,
    peer: Peer,
    param_headers: Vec<(String, String)>,
    tool: Option<Arc<Entry>>,
    upstream: (TenantId, UpstreamId),
    /// What holds its parameters.
    _load: Load,
}

/// A request, and where it leads.
struct Call<'c> {
    mux: &'c Mux,
    caller: &'c Caller,
    endpoint: &'c Endpoint,
    ask: &'c Ask<'c>,
    thing: Thing,
    sight: &'c Sight,
    target: Target<'c>,
    peer: Peer,
}

impl Mux {
    /// Asks an upstream for `caller`.
    pub(crate) async fn ask(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        mut operation: Operation,
    ) -> Result<Outcome, CallError> {
        let Ok(room) = self.audit.room_until(caller.deadline).await else {
            measured::end(operation, Err(&CallError::Unrecorded), audit::Outcome::Refused);
            return Err(CallError::Unrecorded);
        };
        let sight = self.sight(caller, endpoint);
        let thing = ask.wish.thing();
        let came = Came { caller, endpoint };
        // Whether or not there is such a thing: nobody guesses names without end.
        let counted = self.limits.count(&caller.principal, Instant::now()).map_err(limited);
        let Some(target) = sight.target_of(&ask.wish, &thing) else {
            // Whoever is over a limit does not learn whether there is such a thing.
            let refused = counted.err().unwrap_or(CallError::Unknown(thing.word()));
            measured::end(operation, Err(&refused), audit::Outcome::Refused);
            self.record_refusal(room, came, sight, (ask.wish.method(), thing));
            return Err(refused);
        };
        measured::leads_to(&mut operation, (&thing, &target));
        let mut recording = self.recording(room, came, (&sight, &ask.wish, &thing), (&target, operation));
        let has_place = counted.and_then(|()| {
            recording.runs(self.limits.begin(target.access.tenant()).map_err(limited)?);
            Ok(())
        });
        let outcome = match has_place {
            Ok(()) => {
                recording.brings(self.content(&target, &ask.wish).await);
                self.ask_at(caller, endpoint, ask, (&sight, thing, target)).await
            }
            Err(limited) => Err(limited),
        };
        Outcome::recorded(outcome, recording)
    }

    /// The same where that leads somewhere, unrecorded.
    pub(super) async fn ask_at(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        (sight, thing, target): (&Sight, Thing, Target<'_>),
    ) -> Result<Outcome, CallError> {
        let can = ask.input.capabilities();
        let can = if sight.face == Face::Aggregate { can.among_tenants() } else { can };
        let peer = Peer { can, log: ask.log };
        let call = Call { mux: self, caller, endpoint, ask, thing, sight, target, peer };

        if let Wish::Task { act: TaskAct::Update | TaskAct::Cancel, task, .. } = &ask.wish
            && let Some(refused) = self.check_task(caller, endpoint, (task, ask), &call.target.shown).await?
        {
            return Ok(refused);
        }
        // Whatever was looked at for that is not the call.
        call.target.shown.stays();
        let mut params = ask.wish.params(&call.target.local);
        let own = params.len();
        let given = ask.input.given(|| call.states(&params), self.clock.now())?;
        if let Given::Answer(id, answer) = given {
            let parked = self.parked.take(caller, id).ok_or(CallError::NotParked)?;
            let asking = Asking::InAnswer(can, call.states(&params));
            let relay = Relay::resuming(call.standing(call.finish(asking)), parked, &answer);
            return Ok(Outcome::Stream(Box::new(relay)));
        }
        if let Some(refused) = arguments::refused(&ask.wish, &call.target) {
            return Ok(Outcome::Unasked(refused));
        }
        let mut spent = self.count_use(&caller.principal, sight, (&call.thing, &call.target))?;
        if let Some(outcome) = call.guard(&given, &params)? {
            return Ok(outcome);
        }
        params.push_str(given.params());
        let mut rpc = call.rpc(params)?;
        let deadline = caller.deadline.min(Instant::now() + call.target.upstream.spec.call_timeout);
        let matter = || Matter { endpoint: endpoint.clone(), thing: call.thing.clone(), target: call.target.place() };
        if caller.ended.is_cancelled() {
            return Err(CallError::SignedOut);
        }
        spent.is_sent(true);
        let reply = tokio::select! {
            biased;
            () = caller.ended.cancelled() => return Err(CallError::SignedOut),
            reply = self.reply(caller, &call.target, (&mut rpc, peer, deadline)) => reply,
            () = self.until_taken_back(caller, sight, matter) => return Err(self.taken_back(caller, &call.thing)),
        };
        spent.is_sent(!reply.as_ref().is_err_and(UpstreamError::is_before_asking));
        // What was decided before a long call may have been taken back meanwhile.
        if !self.is_current(sight) && !self.may_use(caller, &matter()) {
            return Err(self.taken_back(caller, &call.thing));
        }
        if let Err(UpstreamError::Resting(_)) = &reply {
            self.limits.give_back(call.target.access.tenant());
        }
        let reply = reply.map_err(|error| failed(call.target.slugs(), error))?;
        let load = rpc.load.clone();
        let asking = call.asking(&reply, (rpc, own));
        call.outcome((reply, load), call.finish(asking), deadline)
    }

    /// Asks once more, with what the client answered, if that still leads to the same upstream.
    pub(super) async fn ask_again(
        standing: Arc<Standing>,
        request: Arc<Request>,
        given: String,
    ) -> Result<Reply, CallError> {
        let Standing { mux, caller, endpoint, thing, .. } = &*standing;
        mux.limits.count(&caller.principal, Instant::now()).map_err(limited)?;
        let sight = mux.sight(caller, endpoint);
        let target = sight.target(thing).filter(|target| target.place() == request.upstream);
        let target = target.ok_or(CallError::Unknown(thing.word()))?;
        let target = Target { shown: standing.shown.clone(), ..target };
        let deadline = caller.deadline.min(Instant::now() + standing.call_timeout);
        let mut rpc = request.rpc(&target.local, &given);
        let mut spent = mux.spend(&caller.principal, &sight, (thing, &target))?;
        spent.is_sent(true);
        let reply = mux.reply(caller, &target, (&mut rpc, request.peer, deadline)).await;
        spent.is_sent(!reply.as_ref().is_err_and(UpstreamError::is_before_asking));
        reply.map_err(|error| failed(target.slugs(), error))
    }

    /// Whether the upstream that a call runs at is still the one that its caller's wish leads to, called in the same way. What a user
    /// answers goes nowhere else.
    pub(super) fn check_place(&self, standing: &Standing, running: &Running) -> Result<(), UpstreamError> {
        let sight = self.sight(&standing.caller, &standing.endpoint);
        let target = sight.target(&standing.thing).ok_or(UpstreamError::BrokeOff)?;
        let peer = running.asks().ok_or(UpstreamError::BrokeOff)?;
        let link = self.link(&standing.caller, &target, peer)?;
        if running.is_at(&link) { Ok(()) } else { Err(UpstreamError::BrokeOff) }
    }

    /// What `target` is called over for `caller`.
    pub(super) fn link(&self, caller: &Caller, target: &Target<'_>, peer: Peer) -> Result<Arc<Link>, UpstreamError> {
        self.link_by(target, (&target.stored(self).proofs(caller), peer))
    }

    /// The same with these proofs.
    pub(super) fn link_by(
        &self,
        target: &Target<'_>,
        (proofs, peer): (&Proofs<'_>, Peer),
    ) -> Result<Arc<Link>, UpstreamError> {
        let within = (target.access.tenant_slug(), target.shelf.egress_hosts());
        self.pool.link(target.access.scope(), target.upstream, (proofs, peer), within)
    }

    async fn reply(
        &self,
        caller: &Caller,
        target: &Target<'_>,
        (rpc, peer, deadline): (&mut Rpc<'_>, Peer, Instant),
    ) -> Result<Reply, UpstreamError> {
        rpc.load = self.hold(&caller.principal, target, rpc.params.len())?;
        rpc.shown = Some(target.shown.clone());
        let stored = target.stored(self);
        let proofs = stored.proofs(caller);
        self.link_by(target, (&proofs, peer))?.ask(&proofs, rpc, deadline).await
    }
}

impl Call<'_> {
    /// What binds a state to its request.
    fn states(&self, params: &str) -> States {
        let keys = (&self.mux.handles, self.mux.clock.now());
        States::of(keys, self.caller, &self.target, (&self.ask.wish, params))
    }

    fn rpc(&self, params: String) -> Result<Rpc<'_>, CallError> {
        let Ask { wish, trace, progress_token, input, .. } = self.ask;
        Ok(Rpc {
            params,
            name: wish.is_named().then_some(self.target.local.as_str()),
            trace: trace.clone(),
            capabilities: declared(input.declared(self.peer.can), self.ask.takes_tasks),
            log: self.peer.log,
            progress: progress_token.is_some(),
            param_headers: arguments::repeated_in_headers(wish, &self.target)?,
            definition: self.target.tool.map(|tool| tool.definition.raw()),
            ..Rpc::new(wish.method())
        })
    }

    /// How the client is asked for input, if the upstream may still ask. The first `own` bytes of the parameters were the request's own.
    fn asking(&self, reply: &Reply, (rpc, own): (Rpc<'_>, usize)) -> Asking {
        match &self.ask.input {
            // What a task asks for stands in its state.
            _ if matches!(self.ask.wish, Wish::Task { .. }) => Asking::Never,
            Input::InAnswer { .. } if may_ask(reply) => {
                Asking::InAnswer(self.peer.can, self.states(rpc.params.get(..own).unwrap_or_default()))
            }
            Input::InStream(_) if may_ask(reply) => Asking::InStream(self.peer.can, Arc::new(self.request(rpc, own))),
            _ => Asking::Never,
        }
    }

    /// The request, kept to be made. The first `own` bytes of the parameters are its own.
    fn request(&self, rpc: Rpc<'_>, own: usize) -> Request {
        let mut params = rpc.params;
        params.truncate(own);
        Request {
            method: self.ask.wish.method(),
            is_named: rpc.name.is_some(),
            params,
            trace: rpc.trace,
            declared: rpc.capabilities,
            progress: rpc.progress,
            peer: self.peer,
            param_headers: rpc.param_headers,
            tool: self.target.tool.cloned(),
            upstream: self.target.place(),
            _load: rpc.load,
        }
    }

    /// Stops a call whose arguments hold another tenant's text, or asks the user first, as that tenant says.
    fn guard(&self, given: &Given, params: &str) -> Result<Option<Outcome>, CallError> {
        // Arguments about which an upstream has asked something went to it before.
        if matches!(given, Given::Continued(_)) {
            return Ok(None);
        }
        let Call { mux, caller, .. } = self;
        let Some(found) = mux.found(caller, self.sight, (&self.ask.wish, given, &self.target)) else {
            let to = self.target.access.tenant_slug().clone();
            let declined = matches!(given, Given::Sending(false));
            return if declined { Err(CallError::Flow { from: None, to }) } else { Ok(None) };
        };
        match (found.policy, given) {
            (_, Given::Sending(false)) => return Err(mux.kept_back(caller, &found, "declined")),
            (FlowPolicy::Block, _) => return Err(mux.kept_back(caller, &found, "blocked")),
            (FlowPolicy::Ask, Given::Sending(true)) => mux.sent(caller, &found, "approved"),
            (FlowPolicy::Ask, _) => return self.ask_first(found, params).map(Some),
            (FlowPolicy::Off | FlowPolicy::Log, _) => mux.sent(caller, &found, "logged"),
        }
        Ok(None)
    }

    /// Asks the user whether what was found may be sent.
    fn ask_first(&self, found: Found, params: &str) -> Result<Outcome, CallError> {
        let called = self.thing.name();
        let can_be_asked = self.ask.input.capabilities().can_answer("elicitation/create", None);
        match &self.ask.input {
            Input::InAnswer { .. } if can_be_asked => {
                let state = self.states(params).seal_sending();
                let request = state.ok().and_then(|state| found.request(called, &state));
                let request = request.ok_or_else(|| failed(self.target.slugs(), UpstreamError::Setup))?;
                Ok(Outcome::Unasked(Answer::Result(request)))
            }
            Input::InStream(_) if can_be_asked => {
                let load = self.mux.hold(&self.caller.principal, &self.target, params.len());
                let load = load.map_err(|error| failed(self.target.slugs(), error))?;
                let rpc = Rpc { load, ..self.rpc(params.to_owned())? };
                let request = Arc::new(self.request(rpc, params.len()));
                let finish = self.finish(Asking::InStream(self.peer.can, Arc::clone(&request)));
                let relay = Relay::sending(self.standing(finish), (found, called), request)?;
                Ok(Outcome::Stream(Box::new(relay)))
            }
            _ => Err(self.mux.kept_back(self.caller, &found, "nobodyToAsk")),
        }
    }

    fn finish(&self, asking: Asking) -> Finish {
        let wish = &self.ask.wish;
        let tasks = match wish {
            Wish::Tool { .. } if self.ask.takes_tasks => {
                TaskIds::new(self.mux, self.caller, self.endpoint, &self.target)
            }
            Wish::Task { act, task, .. } => task.ids(*act, self.peer.can),
            _ => TaskIds::Refused,
        };
        Finish { uris: Uris::of(self.sight, &self.target, wish), tasks, asking }
    }

    fn standing(&self, finish: Finish) -> Standing {
        Standing {
            mux: self.mux.clone(),
            caller: self.caller.clone(),
            endpoint: self.endpoint.clone(),
            thing: self.thing.clone(),
            place: self.target.slugs(),
            target: self.target.place(),
            call_timeout: self.target.upstream.spec.call_timeout,
            progress_token: self.ask.progress_token.map(ToOwned::to_owned),
            log: self.ask.log,
            finish,
            load: self.mux.pool.load(self.target.place(), &self.caller.principal),
            shown: self.target.shown.clone(),
        }
    }

    fn outcome(&self, (reply, load): (Reply, Load), finish: Finish, deadline: Instant) -> Result<Outcome, CallError> {
        let relay = match reply {
            Reply::Stream(streaming) => Relay::reading(self.standing(finish), *streaming, deadline),
            Reply::Whole(answer) => match finish.finish(answer).map_err(|error| failed(self.target.slugs(), error))? {
                Finished::Answer(answer) => return Ok(Outcome::Whole(answer, load)),
                Finished::Questions(result) => Relay::asking(self.standing(finish), &result)?,
            },
        };
        Ok(Outcome::Stream(Box::new(relay)))
    }
}

/// Whether the reply asks for input, or may do so in its stream.
fn may_ask(reply: &Reply) -> bool {
    match reply {
        Reply::Whole(Answer::Result(result)) => ResultKind::of(result).is_ok_and(|kind| kind == ResultKind::WantsInput),
        Reply::Whole(Answer::Error(error)) => url_elicitations(error).is_some(),
        Reply::Stream(_) => true,
    }
}

/// What a client can be asked for, with whether it takes tasks.
fn declared(members: String, takes_tasks: bool) -> String {
    if !takes_tasks {
        return members;
    }
    let comma = if members.is_empty() { "" } else { "," };
    format!("{members}{comma}\"extensions\":{{\"{TASKS}\":{{}}}}")
}

pub(super) fn failed((tenant, upstream): (TenantSlug, UpstreamSlug), error: UpstreamError) -> CallError {
    CallError::Upstream { tenant, upstream, error }
}

impl Request {
    /// The same with what is `given` besides.
    fn rpc<'r>(&'r self, local: &'r str, given: &str) -> Rpc<'r> {
        Rpc {
            params: self.params.clone() + given,
            name: self.is_named.then_some(local),
            trace: self.trace.clone(),
            capabilities: self.declared.clone(),
            log: self.peer.log,
            progress: self.progress,
            param_headers: self.param_headers.clone(),
            definition: self.tool.as_ref().map(|tool| tool.definition.raw()),
            ..Rpc::new(self.method)
        }
    }
}

impl Finish {
    /// What becomes of an answer. A request for input can be passed on where the client can be asked; the state in it is bound to the
    /// caller.
    pub(super) fn finish(&self, answer: Answer) -> Result<Finished, UpstreamError> {
        let result = match answer {
            Answer::Result(result) => result,
            Answer::Error(error) => return Ok(Finished::Answer(self.error(error))),
        };
        match ResultKind::of(&result)? {
            ResultKind::WantsInput => {}
            ResultKind::Task => return Ok(Finished::Answer(Answer::Result(self.tasks.created(&result)?))),
            ResultKind::Complete => {
                return Ok(Finished::Answer(Answer::Result(self.uris.put(self.tasks.put(result)?)?)));
            }
        }
        match &self.asking {
            Asking::Never => Err(UpstreamError::WantsInput),
            Asking::InAnswer(can, states) => Ok(Finished::Answer(Answer::Result(states.seal(&result, *can)?))),
            Asking::InStream(..) => Ok(Finished::Questions(result)),
        }
    }

    /// A legacy upstream says in an error that an address must be opened first, which a modern client reads in a result.
    fn error(&self, error: Box<RawValue>) -> Answer {
        match &self.asking {
            Asking::InAnswer(can, _) if can.has_url_elicitation() => {
                url_elicitations(&error).map_or(Answer::Error(error), Answer::Result)
            }
            _ => Answer::Error(error),
        }
    }
}
