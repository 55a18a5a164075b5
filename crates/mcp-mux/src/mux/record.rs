//! What goes into the audit record: of each call who made it, what was decided and how it went; of each list, who was shown it.
//!
//! Room for a call's event is had before anything is decided, so that a call that was made is not missing for want of it; the event is
//! pushed when the call ends, however it ends, be it that nobody waits for its answer any more.

use tenant_store::{AuditChain, OfferKind, TenantId, Timestamp};
use tokio::time::Instant;

use super::call::{CallError, Outcome};
use super::input::ResultKind;
use super::measured;
use super::wish::{Target, Thing, Wish};
use super::{Endpoint, ListPage, Listed, Mux, Sight};
use crate::audit::{self, Call, Decided, Event, List, Named, Room, Shown, TENANTS_NAMED_MAX, What, Who};
use crate::caller::Caller;
use crate::policy::{Access, Action, Decision, EntryFacts, decide};
use crate::telemetry::Operation;
use crate::upstream::{Answer, UpstreamError, is_tool_error};

/// A call on its way into the record.
#[derive(Debug)]
pub(super) struct Recording {
    room: Option<Room>,
    chain: AuditChain,
    at: Timestamp,
    began: Instant,
    call: Box<Call>,
    /// The same call, as it is measured.
    operation: Operation,
}

/// Whose call it is, and where it came.
#[derive(Clone, Copy)]
pub(super) struct Came<'c> {
    pub(super) caller: &'c Caller,
    pub(super) endpoint: &'c Endpoint,
}

impl Came<'_> {
    fn call(self, method: &'static str, (named, decided): (Named, Decided), outcome: audit::Outcome) -> Call {
        let (who, request_id) = (Who::of(self.caller), self.caller.request_id.to_string());
        Call { who, request_id, method, named, decided, outcome, fault: None, duration_ms: 0 }
    }
}

impl Recording {
    /// How it went.
    pub(super) fn finish(mut self, answer: Result<&Answer, &CallError>) {
        (self.call.outcome, self.call.fault) = match answer {
            Ok(Answer::Result(result)) => (of_result(result), None),
            Ok(Answer::Error(_)) => (audit::Outcome::Error, None),
            Err(error) => of_error(error),
        };
        measured::end(self.operation.take(), answer, self.call.outcome);
    }

    fn put(&mut self) {
        let Some(room) = self.room.take() else { return };
        self.call.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        room.put(Event { at: self.at, chain: self.chain, what: What::Call(self.call.clone()) });
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.put();
    }
}

