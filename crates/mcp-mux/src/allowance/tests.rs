//! Counting, writing and reading, with real stores and a clock that stands still.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tenant_store::testing::{ThrowAway, is_on_postgres};
use tenant_store::{ManualClock, TenantId, Timestamp};

use super::counts::COUNTED_OF_TENANT_MAX;
use super::writer::forget;
use super::*;
use crate::limits::Span;
use crate::policy::Administration;

/// The 30th of November 2026, at noon.
const NOON_MS: i64 = 1_796_040_000_000;
const HALF_A_DAY: Duration = Duration::from_hours(12);

/// A tenant, as calls name it.
type Tenant = (TenantScope, TenantSlug);

/// One database, and what replicas of one configuration share.
struct Bed {
    away: ThrowAway,
    clock: Arc<ManualClock>,
    config: LimitsConfig,
    upstream: UpstreamId,
}

struct Replica {
    allowances: Allowances,
    writer: Writer,
    upstream: UpstreamId,
}

impl Bed {
    async fn new(config: Value) -> Result<Self> {
        let at = Timestamp::from_millis(NOON_MS);
        let (away, config) = (ThrowAway::new().await, serde_json::from_value(config)?);
        Ok(Self { away, clock: Arc::new(ManualClock::at(at)), config, upstream: UpstreamId::new(at) })
    }

    /// One that has just started.
    async fn replica(&self) -> Result<Replica> {
        let allowances = Allowances::new(&self.config, Arc::clone(&self.clock) as _);
        let shared = allowances.0.clone().context("something is limited")?;
        let writer = Writer::new(shared, self.away.again().await?);
        Ok(Replica { allowances, writer, upstream: self.upstream })
    }

    /// From here on the database takes nothing, or takes it again.
    async fn refuse(&self, refuses: bool) -> Result<()> {
        let sql = match (is_on_postgres(), refuses) {
            (true, true) => "ALTER TABLE quota_use ADD CONSTRAINT refusing CHECK (calls < 0) NOT VALID",
            (true, false) => "ALTER TABLE quota_use DROP CONSTRAINT refusing",
            (false, true) => "CREATE TRIGGER refusing BEFORE INSERT ON quota_use BEGIN SELECT RAISE(ABORT, 'no'); END",
            (false, false) => "DROP TRIGGER refusing",
        };
        self.away.database().alter(sql).await?;
        Ok(())
    }
}

impl Replica {
    /// A call that is sent: whether it was, or what was used up and for how long.
    fn call(&self, who: &str, tenant: &Tenant, tool: &str) -> Result<(), (Limited, Duration)> {
        self.count(who, tenant, tool)?.is_sent(true);
        Ok(())
    }

    /// One that is not sent yet.
    fn count(&self, who: &str, (scope, slug): &Tenant, tool: &str) -> Result<Spent, (Limited, Duration)> {
        let principal = Principal { issuer: "corp".parse().unwrap(), subject: who.parse().unwrap() };
        self.allowances.count(&principal, (*scope, slug), (self.upstream, "tool", tool))
    }

    /// How many of so many calls were sent.
    fn calls(&self, count: usize, who: &str, tenant: &Tenant) -> usize {
        (0..count).filter(|_| self.call(who, tenant, "go").is_ok()).count()
    }
}

fn tenant(slug: &str) -> Tenant {
    let scope = Administration::of_test().scope(TenantId::new(Timestamp::from_millis(NOON_MS)));
    (scope, slug.parse().unwrap())
}

fn used_up(counter: Counter, span: Span, wait: Duration) -> Result<(), (Limited, Duration)> {
    Err((Limited::UsedUp(counter, span), wait))
}

#[tokio::test]
async fn replicas_count_together_and_none_of_them_lets_more_through_than_it_can_know() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_day": 10, "principal_calls_per_month": 100})).await?;
    let (mut one, mut other, acme) = (bed.replica().await?, bed.replica().await?, tenant("acme"));
    assert_eq!((one.calls(4, "alice", &acme), other.calls(3, "bob", &acme)), (4, 3));
    assert!(one.writer.visit().await && other.writer.visit().await);
    // The other one knows of all seven, and the first one only of its own.
    assert_eq!(other.calls(9, "bob", &acme), 3);
    assert_eq!(one.calls(9, "alice", &acme), 6, "what it does not know of is the most that is too much");
    assert!(one.writer.visit().await && other.writer.visit().await && one.writer.visit().await);
    assert_eq!((one.calls(9, "alice", &acme), other.calls(9, "carol", &acme)), (0, 0));
    // So does one that starts now, as soon as it has read.
    let mut new = bed.replica().await?;
    assert_eq!(new.calls(1, "alice", &acme), 1);
    assert!(new.writer.visit().await);
    assert_eq!(new.calls(9, "alice", &acme), 0);
    Ok(())
}

