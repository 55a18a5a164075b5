//! Opening and migrating a database.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database};
use secrecy::SecretString;
use tempfile::TempDir;
use tenant_store::testing::{ThrowAway, is_on_postgres};
use tenant_store::{LocalKeys, Revision, Store, SystemClock, TenantSpec};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::Bed;

/// Whatever does not wait is done by then.
const LONG_ENOUGH: Duration = Duration::from_millis(200);

async fn open(url: &str) -> anyhow::Result<Store> {
    let keys = crypto::KeyRing::new(crypto::Key::generate()?, Vec::new());
    Ok(Store::open(&SecretString::from(url), Arc::new(LocalKeys::new(keys)), Arc::new(SystemClock)).await?)
}

#[tokio::test]
async fn an_empty_file_is_migrated_once() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let store = open(&format!("sqlite://{}?mode=rwc", directory.path().join("new.db").display())).await?;
    let pending = store.pending_migrations().await?;
    assert_eq!(pending.first().map(String::as_str), Some("m20261124_000001_tenant"));
    assert_eq!(usize::try_from(store.migrate().await?)?, pending.len());
    assert_eq!(store.pending_migrations().await?, Vec::<String>::new());
    assert_eq!(store.migrate().await?, 0);
    assert_eq!(store.revision().await?, Revision(0));
    Ok(())
}

#[tokio::test]
async fn looking_for_migrations_writes_nothing() -> anyhow::Result<()> {
    let store = open("sqlite::memory:").await?;
    let pending = store.pending_migrations().await?;
    assert_eq!(store.pending_migrations().await?, pending);
    assert!(store.revision().await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_migration_of_a_newer_release_does_not_stop_this_one_but_is_not_built_upon() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.sql("INSERT INTO seaql_migrations VALUES ('m29991231_000001_future', 0)", vec![]).await?;
    assert_eq!(bed.pending_migrations().await?, Vec::<String>::new());
    assert_eq!(bed.migrate().await?, 0, "there is nothing to do");
    bed.sql("DELETE FROM seaql_migrations WHERE version LIKE '%_row_security'", vec![]).await?;
    let owner = bed.owner().await?;
    assert_eq!(owner.migrate().await.unwrap_err().to_string(), "cannot migrate the database; it was left as it was");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_migrate_once() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    for round in 0..5 {
        let url = format!("sqlite://{}?mode=rwc", directory.path().join(format!("{round}.db")).display());
        let mut replicas = JoinSet::new();
        for _ in 0..8 {
            let url = url.clone();
            replicas.spawn(async move { anyhow::Ok(open(&url).await?.migrate().await?) });
        }
        let mut applied = Vec::new();
        while let Some(outcome) = replicas.join_next().await {
            applied.push(outcome??);
        }
        assert_eq!(applied.iter().filter(|count| **count > 0).count(), 1, "{applied:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_database_in_memory_keeps_what_it_has() -> anyhow::Result<()> {
    let (store, other) = (open("sqlite::memory:").await?, open("sqlite::memory:").await?);
    store.migrate().await?;
    other.migrate().await?;
    let change = store.begin().await?;
    change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme")).await?;
    change.commit().await?;
    drop(store.begin().await?);
    assert_eq!(store.tenants().await?.len(), 1);
    assert!(other.tenants().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn readers_of_a_database_in_memory_wait_for_the_writer() -> anyhow::Result<()> {
    let store = open("sqlite::memory:").await?;
    store.migrate().await?;
    let change = store.begin().await?;
    change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme")).await?;
    let mut reading = pin!(store.tenants());
    assert!(timeout(LONG_ENOUGH, &mut reading).await.is_err(), "it read what is not committed, or failed");
    change.commit().await?;
    assert_eq!(reading.await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_new_file_that_somebody_else_has_open_is_waited_for() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("new.db").display());
    let other = Database::connect(&url).await?;
    other.execute_unprepared("CREATE TABLE other (id INTEGER); BEGIN; SELECT * FROM other").await?;
    let mut opening = pin!(open(&url));
    assert!(timeout(LONG_ENOUGH, &mut opening).await.is_err(), "it did not wait");
    other.execute_unprepared("COMMIT").await?;
    opening.await?.migrate().await?;
    Ok(())
}

#[tokio::test]
async fn a_file_outlives_the_store_that_wrote_it() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let again = bed.away.again().await?;
    assert_eq!(again.tenants().await?, [bed.acme.clone(), bed.globex.clone()]);
    Ok(())
}

#[tokio::test]
async fn the_file_is_set_up_for_readers_beside_a_writer() -> anyhow::Result<()> {
    if is_on_postgres() {
        return Ok(());
    }
    let away = ThrowAway::new().await;
    let other = away.database().other().await?;
    let mode =
        other.query_one_raw(sea_orm::Statement::from_string(other.get_database_backend(), "PRAGMA journal_mode"));
    assert_eq!(mode.await?.map(|row| row.try_get_by_index::<String>(0)).transpose()?.as_deref(), Some("wal"));
    Ok(())
}

#[tokio::test]
async fn a_database_that_does_not_open_says_how_to_mend_it_and_never_the_url() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("missing.db");
    let error = open(&format!("sqlite://{}", path.display())).await.unwrap_err().to_string();
    let wanted = "does it exist? `?mode=rwc` at the end of the URL creates it";
    assert_eq!(error, format!("cannot open the database {}: {wanted}", path.display()));

    let error = open("postgres://mux:CANARY-pw@localhost/mux?host=/nowhere").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to PostgreSQL at /nowhere: does it run there, do role and database exist, and does its certificate name it?"
    );
    assert!(!format!("{error:?}").contains("CANARY-pw"));

    let error = open("sqlite://x.db?mode=CANARY").await.unwrap_err().to_string();
    assert_eq!(error, "the database URL does not parse: it should look like `sqlite://path/to/file?mode=rwc`");
    Ok(())
}
