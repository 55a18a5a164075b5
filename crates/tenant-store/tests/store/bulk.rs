//! Many tenants read at once are each what one reads through its own door, whatever lies beside them.

use sea_orm::Value;
use tenant_store::testing::is_on_postgres;
use tenant_store::{NewOffer, OfferKind, StoreError, Tenant, TenantRows, TenantSpec, TenantStore};

use crate::support::{Bed, grant_spec, put_upstream, scope, tool};

const TENANTS: usize = 300;

/// What a tenant has, and who it is in which there is most.
async fn fill(rows: &TenantStore, number: usize) -> anyhow::Result<()> {
    if number.is_multiple_of(5) {
        return Ok(());
    }
    // The later one comes first in the order of slugs.
    for slug in ["wiki", "desk"] {
        let upstream = put_upstream(rows, slug).await?;
        let new = |local: &str| tool(local, &format!("{slug}_{local}"), &format!(r#"{{"a":{number}}}"#));
        rows.replace_tools(&upstream, &[new("b")?, new("a")?, new("gone")?]).await?;
        rows.replace_tools(&upstream, &[new("b")?, new("a")?]).await?;
        if number.is_multiple_of(2) {
            rows.put_credential(upstream.id, &"token".parse()?, &"CANARY-bulk".into()).await?;
            let note = NewOffer { key: "note://a".parse()?, exposed: None, definition: serde_json::from_str("{}")? };
            rows.replace_offers(&upstream, OfferKind::Resource, &[note]).await?;
        }
    }
    rows.make_recording_key().await?;
    for name in ["b", "a"] {
        rows.put_grant(&name.parse()?, &grant_spec()?).await?;
    }
    Ok(())
}

/// The same through the tenant's own door.
async fn alone(rows: &TenantStore) -> Result<TenantRows, StoreError> {
    Ok(TenantRows {
        grants: rows.grants().await?,
        upstreams: rows.upstreams().await?,
        tools: rows.tools().await?,
        offers: rows.offers().await?,
        sealed_credentials: rows.sealed_credentials().await?,
        recording_key: rows.recording_key().await?,
    })
}

/// All that a tenant's rows say, or what is wrong with them.
fn said(rows: Result<TenantRows, StoreError>) -> Result<String, String> {
    rows.map(|rows| format!("{rows:?}")).map_err(|error| error.to_string())
}

/// Reads all tenants at once, compares each with what its own door shows, and answers the slugs of those that do not parse.
async fn compared(bed: &Bed) -> anyhow::Result<Vec<String>> {
    let tenants: Vec<Tenant> = bed.tenants().await?;
    let still = bed.still().await?;
    let scopes: Vec<_> = tenants.iter().map(scope).collect();
    let parts = still.parts(&scopes).await?;
    assert_eq!(parts.concat(), scopes, "each is read once");
    let (mut damaged, mut tenants) = (Vec::new(), tenants.iter());
    for part in parts {
        for (of, rows) in still.rows_of(part).await? {
            let tenant = tenants.next().filter(|tenant| tenant.id == of.tenant());
            let slug = tenant.map(|tenant| tenant.slug.to_string()).unwrap_or_default();
            let rows = said(rows);
            assert_eq!(rows, said(alone(&bed.tenant(of)).await), "{slug}");
            damaged.extend(rows.is_err().then_some(slug));
        }
    }
    Ok(damaged)
}

#[tokio::test]
async fn each_of_many_tenants_has_its_own_rows_in_their_order() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    for number in 0..TENANTS {
        let (tenant, _) = change.put_tenant(&format!("t{number}").parse()?, &TenantSpec::named("Some")).await?;
        fill(&change.tenant(scope(&tenant)), number).await?;
    }
    change.commit().await?;
    bed.shred(&"t7".parse()?, "operator").await?;
    assert!(compared(&bed).await?.is_empty());

    let still = bed.still().await?;
    let last = bed.find_tenant(&"t298".parse()?).await?.into_iter().map(|tenant| scope(&tenant)).collect::<Vec<_>>();
    let (_, rows) = still.rows_of(&last).await?.remove(0);
    let rows = rows?;
    let locals: Vec<_> = rows.tools.iter().map(|tool| tool.exposed.as_str()).collect();
    assert_eq!(locals, ["desk_b", "desk_a", "wiki_b", "wiki_a"]);
    assert_eq!([rows.grants.len(), rows.offers.len(), rows.sealed_credentials.len()], [2, 2, 2]);
    Ok(())
}

#[tokio::test]
async fn a_damaged_row_costs_its_tenant_only() -> anyhow::Result<()> {
    let of_acme = "WHERE tenant_id = (SELECT id FROM tenant WHERE slug = 'acme')";
    for (set, value) in [
        ("upstream SET url", Value::from("nowhere")),
        ("upstream SET auth", "{".into()),
        ("tenant_grant SET allow", "[]".into()),
        ("tenant_grant SET level", "root".into()),
        ("tool SET definition", r#"{"a":3}"#.into()),
        ("tool SET digest", "00".into()),
        ("tool SET position", (-1).into()),
        ("offer SET definition", "{".into()),
        ("offer SET kind", "cup".into()),
        ("credential SET version", i64::MAX.into()),
        ("credential SET key_id", "key_x".into()),
        ("tenant_key SET kek_id", "".into()),
    ] {
        let bed = Bed::new().await?;
        fill(&bed.acme(), 2).await?;
        fill(&bed.globex(), 2).await?;
        bed.sql(&format!("UPDATE {set} = ? {of_acme}"), vec![value]).await?;
        let is_orphaned = set.starts_with("credential SET key_id");
        assert_eq!(compared(&bed).await?, if is_orphaned { &[][..] } else { &["acme"] }, "{set}");
    }
    Ok(())
}

/// Rows that somebody moved to another tenant without what they belong to.
#[tokio::test]
async fn a_row_belongs_to_the_tenant_that_it_names_and_to_nobody_else() -> anyhow::Result<()> {
    for table in ["upstream", "tenant_grant", "tool", "offer", "credential", "tenant_key"] {
        let bed = Bed::new().await?;
        fill(&bed.acme(), 2).await?;
        let (acme, globex) = (bed.acme().id().to_string(), bed.globex().id().to_string());
        let sql = format!("UPDATE {table} SET tenant_id = ? WHERE tenant_id = ?");
        assert!(bed.sql(&sql, vec![globex.into(), acme.clone().into()]).await? > 0);
        assert!(compared(&bed).await?.is_empty(), "{table}");

        // And those of somebody who is no tenant.
        let nobody = if is_on_postgres() { Value::from("nobody") } else { Value::from(vec![0_u8, 255]) };
        bed.sql(&format!("UPDATE {table} SET tenant_id = ?"), vec![nobody]).await?;
        assert!(compared(&bed).await?.is_empty(), "{table}");
    }
    Ok(())
}
