//! Another tenant's row and no row are the same answer, for every method that takes an id or returns rows.

use std::fmt::Debug;

use tenant_store::{Timestamp, Upstream, UpstreamId};

use crate::support::{Bed, grant_spec, put_upstream, tool};

/// What a method answers, with `id` struck out of it: that is all in which the two answers may differ.
fn answer<T: Debug>(result: Result<T, tenant_store::StoreError>, id: UpstreamId) -> String {
    let text = match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    text.replace(&id.to_string(), "ID")
}

#[tokio::test]
async fn an_upstream_of_another_tenant_does_not_exist() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (bed.acme(), bed.globex());
    let listed = put_upstream(&acme, "jira").await?;
    let theirs = listed.id;
    let nobodys = UpstreamId::new(Timestamp::from_millis(0));
    acme.put_credential(theirs, &"token".parse()?, &"CANARY-theirs".into()).await?;
    let (tools, secret, name) = ([tool("a", "globex__a", "{}")?], "CANARY-mine".into(), "token".parse()?);

    let mut answers = Vec::new();
    for id in [theirs, nobodys] {
        let upstream = Upstream { id, ..listed.clone() };
        answers.push([
            answer(globex.upstream(id).await, id),
            answer(globex.replace_tools(&upstream, &tools).await, id),
            answer(globex.replace_tools(&upstream, &[]).await, id),
            answer(globex.put_credential(id, &name, &secret).await, id),
            answer(globex.remove_credential(id, &name).await, id),
            answer(globex.remove_upstream(id).await, id),
            answer(globex.note_health(id, None).await, id),
            answer(globex.reset_upstream(id).await, id),
        ]);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0][0].starts_with("there is no upstream `ID`"), "{}", answers[0][0]);

    assert_eq!(acme.upstream(theirs).await?, listed);
    assert_eq!(acme.sealed_credentials().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_grant_of_another_tenant_does_not_exist() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (theirs, _) = bed.acme().put_grant(&"analysts".parse()?, &grant_spec()?).await?;
    assert!(!bed.globex().remove_grant(theirs.id).await?);
    assert_eq!(bed.acme().grants().await?, [theirs]);
    Ok(())
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_rows() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (bed.acme(), bed.globex());
    let theirs = put_upstream(&acme, "jira").await?;
    acme.put_grant(&"analysts".parse()?, &grant_spec()?).await?;
    acme.put_credential(theirs.id, &"token".parse()?, &"CANARY-theirs".into()).await?;
    acme.replace_tools(&theirs, &[tool("a", "acme__a", "{}")?]).await?;

    assert!(globex.upstreams().await?.is_empty());
    assert_eq!(globex.find_upstream(&"jira".parse()?).await?, None);
    assert!(globex.grants().await?.is_empty());
    assert!(globex.tools().await?.is_empty());
    assert!(globex.sealed_credentials().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn tenants_use_the_same_names_side_by_side() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    for tenant in [bed.acme(), bed.globex()] {
        let upstream = put_upstream(&tenant, "jira").await?;
        tenant.put_grant(&"analysts".parse()?, &grant_spec()?).await?;
        // Exposed names begin with the tenant's; even if they did not, one tenant could not take another's.
        tenant.replace_tools(&upstream, &[tool("a", "same", "{}")?]).await?;
        assert_eq!(tenant.tools().await?.len(), 1);
    }
    let (acme, globex) = (bed.acme().upstreams().await?, bed.globex().upstreams().await?);
    assert_ne!(acme[0].id, globex[0].id);
    Ok(())
}

#[tokio::test]
async fn another_tenants_credential_is_not_opened() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    bed.acme().put_credential(upstream.id, &"token".parse()?, &"CANARY-theirs".into()).await?;
    let sealed = bed.acme().sealed_credentials().await?.remove(0);
    let error = bed.globex().open_credential(&sealed).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no secret `token`");
    Ok(())
}
