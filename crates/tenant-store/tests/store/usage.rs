//! What tenants use.

use anyhow::Result;
use sea_orm::ConnectionTrait as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{StoreError, Used};

use crate::support::{Bed, scope};

fn used(day: &str, tool: &str, (calls, errors, duration_ms): (u64, u64, u64)) -> Result<Used> {
    let (day, upstream, tool) = (day.to_owned(), "jira".parse()?, tool.parse()?);
    Ok(Used { day, upstream, tool, calls, errors, duration_ms })
}

#[tokio::test]
async fn usage_adds_up_and_is_its_tenants_own() -> Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (scope(&bed.acme), scope(&bed.globex));
    let before = bed.revision().await?;
    let more = vec![used("2026-11-30", "find", (2, 1, 30))?, used("2026-12-01", "find", (1, 0, 5))?];
    bed.add_usage(&[(acme, vec![used("2026-11-30", "find", (1, 0, 10))?])]).await?;
    bed.add_usage(&[(acme, more), (globex, vec![used("2026-11-30", "find", (7, 7, 7))?])]).await?;
    bed.add_usage(&[(acme, vec![used("2026-11-02", "=add", (1, 0, 1))?])]).await?;

    let (november, december) = ("2026-11".parse()?, "2026-12".parse()?);
    let of_acme = [used("2026-11-02", "=add", (1, 0, 1))?, used("2026-11-30", "find", (3, 1, 40))?];
    assert_eq!(bed.acme().usage(&november).await?, of_acme);
    assert_eq!(bed.acme().usage(&december).await?, [used("2026-12-01", "find", (1, 0, 5))?]);
    assert_eq!(bed.globex().usage(&november).await?, [used("2026-11-30", "find", (7, 7, 7))?]);
    assert!(bed.globex().usage(&december).await?.is_empty());
    assert_eq!(bed.still().await?.tenant(acme).usage(&november).await?, of_acme);
    assert_eq!(bed.revision().await?, before, "it is no change of configuration");
    Ok(())
}

#[tokio::test]
async fn usage_is_added_as_a_whole_or_not_at_all() -> Result<()> {
    let bed = Bed::new().await?;
    let refusing = if is_on_postgres() {
        "ALTER TABLE usage_day ADD CHECK (tool <> 'refused')"
    } else {
        "CREATE TRIGGER refusing BEFORE INSERT ON usage_day WHEN NEW.tool = 'refused' BEGIN SELECT RAISE(ABORT, 'no'); END"
    };
    bed.other().await?.execute_unprepared(refusing).await?;
    let (good, bad) = (used("2026-11-30", "find", (1, 0, 10))?, used("2026-11-30", "refused", (1, 0, 10))?);
    let error = bed.add_usage(&[(scope(&bed.acme), vec![good]), (scope(&bed.globex), vec![bad])]).await.unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert!(bed.acme().usage(&"2026-11".parse()?).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_database_that_has_later_migrations_gets_this_one_too() -> Result<()> {
    let bed = Bed::new().await?;
    let other = bed.other().await?;
    for undone in ["DROP TABLE usage_day", "DELETE FROM seaql_migrations WHERE version LIKE '%_usage'"] {
        other.execute_unprepared(undone).await?;
    }
    assert_eq!(bed.pending_migrations().await?, ["m20261126_000027_usage"]);
    let owner = bed.owner().await?;
    assert_eq!(owner.migrate_for(Some(&bed.away.database().url)).await?, 1);
    bed.check_role().await?;
    bed.add_usage(&[(scope(&bed.acme), vec![used("2026-11-30", "find", (1, 0, 10))?])]).await?;
    assert_eq!(bed.acme().usage(&"2026-11".parse()?).await?.len(), 1);
    Ok(())
}
