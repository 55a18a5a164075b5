//! Upstreams.

use std::time::Duration;

use tenant_store::{
    OnArguments, OnNewTool, OnToolChange, Put, TenantSpec, ToolClass, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};

use crate::support::{Bed, put_upstream, tool, upstream_spec};

#[tokio::test]
async fn an_upstream_comes_back_as_it_was_put() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let headers = [("X-Api-Key".parse()?, "key".parse()?), ("authorization".parse()?, "token".parse()?)];
    let spec = UpstreamSpec {
        url: "http://[::1]:8080/mcp?tenant=acme".parse()?,
        protocol: UpstreamProtocol::OpenApi { document: "https://docs.acme.example/api.yaml".parse()? },
        prefix: Some("jira".parse()?),
        auth: UpstreamAuth::Headers { headers: headers.into() },
        call_timeout: Duration::from_mins(5),
        concurrency: 1,
        on_tool_change: OnToolChange::Quarantine,
        on_new_tool: OnNewTool::Quarantine,
        on_arguments: OnArguments::Pass,
        classes: [("delete.issue".parse()?, ToolClass::Admin)].into(),
        enabled: false,
    };
    let (made, put) = acme.put_upstream(&"jira".parse()?, &spec).await?;
    assert_eq!((put, made.tenant, &made.spec), (Put::Created, bed.acme.id, &spec));
    assert_eq!(acme.upstream(made.id).await?, made);
    assert_eq!(acme.find_upstream(&"jira".parse()?).await?, Some(made.clone()));
    assert_eq!(acme.upstreams().await?, [made]);
    Ok(())
}

#[tokio::test]
async fn an_upstream_is_changed_only_when_it_is_different() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let made = put_upstream(&bed.acme(), "jira").await?;
    let revision = bed.revision().await?;

    let (same, put) = bed.acme().put_upstream(&made.slug, &made.spec).await?;
    assert_eq!((put, bed.revision().await?), (Put::Unchanged, revision));
    assert_eq!(same, made);

    let spec = UpstreamSpec { concurrency: 2, ..made.spec };
    let (changed, put) = bed.acme().put_upstream(&made.slug, &spec).await?;
    assert_eq!((put, changed.id), (Put::Changed, made.id));
    assert_eq!(bed.acme().upstream(made.id).await?.spec, spec);
    assert!(bed.revision().await? > revision);
    Ok(())
}

#[tokio::test]
async fn upstreams_are_listed_by_slug() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    for slug in ["wiki", "jira", "a-1"] {
        put_upstream(&bed.acme(), slug).await?;
    }
    let slugs: Vec<_> = bed.acme().upstreams().await?.into_iter().map(|upstream| upstream.slug.to_string()).collect();
    assert_eq!(slugs, ["a-1", "jira", "wiki"]);
    Ok(())
}

#[tokio::test]
async fn an_upstream_goes_with_its_credentials_and_tools() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-gone".into()).await?;
    acme.replace_tools(&upstream, &[tool("a", "acme__a", "{}")?]).await?;

    assert!(acme.remove_upstream(upstream.id).await?);
    assert_eq!(
        acme.upstream(upstream.id).await.unwrap_err().to_string(),
        format!("there is no upstream `{}`", upstream.id)
    );
    assert!(acme.sealed_credentials().await?.is_empty());
    assert!(acme.tools().await?.is_empty());

    let revision = bed.revision().await?;
    assert!(!acme.remove_upstream(upstream.id).await?);
    assert_eq!(bed.revision().await?, revision);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_breaks_a_rule_is_not_stored() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let spec = UpstreamSpec { url: "https://anna:CANARY-pw@acme.example/".parse()?, ..upstream_spec()? };
    let error = bed.acme().put_upstream(&"jira".parse()?, &spec).await.unwrap_err().to_string();
    assert!(error.starts_with("the upstream's URL must not hold a user name or a password"), "{error}");
    assert!(!error.contains("CANARY-pw"));
    assert!(bed.acme().upstreams().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn nothing_is_stored_for_a_tenant_that_does_not_exist() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let change = bed.begin().await?;
    let (never, _) = change.put_tenant(&"never".parse()?, &TenantSpec::named("Never")).await?;
    drop(change);

    let error =
        bed.tenant(crate::support::scope(&never)).put_upstream(&"jira".parse()?, &upstream_spec()?).await.unwrap_err();
    assert_eq!(error.to_string(), format!("there is no tenant `{}`", never.id));
    Ok(())
}
