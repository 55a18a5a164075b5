//! Why somebody may use an entry or may not, and the least that would have to change for the opposite. The decision is the one that is
//! enforced; nothing is decided here.

use tenant_store::{Grant, GrantId, Group, Level, ToolPattern};

use super::access::{GrantIndex, Grants};
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
    /// The grant covers the caller.
    Cover {
        /// The grant.
        grant: GrantId,
        /// Because the caller's issuer vouches for this group, or else by name.
        group: Option<Group>,
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
    /// The caller is reinstated.
    ReinstateCaller,
    /// The entry and its upstream are reinstated.
    Reinstate,
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
        way_in(index, caller, entry)
    };
    Explanation { decision, flip }
}

/// What stands in the way, and the shortest way to be allowed where nothing allows it.
fn way_in(index: &GrantIndex, caller: &Caller, entry: &EntryFacts<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    if index.revoked().has(&caller.principal) {
        changes.push(Change::ReinstateCaller);
    }
    if !caller.bounds.include(entry.tenant) {
        changes.push(Change::Unbind);
    }
    // As it would be for a proof that is good for the tenant.
    let covering = index.covering(&caller.principal, &caller.groups, entry.tenant);
    let own = among(&covering, entry);
    let joined = joined(index, caller, entry, &covering);
    let new = [vec![Change::MakeGrant { level: lowest(entry) }], denials(&covering, entry)].concat();
    // The first of the shortest: with what covers the caller, then with what could, then with a new grant.
    let shortest = own.into_iter().chain(joined).chain([new]).min_by_key(Vec::len);
    changes.extend(shortest.into_iter().flatten());
    changes.extend((!entry.enabled).then_some(Change::Enable));
    changes.extend((!entry.approved).then_some(Change::Approve));
    changes.extend(entry.revoked.then_some(Change::Reinstate));
    changes
}

/// What lets these grants allow the entry: the least that one of them lacks, and all that denies it. None without a grant.
fn among(covering: &Grants<'_>, entry: &EntryFacts<'_>) -> Option<Vec<Change>> {
    let least = covering.values().map(|grant| steps(grant, entry)).min_by_key(Vec::len)?;
    Some([least, denials(covering, entry)].concat())
}

/// The same for whoever is covered by one grant more, and by all that come with the group that does it. Those that give the least first.
fn joined(
    index: &GrantIndex,
    caller: &Caller,
    entry: &EntryFacts<'_>,
    covering: &Grants<'_>,
) -> impl Iterator<Item = Vec<Change>> {
    let mut ways = Vec::new();
    for grant in index.others(&caller.principal.issuer, entry.tenant, covering) {
        // A revoked one gives nothing to whoever joins it.
        let is_good = |group: &&Group| !index.revoked().has_group(&caller.principal.issuer, group);
        let by_group = grant.spec.groups.iter().filter(is_good).map(|group| Some(group.clone()));
        for group in by_group.chain(grant.spec.groups.is_empty().then_some(None)) {
            let groups = caller.groups.iter().cloned().chain(group.clone()).collect::<Vec<_>>();
            let mut after = index.covering(&caller.principal, &groups, entry.tenant);
            after.insert(grant.id, grant);
            let highest = after.values().map(|grant| grant.spec.level).max();
            let cover = vec![Change::Cover { grant: grant.id, group }];
            ways.extend(among(&after, entry).map(|changes| (highest, [cover, changes].concat())));
        }
    }
    ways.sort_by_key(|(highest, _)| *highest);
    ways.into_iter().map(|(_, changes)| changes)
}

/// What a grant lacks to allow the entry.
fn steps(grant: &Grant, entry: &EntryFacts<'_>) -> Vec<Change> {
    let raise = Change::Raise { grant: grant.id, to: lowest(entry) };
    let raise = (!grant.spec.level.covers(entry.class)).then_some(raise);
    let allow = (!names(grant, entry)).then_some(Change::Allow { grant: grant.id });
    raise.into_iter().chain(allow).collect()
}

fn denials(grants: &Grants<'_>, entry: &EntryFacts<'_>) -> Vec<Change> {
    let hits = |pattern: &&ToolPattern| pattern.hits(entry.upstream_slug, entry.local, entry.exposed);
    let of_grant = |grant: &Grant| {
        let mut patterns: Vec<_> = grant.spec.deny.iter().filter(hits).cloned().collect();
        patterns.dedup();
        let id = grant.id;
        patterns.into_iter().map(move |pattern| Change::Undeny { grant: id, pattern })
    };
    grants.values().flat_map(|grant| of_grant(grant)).collect()
}

fn names(grant: &Grant, entry: &EntryFacts<'_>) -> bool {
    grant.spec.allow.iter().any(|pattern| pattern.matches(entry.upstream_slug, entry.local))
}

/// The lowest level that covers the entry.
fn lowest(entry: &EntryFacts<'_>) -> Level {
    [Level::Read, Level::Write].into_iter().find(|level| level.covers(entry.class)).unwrap_or(Level::Admin)
}

#[cfg(test)]
mod tests;
