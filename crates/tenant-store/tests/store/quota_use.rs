//! What replicas count together for quotas.

use anyhow::Result;
use sea_orm::ConnectionTrait as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{QuotaUse, StoreError};

use crate::support::{Bed, scope};

fn made(counted: &str, period: &str, calls: i64) -> QuotaUse {
    QuotaUse { counted: counted.to_owned(), period: period.to_owned(), calls }
}

#[tokio::test]
async fn whoever_adds_reads_the_sum_of_all_and_nothing_of_another_tenant() -> Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (scope(&bed.acme), scope(&bed.globex));
    let before = bed.revision().await?;
    let first = [(acme, vec![made("tenant", "2026-11", 3), made("tenant", "2026-11-30", 1)])];
    assert_eq!(bed.add_quota_use(&first).await?, first);
    // Another replica, for two tenants at once; one of the calls was not made after all.
    let another = bed.away.again().await?;
    let both = [(acme, vec![made("tenant", "2026-11", 4)]), (globex, vec![made("tenant", "2026-11", 9)])];
    let sums = another.add_quota_use(&both).await?;
    assert_eq!(sums, [(acme, vec![made("tenant", "2026-11", 7)]), (globex, vec![made("tenant", "2026-11", 9)])]);
    let back = bed.add_quota_use(&[(acme, vec![made("tenant", "2026-11", -1)])]).await?;
    assert_eq!(back, [(acme, vec![made("tenant", "2026-11", 6)])]);
    assert_eq!(bed.revision().await?, before, "it is no change of configuration");
    Ok(())
}

#[tokio::test]
async fn what_is_counted_is_added_as_a_whole_or_not_at_all() -> Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (scope(&bed.acme), scope(&bed.globex));
    let refusing = if is_on_postgres() {
        "ALTER TABLE quota_use ADD CHECK (counted <> 'refused')"
    } else {
        "CREATE TRIGGER refusing BEFORE INSERT ON quota_use WHEN NEW.counted = 'refused' BEGIN SELECT RAISE(ABORT, 'no'); END"
    };
    bed.other().await?.execute_unprepared(refusing).await?;
    let both = [(acme, vec![made("tenant", "2026-11", 1)]), (globex, vec![made("refused", "2026-11", 1)])];
    let error = bed.add_quota_use(&both).await.unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    let sums = bed.add_quota_use(&[(acme, vec![made("tenant", "2026-11", 1)])]).await?;
    assert_eq!(sums, [(acme, vec![made("tenant", "2026-11", 1)])]);
    Ok(())
}

#[tokio::test]
async fn what_is_over_for_long_is_forgotten_and_the_rest_is_not() -> Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (scope(&bed.acme), scope(&bed.globex));
    let old = ["2026-08", "2026-08-31", "2026-09", "2026-09-29"].map(|period| made("tenant", period, 1));
    let young = ["2026-09-30", "2026-10", "2026-11", "2026-11-30"].map(|period| made("tenant", period, 1));
    bed.add_quota_use(&[(acme, old.to_vec()), (globex, [old.to_vec(), young.to_vec()].concat())]).await?;
    assert_eq!(bed.forget_quota_use("2026-09-30").await?, 8);
    let again = bed.add_quota_use(&[(globex, young.to_vec())]).await?;
    assert!(again[0].1.iter().all(|sum| sum.calls == 2), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_has_later_migrations_gets_this_one_too() -> Result<()> {
    let bed = Bed::new().await?;
    let other = bed.other().await?;
    for undone in ["DROP TABLE quota_use", "DELETE FROM seaql_migrations WHERE version LIKE '%_quota_use'"] {
        other.execute_unprepared(undone).await?;
    }
    assert_eq!(bed.pending_migrations().await?, ["m20261127_000034_quota_use"]);
    let owner = bed.owner().await?;
    assert_eq!(owner.migrate_for(Some(&bed.away.database().url)).await?, 1);
    bed.check_role().await?;
    let one = [(scope(&bed.acme), vec![made("tenant", "2026-11", 1)])];
    assert_eq!(bed.add_quota_use(&one).await?, one);
    Ok(())
}