#[tokio::test]
async fn a_day_and_a_month_begin_anew_at_midnight_in_utc() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 2, "tenant_calls_per_month": 5})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    bed.clock.advance(Duration::from_millis(12 * 3_600_000 - 1_500));
    assert_eq!(here.calls(2, "alice", &acme), 2);
    let wait = Duration::from_millis(1_500);
    assert_eq!(here.call("alice", &acme, "go"), used_up(Counter::Principal, Span::Day, wait));
    assert_eq!(here.calls(3, "bob", &acme) + here.calls(3, "carol", &acme), 3);
    // The last day of the month is the same moment's.
    assert_eq!(here.call("dave", &acme, "go"), used_up(Counter::Tenant, Span::Month, wait));
    assert!(here.writer.visit().await);
    bed.clock.advance(Duration::from_millis(1_499));
    assert!(here.call("dave", &acme, "go").is_err());
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(here.calls(3, "alice", &acme), 2);
    assert_eq!(here.call("alice", &acme, "go"), used_up(Counter::Principal, Span::Day, HALF_A_DAY * 2));
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(3, "alice", &acme), 0, "nothing of yesterday's is read for today");
    // The month goes on where the day ends.
    bed.clock.advance(HALF_A_DAY * 2);
    assert_eq!(here.calls(3, "alice", &acme), 2);
    bed.clock.advance(HALF_A_DAY * 2);
    assert_eq!(here.calls(3, "alice", &acme), 1);
    assert_eq!(here.call("alice", &acme, "go"), used_up(Counter::Tenant, Span::Month, HALF_A_DAY * 2 * 29));
    Ok(())
}

#[tokio::test]
async fn what_is_used_in_one_tenant_is_nothing_to_another_and_one_may_have_another_contract() -> Result<()> {
    let bed = Bed::new(json!({
        "tenant_calls_per_day": 2, "principal_calls_per_day": 1, "tool_calls_per_day": 1,
        "tenants": {"globex": {"tenant_calls_per_day": 0, "principal_calls_per_day": 3, "tool_calls_per_day": 2}},
    }))
    .await?;
    let (mut here, acme, globex) = (bed.replica().await?, tenant("acme"), tenant("globex"));
    assert_eq!(here.call("alice", &acme, "go"), Ok(()));
    assert_eq!(here.call("alice", &acme, "go"), used_up(Counter::Tool, Span::Day, HALF_A_DAY));
    assert_eq!(here.call("alice", &acme, "other"), used_up(Counter::Principal, Span::Day, HALF_A_DAY));
    assert_eq!(here.calls(9, "bob", &acme), 1);
    assert_eq!(here.call("carol", &acme, "go"), used_up(Counter::Tenant, Span::Day, HALF_A_DAY));
    for written in [false, true] {
        let (who, other) = if written { ("dave", "erin") } else { ("alice", "bob") };
        assert_eq!((here.calls(9, who, &globex), here.calls(9, other, &globex)), (2, 2), "the same tool");
        assert_eq!(here.call(who, &globex, "other"), Ok(()));
        assert_eq!(here.call(who, &globex, "third"), used_up(Counter::Principal, Span::Day, HALF_A_DAY));
        assert!(here.writer.visit().await);
    }
    assert_eq!(here.calls(9, "frank", &acme), 0);
    Ok(())
}

#[tokio::test]
async fn whoever_is_refused_again_and_again_stays_refused_for_as_long_as_nothing_is_left() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 3})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    assert_eq!(here.calls(9, "alice", &acme), 3);
    for _ in 0..20 {
        bed.clock.advance(Duration::from_mins(4));
        assert!(here.writer.visit().await);
        assert_eq!(here.calls(9, "alice", &acme), 0);
    }
    // Nor does it help to be silent for a while.
    bed.clock.advance(Duration::from_hours(1));
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(9, "alice", &acme), 0);
    bed.clock.advance(Duration::from_hours(24));
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(9, "alice", &acme), 3, "another day");
    Ok(())
}

