//! Counting and writing, against a real store.

use anyhow::Result;
use tenant_store::TenantId;
use tenant_store::testing::{ThrowAway, is_on_postgres};

use super::writer::PART_SUMS_MAX;
use super::*;
use crate::policy::Administration;

/// The 30th of November 2026, at noon.
const NOON_MS: i64 = 1_796_040_000_000;

/// Where calls are counted and written by hand.
struct Bed {
    away: ThrowAway,
    scope: TenantScope,
    upstream: UpstreamId,
    slug: UpstreamSlug,
    usage: Usage,
    writer: Writer,
}

impl Bed {
    async fn new() -> Result<Self> {
        let away = ThrowAway::new().await;
        let at = Timestamp::from_millis(NOON_MS);
        let (scope, upstream) = (Administration::of_test().scope(TenantId::new(at)), UpstreamId::new(at));
        let usage = Usage::default();
        let writer = Writer::new(usage.clone(), away.store.clone());
        Ok(Self { away, scope, upstream, slug: "jira".parse()?, usage, writer })
    }

    fn count(&self, tool: &LocalName, (at_ms, is_error): (i64, bool)) {
        let at = Timestamp::from_millis(at_ms);
        let upstream = (self.upstream, &self.slug);
        self.usage.count(&UsedOnce { scope: self.scope, upstream, tool, at, duration_ms: 5, is_error });
    }

    /// Days, tools, calls and errors in the database.
    async fn written(&self) -> Result<Vec<(String, String, u64, u64)>> {
        let used = self.away.store.tenant(self.scope).usage(&"2026-11".parse()?).await?;
        Ok(used.into_iter().map(|used| (used.day, used.tool.to_string(), used.calls, used.errors)).collect())
    }

    /// From here on the database takes nothing about that tool, or takes it again.
    async fn refuse(&self, tool: &str, refuses: bool) -> Result<()> {
        let sql = match (is_on_postgres(), refuses) {
            (true, true) => format!("ALTER TABLE usage_day ADD CONSTRAINT refusing CHECK (tool <> '{tool}')"),
            (true, false) => "ALTER TABLE usage_day DROP CONSTRAINT refusing".to_owned(),
            (false, true) => format!(
                "CREATE TRIGGER refusing BEFORE INSERT ON usage_day WHEN NEW.tool = '{tool}' \
                 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            ),
            (false, false) => "DROP TRIGGER refusing".to_owned(),
        };
        self.away.database().alter(&sql).await?;
        Ok(())
    }
}

fn tool(number: usize) -> Result<LocalName> {
    Ok(format!("tool-{number:06}").parse()?)
}

#[tokio::test]
async fn a_call_counts_on_the_day_on_which_it_began() -> Result<()> {
    let mut bed = Bed::new().await?;
    let midnight = NOON_MS - MILLIS_PER_DAY / 2;
    for (at_ms, is_error) in [(midnight - 1, false), (midnight, true), (NOON_MS, false)] {
        bed.count(&tool(1)?, (at_ms, is_error));
    }
    bed.writer.take();
    assert!(bed.writer.write().await);
    let row = |day: &str, calls, errors| (day.to_owned(), "tool-000001".to_owned(), calls, errors);
    assert_eq!(bed.written().await?, [row("2026-11-29", 1, 0), row("2026-11-30", 2, 1)]);
    Ok(())
}

#[tokio::test]
async fn what_finds_no_room_is_counted_as_lost_and_what_has_a_sum_is_counted_still() -> Result<()> {
    let mut bed = Bed::new().await?;
    let lost = bed.usage.lost();
    for number in 0..SUMS_MAX {
        bed.count(&tool(number)?, (NOON_MS, false));
    }
    assert_eq!(lost(), 0);
    for _ in 0..3 {
        bed.count(&tool(SUMS_MAX)?, (NOON_MS, false));
    }
    bed.count(&tool(7)?, (NOON_MS, true));
    assert_eq!(lost(), 3);

    // The same while they wait for the database.
    bed.writer.take();
    bed.count(&tool(SUMS_MAX)?, (NOON_MS, false));
    bed.count(&tool(7)?, (NOON_MS, false));
    assert_eq!(lost(), 3);
    bed.writer.take();
    assert_eq!(lost(), 4);
    let sums = bed.writer.waiting().filter(|sum| sum.calls > 1);
    assert_eq!(sums.collect::<Vec<_>>(), [&Sum { calls: 3, errors: 1, duration_ms: 15 }]);
    Ok(())
}

#[tokio::test]
async fn a_part_that_the_database_refuses_waits_and_the_parts_before_it_are_written_once() -> Result<()> {
    let mut bed = Bed::new().await?;
    let last = tool(PART_SUMS_MAX)?;
    bed.refuse(last.as_str(), true).await?;
    for number in 0..=PART_SUMS_MAX {
        bed.count(&tool(number)?, (NOON_MS, false));
    }
    bed.writer.take();
    assert!(!bed.writer.write().await);
    assert_eq!(bed.written().await?.len(), PART_SUMS_MAX);

    // What comes meanwhile is added to what waits.
    bed.count(&last, (NOON_MS, true));
    bed.writer.take();
    bed.refuse(last.as_str(), false).await?;
    assert!(bed.writer.write().await);
    let written = bed.written().await?;
    assert_eq!(written.len(), PART_SUMS_MAX + 1);
    assert_eq!(written.iter().map(|(_, _, calls, _)| calls).sum::<u64>(), PART_SUMS_MAX as u64 + 2);
    assert_eq!(written.last(), Some(&("2026-11-30".to_owned(), last.to_string(), 2, 1)));
    Ok(())
}
