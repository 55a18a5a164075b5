//! Access tests, and who manages what.

use tenant_store::{AccessTestSpec, Managed, ManagedKind, Put};

use crate::support::{Bed, grant_spec, put_upstream};

fn spec() -> anyhow::Result<AccessTestSpec> {
    Ok(AccessTestSpec {
        issuer: "corp".parse()?,
        groups: vec!["acme \"analysts\"".parse()?],
        subject: Some("00u1\\2".parse()?),
        can: vec!["acme__search".parse()?],
        cannot: vec!["globex__*".parse()?],
    })
}

#[tokio::test]
async fn an_access_test_comes_back_as_it_was_put_and_belongs_to_its_tenant() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (name, before) = ("t".parse()?, bed.revision().await?);
    assert_eq!(bed.acme().put_access_test(&name, &spec()?).await?, Put::Created);
    assert_eq!(bed.acme().put_access_test(&name, &spec()?).await?, Put::Unchanged);
    assert!(bed.revision().await? > before);
    let other = AccessTestSpec { subject: None, ..spec()? };
    assert_eq!(bed.acme().put_access_test(&name, &other).await?, Put::Changed);
    let tests = bed.acme().access_tests().await?;
    assert_eq!(tests.iter().map(|test| &test.spec).collect::<Vec<_>>(), [&other]);
    assert!(bed.globex().access_tests().await?.is_empty());
    assert!(!bed.globex().remove_access_test(&name).await?);
    assert_eq!(bed.still().await?.access_tests().await?, tests);
    assert!(bed.acme().remove_access_test(&name).await?);
    assert!(bed.acme().access_tests().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_test_about_nobody_or_nothing_is_refused() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let nobody = AccessTestSpec { groups: Vec::new(), subject: None, ..spec()? };
    let nothing = AccessTestSpec { can: Vec::new(), cannot: Vec::new(), ..spec()? };
    for spec in [nobody, nothing] {
        bed.acme().put_access_test(&"t".parse()?, &spec).await.unwrap_err();
    }
    Ok(())
}

#[tokio::test]
async fn who_manages_an_object_is_forgotten_with_it() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let rows = bed.acme();
    let upstream = put_upstream(&rows, "jira").await?;
    let (grant, _) = rows.put_grant(&"jira".parse()?, &grant_spec()?).await?;
    rows.put_access_test(&"jira".parse()?, &spec()?).await?;
    let (one, two) = ("one".parse()?, "two".parse()?);
    let revision = bed.revision().await?;
    for kind in [ManagedKind::AccessTest, ManagedKind::Grant, ManagedKind::Upstream] {
        rows.set_manager(kind, "jira", &one).await?;
        rows.set_manager(kind, "jira", &two).await?;
    }
    assert!(bed.revision().await? > revision, "whoever looked before has to look again");
    let of = |kind| Managed { kind, name: "jira".to_owned(), manager: two.clone() };
    let all = [of(ManagedKind::AccessTest), of(ManagedKind::Grant), of(ManagedKind::Upstream)];
    assert_eq!(rows.managed().await?, all);
    assert!(bed.globex().managed().await?.is_empty());
    rows.remove_grant(grant.id).await?;
    assert_eq!(rows.managed().await?, [of(ManagedKind::AccessTest), of(ManagedKind::Upstream)]);
    rows.remove_access_test(&"jira".parse()?).await?;
    rows.remove_upstream(upstream.id).await?;
    assert!(rows.managed().await?.is_empty());
    Ok(())
}
