//! What goes into the audit record: of each call who made it, what was decided and how it went; of each list, who was shown it.
//!
//! Room for a call's event is had before anything is decided, so that a call that was made is not missing for want of it; the event is
//! pushed when the call ends, however it ends, be it that nobody waits for its answer any more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tenant_store::{AuditChain, AuditContent, OfferKind, TenantId, Timestamp, UpstreamId};
use tokio::time::{Instant, timeout};

use super::call::{CallError, Outcome};
use super::flows::Reading;
use super::input::ResultKind;
use super::measured;
use super::wish::{Target, Thing, Wish};
use super::{Endpoint, Listed, Mux, Sight};
use crate::audit::{self, Call, Content, Decided, Event, List, Named, Room, Shown, TENANTS_NAMED_MAX, What, Who};
use crate::caller::Caller;
use crate::catalog::{Carried, Entry, Face, ListDigest};
use crate::hex;
use crate::json;
use crate::limits::Running;
use crate::policy::{Access, Action, Decision, EntryFacts, decide};
use crate::telemetry::Operation;
use crate::upstream::{Answer, UpstreamError, is_tool_error};
use crate::usage::{Usage, UsedOnce};

/// How long the key of a tenant's record is waited for.
const KEY_TIMEOUT: Duration = Duration::from_millis(500);

/// A call on its way into the record.
#[derive(Debug)]
pub(super) struct Recording {
    room: Option<Room>,
    chain: AuditChain,
    at: Timestamp,
    began: Instant,
    call: Box<Call>,
    /// What is kept of the answer for the flow guard.
    reading: Option<Reading>,
    /// What it brings, where its tenant wants that recorded.
    content: Option<Content>,
    /// The same call, as it is measured.
    operation: Operation,
    /// Where it counts, if it is a call of a tool.
    used: Option<(Usage, Arc<Entry>)>,
    /// Its place among the calls that run in its tenant.
    running: Running,
    /// What its upstream was shown.
    shown: Shown,
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
        let (fault, duration_ms, credential, recorded) = (None, 0, None, None);
        Call { who, request_id, method, named, decided, outcome, fault, duration_ms, credential, recorded }
    }
}

impl Recording {
    /// It runs from now on, until its end.
    pub(super) fn runs(&mut self, running: Running) {
        self.running = running;
    }

    /// What it brings is recorded with it, if it is sent: text of another tenant's that is kept back comes into no record either.
    pub(super) fn brings(&mut self, content: Option<Content>) {
        self.content = content;
    }

    /// Nobody was asked.
    pub(super) fn is_not_made(&mut self) {
        (self.used, self.content) = (None, None);
    }

    /// How it went.
    pub(super) fn finish(mut self, answer: Result<&Answer, &CallError>) {
        if let (Some(content), Ok(Answer::Result(said) | Answer::Error(said))) = (&mut self.content, answer) {
            content.answered(said.get());
        }
        (self.call.outcome, self.call.fault) = match answer {
            Ok(Answer::Result(result)) => (self.read(result), None),
            Ok(Answer::Error(error)) => {
                self.reading.iter().for_each(|reading| reading.read(error));
                (audit::Outcome::Error, None)
            }
            Err(error) => match of_error(error) {
                // It was sent, and what it asked could not be passed on, or not what its client answered.
                (audit::Outcome::Refused, fault) if self.shown.is_sent() => (audit::Outcome::UpstreamFailure, fault),
                outcome => outcome,
            },
        };
        measured::end(self.operation.take(), answer, self.call.outcome);
    }

    fn read(&self, result: &RawValue) -> audit::Outcome {
        let outcome = of_result(result);
        // A question may be our own.
        if let (Some(reading), audit::Outcome::Ok | audit::Outcome::ToolError) = (&self.reading, outcome) {
            reading.read(result);
        }
        outcome
    }

