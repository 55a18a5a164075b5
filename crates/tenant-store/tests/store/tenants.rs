//! Tenants.

use tenant_store::{FlowPolicy, Put, Revision, TenantSpec, TenantState};

use crate::support::Bed;

#[tokio::test]
async fn a_tenant_is_made_renamed_and_left_alone() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let slug = "initech".parse()?;

    let change = bed.begin().await?;
    let (made, put) = change.put_tenant(&slug, &TenantSpec::named("Initech")).await?;
    assert_eq!((put, made.state), (Put::Created, TenantState::Active));
    assert_eq!(change.put_tenant(&slug, &TenantSpec::named("Initech")).await?, (made.clone(), Put::Unchanged));
    let (renamed, put) = change.put_tenant(&slug, &TenantSpec::named("Initech & Sons")).await?;
    assert_eq!((put, renamed.id, renamed.spec.display_name.as_str()), (Put::Changed, made.id, "Initech & Sons"));
    assert_eq!(change.find_tenant(&slug).await?, Some(renamed.clone()));
    change.commit().await?;

    assert_eq!(bed.find_tenant(&slug).await?, Some(renamed));
    Ok(())
}

#[tokio::test]
async fn the_hosts_of_a_tenant_are_kept_and_given_up() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let slug = "acme".parse()?;
    let hosts = vec!["*.acme.example".parse()?, "10.20.0.5".parse()?];
    let narrowed = TenantSpec { egress_hosts: Some(hosts.try_into()?), ..TenantSpec::named("Acme Corp") };
    let change = bed.begin().await?;
    assert_eq!(change.put_tenant(&slug, &narrowed).await?.1, Put::Changed);
    assert_eq!(change.put_tenant(&slug, &narrowed).await?.1, Put::Unchanged);
    change.commit().await?;
    assert_eq!(bed.find_tenant(&slug).await?.map(|tenant| tenant.spec), Some(narrowed));

    let change = bed.begin().await?;
    assert_eq!(change.put_tenant(&slug, &TenantSpec::named("Acme Corp")).await?.1, Put::Changed);
    change.commit().await?;
    assert_eq!(bed.find_tenant(&slug).await?.and_then(|tenant| tenant.spec.egress_hosts), None);
    Ok(())
}

#[tokio::test]
async fn what_becomes_of_a_tenants_text_elsewhere_is_kept_and_is_a_change() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let slug = "acme".parse()?;
    let before = bed.revision().await?;
    let kept = bed.find_tenant(&slug).await?.map(|tenant| tenant.spec);
    assert_eq!(kept.as_ref().map(|spec| spec.flow_policy), Some(FlowPolicy::Log));
    let blocked = kept.map(|spec| TenantSpec { flow_policy: FlowPolicy::Block, ..spec });
    let change = bed.begin().await?;
    if let Some(blocked) = &blocked {
        assert_eq!(change.put_tenant(&slug, blocked).await?.1, Put::Changed);
    }
    change.commit().await?;
    assert_eq!(bed.find_tenant(&slug).await?.map(|tenant| tenant.spec), blocked);
    let changed = bed.still().await?.tenants(Some(before)).await?;
    assert_eq!(changed.into_iter().flatten().map(|tenant| tenant.slug).collect::<Vec<_>>(), [slug]);
    Ok(())
}

#[tokio::test]
async fn tenants_are_listed_by_slug() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    change.put_tenant(&"beta".parse()?, &TenantSpec::named("Zeta")).await?;
    change.commit().await?;
    let slugs: Vec<_> = bed.tenants().await?.into_iter().map(|tenant| tenant.slug.to_string()).collect();
    assert_eq!(slugs, ["acme", "beta", "globex"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_tenant_is_not_found() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    assert_eq!(bed.find_tenant(&"initech".parse()?).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_display_name_is_one_short_line() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    for name in ["", " Acme", "Acme\nCorp", &"x".repeat(101)] {
        let error = change.put_tenant(&"acme".parse()?, &TenantSpec::named(name)).await.unwrap_err();
        assert!(error.to_string().starts_with("the display name must be 1 to 100 characters"), "{error}");
    }
    change.put_tenant(&"acme".parse()?, &TenantSpec::named("ü".repeat(100))).await?;
    assert_eq!(change.commit().await?, Revision(2));
    Ok(())
}
