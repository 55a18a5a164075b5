//! Changes: one transaction, one revision, all or nothing; and writers that meet.

use sea_orm::{ConnectionTrait as _, Statement};
use tenant_store::testing::is_on_postgres;
use tenant_store::{Revision, StoreError, TenantSpec, TenantStore, UpstreamSpec};
use tokio::task::JoinSet;

use crate::support::{Bed, grant_spec, put_upstream, scope, tool, upstream_spec};

#[tokio::test]
async fn a_change_raises_the_revision_once() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let Revision(before) = bed.revision().await?;
    let change = bed.begin().await?;
    let (initech, _) = change.put_tenant(&"initech".parse()?, &TenantSpec::named("Initech")).await?;
    let initech = change.tenant(scope(&initech));
    put_upstream(&initech, "jira").await?;
    initech.put_grant(&"analysts".parse()?, &grant_spec()?).await?;
    assert_eq!(change.commit().await?, Revision(before + 1));
    assert_eq!(bed.revision().await?, Revision(before + 1));
    Ok(())
}

#[tokio::test]
async fn a_change_that_changes_nothing_leaves_the_revision() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let before = bed.revision().await?;
    let change = bed.begin().await?;
    change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme Corp")).await?;
    assert_eq!(change.commit().await?, before);
    assert_eq!(bed.revision().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_dropped_change_leaves_nothing() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let before = bed.revision().await?;
    let change = bed.begin().await?;
    change.put_tenant(&"initech".parse()?, &TenantSpec::named("Initech")).await?;
    let acme = change.tenant(scope(&bed.acme));
    let upstream = put_upstream(&acme, "jira").await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-dropped".into()).await?;
    acme.replace_tools(&upstream, &[tool("a", "acme__a", "{}")?]).await?;
    drop(change);

    assert_eq!(bed.find_tenant(&"initech".parse()?).await?, None);
    assert!(bed.acme().upstreams().await?.is_empty());
    assert!(bed.acme().tools().await?.is_empty());
    assert_eq!(bed.revision().await?, before);
    // The next writer has its turn at once.
    put_upstream(&bed.acme(), "wiki").await?;
    Ok(())
}

#[tokio::test]
async fn nobody_else_sees_a_change_before_it_is_committed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    let inside = change.tenant(scope(&bed.acme));
    put_upstream(&inside, "jira").await?;
    assert_eq!(inside.upstreams().await?.len(), 1);
    assert!(bed.acme().upstreams().await?.is_empty());
    change.commit().await?;
    assert_eq!(bed.acme().upstreams().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_part_that_fails_is_undone_alone() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    let acme = change.tenant(scope(&bed.acme));
    let upstream = put_upstream(&acme, "jira").await?;
    acme.replace_tools(&upstream, &[tool("a", "acme__a", "{}")?]).await?;
    // `a` is gone from this list, which is written before it is found that the two names are the same.
    let twice = [tool("b", "acme__b", "{}")?, tool("c", "acme__b", "{}")?];
    let error = acme.replace_tools(&upstream, &twice).await.unwrap_err();
    assert_eq!(error.to_string(), "the exposed name `acme__b` belongs to another tool of the tenant");
    change.commit().await?;

    let tools = bed.acme().tools().await?;
    assert_eq!(tools.iter().map(|tool| tool.local.as_str()).collect::<Vec<_>>(), ["a"]);
    Ok(())
}

#[tokio::test]
async fn what_was_a_part_of_a_change_ends_with_it() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    let committed = change.tenant(scope(&bed.acme));
    change.commit().await?;
    let change = bed.begin().await?;
    let dropped = change.tenant(scope(&bed.acme));
    drop(change);
    for over in [committed, dropped] {
        let wanted = "the change that this was to be a part of is over";
        assert_eq!(over.upstreams().await.unwrap_err().to_string(), wanted);
        assert_eq!(put_upstream(&over, "jira").await.unwrap_err().to_string(), wanted);
    }
    Ok(())
}

