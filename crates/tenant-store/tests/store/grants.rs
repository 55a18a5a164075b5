//! Grants.

use tenant_store::{GrantSpec, Level, Put};

use crate::support::{Bed, grant_spec};

#[tokio::test]
async fn a_grant_comes_back_as_it_was_put() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let spec = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["acme \"analysts\"".parse()?, "Ä".parse()?],
        subjects: vec!["00u1\\2".parse()?],
        level: Level::Admin,
        allow: vec!["jira/*".parse()?, "*".parse()?],
        deny: vec!["*export*".parse()?],
    };
    let (made, put) = bed.acme().put_grant(&"analysts".parse()?, &spec).await?;
    assert_eq!((put, made.tenant, &made.spec), (Put::Created, bed.acme.id, &spec));
    assert_eq!(bed.acme().grants().await?, [made]);
    Ok(())
}

#[tokio::test]
async fn a_grant_is_changed_only_when_it_is_different() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let name = "analysts".parse()?;
    let (made, _) = bed.acme().put_grant(&name, &grant_spec()?).await?;
    let revision = bed.revision().await?;
    assert_eq!(bed.acme().put_grant(&name, &grant_spec()?).await?, (made.clone(), Put::Unchanged));
    assert_eq!(bed.revision().await?, revision);

    let spec = GrantSpec { level: Level::Write, ..grant_spec()? };
    let (changed, put) = bed.acme().put_grant(&name, &spec).await?;
    assert_eq!((put, changed.id, &changed.spec), (Put::Changed, made.id, &spec));
    assert_eq!(bed.acme().grants().await?, [changed]);
    assert!(bed.revision().await? > revision);
    Ok(())
}

#[tokio::test]
async fn grants_are_listed_by_name_and_removed_once() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (writers, _) = bed.acme().put_grant(&"writers".parse()?, &grant_spec()?).await?;
    let (admins, _) = bed.acme().put_grant(&"admins".parse()?, &grant_spec()?).await?;
    assert_eq!(bed.acme().grants().await?, [admins.clone(), writers.clone()]);

    assert!(bed.acme().remove_grant(writers.id).await?);
    let revision = bed.revision().await?;
    assert!(!bed.acme().remove_grant(writers.id).await?);
    assert_eq!(bed.revision().await?, revision);
    assert_eq!(bed.acme().grants().await?, [admins]);
    Ok(())
}

#[tokio::test]
async fn an_empty_list_never_means_everybody_or_everything() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let nobody = GrantSpec { groups: Vec::new(), ..grant_spec()? };
    let nothing = GrantSpec { allow: Vec::new(), ..grant_spec()? };
    for (spec, wanted) in
        [(nobody, "the list of groups must not be empty"), (nothing, "the list of allow patterns must not")]
    {
        let error = bed.acme().put_grant(&"analysts".parse()?, &spec).await.unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
    assert!(bed.acme().grants().await?.is_empty());
    Ok(())
}