    fn put(&mut self) {
        let Some(room) = self.room.take() else { return };
        self.call.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.call.credential = self.shown.get();
        self.count();
        let is_sent = self.shown.is_sent();
        if let (Some(content), AuditChain::Tenant(scope), true) = (self.content.take(), self.chain, is_sent) {
            self.call.recorded = Some(room.seal(&content, (scope.tenant(), &self.call.request_id)));
        }
        room.put(Event { at: self.at, chain: self.chain, what: What::Call(self.call.clone()) });
    }

    /// What was not made does not count, and what ends with a question counts when that is answered.
    fn count(&mut self) {
        let (Some((usage, entry)), AuditChain::Tenant(scope)) = (self.used.take(), self.chain) else { return };
        let is_error = match self.call.outcome {
            audit::Outcome::Refused | audit::Outcome::TakenBack | audit::Outcome::WantsInput => return,
            audit::Outcome::Ok => false,
            audit::Outcome::ToolError
            | audit::Outcome::Error
            | audit::Outcome::UpstreamFailure
            | audit::Outcome::Gone => true,
        };
        let (at, duration_ms) = (self.at, self.call.duration_ms);
        let upstream = (entry.upstream.id, &entry.upstream.slug);
        usage.count(&UsedOnce { scope, upstream, tool: entry.local(), at, duration_ms, is_error });
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
        let reading = self.reading(came.caller, (sight, target.access.tenant()));
        let used = target.tool.map(|entry| (self.usage.clone(), Arc::clone(entry)));
        let (at, began, shown) = (self.clock.now(), Instant::now(), target.shown.clone());
        Recording {
            room: Some(room),
            chain,
            at,
            began,
            call: Box::new(call),
            reading,
            content: None,
            operation,
            used,
            running: None,
            shown,
        }
    }