#[tokio::test]
async fn a_method_that_is_given_up_halfway_leaves_all_or_nothing() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    // Given up one turn of the scheduler later each time, so that every statement is once the last. Inside a change, then alone.
    let mut broken = 0;
    for turns in 0..120 {
        let list = [tool("a", "acme__a", &turns.to_string())?, tool("b", "acme__b", &turns.to_string())?];
        let before = definitions(&bed.acme()).await?;
        let change = bed.begin().await?;
        let inside = change.tenant(scope(&bed.acme));
        let spec = UpstreamSpec { concurrency: turns + 1, ..upstream_spec()? };
        let (listed, _) = inside.put_upstream(&upstream.slug, &spec).await?;
        give_up_after(turns, inside.replace_tools(&listed, &list)).await;

        let written = definitions(&inside).await;
        let kept = match change.commit().await {
            Ok(_) => Some(written?),
            Err(error) => {
                assert!(matches!(error, StoreError::ChangeBroken), "{error}");
                broken += 1;
                None
            }
        };
        let listed = bed.acme().upstream(upstream.id).await?;
        assert_eq!(listed.spec.concurrency == spec.concurrency, kept.is_some(), "a part of a change was kept, or lost");
        assert_eq!(definitions(&bed.acme()).await?, kept.unwrap_or(before));

        give_up_after(turns, bed.acme().replace_tools(&listed, &list)).await;
        let now = definitions(&bed.acme()).await?;
        assert!(now.windows(2).all(|pair| pair[0] == pair[1]), "{now:?}");
    }
    assert!(broken > 0, "no change was given up while its part began");
    Ok(())
}

async fn definitions(tenant: &TenantStore) -> Result<Vec<String>, StoreError> {
    Ok(tenant.tools().await?.iter().map(|tool| tool.definition.get().to_owned()).collect())
}

/// Lets `work` go on for some turns of the scheduler.
async fn give_up_after<F: Future>(turns: u32, work: F) {
    let pause = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = work => {}
        () = pause => {}
    }
}

