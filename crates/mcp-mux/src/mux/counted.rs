//! What a request to an upstream takes of its caller's and its tenant's shares.

use std::time::Duration;

use tokio::time::Instant;

use super::call::CallError;
use super::wish::{Target, Thing};
use super::{Mux, Sight};
use crate::allowance::Spent;
use crate::caller::Principal;
use crate::limits::{Limited, whole_seconds};
use crate::upstream::{Load, UpstreamError};

impl Mux {
    /// Counts a use of `thing`, which leads to `target`. What is refused takes nothing of any share; what is not sent after all gives
    /// back what it took of a day's and a month's.
    pub(super) fn count_use(
        &self,
        principal: &Principal,
        sight: &Sight,
        (thing, target): (&Thing, &Target<'_>),
    ) -> Result<Spent, CallError> {
        let used = (target.place(), sight.counted_as(thing, target));
        self.limits.count_use(principal, used, Instant::now()).map_err(limited)?;
        let spent = self.spend(principal, sight, (thing, target));
        spent.inspect_err(|_| self.limits.give_back_use(principal, used))
    }

    /// Counts it for the day and the month only.
    pub(super) fn spend(
        &self,
        principal: &Principal,
        sight: &Sight,
        (thing, target): (&Thing, &Target<'_>),
    ) -> Result<Spent, CallError> {
        let tenant = (target.access.scope(), target.access.tenant_slug());
        let kind = match thing {
            Thing::Prompt(_) => "prompt",
            Thing::Resource(_) | Thing::Skill(_) => "resource",
            Thing::Tool(_) | Thing::Begun(..) => "tool",
        };
        let used = (target.upstream.id, kind, sight.counted_as(thing, target));
        self.allowances.count(principal, tenant, used).map_err(limited)
    }

    /// Room for so many bytes of a request.
    pub(super) fn hold(&self, principal: &Principal, target: &Target<'_>, bytes: usize) -> Result<Load, UpstreamError> {
        let load = self.pool.load(target.place(), principal);
        if load.take(bytes) { Ok(load) } else { Err(UpstreamError::NoRoom) }
    }
}

pub(super) fn limited((limited, wait): (Limited, Duration)) -> CallError {
    CallError::Limited { limited, seconds: whole_seconds(wait) }
}
