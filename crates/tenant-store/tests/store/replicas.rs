//! Replicas say that they are there and what they serve, and are forgotten when they end.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{Beat, Clock as _, REPLICA_SILENCE_MAX, ReplicaId, Revision};
use tokio::time::{Instant, timeout};

use crate::support::{Bed, put_upstream};

/// Whatever does not wait is done by then.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
/// Nobody leads for so long at most.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

fn beat(bed: &Bed, revision: u64) -> Beat {
    bed.away.clock.advance(Duration::from_secs(1));
    let started_at = bed.away.clock.now();
    Beat { id: ReplicaId::new(started_at), version: "1.2.3".to_owned(), started_at, revision: Revision(revision) }
}

#[tokio::test]
async fn a_replica_is_known_by_what_it_said_last() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (first, second) = (beat(&bed, 3), beat(&bed, 4));
    for beat in [&first, &second] {
        bed.beat(beat).await?;
    }
    let ahead = Beat { revision: Revision(5), ..first.clone() };
    bed.beat(&ahead).await?;
    let known = bed.replicas().await?;
    assert_eq!(known.iter().map(|replica| &replica.beat).collect::<Vec<_>>(), [&ahead, &second]);
    assert!(known.iter().all(|replica| replica.silence < REPLICA_SILENCE_MAX), "{known:?}");

    bed.forget_replica(first.id).await?;
    assert_eq!(bed.replicas().await?.into_iter().map(|replica| replica.beat).collect::<Vec<_>>(), [second]);
    Ok(())
}

#[tokio::test]
async fn whoever_was_silent_for_too_long_is_forgotten_by_the_next_that_speaks() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (dead, slow, alive) = (beat(&bed, 1), beat(&bed, 1), beat(&bed, 1));
    bed.beat(&dead).await?;
    bed.beat(&slow).await?;
    let silence_max = i64::try_from(REPLICA_SILENCE_MAX.as_millis())?;
    for (beat, earlier) in [(&dead, silence_max + 1), (&slow, silence_max / 2)] {
        let sql = "UPDATE replica SET seen_ms = seen_ms - ? WHERE id = ?";
        assert_eq!(bed.sql(sql, vec![earlier.into(), beat.id.to_string().into()]).await?, 1);
    }
    assert!(bed.replicas().await?.iter().any(|replica| replica.silence > REPLICA_SILENCE_MAX));
    bed.beat(&alive).await?;
    let known = bed.replicas().await?;
    assert_eq!(known.iter().map(|replica| replica.beat.id).collect::<Vec<_>>(), [slow.id, alive.id]);
    assert!(known.first().is_some_and(|replica| replica.silence >= REPLICA_SILENCE_MAX / 2), "{known:?}");
    Ok(())
}

#[tokio::test]
async fn a_beat_changes_no_configuration_and_waits_for_no_change() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let before = bed.revision().await?;
    bed.beat(&beat(&bed, 1)).await?;
    assert_eq!(bed.revision().await?, before);
    if !is_on_postgres() {
        return Ok(());
    }
    let mut raised = bed.raised().await?.ok_or_else(|| anyhow::anyhow!("PostgreSQL tells of revisions"))?;
    let change = bed.begin().await?;
    put_upstream(&change.tenant(crate::support::scope(&bed.acme)), "jira").await?;
    bed.beat(&beat(&bed, 1)).await?;
    assert!(timeout(LONG_ENOUGH, raised.next()).await.is_err(), "nobody is told of a beat");
    change.commit().await?;
    assert_eq!(raised.next().await, Some(bed.revision().await?));
    Ok(())
}

#[tokio::test]
async fn one_leads_and_another_one_does_when_that_is_cut_off() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let mut first = bed.lead().await;
    if !is_on_postgres() {
        assert!(timeout(LONG_ENOUGH, first.lost()).await.is_err(), "whoever is alone always leads");
        return Ok(());
    }
    let other = bed.away.again().await?;
    let mut second = std::pin::pin!(other.lead());
    assert!(timeout(LONG_ENOUGH, &mut second).await.is_err(), "there is one leader");
    assert!(timeout(LONG_ENOUGH, first.lost()).await.is_err(), "it stays one");

    let (cut_at, by_hand) = (Instant::now(), bed.other().await?);
    let leader = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    by_hand.execute_unprepared(leader).await?;
    let (second, ()) = tokio::join!(second, first.lost());
    assert!(cut_at.elapsed() < TAKEN_OVER_WITHIN, "{:?}", cut_at.elapsed());

    // Whoever gives it up, by its end for instance, is followed at once.
    drop(second);
    timeout(TAKEN_OVER_WITHIN, bed.lead()).await?;
    Ok(())
}
