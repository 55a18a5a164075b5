//! What PostgreSQL does besides: row-level security, roles, sorting. These tests say nothing on SQLite.

use std::pin::pin;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait as _};
use secrecy::ExposeSecret as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{
    AuditChain, AuditPart, AuditRow, AuditWriterId, Store, StoreError, SystemClock, TenantStore, Upstream, UpstreamSpec,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Bed, grant_spec, put_upstream, scope, tool, upstream_spec};

/// Whatever does not wait is done by then.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
/// The tables with rows of tenants.
const TABLES: [&str; 15] = [
    "tenant",
    "upstream",
    "credential",
    "tenant_grant",
    "tool",
    "offer",
    "tenant_key",
    "erasure",
    "access_test",
    "managed",
    "revocation",
    "upstream_health",
    "usage_day",
    "recording_key",
    "quota_use",
];
/// The tables of the platform that whoever is about a tenant does not see.
const OF_PLATFORM: [&str; 4] = ["audit_key", "directory_group", "directory_member", "directory_user"];
/// The tables of the audit record: of them even the platform's own work sees the platform's rows only.
const OF_CHAINS: [&str; 3] = ["audit_checkpoint", "audit_event", "audit_pruned"];

/// A store on PostgreSQL; none, where the tests run on something else.
async fn on_postgres() -> anyhow::Result<Option<Bed>> {
    if is_on_postgres() { Bed::new().await.map(Some) } else { Ok(None) }
}

/// The same, in which both tenants have something in most tables.
async fn filled() -> anyhow::Result<Option<Bed>> {
    let Some(bed) = on_postgres().await? else { return Ok(None) };
    for (rows, slug) in [(bed.acme(), "acme"), (bed.globex(), "globex")] {
        let upstream = put_upstream(&rows, "jira").await?;
        rows.put_credential(upstream.id, &"token".parse()?, &"CANARY-row".into()).await?;
        rows.make_recording_key().await?;
        rows.put_grant(&"analysts".parse()?, &grant_spec()?).await?;
        rows.replace_tools(&upstream, &[tool("a", &format!("{slug}__a"), "{}")?]).await?;
    }
    Ok(Some(bed))
}

/// A connection as the role that serves.
async fn serving(bed: &Bed) -> anyhow::Result<DatabaseConnection> {
    Ok(sea_orm::Database::connect(bed.away.database().url.expose_secret()).await?)
}

async fn count(transaction: &DatabaseTransaction, sql: &str) -> anyhow::Result<i64> {
    let select = Statement::from_string(transaction.get_database_backend(), sql);
    let row = transaction.query_one_raw(select).await?;
    Ok(row.ok_or_else(|| anyhow::anyhow!("there is a count"))?.try_get_by_index(0)?)
}

async fn begin_as(serving: &DatabaseConnection, tenant: &str) -> anyhow::Result<DatabaseTransaction> {
    let transaction = serving.begin().await?;
    transaction.execute_unprepared(&format!("SELECT set_config('mcp_mux.tenant', '{tenant}', true)")).await?;
    Ok(transaction)
}

