//! What an explanation says would turn a decision around does so, and nothing less of it.

use std::sync::Arc;

use proptest::prelude::*;
use tenant_store::{
    ExposedName, Grant, GrantId, GrantSpec, Group, Level, Revocation, Revoked, Tenant, TenantId, TenantSpec,
    TenantState, Timestamp, ToolClass, ToolPattern, UpstreamId, UpstreamSlug,
};

use super::super::RevokedCallers;
use super::*;
use crate::caller::Bounds;

/// All that a decision depends on, and that a change alters.
#[derive(Debug, Clone)]
struct World {
    tenant: Tenant,
    upstream: (UpstreamId, UpstreamSlug),
    exposed: ExposedName,
    grants: Vec<Grant>,
    caller: Caller,
    class: ToolClass,
    is_enabled: bool,
    is_approved: bool,
    is_revoked: bool,
    revoked: Vec<Revoked>,
}

const LOCAL: &str = "export";

impl World {
    fn facts(&self) -> EntryFacts<'_> {
        EntryFacts {
            tenant: self.tenant.id,
            upstream: self.upstream.0,
            upstream_slug: &self.upstream.1,
            local: LOCAL,
            exposed: self.exposed.as_str(),
            class: self.class,
            enabled: self.is_enabled,
            approved: self.is_approved,
            revoked: self.is_revoked,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test of policy makes its own grants")]
    fn index(&self) -> GrantIndex {
        let mut index = GrantIndex::default();
        index.add(&self.tenant, self.grants.clone());
        let at = Timestamp::from_millis(1);
        let revocations = self.revoked.iter().cloned().map(|what| Revocation { what, reason: String::new(), at });
        index.set_revoked(RevokedCallers::of(&revocations.collect::<Vec<_>>()));
        index
    }

    fn explained(&self) -> Explanation {
        explain(&self.index(), &self.caller, &self.facts())
    }

    fn spec(&mut self, id: GrantId) -> &mut GrantSpec {
        &mut self.grants.iter_mut().find(|grant| grant.id == id).unwrap().spec
    }

    /// As it is after those changes.
    fn after(mut self, changes: &[Change]) -> Self {
        for change in changes {
            match change.clone() {
                Change::Unbind => self.caller.bounds = Bounds::Everything,
                Change::Enable => self.is_enabled = true,
                Change::Approve => self.is_approved = true,
                Change::Reinstate => self.is_revoked = false,
                Change::ReinstateCaller => self.revoked.retain(|what| !matches!(what, Revoked::Principal { .. })),
                Change::Raise { grant, to } => self.spec(grant).level = to,
                Change::Allow { grant } => self.spec(grant).allow.push("desk/export".parse().unwrap()),
                Change::Deny { grant } => self.spec(grant).deny.push("desk/export".parse().unwrap()),
                Change::Undeny { grant, pattern } => self.spec(grant).deny.retain(|deny| *deny != pattern),
                Change::Cover { group: Some(group), .. } => {
                    let groups = self.caller.groups.iter().cloned().chain([group]);
                    self.caller.groups = groups.collect::<Vec<_>>().into();
                }
                Change::Cover { grant, group: None } => {
                    let subject = self.caller.principal.subject.clone();
                    self.spec(grant).subjects.push(subject);
                }
                Change::MakeGrant { level } => {
                    let subjects = vec![self.caller.principal.subject.clone()];
                    let made = GrantSpec { groups: Vec::new(), subjects, ..spec(level, "*", None, "nobody") };
                    let grant = grant(99, &self.tenant, made);
                    self.grants.push(grant);
                }
            }
        }
        self
    }
}

fn spec(level: Level, allow: &str, deny: Option<&str>, group: &str) -> GrantSpec {
    GrantSpec {
        issuer: "corp".parse().unwrap(),
        groups: vec![group.parse().unwrap()],
        subjects: Vec::new(),
        level,
        allow: vec![allow.parse().unwrap()],
        deny: deny.map(|pattern| pattern.parse::<ToolPattern>().unwrap()).into_iter().collect(),
    }
}

fn grant(number: i64, tenant: &Tenant, spec: GrantSpec) -> Grant {
    let id = GrantId::new(Timestamp::from_millis(number));
    Grant { id, tenant: tenant.id, name: format!("grant-{number}").parse().unwrap(), spec }
}

fn any_spec() -> impl Strategy<Value = GrantSpec> {
    let level = prop_oneof![Just(Level::Read), Just(Level::Write), Just(Level::Admin)];
    let allow = prop::sample::select(vec!["*", "export", "desk/*", "other"]);
    let deny = prop::sample::select(vec![None, None, Some("EXPORT"), Some("desk/*"), Some("other")]);
    let groups = prop::sample::select(vec!["mine", "mine", "theirs", "others", "theirs others", ""]);
    (level, allow, deny, groups).prop_map(|(level, allow, deny, groups)| {
        let of: Vec<Group> = groups.split_whitespace().map(|group| group.parse().unwrap()).collect();
        let subjects = if of.is_empty() { vec!["bob".parse().unwrap()] } else { Vec::new() };
        GrantSpec { groups: of, subjects, ..spec(level, allow, deny, "replaced") }
    })
}

fn any_revoked() -> impl Strategy<Value = Vec<Revoked>> {
    let issuer = || "corp".parse().unwrap();
    let principal = |subject: &str| Revoked::Principal { issuer: issuer(), subject: subject.parse().unwrap() };
    let group = |group: &str| Revoked::Group { issuer: issuer(), group: group.parse().unwrap() };
    let other = Revoked::Group { issuer: "other".parse().unwrap(), group: "mine".parse().unwrap() };
    let all = vec![principal("alice"), principal("bob"), group("mine"), group("theirs"), other];
    prop::sample::subsequence(all, 0..2)
}

prop_compose! {
    fn any_world()(
        specs in prop::collection::vec(any_spec(), 0..5),
        class in prop_oneof![Just(ToolClass::Read), Just(ToolClass::Write), Just(ToolClass::Admin)],
        is_enabled in prop::bool::weighted(0.8),
        is_approved in prop::bool::weighted(0.8),
        is_bound in prop::bool::weighted(0.1),
        is_revoked in prop::bool::weighted(0.1),
        revoked in any_revoked(),
    ) -> World {
        let at = Timestamp::from_millis(1);
        let spec = TenantSpec::named("Acme");
        let tenant = Tenant { id: TenantId::new(at), slug: "acme".parse().unwrap(), spec, state: TenantState::Active };
        let grants = specs.into_iter().zip(2..).map(|(spec, number)| grant(number, &tenant, spec)).collect();
        let groups: Arc<[Group]> = vec!["mine".parse().unwrap()].into();
        let bounds = if is_bound { Bounds::nothing() } else { Bounds::Everything };
        World {
            upstream: (UpstreamId::new(at), "desk".parse().unwrap()),
            exposed: "acme__export".parse().unwrap(),
            grants,
            caller: Caller { groups, bounds, ..Caller::of_test("alice", None) },
            tenant,
            class,
            is_enabled,
            is_approved,
            is_revoked,
            revoked,
        }
    }
}

proptest! {
    #[test]
    fn what_is_explained_is_what_is_enforced(world in any_world()) {
        let enforced = decide(&world.index().reach(&world.caller), Action::Call, &world.facts());
        prop_assert_eq!(world.explained().decision, enforced);
    }

    #[test]
    fn what_it_says_would_turn_the_decision_around_does_so_and_nothing_less_of_it(world in any_world()) {
        let before = world.explained();
        prop_assert!(!before.flip.is_empty());
        let after = world.clone().after(&before.flip).explained();
        prop_assert_ne!(after.decision.verdict, before.decision.verdict, "{:?}", before.flip);
        for left_out in 0..before.flip.len() {
            let mut fewer = before.flip.clone();
            fewer.remove(left_out);
            let after = world.clone().after(&fewer).explained();
            prop_assert_eq!(after.decision.verdict, before.decision.verdict, "{:?} is enough of {:?}", fewer, before.flip);
        }
    }
}
