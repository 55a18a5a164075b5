//! The one decision: may this reach do that to this entry?
//!
//! Pure and total. The [`Decision`] that is enforced is the value that can be explained: it carries the ordered reasons with
//! the rows behind them.

use tenant_store::{GrantId, Level, TenantId, ToolClass, ToolPattern, UpstreamId, UpstreamSlug};

use super::access::Reach;

/// What somebody wants to do with an entry. The rule is the same for both, so that nothing is listed that cannot be called
/// and nothing can be called that is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See it in a list.
    List,
    /// Call it.
    Call,
}

/// All that a decision needs to know about an entry.
#[derive(Debug, Clone, Copy)]
pub struct EntryFacts<'e> {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The upstream that offers it.
    pub upstream: UpstreamId,
    /// The upstream's short name, which patterns may name.
    pub upstream_slug: &'e UpstreamSlug,
    /// What it is known by at its upstream, which patterns match: the name of a tool or a prompt, the URI of a resource.
    pub local: &'e str,
    /// The name that clients see, by which it can be denied too.
    pub exposed: &'e str,
    /// The level it asks for.
    pub class: ToolClass,
    /// Neither it nor its upstream is switched off.
    pub enabled: bool,
    /// Its definition is the approved one.
    pub approved: bool,
    /// It or its upstream is revoked.
    pub revoked: bool,
}

/// The outcome, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What was asked for.
    pub action: Action,
    /// What is done.
    pub verdict: Verdict,
    /// Why, in the order in which it was considered.
    pub reasons: Vec<Reason>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not; to the caller the entry does not exist.
    Deny,
}

/// One step of a decision, with the row behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The caller is revoked.
    CallerRevoked,
    /// No grant of the entry's tenant covers the caller.
    NoGrant {
        /// The entry's tenant.
        tenant: TenantId,
    },
    /// A covering grant's level is below the entry's class.
    LevelTooLow {
        /// The grant.
        grant: GrantId,
        /// What it gives.
        level: Level,
        /// What the entry asks for.
        class: ToolClass,
    },
    /// None of a covering grant's allow patterns matches.
    NoPatternMatches {
        /// The grant.
        grant: GrantId,
    },
    /// A covering grant gives the level and a pattern of it matches.
    Allowed {
        /// The grant.
        grant: GrantId,
        /// The pattern that matched.
        pattern: ToolPattern,
    },
    /// A covering grant, whatever its level, denies the entry; this wins over every allowance.
    Denied {
        /// The grant.
        grant: GrantId,
        /// The pattern that matched.
        pattern: ToolPattern,
    },
    /// The entry or its upstream is switched off.
    Disabled {
        /// The upstream.
        upstream: UpstreamId,
    },
    /// The entry's definition differs from the approved one.
    NotApproved {
        /// The upstream.
        upstream: UpstreamId,
    },
    /// The entry or its upstream is revoked.
    Revoked {
        /// The upstream.
        upstream: UpstreamId,
    },
}

impl Decision {
    /// Whether it is allowed.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Decides. An action is allowed if some covering grant of the entry's tenant gives the level and names the entry, no
/// covering grant denies it, it is switched on, its definition is the approved one, and nothing of it is revoked.
pub fn decide(reach: &Reach, action: Action, entry: &EntryFacts<'_>) -> Decision {
    let Some(access) = reach.access(entry.tenant) else {
        let reason = if reach.is_revoked() { Reason::CallerRevoked } else { Reason::NoGrant { tenant: entry.tenant } };
        return Decision { action, verdict: Verdict::Deny, reasons: vec![reason] };
    };
    let allows = |pattern: &&ToolPattern| pattern.matches(entry.upstream_slug, entry.local);
    let denies = |pattern: &&ToolPattern| pattern.hits(entry.upstream_slug, entry.local, entry.exposed);

    let mut reasons = Vec::new();
    let (mut allowed, mut refused) = (false, false);
    for grant in access.grants() {
        let level = grant.spec.level;
        if !level.covers(entry.class) {
            reasons.push(Reason::LevelTooLow { grant: grant.id, level, class: entry.class });
        } else if let Some(pattern) = grant.spec.allow.iter().find(allows) {
            allowed = true;
            reasons.push(Reason::Allowed { grant: grant.id, pattern: pattern.clone() });
        } else {
            reasons.push(Reason::NoPatternMatches { grant: grant.id });
        }
        if let Some(pattern) = grant.spec.deny.iter().find(denies) {
            refused = true;
            reasons.push(Reason::Denied { grant: grant.id, pattern: pattern.clone() });
        }
    }
    if !entry.enabled {
        refused = true;
        reasons.push(Reason::Disabled { upstream: entry.upstream });
    }
    if !entry.approved {
        refused = true;
        reasons.push(Reason::NotApproved { upstream: entry.upstream });
    }
    if entry.revoked {
        refused = true;
        reasons.push(Reason::Revoked { upstream: entry.upstream });
    }
    let verdict = if allowed && !refused { Verdict::Allow } else { Verdict::Deny };
    Decision { action, verdict, reasons }
}

#[cfg(test)]
mod tests;
