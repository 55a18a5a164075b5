//! How often calls may be made: by one principal, in one tenant, of one tool. What is counted is counted in this process; each replica has a
//! count of its own.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tenant_store::{TenantId, UpstreamId};
use tokio::time::Instant;

use crate::caller::{Principal, Quota, Share};
use crate::config::LimitsConfig;

/// Most principals, tenants or tools that are counted at once. Who comes then takes the place of who called longest ago.
const COUNTED_MAX: u64 = 200_000;
/// After so long without a call nobody owes anything.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// How many bits of an IPv6 address its holder chooses.
const HOLDER_BITS: u32 = 64;
/// When to try again where as many calls run as may.
const PLACE_RETRY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// The limits of one server. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Limits {
    principals: Option<Arc<Limiter<Principal>>>,
    tenants: Option<Arc<Limiter<TenantId>>>,
    tools: Option<Arc<Limiter<ToolUse>>>,
    running: Option<Quota<TenantId>>,
}

/// A call that runs in a tenant, until this is dropped.
pub type Running = Option<Share<TenantId>>;

/// A principal's use of one thing at one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ToolUse {
    principal: Principal,
    place: (TenantId, UpstreamId),
    local: Box<str>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The principal's own.
    Principal,
    /// That of the tenant, which all who call there share.
    Tenant,
    /// The principal's own for that tool.
    Tool,
    /// That of the tenant on calls which run at once.
    AtOnce,
    /// What that has for a day or a month is used up.
    UsedUp(Counter, Span),
    /// There is no room to count it in.
    Uncounted,
}

/// Whose calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Of one principal, in one tenant.
    Principal,
    /// Of one principal, of one tool.
    Tool,
    /// Of all, in one tenant.
    Tenant,
}

/// For how long calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// A day, in UTC.
    Day,
    /// A month of the calendar, in UTC.
    Month,
}

impl Limited {
    /// Of what there were too many, as the end of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "you make too many calls",
            Self::Tenant => "too many calls are made there by all together",
            Self::Tool => "you call this too often",
            Self::AtOnce => "too many calls run there at once",
            Self::UsedUp(Counter::Principal, Span::Day) => "you have used up your calls there for today",
            Self::UsedUp(Counter::Principal, Span::Month) => "you have used up your calls there for this month",
            Self::UsedUp(Counter::Tool, Span::Day) => "you have used up your calls of this for today",
            Self::UsedUp(Counter::Tool, Span::Month) => "you have used up your calls of this for this month",
            Self::UsedUp(Counter::Tenant, Span::Day) => "all together have used up the calls there for today",
            Self::UsedUp(Counter::Tenant, Span::Month) => "all together have used up the calls there for this month",
            Self::Uncounted => "calls cannot be counted at present, so none is made",
        }
    }
}

impl Limits {
    /// Those of the configuration.
    pub fn new(config: &LimitsConfig) -> Self {
        Self {
            principals: Limiter::per_minute(config.principal_calls_per_minute),
            tenants: Limiter::per_minute(config.tenant_calls_per_minute),
            tools: Limiter::per_minute(config.tool_calls_per_minute),
            running: (config.tenant_calls_at_once > 0).then(|| Quota::new(config.tenant_calls_at_once)),
        }
    }

    /// Counts a request of `principal`, whatever it is for, if it may be made now; otherwise which limit is in its way, and for how long.
    pub fn count(&self, principal: &Principal, now: Instant) -> Result<(), (Limited, Duration)> {
        let Some(principals) = &self.principals else { return Ok(()) };
        principals.count(principal, now).map_err(|wait| (Limited::Principal, wait))
    }

    /// Counts the use of something that has been found. What is refused counts for nothing, not for the principal either.
    pub fn count_use(
        &self,
        principal: &Principal,
        (place, local): ((TenantId, UpstreamId), &str),
        now: Instant,
    ) -> Result<(), (Limited, Duration)> {
        let tool = || ToolUse { principal: principal.clone(), place, local: local.into() };
        let refused = |limited| {
            move |wait| {
                if let Some(principals) = &self.principals {
                    principals.give_back(principal);
                }
                (limited, wait)
            }
        };
        if let Some(tools) = &self.tools {
            tools.count(&tool(), now).map_err(refused(Limited::Tool))?;
        }
        // Last: what others are refused takes nothing of what the tenant has.
        let Some(tenants) = &self.tenants else { return Ok(()) };
        tenants.count(&place.0, now).map_err(refused(Limited::Tenant)).inspect_err(|_| {
            if let Some(tools) = &self.tools {
                tools.give_back(&tool());
            }
        })
    }