    /// What a call brings, if its tenant wants that recorded. Without the key the record says that it is missing.
    pub(super) async fn content(&self, target: &Target<'_>, wish: &Wish<'_>) -> Option<Content> {
        let (wanted, key) = target.shelf.audit_content();
        if wanted == AuditContent::None {
            return None;
        }
        let rows = self.store.tenant(target.access.scope());
        let key = match key {
            None => None,
            // Whoever calls does not wait for the record.
            Some(key) => match timeout(KEY_TIMEOUT, rows.open_recording_key(key)).await {
                Ok(Ok(key)) => Some(key),
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, tenant = %target.access.tenant_slug(), "arguments are not recorded");
                    None
                }
                Err(_) => None,
            },
        };
        // What somebody answers to the question of a task is looked at when it is sent.
        let parameters = match wish {
            Wish::Task { .. } => format!("\"taskId\":{}", json::quote(&target.local)),
            wish => wish.params(&target.local),
        };
        Some(Content::new(key, wanted == AuditContent::All, &parameters))
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

    /// Records that somebody subscribes to something, and whether its upstream can tell of it.
    pub(super) fn record_subscription(
        &self,
        came: Came<'_>,
        method: &'static str,
        (sight, thing, target): (&Sight, &Thing, &Target<'_>),
        possible: &Result<(), CallError>,
    ) {
        let Some(room) = self.audit.spare_room() else { return };
        let decided = Decided::by(&sight.decided(thing, target));
        let (outcome, fault) = possible.as_ref().map_or_else(of_error, |()| (audit::Outcome::Ok, None));
        let call = Call { fault, ..came.call(method, (sight.named(thing, target), decided), outcome) };
        let chain = AuditChain::Tenant(target.access.scope());
        room.put(Event { at: self.clock.now(), chain, what: What::Call(Box::new(call)) });
    }

    /// Records that somebody was shown a page. A list of several tenants is the platform's.
    pub(super) fn record_list(&self, came: Came<'_>, sight: &Sight, (listed, digest): (Listed, ListDigest)) {
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
            sha256: hex::encode(&digest),
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

    pub(super) fn is_listed(&self, uri: &str) -> bool {
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
            Thing::Resource(uri) | Thing::Skill(uri) => match self.refused_resource(uri) {
                Some((access, named, decided)) => return (Some(access), named, decided),
                None => (uri.as_str(), None),
            },
            Thing::Begun(tenant, upstream, local) => {
                let facts = self.snapshot.sought_tool_at((*tenant, *upstream), local.as_str());
                if let (None, Some(access)) = (&facts, self.reach.access(*tenant)) {
                    return self.refused_task(access, *upstream, local.as_str());
                }
                (local.as_str(), facts)
            }
        };
        let Some(facts) = facts else { return (None, Named::unknown(thing.word(), text), Decided::unknown()) };
        let (tenant, upstream) = (Some(facts.tenant), Some(facts.upstream_slug.clone()));
        let named = Named { kind: thing.word(), tenant, upstream, ..Named::default() };
        let decided = not_used(&decide(&self.reach, Action::Call, &facts));
        (self.reach.access(facts.tenant), named.called(facts.local, Some(facts.exposed)), decided)
    }

    /// The same of a task whose tool is no more. The name is not the caller's word: it was sealed with the task.
    fn refused_task<'s>(
        &'s self,
        access: &'s Access,
        upstream: UpstreamId,
        local: &str,
    ) -> (Option<&'s Access>, Named, Decided) {
        let upstream = self.snapshot.shelf(access).and_then(|shelf| shelf.upstream(upstream));
        let (tenant, upstream) = (Some(access.tenant()), upstream.map(|upstream| upstream.slug.clone()));
        let named = Named { kind: "task", tenant, upstream, ..Named::default() };
        (Some(access), named.called(local, None), Decided::unknown())
    }

    /// The same of a resource, where the caller has access to the tenant that its URI leads to. What no list has is the caller's own text.
    fn refused_resource(&self, uri: &str) -> Option<(&Access, Named, Decided)> {
        let (access, upstream, own) = match (Carried::parse(uri), self.reach.accesses()) {
            (Some(Carried { tenant, upstream, own }), accesses) => {
                let access = accesses.iter().find(|access| access.tenant_slug().as_str() == tenant)?;
                (access, Some(upstream), own)
            }
            (None, [access]) if self.face == Face::Tenant => (access, None, uri),
            _ => return None,
        };
        let shelf = self.snapshot.shelf(access)?;
        let upstream = match upstream {
            Some(slug) => Some(shelf.upstreams().find(|known| known.slug.as_str() == slug)?),
            None => None,
        };
        let named = Named { kind: "resource", tenant: Some(access.tenant()), ..Named::default() };
        if let Some(facts) = shelf.resource_at(upstream.map(|upstream| upstream.id), own) {
            let named = Named { upstream: Some(facts.upstream_slug.clone()), ..named };
            let decided = not_used(&decide(&self.reach, Action::Call, &facts));
            return Some((access, named.called(facts.local, Some(facts.exposed)), decided));
        }
        let upstream = upstream.or_else(|| shelf.only_with_resources())?;
        let target = Target { access, shelf, upstream, local: own.to_owned(), tool: None, shown: Shown::default() };
        let name_sha256 = Some(audit::name_digest(uri));
        let named = Named { upstream: Some(upstream.slug.clone()), name_sha256, ..named };
        Some((access, named, not_used(&self.decision(&target, own))))
    }
}

/// Why something is refused: by a decision or, where that allows it, by where or how it was asked for.
fn not_used(decision: &Decision) -> Decided {
    if decision.is_allowed() { Decided::not_here() } else { Decided::by(decision) }
}

impl Outcome {
    /// Records how it went, now or when the stream ends.
    pub(super) fn recorded(outcome: Result<Self, CallError>, mut recording: Recording) -> Result<Self, CallError> {
        match outcome {
            Ok(Self::Unasked(answer)) => {
                recording.is_not_made();
                recording.finish(Ok(&answer));
                Ok(Self::Unasked(answer))
            }
            Ok(Self::Whole(answer, load)) => {
                recording.finish(Ok(&answer));
                Ok(Self::Whole(answer, load))
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
fn of_result(result: &RawValue) -> audit::Outcome {
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
        CallError::Upstream { error, .. } if error.is_before_asking() => {
            (audit::Outcome::Refused, Some(error.fault().as_str()))
        }
        CallError::Upstream { error, .. } => audit::Outcome::of_fault(error.fault()),
        _ => (audit::Outcome::Refused, None),
    }
}