#[tokio::test]
async fn whoever_has_nothing_left_is_remembered_where_it_is_crowded_too() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 1})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    for number in 0..=COUNTED_OF_TENANT_MAX / 2 {
        assert_eq!(here.call(&format!("robot-{number}"), &acme, "go"), Ok(()));
    }
    assert_eq!(here.calls(2, "alice", &acme), 1);
    assert!(here.writer.visit().await);
    bed.clock.advance(READ_EVERY + READ_EVERY);
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(1, "robot-7", &acme), 1, "it was forgotten");
    assert_eq!(here.calls(1, "alice", &acme), 0);
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_put_back_counts_for_its_own_day_again() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_day": 3})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    assert_eq!(here.calls(2, "alice", &acme), 2);
    assert!(here.writer.visit().await);
    bed.clock.advance(Duration::from_hours(24 * 30));
    assert_eq!(here.calls(9, "alice", &acme), 3);
    assert!(here.writer.visit().await);
    bed.clock.set(Timestamp::from_millis(NOON_MS));
    assert_eq!(here.calls(1, "alice", &acme), 1);
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(9, "alice", &acme), 0, "two were made before");
    Ok(())
}

#[tokio::test]
async fn what_is_not_sent_after_all_is_given_back_also_where_it_was_forgotten() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 2})).await?;
    let (mut here, mut other, acme) = (bed.replica().await?, bed.replica().await?, tenant("acme"));
    let late = here.count("alice", &acme, "go");
    assert!(late.is_ok() && here.writer.visit().await);
    bed.clock.advance(Duration::from_hours(1));
    assert!(here.writer.visit().await);
    drop(late);
    assert!(here.writer.visit().await);
    assert_eq!(other.calls(1, "alice", &acme), 1);
    assert!(other.writer.visit().await);
    assert_eq!(other.calls(9, "alice", &acme), 1);
    Ok(())
}

#[tokio::test]
async fn what_one_replica_gives_back_another_one_that_refuses_hears_of() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_month": 5})).await?;
    let (mut one, mut other, acme) = (bed.replica().await?, bed.replica().await?, tenant("acme"));
    assert_eq!(other.calls(1, "bob", &acme), 1);
    let waiting: Vec<_> = (0..4).filter_map(|_| one.count("alice", &acme, "go").ok()).collect();
    assert!(waiting.len() == 4 && one.writer.visit().await && other.writer.visit().await);
    assert_eq!(other.calls(9, "bob", &acme), 0);
    drop(waiting);
    assert!(one.writer.visit().await);
    bed.clock.advance(READ_EVERY);
    assert_eq!(other.calls(9, "bob", &acme), 0, "it does not know yet");
    assert!(other.writer.visit().await);
    assert_eq!(other.calls(9, "bob", &acme), 4);
    Ok(())
}

#[tokio::test]
async fn what_is_not_sent_or_refused_counts_nowhere() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_day": 3, "tool_calls_per_day": 1})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    for _ in 0..9 {
        drop(here.count("alice", &acme, "go").map_err(|(limited, _)| anyhow::anyhow!("{limited:?}"))?);
    }
    // One that is given back after it was written.
    let late = here.count("alice", &acme, "go");
    assert!(here.writer.visit().await);
    assert!(here.call("alice", &acme, "go").is_err());
    drop(late);
    assert!(here.writer.visit().await);
    assert_eq!(here.calls(9, "alice", &acme), 1);
    assert_eq!(
        here.calls(9, "bob", &acme) + here.calls(9, "carol", &acme),
        2,
        "of what was refused nothing is missing"
    );
    assert!(here.writer.visit().await);
    let mut other = bed.replica().await?;
    other.call("dave", &acme, "go").ok();
    assert!(other.writer.visit().await);
    let (scope, _) = acme;
    let sums = bed.away.store.add_quota_use(&[(scope, vec![row("tenant", "2026-11-30", 0)])]).await?;
    assert_eq!(sums, [(scope, vec![row("tenant", "2026-11-30", 4)])]);
    Ok(())
}

fn row(counted: &str, period: &str, calls: i64) -> tenant_store::QuotaUse {
    tenant_store::QuotaUse { counted: counted.to_owned(), period: period.to_owned(), calls }
}

