//! Access tests: what certain people must be able to use and what they must not is looked up in the state that a change would make.
//! The decision is the one that is enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use tenant_store::{AccessTest, AccessTestName, Group, TenantSlug, ToolPattern};

use super::effect::plain;
use crate::caller::{Bounds, Caller, Principal};
use crate::catalog::{Shelf, Snapshot};
use crate::policy::{Access, Action, Decision, EntryFacts, Reach, Reason, decide};

/// How many names a failure lists of those that are too many.
const SHOWN_MAX: usize = 5;

/// What access tests found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many tests there are.
    pub tests: usize,
    /// What does not hold any more.
    pub failures: Vec<Finding>,
    /// What did not hold before either, and is no reason to refuse the change.
    pub already: Vec<Finding>,
    /// What could not be looked at, because nobody knows yet what an upstream lists.
    pub unknown: Vec<Finding>,
}

/// What a test found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The test's tenant, where it is served.
    pub tenant: Option<TenantSlug>,
    /// The test.
    pub test: AccessTestName,
    /// What is the matter.
    pub message: String,
    /// All that can be used and must not be, of which the message names a few.
    #[serde(skip)]
    pub hits: BTreeSet<String>,
}

impl Finding {
    /// Whether the same test found the same before, or that they can use the same things and more.
    fn is_no_worse_than(&self, before: &Self) -> bool {
        let is_same = (&self.tenant, &self.test) == (&before.tenant, &before.test);
        let is_told =
            if self.hits.is_empty() { self.message == before.message } else { self.hits.is_subset(&before.hits) };
        is_same && is_told
    }
}

/// Why somebody cannot use something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// It is nowhere.
    Nowhere,
    /// It is there.
    Denied,
}

impl Lack {
    fn of(self, name: &ToolPattern) -> String {
        let why = match self {
            Self::Nowhere => "there is no such thing",
            Self::Denied => "cannot",
        };
        format!("they must be able to use `{name}`, and {why}")
    }
}

/// Somebody in a test, and all that they can use.
struct Tried<'s> {
    snapshot: &'s Snapshot,
    reach: Reach,
    allowed: Vec<(EntryFacts<'s>, Decision)>,
}

/// Looks at every test. What failed before in the same way may go on to do so: an upstream that lists something else must not keep
/// everybody from changing anything, least of all from taking access away.
pub(super) fn verify(before: (&Snapshot, &[AccessTest]), after: (&Snapshot, &[AccessTest])) -> Verified {
    let failed = judge(before).failures;
    let mut verified = judge(after);
    let was_so = |finding: &Finding| failed.iter().any(|before| finding.is_no_worse_than(before));
    (verified.already, verified.failures) = verified.failures.into_iter().partition(was_so);
    verified
}

/// Looks at these tests as things are.
pub fn judge((snapshot, tests): (&Snapshot, &[AccessTest])) -> Verified {
    let unlisted = unlisted(snapshot);
    let mut verified = Verified { tests: tests.len(), ..Verified::default() };
    for test in tests {
        let tenant = snapshot.tenant_slug(test.tenant);
        let found = |message, hits| Finding { tenant: tenant.cloned(), test: test.name.clone(), message, hits };
        let finding = |message| found(message, BTreeSet::new());
        let tried = Tried::of(snapshot, test);
        for name in &test.spec.can {
            match tried.can(name) {
                Ok(()) => {}
                Err(Lack::Nowhere) if is_open(&unlisted, snapshot, name) => {
                    verified.unknown.push(finding(Lack::Nowhere.of(name)));
                }
                Err(lack) => verified.failures.push(finding(lack.of(name))),
            }
        }
        for pattern in &test.spec.cannot {
            verified.failures.extend(tried.cannot(pattern).err().map(|(message, hits)| found(message, hits)));
        }
    }
    verified
}

impl<'s> Tried<'s> {
    fn of(snapshot: &'s Snapshot, test: &AccessTest) -> Self {
        let groups: Vec<Group> = test.spec.groups.clone();
        let issuer = test.spec.issuer.clone();
        let principal = match test.spec.subject.clone() {
            Some(subject) => Principal { issuer, subject },
            None => Principal::anybody_of(issuer),
        };
        let caller = Caller::supposed(principal, groups.into(), Bounds::Everything);
        let reach = snapshot.grants().reach(&caller);
        let shelves = reach.accesses().iter().filter_map(|access| snapshot.shelf(access));
        let decided = shelves.flat_map(facts_of).map(|facts| (facts, decide(&reach, Action::Call, &facts)));
        let allowed = decided.filter(|(_, decision)| decision.is_allowed()).collect();
        Self { snapshot, reach, allowed }
    }