impl Mux {
    /// What will be recorded of a call that leads to `target`.
    pub(super) fn recording(
        &self,
        room: Room,
        came: Came<'_>,
        (sight, wish, thing): (&Sight, &Wish<'_>, &Thing),
        (target, operation): (&Target<'_>, Operation),
    ) -> Recording {
        let decided = Decided::by(&sight.decided(thing, target));
        let call = came.call(wish.method(), (sight.named(thing, target), decided), audit::Outcome::Gone);
        let chain = AuditChain::Tenant(target.access.scope());
        let (at, began) = (self.clock.now(), Instant::now());
        Recording { room: Some(room), chain, at, began, call: Box::new(call), operation }
    }

    /// Records that somebody was refused. Whose event it is, and why it was refused, is looked for by the writer: whoever is refused must not
    /// see by the time that takes whether there is something of that name.
    pub(super) fn record_refusal(
        &self,
        room: Room,
        came: Came<'_>,
        sight: Sight,
        (method, thing): (&'static str, Thing),
    ) {
        let at = self.clock.now();
        let nothing_yet = (Named::default(), Decided::unknown());
        let call = came.call(method, nothing_yet, audit::Outcome::Refused);
        let endpoint = came.endpoint.clone();
        room.put_later(move || {
            let (access, named, decided) = sight.refused(&endpoint, &thing);
            let chain = access.map_or(AuditChain::Platform, |access| AuditChain::Tenant(access.scope()));
            Event { at, chain, what: What::Call(Box::new(Call { named, decided, ..call })) }
        });
    }

    /// Records that somebody was shown a page. A list of several tenants is the platform's.
    pub(super) fn record_list(&self, came: Came<'_>, sight: &Sight, (listed, page): (Listed, &ListPage)) {
        let accesses = sight.reach.accesses();
        let chain = match accesses {
            [access] => AuditChain::Tenant(access.scope()),
            _ => AuditChain::Platform,
        };
        let tenants: Vec<TenantId> = accesses.iter().take(TENANTS_NAMED_MAX).map(Access::tenant).collect();
        let list = List {
            who: Who::of(came.caller),
            request_id: came.caller.request_id.to_string(),
            list: listed.as_str(),
            endpoint: if *came.endpoint == Endpoint::Aggregate { "all" } else { "tenant" },
            tenants,
            tenant_count: accesses.len(),
            sha256: Shown::Bytes(page.bytes.clone()),
        };
        self.audit.push(Event { at: self.clock.now(), chain, what: What::List(list) });
    }
}

impl Sight {
    /// What is recorded of something that may be used.
    fn named(&self, thing: &Thing, target: &Target<'_>) -> Named {
        let (tenant, upstream) = (target.upstream.tenant, target.upstream.slug.clone());
        let named = Named { kind: thing.word(), tenant: Some(tenant), upstream: Some(upstream), ..Named::default() };
        match thing {
            Thing::Tool(_) | Thing::Prompt(_) => {
                let exposed = self.facts(thing).map(|facts| facts.exposed);
                named.called(&target.local, exposed)
            }
            Thing::Begun(_, _, tool) => named.called(tool.as_str(), None),
            Thing::Resource(uri) | Thing::Skill(uri) if self.is_listed(uri) => named.called(&target.local, None),
            Thing::Resource(uri) | Thing::Skill(uri) => Named { name_sha256: Some(audit::name_digest(uri)), ..named },
        }
    }

    /// The decision on which a target rests, made anew so that it can be recorded.
    fn decided(&self, thing: &Thing, target: &Target<'_>) -> Decision {
        match self.facts(thing) {
            Some(facts) => decide(&self.reach, Action::Call, &facts),
            None => self.decision(target, &target.local),
        }
    }

    fn facts(&self, thing: &Thing) -> Option<EntryFacts<'_>> {
        match thing {
            Thing::Tool(name) => self.view.tools.get(name).map(|entry| entry.facts()),
            Thing::Prompt(name) => self.view.prompts.get(name).map(|item| item.facts()),
            Thing::Begun(tenant, upstream, local) => {
                let mut tools = self.view.tools.iter();
                let is_it = |facts: &EntryFacts<'_>| (facts.tenant, facts.upstream) == (*tenant, *upstream);
                tools
                    .find_map(|entry| Some(entry.facts()).filter(|facts| is_it(facts) && facts.local == local.as_str()))
            }
            Thing::Resource(_) | Thing::Skill(_) => None,
        }
    }

    fn is_listed(&self, uri: &str) -> bool {
        let item = self.view.resources.get(uri).or_else(|| self.view.skills.get(uri));
        item.is_some_and(|item| item.kind != OfferKind::Template)
    }

    /// Whose event it is that somebody was refused, what is said of it, and why. It is a tenant's only where the thing is that tenant's
    /// and the caller has access there: anybody else's guess is the platform's.
    fn refused(&self, endpoint: &Endpoint, thing: &Thing) -> (Option<&Access>, Named, Decided) {
        let tenant = (*endpoint != Endpoint::Aggregate).then(|| endpoint.slug());
        let (text, facts) = match thing {
            Thing::Tool(name) => (name.as_str(), self.snapshot.sought_tool(name, tenant)),
            Thing::Prompt(name) => (name.as_str(), self.snapshot.sought_prompt(name, tenant)),
            Thing::Resource(uri) | Thing::Skill(uri) => (uri.as_str(), None),
            Thing::Begun(_, _, local) => (local.as_str(), None),
        };
        let Some(facts) = facts else { return (None, Named::unknown(thing.word(), text), Decided::unknown()) };
        let decision = decide(&self.reach, Action::Call, &facts);
        let decided = if decision.is_allowed() { Decided::not_here() } else { Decided::by(&decision) };
        let (tenant, upstream) = (Some(facts.tenant), Some(facts.upstream_slug.clone()));
        let named = Named { kind: thing.word(), tenant, upstream, ..Named::default() };
        (self.reach.access(facts.tenant), named.called(facts.local, Some(facts.exposed)), decided)
    }
}

impl Outcome {
    /// Records how it went, now or when the stream ends.
    pub(super) fn recorded(outcome: Result<Self, CallError>, recording: Recording) -> Result<Self, CallError> {
        match outcome {
            Ok(Self::Whole(answer)) => {
                recording.finish(Ok(&answer));
                Ok(Self::Whole(answer))
            }
            Ok(Self::Stream(mut relay)) => {
                relay.record(recording);
                Ok(Self::Stream(relay))
            }
            Err(error) => {
                recording.finish(Err(&error));
                Err(error)
            }
        }
    }
}

/// Only what says that it failed, or that it wants to know more, is looked into.
fn of_result(result: &serde_json::value::RawValue) -> audit::Outcome {
    match ResultKind::of(result) {
        Ok(ResultKind::WantsInput) => return audit::Outcome::WantsInput,
        Ok(ResultKind::Complete | ResultKind::Task) => {}
        Err(_) => return audit::Outcome::UpstreamFailure,
    }
    if is_tool_error(result) { audit::Outcome::ToolError } else { audit::Outcome::Ok }
}

fn of_error(error: &CallError) -> (audit::Outcome, Option<&'static str>) {
    match error {
        CallError::Unknown(_) | CallError::SignedOut => (audit::Outcome::TakenBack, None),
        CallError::Upstream { error: UpstreamError::WantsInput, .. } | CallError::Unanswered { .. } => {
            (audit::Outcome::WantsInput, None)
        }
        CallError::Upstream { error, .. } => audit::Outcome::of_fault(error.fault()),
        _ => (audit::Outcome::Refused, None),
    }
}