/// How many rows of a table somebody sees who serves and is about `whose`.
pub(crate) async fn counted_as(bed: &Bed, whose: &str, table: &str) -> anyhow::Result<i64> {
    let inside = begin_as(&serving(bed).await?, whose).await?;
    count(&inside, &format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test]
async fn a_query_without_its_tenants_filter_finds_that_tenants_rows_only() -> anyhow::Result<()> {
    let Some(bed) = filled().await? else { return Ok(()) };
    let serving = serving(&bed).await?;
    for tenant in [&bed.acme, &bed.globex] {
        let inside = begin_as(&serving, &tenant.id.to_string()).await?;
        for table in ["upstream", "credential", "tenant_grant", "tool", "tenant_key", "recording_key"] {
            let all = format!("SELECT count(*) FROM {table}");
            let own = format!("{all} WHERE tenant_id = '{}'", tenant.id);
            assert_eq!(count(&inside, &all).await?, 1, "{table}");
            assert_eq!(count(&inside, &own).await?, 1, "{table}");
        }
        assert_eq!(count(&inside, "SELECT count(*) FROM tenant").await?, 1);
    }
    // Nor does it alter or delete another's.
    let inside = begin_as(&serving, &bed.acme.id.to_string()).await?;
    let deleted = inside.execute_unprepared("DELETE FROM tenant_grant").await?.rows_affected();
    assert_eq!(deleted, 1);
    let moved = format!("UPDATE tool SET tenant_id = '{}'", bed.globex.id);
    assert!(inside.execute_unprepared(&moved).await.is_err(), "what is one's own is given to nobody");
    Ok(())
}

#[tokio::test]
async fn who_names_no_tenant_sees_nothing_and_writes_nothing() -> anyhow::Result<()> {
    let Some(bed) = filled().await? else { return Ok(()) };
    let serving = serving(&bed).await?;
    // Before anything was set, and after a transaction in which it was.
    for _ in 0..2 {
        let nobody = serving.begin().await?;
        for table in TABLES.into_iter().chain(OF_PLATFORM).chain(OF_CHAINS) {
            assert_eq!(count(&nobody, &format!("SELECT count(*) FROM {table}")).await?, 0, "{table}");
        }
        nobody.rollback().await?;
        begin_as(&serving, &bed.acme.id.to_string()).await?.commit().await?;
    }
    let nobody = serving.begin().await?;
    let grant = format!(
        "INSERT INTO tenant_grant VALUES ('{}', 'grt_1', 'n', 'corp', '[]', '[]', 'read', '[]', '[]')",
        bed.acme.id
    );
    let error = nobody.execute_unprepared(&grant).await.unwrap_err().to_string();
    assert!(error.contains("row-level security"), "{error}");
    Ok(())
}

#[tokio::test]
async fn every_table_with_rows_of_tenants_is_guarded_from_its_owner_too() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    let other = bed.other().await?;
    let names = async |sql: &str| -> anyhow::Result<Vec<String>> {
        let rows = other.query_all_raw(Statement::from_string(other.get_database_backend(), sql)).await?;
        rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
    };
    let of_tenants = "SELECT table_name::text FROM information_schema.columns WHERE column_name = 'tenant_id' \
                      UNION SELECT 'tenant' ORDER BY 1";
    let guarded = "SELECT relname::text FROM pg_class WHERE relrowsecurity AND relforcerowsecurity ORDER BY 1";
    let mut known = TABLES.map(str::to_owned);
    known.sort();
    assert_eq!(names(of_tenants).await?, known);
    // Those of directories are guarded from whoever is about a tenant.
    let mut known = [&TABLES[..], &OF_PLATFORM[..], &OF_CHAINS[..]].concat();
    known.sort_unstable();
    assert_eq!(names(guarded).await?, known);
    // Texts are sorted byte by byte, as SQLite sorts them.
    let other_order = "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' \
                       AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C' \
                       AND table_name <> 'seaql_migrations'";
    assert_eq!(names(other_order).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_role_that_could_see_more_does_not_serve() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    bed.check_role().await?;
    let keys = || std::sync::Arc::new(tenant_store::LocalKeys::new(bed.away.keys.clone()));
    let url = bed.away.database().url.expose_secret().to_owned();
    for role in ["mux_owner", "postgres"] {
        let mighty = url.replacen("mux@", &format!("{role}@"), 1).into();
        let store = Store::open(&mighty, keys(), std::sync::Arc::new(SystemClock)).await?;
        let error = store.check_role().await.unwrap_err();
        assert!(matches!(&error, StoreError::MightyRole { name } if name == role), "{error}");
    }
    // Neither does it migrate.
    let migrations = "DELETE FROM seaql_migrations";
    assert!(serving(&bed).await?.execute_unprepared(migrations).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_raised_revision_is_told_to_whoever_listens() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    let mut raised = bed.raised().await?.ok_or_else(|| anyhow::anyhow!("PostgreSQL tells of them"))?;
    put_upstream(&bed.acme(), "jira").await?;
    assert_eq!(raised.next().await, Some(bed.revision().await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_all_start() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    // As if migrations were missing whose statements can be repeated.
    let undone = "DROP TRIGGER revision_told ON revision; DROP FUNCTION tell_revision, take_turn, mark_tenant, mark_tenant_itself CASCADE; \
                  DELETE FROM seaql_migrations WHERE version LIKE '%_row_security' OR version LIKE '%_access_test' OR version LIKE '%_revocation' OR version LIKE '%_directory'";
    let other = bed.other().await?;
    other.execute_unprepared(undone).await?;
    for table in TABLES {
        other.execute_unprepared(&format!("DROP POLICY of_tenant ON {table}")).await?;
    }
    for table in OF_CHAINS {
        other.execute_unprepared(&format!("DROP POLICY of_chain ON {table}")).await?;
    }
    other
        .execute_unprepared(
            "DROP TABLE access_test, managed, revocation, directory_member, directory_user, directory_group",
        )
        .await?;
    let mut starting = JoinSet::new();
    for _ in 0..6 {
        let (owner, serving) = (bed.owner().await?, bed.away.database().url.clone());
        starting.spawn(async move { owner.migrate_for(Some(&serving)).await });
    }
    let mut applied = 0;
    while let Some(outcome) = starting.join_next().await {
        applied += outcome??;
    }
    assert_eq!(applied, 4);
    bed.check_role().await?;
    Ok(())
}

#[tokio::test]
async fn the_owner_is_not_let_in_as_the_one_who_serves() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    let owner = bed.owner().await?;
    let error = owner.migrate_for(bed.away.database().owner_url.as_ref()).await.unwrap_err();
    assert!(matches!(&error, StoreError::MightyRole { name } if name == "mux_owner"), "{error}");
    // Nothing was taken from it.
    assert_eq!(owner.migrate_for(Some(&bed.away.database().url)).await?, 0);
    Ok(())
}

#[tokio::test]
async fn whoever_writes_by_hand_takes_a_turn() -> anyhow::Result<()> {
    let Some(bed) = filled().await? else { return Ok(()) };
    let before = bed.revision().await?;
    let other = bed.other().await?;
    let by_hand = other.begin().await?;
    by_hand.execute_unprepared(&format!("DELETE FROM tenant_grant WHERE tenant_id = '{}'", bed.acme.id)).await?;
    // A change of another tenant's, which raises the revision, waits for what was done by hand.
    let globex = bed.globex();
    let mut changing = pin!(put_upstream(&globex, "wiki"));
    assert!(timeout(LONG_ENOUGH, &mut changing).await.is_err(), "it did not wait");
    by_hand.commit().await?;
    changing.await?;
    let changed = bed.still().await?.tenants(Some(before)).await?;
    let changed: Vec<_> =
        changed.into_iter().map(|tenant| Ok(tenant?.slug.to_string())).collect::<anyhow::Result<_>>()?;
    assert_eq!(changed, ["acme", "globex"]);

    // Nor does it hold rows while it waits for its turn: ours, which has it, gets them.
    let change = bed.begin().await?;
    let mut by_hand = pin!(other.execute_unprepared("UPDATE upstream SET concurrency = 3"));
    assert!(timeout(LONG_ENOUGH, &mut by_hand).await.is_err(), "it did not wait");
    let upstream = put_upstream_with(&change.tenant(scope(&bed.acme)), 5).await?;
    change.commit().await?;
    by_hand.await?;
    assert_eq!((upstream.spec.concurrency, bed.acme().upstream(upstream.id).await?.spec.concurrency), (5, 3));
    let elsewhere = "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE upstream SET concurrency = 4; COMMIT";
    assert!(other.execute_unprepared(elsewhere).await.is_err());
    Ok(())
}

async fn put_upstream_with(rows: &TenantStore, concurrency: u32) -> anyhow::Result<Upstream> {
    let spec = UpstreamSpec { concurrency, ..upstream_spec()? };
    Ok(rows.put_upstream(&"jira".parse()?, &spec).await?.0)
}

#[tokio::test]
async fn nobody_sees_the_audit_record_of_another_not_even_whoever_is_about_all() -> anyhow::Result<()> {
    let Some(bed) = on_postgres().await? else { return Ok(()) };
    let (writer, at) = (AuditWriterId::new(bed.now()), bed.now());
    let chains = [AuditChain::Platform, AuditChain::Tenant(scope(&bed.acme)), AuditChain::Tenant(scope(&bed.globex))];
    let parts = chains.map(|chain| AuditPart {
        chain,
        rows: vec![AuditRow { writer, seq: 1, at, line: chain.to_string() }],
        checkpoints: Vec::new(),
    });
    bed.append_audit(&parts).await?;
    let serving = serving(&bed).await?;
    let (acme, globex) = (bed.acme.id.to_string(), bed.globex.id.to_string());
    for (whose, chain) in [("*", "platform"), (&acme, &acme), (&globex, &globex)] {
        let inside = begin_as(&serving, whose).await?;
        let all = count(&inside, "SELECT count(*) FROM audit_event").await?;
        let own = count(&inside, &format!("SELECT count(*) FROM audit_event WHERE line = '{chain}'")).await?;
        assert_eq!((all, own), (1, 1), "{whose}");
    }
    // Nor does a tenant's transaction add to another chain, and whoever serves may not change what is there.
    let insert = |chain: &str| format!("INSERT INTO audit_event VALUES ('{chain}', '{writer}', 9, 0, 'forged')");
    for (whose, chain) in [(acme.as_str(), globex.as_str()), (&acme, "platform"), ("*", &acme)] {
        let inside = begin_as(&serving, whose).await?;
        let error = inside.execute_unprepared(&insert(chain)).await.unwrap_err().to_string();
        assert!(error.contains("row-level security"), "{error}");
    }
    for (sql, wanted) in [
        ("UPDATE audit_event SET line = ''", "permission denied"),
        ("DELETE FROM audit_pruned", "permission denied"),
        ("DELETE FROM audit_event", "added to and never changed"),
    ] {
        let inside = begin_as(&serving, &acme).await?;
        let error = inside.execute_unprepared(sql).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    Ok(())
}
