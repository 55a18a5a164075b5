//! Rows that somebody altered are named, with their table, and never a panic.

use std::error::Error;

use sea_orm::Value;
use tenant_store::testing::is_on_postgres;

use crate::support::{Bed, grant_spec, put_upstream, tool};

/// A message with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A store in which one row of each table has an altered column.
async fn damaged(sql: &str, value: Value) -> anyhow::Result<Bed> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    acme.put_grant(&"analysts".parse()?, &grant_spec()?).await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-damage".into()).await?;
    acme.replace_tools(&upstream, &[tool("a", "acme__a", r#"{"a":1}"#)?]).await?;
    let altered = bed.sql(sql, vec![value]).await?;
    anyhow::ensure!(altered > 0, "nothing was altered");
    Ok(bed)
}

/// What each way to read says about the damage.
async fn complaints(bed: &Bed) -> Vec<String> {
    let acme = bed.acme();
    let answers = [
        bed.tenants().await.err(),
        acme.upstreams().await.err(),
        acme.grants().await.err(),
        acme.tools().await.err(),
        acme.sealed_credentials().await.err(),
        acme.data_keys().await.err(),
        bed.platform_keys().await.err(),
        bed.revision().await.err(),
    ];
    answers.iter().flatten().map(|error| chain(error)).collect()
}

#[tokio::test]
async fn an_altered_row_is_named() -> anyhow::Result<()> {
    let blob = || Value::from(vec![0_u8, 255]);
    for (sql, value, table, key) in [
        ("UPDATE tenant SET slug = ? WHERE slug = 'acme'", Value::from("ACME"), "tenant", "id = ten_"),
        ("UPDATE tenant SET state = ?", "gone".into(), "tenant", "id = ten_"),
        ("UPDATE tenant SET display_name = ?", "".into(), "tenant", "id = ten_"),
        ("UPDATE tenant SET egress_hosts = ?", "[]".into(), "tenant", "id = ten_"),
        ("UPDATE tenant SET flow_policy = ?", "perhaps".into(), "tenant", "id = ten_"),
        ("UPDATE tenant SET egress_hosts = ?", r#"["*"]"#.into(), "tenant", "id = ten_"),
        ("UPDATE tenant SET slug = ? WHERE slug = 'acme'", blob(), "tenant", "id = ten_"),
        ("UPDATE upstream SET url = ?", "mcp.acme.example".into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET url = ?", "file:///etc/passwd".into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET auth = ?", r#"{"bearer":{"secret":"NO"}}"#.into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET call_timeout_ms = ?", (-1).into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET concurrency = ?", "many".into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET classes = ?", "{".into(), "upstream", "id = ups_"),
        ("UPDATE upstream SET id = ?", "ups_1".into(), "upstream", "id = ups_1"),
        ("UPDATE tenant_grant SET allow = ?", "[]".into(), "tenant_grant", "id = grt_"),
        ("UPDATE tenant_grant SET groups = ?", r#"["a\nb"]"#.into(), "tenant_grant", "id = grt_"),
        ("UPDATE tenant_grant SET level = ?", "root".into(), "tenant_grant", "id = grt_"),
        ("UPDATE tenant_grant SET level = ?", blob(), "tenant_grant", "id = grt_"),
        ("UPDATE tool SET definition = ?", "{".into(), "tool", "local = a"),
        ("UPDATE tool SET definition = ?", r#"{"a":2}"#.into(), "tool", "local = a"),
        ("UPDATE tool SET exposed = ?", "acme a".into(), "tool", "local = a"),
        ("UPDATE tool SET digest = ?", "00".into(), "tool", "local = a"),
        ("UPDATE tool SET position = ?", (-1).into(), "tool", "local = a"),
        ("UPDATE credential SET version = ?", i64::MAX.into(), "credential", "name = token"),
        ("UPDATE credential SET key_id = ?", "key_x".into(), "credential", "name = token"),
        ("UPDATE revision SET value = ?", (-1).into(), "revision", "id = 1"),
    ] {
        // PostgreSQL keeps texts out of columns of numbers.
        if is_on_postgres() && sql.contains("concurrency") {
            assert!(damaged(sql, value).await.is_err(), "{sql}");
            continue;
        }
        let bed = damaged(sql, value).await?;
        let complaints = complaints(&bed).await;
        let wanted = format!("the table `{table}` has a row that does not parse (");
        let named = complaints.iter().find(|complaint| complaint.starts_with(&wanted) && complaint.contains(key));
        assert!(named.is_some(), "{sql}: {complaints:?}");
        assert!(!complaints.iter().any(|complaint| complaint.contains("CANARY-")), "{complaints:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_cause_says_what_is_wrong_with_the_row() -> anyhow::Result<()> {
    let bed = damaged("UPDATE tenant SET slug = ? WHERE slug = 'acme'", "ACME".into()).await?;
    let complaint = complaints(&bed).await.remove(0);
    assert!(complaint.ends_with("but this has `A` as character 1"), "{complaint}");
    Ok(())
}
