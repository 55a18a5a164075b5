//! How a call meets the flow guard: what is found in its arguments, what the tenant says whose text it is, and how the user is asked.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tenant_store::{AuditChain, FlowPolicy, TenantId, TenantSlug};
use tokio::time::Instant;

use super::call::CallError;
use super::input::Given;
use super::wish::{Target, Wish};
use super::{Mux, Sight};
use crate::audit::{Event, Flowed, What, Who};
use crate::caller::{Bounds, Caller, Principal};
use crate::flow::{Flow, FlowGuard};
use crate::json;

/// The key of our own question.
const QUESTION: &str = "send";

/// What was found in the arguments of a call, and what becomes of it.
#[derive(Debug)]
pub(super) struct Found {
    flow: Flow,
    /// The strictest of the tenants whose text it is.
    pub(super) policy: FlowPolicy,
    /// Its name, where it is one that the caller is let in for here.
    from: Option<TenantSlug>,
    to: (TenantId, TenantSlug),
}

/// An answer that leaves prints once it is there.
#[derive(Debug)]
pub(super) struct Reading {
    guard: FlowGuard,
    reader: Principal,
    tenant: TenantId,
}

impl Reading {
    pub(super) fn read(&self, result: &RawValue) {
        self.guard.read(&self.reader, self.tenant, result.get(), Instant::now());
    }
}

impl Found {
    /// The refusal.
    pub(super) fn refused(&self) -> CallError {
        CallError::Flow { from: self.from.clone(), to: self.to.1.clone() }
    }

    /// `"method":…,"params":…` that asks the user.
    fn question(&self, called: &str) -> String {
        let from = self.from.as_ref().map_or("another tenant".to_owned(), |from| format!("tenant `{from}`"));
        let message = format!(
            "What is about to be sent to tenant `{}` by `{called}` holds text that came from {from} a short time ago. Send it?",
            self.to.1
        );
        format!(
            "\"method\":\"elicitation/create\",\"params\":{{\"message\":{},\"requestedSchema\":{{\"type\":\"object\",\"properties\":{{}}}}}}",
            json::quote(&message)
        )
    }

    /// The same as a request for input.
    pub(super) fn request(&self, called: &str, state: &str) -> Option<Box<RawValue>> {
        let question = self.question(called);
        let state = json::quote(state);
        let text = format!(
            "{{\"resultType\":\"input_required\",\"inputRequests\":{{\"{QUESTION}\":{{{question}}}}},\"requestState\":{state}}}"
        );
        RawValue::from_string(text).ok()
    }

    /// The same to a legacy client.
    pub(super) fn asked(&self, called: &str) -> super::input::Asked {
        super::input::Asked { key: QUESTION.to_owned(), request: self.question(called) }
    }
}

/// Whether the user agreed.
pub(super) fn is_accepted(answer: &RawValue) -> bool {
    json::Members::parse(answer.get()).is_ok_and(|answer| answer.get_str("action").as_deref() == Some("accept"))
}

/// What the user answered to our question.
pub(super) fn answer_in(responses: Option<&RawValue>) -> Option<&RawValue> {
    json::member(responses, QUESTION)
}

impl Mux {
    /// What will be kept of an answer; nothing, if its reader reads of one tenant only.
    pub(super) fn reading(&self, caller: &Caller, (sight, tenant): (&Sight, TenantId)) -> Option<Reading> {
        let reads_of_several = match &caller.bounds {
            Bounds::Everything => sight.reaches_several,
            // The same person may hold a key for another tenant.
            Bounds::Tenants(_) => true,
        };
        let reading = || Reading { guard: self.flows.clone(), reader: caller.principal.clone(), tenant };
        reads_of_several.then(reading)
    }

    /// What stands in the arguments of a call that is another tenant's, and that somebody minds.
    pub(super) fn found(
        &self,
        caller: &Caller,
        sight: &Sight,
        (wish, given, target): (&Wish<'_>, &Given, &Target<'_>),
    ) -> Option<Found> {
        // Before anything is copied or looked up: most callers reach one tenant.
        if !self.flows.has_read(&caller.principal) {
            return None;
        }
        let said = said(wish, given)?;
        let (tenant, slug) = (target.access.tenant(), target.access.tenant_slug().clone());
        let definition = target.tool.map_or("", |tool| tool.definition.raw().get());
        let flow = self.flows.find(&caller.principal, tenant, (&said, definition), Instant::now())?;
        let policy = |tenant: &TenantId| sight.snapshot.flow_policy(*tenant).unwrap_or(FlowPolicy::Block);
        let strictest = *flow.from.iter().max_by_key(|tenant| policy(tenant))?;
        // Who is let in for fewer tenants, by a key or at one tenant's endpoint, does not learn of the others.
        let is_known = sight.reach.accesses().iter().any(|access| access.tenant() == strictest);
        let from = sight.snapshot.tenant_slug(strictest).filter(|_| is_known).cloned();
        let found = Found { policy: policy(&strictest), flow, from, to: (tenant, slug) };
        (found.policy != FlowPolicy::Off).then_some(found)
    }

    /// Writes down what was found and what became of it.
    pub(super) fn record_flow(&self, (who, request_id): (Who, String), found: &Found, became: &'static str) {
        let Found { flow, policy, to, .. } = found;
        let flowed = Flowed { who, request_id, from: flow.from.clone(), to: to.0, policy: policy.as_str(), became };
        tracing::warn!(
            from = found.from.as_ref().map(tracing::field::display),
            to = %to.1, policy = policy.as_str(), became,
            "text of one tenant stands in a call to another"
        );
        self.audit.push(Event { at: self.clock.now(), chain: AuditChain::Platform, what: What::Flow(flowed) });
    }

    /// It goes on to the upstream.
    pub(super) fn sent(&self, caller: &Caller, found: &Found, became: &'static str) {
        self.record_flow((Who::of(caller), caller.request_id.to_string()), found, became);
        self.flows.told(&caller.principal, found.to.0, &found.flow, Instant::now());
    }

    /// It does not.
    pub(super) fn kept_back(&self, caller: &Caller, found: &Found, became: &'static str) -> CallError {
        self.record_flow((Who::of(caller), caller.request_id.to_string()), found, became);
        found.refused()
    }
}

/// What a caller says of its own accord, as a JSON value.
fn said(wish: &Wish<'_>, given: &Given) -> Option<String> {
    let said = match wish {
        Wish::Tool { arguments, .. } | Wish::Prompt { arguments, .. } => arguments.map_or("null", RawValue::get).into(),
        Wish::Resource { uri } | Wish::Skill { uri } => Cow::Owned(json::quote(uri)),
        Wish::Completion { argument, context, .. } => {
            Cow::Owned(format!("[{},{}]", argument.get(), context.map_or("null", RawValue::get)))
        }
        Wish::Task { .. } => return None,
    };
    // Answers to what no state says that it was asked go with it.
    Some(format!("{{\"said\":{said}{}}}", given.params()))
}
