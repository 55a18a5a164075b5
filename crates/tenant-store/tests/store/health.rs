//! How upstreams fared.

use std::time::Duration;

use crate::support::{Bed, put_upstream};

#[tokio::test]
async fn how_an_upstream_fares_is_remembered_and_is_no_change_of_configuration() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let jira = put_upstream(&bed.acme(), "jira").await?;
    let before = bed.revision().await?;
    assert!(bed.acme().health().await?.is_empty());

    bed.acme().note_health(jira.id, Some("the upstream answered 503")).await?;
    let failing = bed.acme().health().await?;
    assert_eq!(failing.len(), 1);
    let failure = failing[0].failure.clone().ok_or_else(|| anyhow::anyhow!("it fails"))?;
    assert_eq!((failure.since, failure.error.as_str()), (failing[0].asked_at, "the upstream answered 503"));
    assert_eq!(failing[0].listed_at, None);

    bed.away.clock.advance(Duration::from_mins(1));
    bed.acme().note_health(jira.id, Some(&"é".repeat(2_000))).await?;
    let still = bed.acme().health().await?;
    let other = still[0].failure.clone().ok_or_else(|| anyhow::anyhow!("it fails"))?;
    assert_eq!(
        (other.since, other.error.chars().count()),
        (failure.since, 500),
        "since it began, with what it says now"
    );

    bed.away.clock.advance(Duration::from_mins(1));
    bed.acme().note_health(jira.id, None).await?;
    let well = bed.acme().health().await?;
    assert_eq!((well[0].listed_at, &well[0].failure), (Some(well[0].asked_at), &None));
    assert!(well[0].asked_at > still[0].asked_at);
    assert_eq!(bed.revision().await?, before);
    Ok(())
}

#[tokio::test]
async fn it_is_its_tenants_own_and_goes_with_the_upstream() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let jira = put_upstream(&bed.acme(), "jira").await?;
    // Not another tenant's to say, nor to see.
    bed.globex().note_health(jira.id, Some("nobody's")).await?;
    assert!(bed.acme().health().await?.is_empty() && bed.globex().health().await?.is_empty());
    bed.acme().note_health(jira.id, None).await?;
    assert!(bed.globex().health().await?.is_empty());
    bed.acme().remove_upstream(jira.id).await?;
    bed.acme().note_health(jira.id, None).await?;
    assert!(bed.acme().health().await?.is_empty());
    Ok(())
}
