//! Why somebody may use an entry or may not, and the least that would have to change for the opposite. The decision is the one that is
//! enforced; nothing is decided here.

use std::collections::BTreeMap;

use tenant_store::{Grant, GrantId, Level, ToolPattern};

use super::access::GrantIndex;
use super::decide::{Action, Decision, EntryFacts, Reason, decide};
use crate::caller::Caller;

/// A decision, and what would turn it around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// What would have to change, all of it together. There may be other ways that are as short.
    pub flip: Vec<Change>,
}

/// One thing that somebody could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The caller's proof is good for the tenant too.
    Unbind,
    /// There is a grant for the caller that gives this level and names the entry.
    MakeGrant {
        /// The level.
        level: Level,
    },
    /// The grant covers the caller: by a group of its own issuer, or by name.
    Cover {
        /// The grant.
        grant: GrantId,
    },
    /// The grant gives a higher level.
    Raise {
        /// The grant.
        grant: GrantId,
        /// The level.
        to: Level,
    },
    /// The grant allows the entry by a pattern.
    Allow {
        /// The grant.
        grant: GrantId,
    },
    /// The grant denies the entry by a pattern.
    Deny {
        /// The grant.
        grant: GrantId,
    },
    /// A pattern of the grant no longer denies the entry.
    Undeny {
        /// The grant.
        grant: GrantId,
        /// The pattern.
        pattern: ToolPattern,
    },
    /// The entry and its upstream are switched on.
    Enable,
    /// The entry's present definition is approved.
    Approve,
}

/// Explains what is decided about a call of `entry` for `caller`.
pub fn explain(index: &GrantIndex, caller: &Caller, entry: &EntryFacts<'_>) -> Explanation {
    let decision = decide(&index.reach(caller), Action::Call, entry);
    let flip = if decision.is_allowed() {
        let allowed = decision.reasons.iter().find_map(|reason| match reason {
            Reason::Allowed { grant, .. } => Some(Change::Deny { grant: *grant }),
            _ => None,
        });
        allowed.into_iter().collect()
    } else {
        way_in(index, caller, entry, &decision)
    };
    Explanation { decision, flip }
}

/// What stands in the way, and the shortest way to be allowed where nothing allows it.
fn way_in(index: &GrantIndex, caller: &Caller, entry: &EntryFacts<'_>, decision: &Decision) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    if !caller.bounds.include(entry.tenant) {
        changes.push(Change::Unbind);
    }
    // As it would be for a proof that is good for the tenant.
    let covering = index.covering(&caller.principal, &caller.groups, entry.tenant);
    let is_allowed = |grant: &Grant| grant.spec.level.covers(entry.class) && names(grant, entry);
    if !covering.values().any(|grant| is_allowed(grant)) {
        let own = covering.values().map(|grant| steps(grant, entry));
        let others = index.others(&caller.principal.issuer, entry.tenant, &covering);
        let joined = others.into_iter().map(|grant| {
            let mut steps = steps(grant, entry);
            steps.insert(0, Change::Cover { grant: grant.id });
            steps.extend(denials(grant, entry));
            steps
        });
        let new = vec![Change::MakeGrant { level: lowest(entry) }];
        // The first of the shortest: a grant that covers the caller, then one that could, then a new one.
        let shortest = own.chain(joined).chain([new]).min_by_key(Vec::len);
        changes.extend(shortest.into_iter().flatten());
    }
    changes.extend(covering.values().flat_map(|grant| denials(grant, entry)));
    for reason in &decision.reasons {
        match reason {
            Reason::Disabled { .. } => changes.push(Change::Enable),
            Reason::NotApproved { .. } => changes.push(Change::Approve),
            _ => {}
        }
    }
    // Who is covered by nothing hears of no entry that is off.
    let says = |wanted: Change| changes.contains(&wanted);
    let (lacks_enable, lacks_approve) =
        (!entry.enabled && !says(Change::Enable), !entry.approved && !says(Change::Approve));
    changes.extend(lacks_enable.then_some(Change::Enable));
    changes.extend(lacks_approve.then_some(Change::Approve));
    changes
}

/// What a grant lacks to allow the entry.
fn steps(grant: &Grant, entry: &EntryFacts<'_>) -> Vec<Change> {
    let raise = Change::Raise { grant: grant.id, to: lowest(entry) };
    let raise = (!grant.spec.level.covers(entry.class)).then_some(raise);
    let allow = (!names(grant, entry)).then_some(Change::Allow { grant: grant.id });
    raise.into_iter().chain(allow).collect()
}

fn denials(grant: &Grant, entry: &EntryFacts<'_>) -> Vec<Change> {
    let hits = |pattern: &&ToolPattern| pattern.hits(entry.upstream_slug, entry.local, entry.exposed);
    let undeny = |pattern: &ToolPattern| Change::Undeny { grant: grant.id, pattern: pattern.clone() };
    grant.spec.deny.iter().filter(hits).map(undeny).collect()
}

fn names(grant: &Grant, entry: &EntryFacts<'_>) -> bool {
    grant.spec.allow.iter().any(|pattern| pattern.matches(entry.upstream_slug, entry.local))
}

/// The lowest level that covers the entry.
fn lowest(entry: &EntryFacts<'_>) -> Level {
    [Level::Read, Level::Write].into_iter().find(|level| level.covers(entry.class)).unwrap_or(Level::Admin)
}

/// Grants by their ids.
pub(super) type Grants<'g> = BTreeMap<GrantId, &'g Grant>;

#[cfg(test)]
mod tests;
