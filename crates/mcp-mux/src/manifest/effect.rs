//! What a change means for people: who gains and who loses which tools, prompts and resources.
//!
//! It is said for each group and each principal that a grant names, as if they had nothing else. What somebody in several groups has
//! is what any of these gives, without what any of these denies; so gains, losses and denials together say it for everybody.

use std::collections::BTreeSet;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tenant_store::{Grant, Group, IssuerName, Subject, TenantId, TenantSlug};

use crate::caller::{Bounds, Caller, Principal};
use crate::catalog::Snapshot;
use crate::policy::{Action, EntryFacts, Reach, Reason, decide};

/// What changes for somebody in a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// In which tenant.
    pub tenant: TenantSlug,
    /// For whom.
    pub whom: Whom,
    /// Whether a grant covers them there, if that is another answer than before.
    pub is_covered: Option<bool>,
    /// What they can use from now on.
    pub gained: BTreeSet<Thing>,
    /// What they can use no more.
    pub lost: BTreeSet<Thing>,
    /// What is denied to them from now on, whatever other grants allow.
    pub denied: BTreeSet<Thing>,
    /// What is denied to them no more, so that other grants can allow it.
    pub undenied: BTreeSet<Thing>,
}

/// Those whom a grant can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Whom {
    /// Whose names these are.
    pub issuer: IssuerName,
    /// Everybody in a group, or one principal.
    #[serde(flatten)]
    pub named: Named,
}

/// How a grant names somebody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Named {
    /// Everybody in this group.
    Group(Group),
    /// This principal.
    Subject(Subject),
}

/// Something that can be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Thing {
    /// Its kind.
    pub kind: &'static str,
    /// The name by which clients know it.
    pub name: String,
}

/// What somebody has in one tenant.
#[derive(Debug, Default)]
struct Has {
    is_covered: bool,
    allowed: BTreeSet<Thing>,
    denied: BTreeSet<Thing>,
}

impl Effect {
    /// What is different for anybody in `after`, ordered by tenant and then by whom.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Vec<Self> {
        let changed = after.changed_since(before);
        let grants = before.grants().all().chain(after.grants().all()).filter(|grant| changed.contains(&grant.tenant));
        let named: BTreeSet<(TenantId, Whom)> =
            grants.flat_map(|grant| Whom::named_in(grant).map(|whom| (grant.tenant, whom))).collect();
        let effect = |(tenant, whom)| Self::for_whom(before, after, tenant, whom);
        let mut effects: Vec<Self> = named.into_iter().filter_map(effect).collect();
        effects.sort_by(|one, other| (&one.tenant, &one.whom).cmp(&(&other.tenant, &other.whom)));
        effects
    }

    fn for_whom(before: &Snapshot, after: &Snapshot, tenant: TenantId, whom: Whom) -> Option<Self> {
        let caller = whom.as_caller(tenant);
        let slug = after.tenant_slug(tenant).or_else(|| before.tenant_slug(tenant))?.clone();
        let (had, has) = (Has::of(before, &caller), Has::of(after, &caller));
        let new = |before: &BTreeSet<Thing>, after: &BTreeSet<Thing>| after.difference(before).cloned().collect();
        let effect = Self {
            tenant: slug,
            whom,
            is_covered: (had.is_covered != has.is_covered).then_some(has.is_covered),
            gained: new(&had.allowed, &has.allowed),
            lost: new(&has.allowed, &had.allowed),
            denied: new(&had.denied, &has.denied),
            undenied: new(&has.denied, &had.denied),
        };
        let sets = [&effect.gained, &effect.lost, &effect.denied, &effect.undenied];
        (effect.is_covered.is_some() || sets.iter().any(|set| !set.is_empty())).then_some(effect)
    }
}

impl Whom {
    /// Somebody of whom no more is known than a name in a grant.
    fn as_caller(&self, tenant: TenantId) -> Caller {
        let issuer = self.issuer.clone();
        let (principal, groups) = match &self.named {
            Named::Subject(subject) => (Principal { issuer, subject: subject.clone() }, Vec::new()),
            Named::Group(group) => (Principal::anybody_of(issuer), vec![group.clone()]),
        };
        Caller::supposed(principal, groups.into(), Bounds::Tenants([tenant].into()))
    }

    fn named_in(grant: &Grant) -> impl Iterator<Item = Self> {
        let groups = grant.spec.groups.iter().cloned().map(Named::Group);
        let named = groups.chain(grant.spec.subjects.iter().cloned().map(Named::Subject));
        named.map(|named| Self { issuer: grant.spec.issuer.clone(), named })
    }
}

impl Has {
    fn of(snapshot: &Snapshot, caller: &Caller) -> Self {
        let reach = snapshot.grants().reach(caller);
        let mut has = Self { is_covered: !reach.accesses().is_empty(), ..Self::default() };
        for shelf in reach.accesses().iter().filter_map(|access| snapshot.shelf(access)) {
            for (kind, facts) in shelf.everything() {
                has.take(&reach, Thing { kind, name: plain(facts.exposed) }, &facts);
            }
        }
        has
    }

    fn take(&mut self, reach: &Reach, thing: Thing, facts: &EntryFacts<'_>) {
        let decision = decide(reach, Action::Call, facts);
        if decision.is_allowed() {
            self.allowed.insert(thing);
        } else if decision.reasons.iter().any(|reason| matches!(reason, Reason::Denied { .. })) {
            self.denied.insert(thing);
        }
    }
}

/// A name without what may open the thing, the query of a signed URL; two names stay two.
pub(super) fn plain(name: &str) -> String {
    match name.find(['?', '#']).map(|at| name.split_at(at)) {
        None => name.to_owned(),
        Some((before, opening)) => {
            let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(opening));
            format!("{before}?({:08x})", u32::from_be_bytes([a, b, c, d]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_a_thing_is_not_told_and_two_things_stay_two() {
        let (one, other) = (plain("db://rows?customer=1&key=CANARY"), plain("db://rows?customer=2"));
        assert!(one.starts_with("db://rows?(") && !one.contains("CANARY"), "{one}");
        assert_ne!(one, other);
        assert_eq!(plain("acme__search"), "acme__search");
    }
}
