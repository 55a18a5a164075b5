//! Each reason once, and each way in which one rule could be forgotten.

use std::sync::Arc;

use proptest::prelude::*;
use tenant_store::{
    ExposedName, Grant, GrantId, GrantSpec, Group, Level, LocalName, Tenant, TenantId, TenantSpec, TenantState,
    Timestamp, ToolClass, UpstreamId, UpstreamSlug,
};

use super::{Action, Decision, EntryFacts, Reason, decide};
use crate::caller::{Bounds, Caller, Principal};
use crate::policy::{GrantIndex, Reach};

/// A tenant with one tool.
struct Bed {
    tenant: Tenant,
    upstream: UpstreamId,
    slug: UpstreamSlug,
    local: LocalName,
    exposed: ExposedName,
}

fn bed() -> Bed {
    let at = Timestamp::from_millis(1);
    let tenant = Tenant {
        id: TenantId::new(at),
        slug: "acme".parse().unwrap(),
        spec: TenantSpec::named("Acme"),
        state: TenantState::Active,
    };
    Bed {
        tenant,
        upstream: UpstreamId::new(at),
        slug: "crm".parse().unwrap(),
        local: "Export.all".parse().unwrap(),
        exposed: "acme__Export_all".parse().unwrap(),
    }
}

impl Bed {
    fn facts(&self) -> EntryFacts<'_> {
        EntryFacts {
            tenant: self.tenant.id,
            upstream: self.upstream,
            upstream_slug: &self.slug,
            local: self.local.as_str(),
            exposed: self.exposed.as_str(),
            class: ToolClass::Write,
            enabled: true,
            approved: true,
            revoked: false,
        }
    }

    fn reach(&self, specs: Vec<GrantSpec>) -> Reach {
        reach(&self.tenant, specs, &caller("corp", "alice", &["analysts"]))
    }

    fn decide(&self, specs: Vec<GrantSpec>) -> Decision {
        decide(&self.reach(specs), Action::Call, &self.facts())
    }
}

fn caller(issuer: &str, subject: &str, groups: &[&str]) -> Caller {
    Caller {
        principal: Principal { issuer: issuer.parse().unwrap(), subject: subject.parse().unwrap() },
        groups: groups.iter().map(|group| group.parse::<Group>().unwrap()).collect::<Vec<_>>().into(),
        ..Caller::of_test(subject, None)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test of policy makes its own grants")]
fn reach(tenant: &Tenant, specs: Vec<GrantSpec>, caller: &Caller) -> Reach {
    let grants = specs.into_iter().zip(1..).map(|(spec, at)| Grant {
        id: GrantId::new(Timestamp::from_millis(at)),
        tenant: tenant.id,
        name: format!("grant-{at}").parse().unwrap(),
        spec,
    });
    let mut index = GrantIndex::default();
    index.add(tenant, grants.collect());
    index.reach(caller)
}

fn grant(level: Level, allow: &str, deny: &[&str]) -> GrantSpec {
    GrantSpec {
        issuer: "corp".parse().unwrap(),
        groups: vec!["analysts".parse().unwrap()],
        subjects: Vec::new(),
        level,
        allow: vec![allow.parse().unwrap()],
        deny: deny.iter().map(|pattern| pattern.parse().unwrap()).collect(),
    }
}

#[test]
fn a_grant_with_the_level_and_a_pattern_allows() {
    let decision = bed().decide(vec![grant(Level::Write, "*", &[])]);
    assert!(decision.is_allowed());
    assert!(matches!(decision.reasons.as_slice(), [Reason::Allowed { .. }]), "{decision:?}");
}

#[test]
fn without_a_grant_nothing_is_allowed() {
    let decision = bed().decide(Vec::new());
    assert!(!decision.is_allowed());
    assert!(matches!(decision.reasons.as_slice(), [Reason::NoGrant { .. }]), "{decision:?}");
}

#[test]
fn a_level_below_the_class_allows_nothing() {
    let decision = bed().decide(vec![grant(Level::Read, "*", &[])]);
    assert!(!decision.is_allowed());
    assert!(matches!(decision.reasons.as_slice(), [Reason::LevelTooLow { .. }]), "{decision:?}");
}

#[test]
fn a_pattern_that_does_not_match_allows_nothing() {
    for pattern in ["import*", "export.all", "wiki/*"] {
        let decision = bed().decide(vec![grant(Level::Admin, pattern, &[])]);
        assert!(!decision.is_allowed(), "{pattern}");
        assert!(matches!(decision.reasons.as_slice(), [Reason::NoPatternMatches { .. }]), "{decision:?}");
    }
}

#[test]
fn a_denial_wins_whichever_grant_it_stands_in_and_however_it_names_the_tool() {
    for pattern in ["Export.all", "export*", "export_all", "acme__Export_all", "crm/*", "*"] {
        let denial = grant(Level::Read, "nothing-at-all", &[pattern]);
        for specs in [
            vec![grant(Level::Admin, "*", &[pattern])],
            vec![grant(Level::Admin, "*", &[]), denial.clone()],
            vec![denial, grant(Level::Admin, "*", &[])],
        ] {
            let decision = bed().decide(specs);
            assert!(!decision.is_allowed(), "{pattern}: {decision:?}");
            assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::Denied { .. })), "{decision:?}");
        }
    }
}