    /// Gives back what a use took that is refused for another reason.
    pub fn give_back_use(&self, principal: &Principal, (place, local): ((TenantId, UpstreamId), &str)) {
        if let Some(principals) = &self.principals {
            principals.give_back(principal);
        }
        if let Some(tools) = &self.tools {
            tools.give_back(&ToolUse { principal: principal.clone(), place, local: local.into() });
        }
        self.give_back(place.0);
    }

    /// A place for a call in a tenant, if one is free. When the next one will be, nobody knows.
    pub fn begin(&self, tenant: TenantId) -> Result<Running, (Limited, Duration)> {
        let Some(running) = &self.running else { return Ok(None) };
        running.take(&tenant).map(Some).ok_or((Limited::AtOnce, PLACE_RETRY))
    }

    /// Gives a tenant back what a call took that was not made.
    pub fn give_back(&self, tenant: TenantId) {
        if let Some(tenants) = &self.tenants {
            tenants.give_back(&tenant);
        }
    }
}

/// What proved nothing, by the address that it came from. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Attempts(Option<Arc<Limiter<IpAddr>>>);

impl Attempts {
    /// As many as the configuration allows.
    pub fn new(config: &LimitsConfig) -> Self {
        Self(Limiter::per_minute(config.address_failures_per_minute))
    }

    /// Counts one, if it may be looked at; otherwise for how long none may.
    pub fn count(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), |limiter| limiter.count(&of_one_holder(from), now))
    }

    /// One that was counted proved something.
    pub fn give_back(&self, from: IpAddr) {
        if let Some(limiter) = &self.0 {
            limiter.give_back(&of_one_holder(from));
        }
    }

    /// Whether there is a limit.
    pub fn are_counted(&self) -> bool {
        self.0.is_some()
    }
}

/// What one address stands for: of IPv6 everybody has a whole network.
fn of_one_holder(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << HOLDER_BITS)).into(),
    }
}

/// So many whole seconds that nobody who waits them comes too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    Duration::from_secs_f64(wait.as_secs_f64().ceil().max(1.0)).as_secs()
}

/// So many in a minute, all at once or spread: the generic cell rate algorithm. Of each only the moment is remembered up to which it has used
/// its share.
struct Limiter<K> {
    /// What one costs.
    cost: Duration,
    began: Instant,
    used_up_to: Cache<K, Arc<AtomicU64>, RandomState>,
}

impl<K> std::fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Limiter<K> {
    /// None, where there is no limit.
    fn per_minute(count: u32) -> Option<Arc<Self>> {
        let cost = MINUTE.checked_div(count)?;
        let used_up_to =
            Cache::builder().max_capacity(COUNTED_MAX).eviction_policy(EvictionPolicy::lru()).time_to_idle(IDLE_MAX);
        let used_up_to = used_up_to.build_with_hasher(RandomState::default());
        Some(Arc::new(Self { cost, began: Instant::now(), used_up_to }))
    }