#[tokio::test]
async fn a_writer_does_not_wait_for_ever() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let endless = bed.begin().await?;
    tokio::time::pause();
    let error = put_upstream(&bed.acme(), "jira").await.unwrap_err().to_string();
    assert_eq!(error, "another change of the database did not end in time: try again");
    drop(endless);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_meet_all_succeed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    // A second store stands for another process: it shares nothing but the file.
    let other = bed.away.again().await?;
    let Revision(before) = bed.revision().await?;

    let mut writers = JoinSet::new();
    for number in 0..40 {
        let store = if number % 2 == 0 { bed.away.store.clone() } else { other.clone() };
        let scope = scope(if number % 3 == 0 { &bed.acme } else { &bed.globex });
        let slug = format!("u{number}").parse()?;
        let spec = upstream_spec()?;
        writers.spawn(async move {
            if number % 4 == 0 {
                let change = store.begin().await?;
                change.tenant(scope).put_upstream(&slug, &spec).await?;
                change.commit().await?;
            } else {
                store.tenant(scope).put_upstream(&slug, &spec).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(outcome) = writers.join_next().await {
        outcome??;
    }
    assert_eq!(bed.revision().await?, Revision(before + 40));
    assert_eq!(bed.acme().upstreams().await?.len() + bed.globex().upstreams().await?.len(), 40);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_wait_for_a_writer() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    put_upstream(&change.tenant(scope(&bed.acme)), "jira").await?;
    let mut readers = JoinSet::new();
    for _ in 0..30 {
        let acme = bed.acme();
        readers.spawn(async move { acme.upstreams().await });
    }
    while let Some(outcome) = readers.join_next().await {
        assert!(outcome??.is_empty());
    }
    change.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_one_change_may_run_at_the_same_time() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    let mut parts = JoinSet::new();
    for number in 0..20 {
        let acme = change.tenant(scope(&bed.acme));
        let (slug, spec) = (format!("u{number}").parse()?, upstream_spec()?);
        parts.spawn(async move {
            acme.put_upstream(&slug, &spec).await?;
            acme.put_upstream(&slug, &UpstreamSpec { concurrency: 2, ..spec }).await
        });
    }
    while let Some(outcome) = parts.join_next().await {
        outcome??;
    }
    change.commit().await?;
    assert_eq!(bed.acme().upstreams().await?.len(), 20);
    Ok(())
}

/// The tenants of which anything changed after that revision.
async fn changed(bed: &Bed, after: Revision) -> anyhow::Result<Vec<String>> {
    let tenants = bed.still().await?.tenants(Some(after)).await?;
    tenants.into_iter().map(|tenant| Ok(tenant?.slug.to_string())).collect()
}

#[tokio::test]
async fn whoever_changes_anything_of_a_tenant_marks_it() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    let before = bed.revision().await?;
    assert!(changed(&bed, before).await?.is_empty());
    let grant = acme.put_grant(&"analysts".parse()?, &grant_spec()?).await?.0;
    assert_eq!(changed(&bed, before).await?, ["acme"]);

    let before = bed.revision().await?;
    acme.replace_tools(&upstream, &[tool("a", "acme__a", "{}")?]).await?;
    assert_eq!(changed(&bed, before).await?, ["acme"]);
    let before = bed.revision().await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-marked".into()).await?;
    assert_eq!(changed(&bed, before).await?, ["acme"]);
    let before = bed.revision().await?;
    acme.remove_grant(grant.id).await?;
    assert_eq!(changed(&bed, before).await?, ["acme"]);
    let before = bed.revision().await?;
    let change = bed.begin().await?;
    change.put_tenant(&"globex".parse()?, &TenantSpec::named("Globex Corp")).await?;
    change.tenant(scope(&bed.acme)).remove_upstream(upstream.id).await?;
    change.commit().await?;
    assert_eq!(changed(&bed, before).await?, ["acme", "globex"]);
    Ok(())
}

#[tokio::test]
async fn what_is_altered_by_others_counts_from_the_next_revision_on() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    put_upstream(&bed.acme(), "jira").await?;
    // Whoever alters it before the revision is raised, and after.
    for _ in 0..2 {
        let before = bed.revision().await?;
        bed.away.database().alter("UPDATE upstream SET concurrency = 3").await?;
        bed.globex().put_grant(&"analysts".parse()?, &grant_spec()?).await?;
        for grant in bed.globex().grants().await? {
            bed.globex().remove_grant(grant.id).await?;
        }
        assert_eq!(changed(&bed, before).await?, ["acme", "globex"]);
    }
    Ok(())
}

#[tokio::test]
async fn every_table_with_rows_of_tenants_that_are_served_marks_them() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let others = bed.other().await?;
    let names = async |sql: &str| -> anyhow::Result<Vec<String>> {
        let rows = others.query_all_raw(Statement::from_string(others.get_database_backend(), sql)).await?;
        rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
    };
    if is_on_postgres() {
        let of_tenants = "SELECT table_name::text FROM information_schema.columns WHERE column_name = 'tenant_id' \
                          AND table_name NOT IN ('erasure', 'access_test', 'managed', 'upstream_health', 'usage_day', 'quota_use') ORDER BY table_name";
        let marking = "SELECT relname::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid \
                       WHERE tgname = relname || '_changed' AND relname <> 'tenant' ORDER BY relname";
        let (of_tenants, marking) = (names(of_tenants).await?, names(marking).await?);
        assert!(of_tenants.len() > 5, "{of_tenants:?}");
        assert_eq!(of_tenants, marking);
        return Ok(());
    }
    let of_tenants = "SELECT name FROM sqlite_master WHERE type = 'table' \
                      AND name NOT IN ('erasure', 'access_test', 'managed', 'upstream_health', 'usage_day', 'quota_use') AND EXISTS (SELECT 1 FROM pragma_table_info(sqlite_master.name) WHERE name = 'tenant_id') ORDER BY name";
    let marking = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND tbl_name <> 'tenant' AND instr(name, '_changed_by_') > 0 \
                   GROUP BY tbl_name HAVING count(*) = 3 ORDER BY tbl_name";
    let (of_tenants, marking) = (names(of_tenants).await?, names(marking).await?);
    assert!(of_tenants.len() > 5, "{of_tenants:?}");
    assert_eq!(of_tenants, marking);
    Ok(())
}