#[test]
fn what_is_switched_off_or_not_approved_is_not_allowed() {
    let bed = bed();
    let reach = bed.reach(vec![grant(Level::Admin, "*", &[])]);
    let off = decide(&reach, Action::Call, &EntryFacts { enabled: false, ..bed.facts() });
    assert!(!off.is_allowed() && matches!(off.reasons.as_slice(), [_, Reason::Disabled { .. }]), "{off:?}");
    let changed = decide(&reach, Action::Call, &EntryFacts { approved: false, ..bed.facts() });
    assert!(
        !changed.is_allowed() && matches!(changed.reasons.as_slice(), [_, Reason::NotApproved { .. }]),
        "{changed:?}"
    );
}

#[test]
fn grants_of_a_tenant_that_is_not_active_cover_nobody() {
    for state in [TenantState::Suspended, TenantState::Shredded] {
        let tenant = Tenant { state, ..bed().tenant };
        let alice = caller("corp", "alice", &["analysts"]);
        assert!(reach(&tenant, vec![grant(Level::Admin, "*", &[])], &alice).accesses().is_empty(), "{state}");
    }
}

#[test]
fn a_grant_covers_groups_and_subjects_of_its_own_issuer_only() {
    let tenant = bed().tenant;
    let by_subject =
        GrantSpec { groups: Vec::new(), subjects: vec!["alice".parse().unwrap()], ..grant(Level::Read, "*", &[]) };
    let reaches = |caller: &Caller| {
        let specs = vec![grant(Level::Read, "*", &[]), by_subject.clone()];
        !reach(&tenant, specs, caller).accesses().is_empty()
    };
    assert!(reaches(&caller("corp", "bob", &["analysts"])));
    assert!(reaches(&caller("corp", "alice", &[])));
    assert!(!reaches(&caller("corp", "bob", &["Analysts", "analysts "])));
    assert!(!reaches(&caller("webui", "alice", &["analysts"])));
    assert!(!reaches(&caller("corp", "analysts", &["alice"])));
}

#[test]
fn a_proof_that_is_bound_to_other_tenants_opens_nothing() {
    let tenant = bed().tenant;
    let bounds = Bounds::Tenants(Arc::from([TenantId::new(Timestamp::from_millis(9))]));
    for bounds in [bounds, Bounds::nothing()] {
        let bound = Caller { bounds, ..caller("corp", "alice", &["analysts"]) };
        assert!(reach(&tenant, vec![grant(Level::Read, "*", &[])], &bound).accesses().is_empty());
    }
}

#[test]
fn an_entry_of_another_tenant_is_never_allowed() {
    let (ours, theirs) = (bed(), bed());
    let reach = ours.reach(vec![grant(Level::Admin, "*", &[])]);
    assert!(!decide(&reach, Action::Call, &theirs.facts()).is_allowed());
}

fn any_grant() -> impl Strategy<Value = GrantSpec> {
    let level = prop_oneof![Just(Level::Read), Just(Level::Write), Just(Level::Admin)];
    let pattern = prop::sample::select(vec!["*", "Export*", "crm/*", "wiki/*", "*all", "none"]);
    let deny = prop::collection::vec(prop::sample::select(vec!["*", "export*", "wiki/*", "none"]), 0..2);
    (level, pattern, deny).prop_map(|(level, allow, deny)| grant(level, allow, &deny))
}

proptest! {
    #[test]
    fn the_order_of_grants_does_not_matter(specs in prop::collection::vec(any_grant(), 0..5)) {
        let reversed: Vec<_> = specs.iter().rev().cloned().collect();
        prop_assert_eq!(bed().decide(specs).is_allowed(), bed().decide(reversed).is_allowed());
    }

    #[test]
    fn a_denial_is_never_undone_by_more_grants(specs in prop::collection::vec(any_grant(), 0..5)) {
        let denied = bed().decide(specs.clone()).reasons.iter().any(|reason| matches!(reason, Reason::Denied { .. }));
        let more = specs.into_iter().chain([grant(Level::Admin, "*", &[])]).collect();
        prop_assert_eq!(bed().decide(more).is_allowed(), !denied);
    }
}