    fn count(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let used = self.used_up_to.get_with_by_ref(key, Arc::default);
        let mut wait = Duration::ZERO;
        let counted = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let next = self.next(used, now);
            wait = next.err().unwrap_or_default();
            next.ok()
        });
        counted.map(drop).map_err(|_| wait)
    }

    /// Up to when the share is used with one more, or how long that has to wait.
    fn next(&self, used: u64, now: Instant) -> Result<u64, Duration> {
        let now = nanos(now.saturating_duration_since(self.began));
        let next = used.max(now).saturating_add(nanos(self.cost));
        let wait = next.saturating_sub(now).saturating_sub(nanos(MINUTE));
        if wait == 0 { Ok(next) } else { Err(Duration::from_nanos(wait)) }
    }

    /// One that was counted was not used.
    fn give_back(&self, key: &K) {
        let Some(used) = self.used_up_to.get(key) else { return };
        let cost = nanos(self.cost);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(cost))).ok();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenant_store::Timestamp;

    use super::*;

    fn somebody(subject: &str) -> Principal {
        Principal { issuer: "corp".parse().unwrap(), subject: subject.parse().unwrap() }
    }

    fn limits(principal: u32, tenant: u32, tool: u32) -> Limits {
        Limits::new(&LimitsConfig {
            principal_calls_per_minute: principal,
            tenant_calls_per_minute: tenant,
            tool_calls_per_minute: tool,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn whoever_shows_what_proves_nothing_is_counted_by_network_and_looked_at_again_in_time() {
        let attempts = Attempts::new(&LimitsConfig { address_failures_per_minute: 2, ..LimitsConfig::default() });
        let (now, address) = (Instant::now(), |text: &str| text.parse().unwrap());
        assert_eq!(attempts.count(address("2001:db8::1"), now), Ok(()));
        assert_eq!(attempts.count(address("2001:db8::2"), now), Ok(()));
        assert_eq!(attempts.count(address("2001:db8::ffff:3"), now), Err(Duration::from_secs(30)));
        assert_eq!(attempts.count(address("2001:db8:0:1::1"), now), Ok(()), "another network");
        assert_eq!(attempts.count(address("192.0.2.1"), now), Ok(()));
        assert_eq!(attempts.count(address("2001:db8::1"), now + Duration::from_secs(30)), Ok(()));
        attempts.give_back(address("2001:db8::1"));
        assert_eq!(attempts.count(address("2001:db8::1"), now + Duration::from_secs(30)), Ok(()));
    }

    fn place(at: i64) -> (TenantId, UpstreamId) {
        (TenantId::new(Timestamp::from_millis(at)), UpstreamId::new(Timestamp::from_millis(at)))
    }

    fn both(
        limits: &Limits,
        who: &str,
        used: ((TenantId, UpstreamId), &str),
        now: Instant,
    ) -> Result<(), (Limited, Duration)> {
        limits.count(&somebody(who), now)?;
        limits.count_use(&somebody(who), used, now)
    }

    #[test]
    fn who_has_used_the_share_waits_for_one_call_and_nobody_else_does() {
        let (limits, acme, now) = (limits(60, 0, 0), place(1), Instant::now());
        for _ in 0..60 {
            assert_eq!(both(&limits, "alice", (acme, "go"), now), Ok(()));
        }
        let (limited, wait) = both(&limits, "alice", (acme, "go"), now).unwrap_err();
        assert_eq!((limited, wait), (Limited::Principal, Duration::from_secs(1)));
        assert_eq!(both(&limits, "bob", (acme, "go"), now), Ok(()));
        assert_eq!(both(&limits, "alice", (acme, "go"), now + wait), Ok(()));
        assert!(both(&limits, "alice", (acme, "go"), now + wait).is_err());
    }

    #[test]
    fn a_tenants_limit_is_shared_there_and_a_tools_is_ones_own() {
        let (limits, acme, globex, now) = (limits(0, 3, 2), place(1), place(2), Instant::now());
        assert_eq!(both(&limits, "alice", (acme, "go"), now), Ok(()));
        assert_eq!(both(&limits, "alice", (acme, "go"), now), Ok(()));
        assert_eq!(both(&limits, "alice", (acme, "go"), now).unwrap_err().0, Limited::Tool);
        assert_eq!(both(&limits, "alice", (acme, "other"), now), Ok(()));
        assert_eq!(both(&limits, "bob", (acme, "go"), now).unwrap_err().0, Limited::Tenant);
        assert_eq!(both(&limits, "bob", (globex, "go"), now), Ok(()));
    }

    #[test]
    fn what_one_tenant_refuses_is_not_missing_elsewhere() {
        let (limits, acme, globex, now) = (limits(10, 2, 0), place(1), place(2), Instant::now());
        for _ in 0..2 {
            assert_eq!(both(&limits, "alice", (acme, "go"), now), Ok(()));
        }
        for _ in 0..50 {
            assert_eq!(both(&limits, "carol", (acme, "go"), now).unwrap_err().0, Limited::Tenant);
        }
        assert_eq!(both(&limits, "carol", (globex, "go"), now), Ok(()));
        // What was not made is given back.
        limits.give_back(acme.0);
        assert_eq!(both(&limits, "carol", (acme, "go"), now), Ok(()));
        assert!(both(&limits, "carol", (acme, "go"), now).is_err());
    }

    #[test]
    fn nobody_who_waits_comes_too_early() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_500, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let (limits, now) = (limits(0, 0, 0), Instant::now());
        assert!((0..10_000).all(|_| both(&limits, "alice", (place(1), "go"), now).is_ok()));
    }

    proptest! {
        #[test]
        fn in_no_time_are_there_more_than_its_share_and_a_minutes(
            count in 1_u32..50, gaps in proptest::collection::vec(0_u64..5_000, 1..400),
        ) {
            let limits = limits(count, 0, 0);
            let (start, mut now, mut made) = (Instant::now(), Instant::now(), 0_u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                made += u32::from(both(&limits, "alice", (place(1), "go"), now).is_ok());
            }
            let minutes = now.duration_since(start).as_secs_f64() / 60.0;
            prop_assert!(f64::from(made) <= f64::from(count) * (1.0 + minutes) + 1.0, "{} in {} minutes", made, minutes);
        }
    }
}