#[tokio::test]
async fn while_the_database_takes_nothing_each_goes_on_with_what_it_knows_and_nothing_is_lost() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_day": 10})).await?;
    let (mut one, mut other, acme) = (bed.replica().await?, bed.replica().await?, tenant("acme"));
    assert_eq!(one.calls(4, "alice", &acme), 4);
    assert!(one.writer.visit().await);
    assert_eq!(other.calls(2, "alice", &acme), 2);
    assert!(other.writer.visit().await);
    bed.refuse(true).await?;
    assert_eq!(one.calls(3, "alice", &acme), 3);
    assert!(!one.writer.visit().await && !one.writer.visit().await);
    assert_eq!(one.calls(9, "alice", &acme), 3, "ten by what it knows");
    assert_eq!(other.calls(1, "alice", &acme), 1);
    assert!(!other.writer.visit().await);
    bed.refuse(false).await?;
    assert!(one.writer.visit().await && other.writer.visit().await);
    assert_eq!((one.calls(9, "alice", &acme), other.calls(9, "alice", &acme)), (0, 0));
    let (scope, _) = acme;
    let sums = bed.away.store.add_quota_use(&[(scope, vec![row("tenant", "2026-11-30", 0)])]).await?;
    assert_eq!(sums, [(scope, vec![row("tenant", "2026-11-30", 13)])], "each call once");
    Ok(())
}

#[tokio::test]
async fn who_finds_no_room_is_refused_in_that_tenant_only_and_idle_ones_make_room() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 1})).await?;
    let (mut here, acme, globex) = (bed.replica().await?, tenant("acme"), tenant("globex"));
    for number in 0..COUNTED_OF_TENANT_MAX {
        assert_eq!(here.call(&format!("robot-{number}"), &acme, "go"), Ok(()));
    }
    assert_eq!(here.call("alice", &acme, "go"), Err((Limited::Uncounted, READ_EVERY)));
    assert_eq!(here.call("alice", &globex, "go"), Ok(()));
    // What is not in the database yet is kept, however crowded it is.
    bed.clock.advance(READ_EVERY);
    bed.refuse(true).await?;
    assert!(!here.writer.visit().await);
    assert!(here.call("alice", &acme, "go").is_err());
    bed.refuse(false).await?;
    assert!(here.writer.visit().await);
    assert_eq!(here.call("alice", &acme, "go"), Ok(()));
    // Nobody got anything twice by being forgotten for a while.
    assert_eq!(here.call("robot-7", &acme, "go"), Ok(()), "nobody knows yet");
    assert!(here.writer.visit().await);
    assert!(here.call("robot-7", &acme, "go").is_err());
    Ok(())
}

#[tokio::test]
async fn what_the_database_does_not_know_is_forgotten_by_nobody() -> Result<()> {
    let bed = Bed::new(json!({"principal_calls_per_day": 1})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    let tidy = |here: &Replica| here.allowances.0.iter().for_each(|shared| shared.lock().tidy(bed.clock.now()));
    assert_eq!(here.call("alice", &acme, "go"), Ok(()));
    bed.clock.advance(Duration::from_hours(1));
    tidy(&here);
    assert!(here.call("alice", &acme, "go").is_err());
    assert!(here.writer.visit().await);
    bed.clock.advance(Duration::from_hours(1));
    tidy(&here);
    assert!(here.call("alice", &acme, "go").is_err(), "there is room for what is used up");
    Ok(())
}

#[tokio::test]
async fn what_no_decision_rests_on_any_more_is_deleted() -> Result<()> {
    let bed = Bed::new(json!({"tenant_calls_per_day": 9, "tenant_calls_per_month": 9})).await?;
    let (mut here, acme) = (bed.replica().await?, tenant("acme"));
    assert_eq!(here.calls(1, "alice", &acme), 1);
    assert!(here.writer.visit().await);
    let at = |days: i64| Timestamp::from_millis(NOON_MS + days * 24 * 3_600 * 1_000);
    assert_eq!(forget(&bed.away.store, at(61)).await?, 1, "the month began long before the day");
    assert_eq!(forget(&bed.away.store, at(62)).await?, 0);
    assert_eq!(forget(&bed.away.store, at(63)).await?, 1);
    Ok(())
}

#[test]
fn where_nothing_is_limited_nothing_is_counted() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOON_MS)));
    let of = |config: Value| Allowances::new(&serde_json::from_value(config).unwrap(), Arc::clone(&clock) as _);
    assert!(of(json!({"tenants": {"acme": {"tenant_calls_per_day": 0}}})).0.is_none());
    assert!(of(json!({"tenants": {"acme": {"tool_calls_per_month": 1}}})).0.is_some());
}