    fn can(&self, name: &ToolPattern) -> Result<(), Lack> {
        if self.allowed.iter().any(|(facts, _)| name.is_shown_as(facts.exposed)) {
            return Ok(());
        }
        let mut all = self.snapshot.shelves().flat_map(|(_, shelf)| facts_of(shelf));
        let is_there = all.any(|facts| name.is_shown_as(facts.exposed));
        Err(if is_there { Lack::Denied } else { Lack::Nowhere })
    }

    /// Otherwise what is the matter, and all that they can use.
    fn cannot(&self, pattern: &ToolPattern) -> Result<(), (String, BTreeSet<String>)> {
        // As in grants, what denies is read widely.
        let is_hit = |facts: &EntryFacts<'_>| pattern.hits(facts.upstream_slug, facts.local, facts.exposed);
        let found: Vec<_> = self.allowed.iter().filter(|(facts, _)| is_hit(facts)).collect();
        if let Some((_, decision)) = found.first() {
            let names: Vec<_> =
                found.iter().take(SHOWN_MAX).map(|(facts, _)| format!("`{}`", plain(facts.exposed))).collect();
            let more = found.len().saturating_sub(SHOWN_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let by = self.by(decision);
            let names = names.join(", ");
            let message = format!("they must not be able to use `{pattern}`, and can use {names}{more}{by}");
            return Err((message, found.iter().map(|(facts, _)| facts.exposed.to_owned()).collect()));
        }
        // What it may list one day counts too, where a whole tenant is meant.
        let pattern_of = |access: &&Access| {
            let (pattern, slug) = (pattern.as_str().to_lowercase(), access.tenant_slug());
            pattern == "*" || pattern.strip_suffix("__*") == Some(slug.as_str())
        };
        let access = self.reach.accesses().iter().find(pattern_of);
        access.map_or(Ok(()), |access| {
            let tenant = access.tenant_slug();
            let message =
                format!("they must not be able to use `{pattern}`, and a grant in tenant {tenant} covers them");
            Err((message, BTreeSet::new()))
        })
    }

    /// By which grants.
    fn by(&self, decision: &Decision) -> String {
        let grants = decision.reasons.iter().filter_map(|reason| match reason {
            Reason::Allowed { grant, .. } => self.snapshot.grants().all().find(|other| other.id == *grant),
            _ => None,
        });
        let names: BTreeSet<_> = grants.map(|grant| grant.name.to_string()).collect();
        if names.is_empty() {
            return String::new();
        }
        format!(" by grant {}", names.into_iter().collect::<Vec<_>>().join(", "))
    }
}

/// All that a tenant has.
fn facts_of(shelf: &Shelf) -> impl Iterator<Item = EntryFacts<'_>> {
    shelf.everything().map(|(_, facts)| facts)
}

/// The upstreams that are in use and of which nothing is known, by tenant.
pub(super) fn unlisted(snapshot: &Snapshot) -> BTreeMap<TenantSlug, Vec<String>> {
    let mut unlisted: BTreeMap<TenantSlug, Vec<String>> = BTreeMap::new();
    for (_, shelf) in snapshot.shelves() {
        let known: BTreeSet<_> = facts_of(shelf).map(|facts| facts.upstream).collect();
        for upstream in shelf.upstreams_in_use().filter(|upstream| !known.contains(&upstream.id)) {
            unlisted.entry(shelf.tenant_slug().clone()).or_default().push(upstream.slug.to_string());
        }
    }
    for upstreams in unlisted.values_mut() {
        upstreams.sort();
    }
    unlisted
}

/// Whether something of that name may be listed yet. No slug has a `_`, so a name's first two end its tenant's.
fn is_open(unlisted: &BTreeMap<TenantSlug, Vec<String>>, snapshot: &Snapshot, name: &ToolPattern) -> bool {
    let Some((slug, _)) = name.as_str().split_once("__") else { return false };
    let is_served = snapshot.shelves().any(|(_, shelf)| shelf.tenant_slug().as_str() == slug);
    !is_served || unlisted.contains_key(slug)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tenant) = &self.tenant {
            write!(f, "{tenant}/")?;
        }
        write!(f, "{}: {}", self.test, self.message)
    }
}
