//! Reviewing tools: what waits, what was approved before, and a word that is about one definition only.

use tenant_store::{
    NewTool, OnNewTool, OnToolChange, Pin, Replaced, StoreError, Tool, Upstream, UpstreamSpec, Waiting,
};

use crate::support::{Bed, put_upstream, tool, upstream_spec};

const OLD: &str = r#"{"name":"a","description":"old","inputSchema":{"type":"object","properties":{"x":{},"y":{}}}}"#;
const NEW: &str = r#"{"name":"a","description":"new","inputSchema":{"type":"object","properties":{"x":{},"y":{}}}}"#;
/// The old one in another order, with other icons and other notes for programs.
const TURNED: &str = r#"{"icons":[{"src":"https://a.example"}],"inputSchema":{"properties":{"y":{},"x":{}},"type":"object"},"description":"old","_meta":{"version":2},"name":"a"}"#;

/// A store in which `acme` has the upstream `jira`, which has these rules.
async fn with_rules(on_change: OnToolChange, on_new: OnNewTool) -> anyhow::Result<(Bed, Upstream)> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    let upstream = ruled(&bed, &upstream, on_change, on_new).await?;
    Ok((bed, upstream))
}

async fn ruled(
    bed: &Bed,
    upstream: &Upstream,
    on_tool_change: OnToolChange,
    on_new_tool: OnNewTool,
) -> anyhow::Result<Upstream> {
    let spec = UpstreamSpec { on_tool_change, on_new_tool, ..upstream_spec()? };
    Ok(bed.acme().put_upstream(&upstream.slug, &spec).await?.0)
}

fn a(definition: &str) -> anyhow::Result<Vec<NewTool>> {
    Ok(vec![tool("a", "acme__a", definition)?])
}

fn is_usable(tool: &Tool) -> bool {
    tool.approved == Some(tool.digest)
}

async fn the_only_waiting(bed: &Bed) -> anyhow::Result<Waiting> {
    let waiting: [Waiting; 1] =
        bed.acme().waiting_tools().await?.try_into().map_err(|all| anyhow::anyhow!("not one: {all:?}"))?;
    let [waiting] = waiting;
    Ok(waiting)
}

#[tokio::test]
async fn another_order_of_members_is_no_change() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Quarantine, OnNewTool::Accept).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    let turned =
        r#"{"description":"old","inputSchema":{"properties":{"y":{},"x":{}},"type":"object"},"name":"\u0061"}"#;
    assert_eq!(bed.acme().replace_tools(&upstream, &a(turned)?).await?, Replaced::Unchanged);
    // What else it says is taken over, and is nothing that anybody has to look at.
    assert_eq!(bed.acme().replace_tools(&upstream, &a(TURNED)?).await?, Replaced::Changed);
    let [tool] = &bed.acme().tools().await?[..] else { anyhow::bail!("not one") };
    assert_eq!(tool.definition.get(), TURNED);
    assert!(is_usable(tool) && bed.acme().waiting_tools().await?.is_empty());
    // Nor is it with news besides, which bring the order along.
    let both = [tool_list("b", "{}")?, a(turned)?].concat();
    assert_eq!(bed.acme().replace_tools(&upstream, &both).await?, Replaced::Changed);
    assert!(bed.acme().tools().await?.iter().all(is_usable));
    Ok(())
}

fn tool_list(name: &str, definition: &str) -> anyhow::Result<Vec<NewTool>> {
    Ok(vec![tool(name, &format!("acme__{name}"), definition)?])
}

#[tokio::test]
async fn what_was_approved_is_kept_beside_what_is_listed_now() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Quarantine, OnNewTool::Accept).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    for definition in [NEW, r#"{"name":"a","description":"newer","inputSchema":{}}"#] {
        bed.acme().replace_tools(&upstream, &a(definition)?).await?;
        let waiting = the_only_waiting(&bed).await?;
        assert_eq!(waiting.tool.definition.get(), definition);
        assert_eq!(waiting.approved_definition.map(|old| old.get().to_owned()).as_deref(), Some(OLD));
    }
    // The approved one is back, in another order.
    bed.acme().replace_tools(&upstream, &a(TURNED)?).await?;
    assert!(bed.acme().waiting_tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn removing_and_adding_again_changes_nothing_about_what_was_approved() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Quarantine, OnNewTool::Accept).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    bed.acme().replace_tools(&upstream, &[]).await?;
    bed.acme().replace_tools(&upstream, &a(NEW)?).await?;
    let waiting = the_only_waiting(&bed).await?;
    assert_eq!(waiting.approved_definition.map(|old| old.get().to_owned()).as_deref(), Some(OLD));
    // It goes while it waits, and comes back as it was.
    bed.acme().replace_tools(&upstream, &[]).await?;
    bed.acme().replace_tools(&upstream, &a(TURNED)?).await?;
    assert!(bed.acme().tools().await?.iter().all(is_usable));
    Ok(())
}

#[tokio::test]
async fn an_approval_is_about_the_definition_that_was_reviewed() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Quarantine, OnNewTool::Accept).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    bed.acme().replace_tools(&upstream, &a(NEW)?).await?;
    let reviewed = the_only_waiting(&bed).await?;
    bed.acme().replace_tools(&upstream, &a(&NEW.replace("new", "worse"))?).await?;
    let local = &reviewed.tool.local;
    let now = the_only_waiting(&bed).await?.pin;
    for error in [
        bed.acme().approve_tool(upstream.id, local, reviewed.pin).await.unwrap_err(),
        bed.acme().reject_tool(upstream.id, local, reviewed.pin).await.unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::OtherDefinition { pin, .. } if *pin == now), "{error}");
    }
    assert!(!bed.acme().tools().await?.iter().any(is_usable));

    let revision = bed.revision().await?;
    assert!(bed.acme().approve_tool(upstream.id, local, now).await?);
    assert!(bed.acme().tools().await?.iter().all(is_usable));
    assert_eq!(bed.revision().await?.0, revision.0 + 1);
    assert!(!bed.acme().approve_tool(upstream.id, local, now).await?, "it is approved already");
    // And the one before it is not, any more.
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    assert!(!bed.acme().tools().await?.iter().any(is_usable));
    Ok(())
}

#[tokio::test]
async fn a_new_tool_waits_where_new_ones_are_quarantined() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Accept, OnNewTool::Quarantine).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    let waiting = the_only_waiting(&bed).await?;
    assert_eq!((waiting.tool.approved, waiting.approved_definition.is_none()), (None, true));
    // Neither changing nor going and coming back approves it.
    bed.acme().replace_tools(&upstream, &a(NEW)?).await?;
    bed.acme().replace_tools(&upstream, &[]).await?;
    bed.acme().replace_tools(&upstream, &a(NEW)?).await?;
    let waiting = the_only_waiting(&bed).await?;
    assert!(bed.acme().approve_tool(upstream.id, &waiting.tool.local, waiting.pin).await?);
    // From then on the rule for changes is good for it.
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    assert!(bed.acme().tools().await?.iter().all(is_usable));
    Ok(())
}

#[tokio::test]
async fn what_looks_like_another_waits_whatever_the_rule_is() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Accept, OnNewTool::Accept).await?;
    let alike = |name: &str| anyhow::Ok(NewTool { looks_like_another: true, ..tool(name, name, "{}")? });
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    // What is known already is known by its name.
    let known = NewTool { looks_like_another: true, ..a(OLD)?.remove(0) };
    bed.acme().replace_tools(&upstream, &[known, alike("A")?]).await?;
    assert_eq!(the_only_waiting(&bed).await?.tool.local.as_str(), "A");
    Ok(())
}

#[tokio::test]
async fn what_was_rejected_stays_hidden_whatever_the_rules_become() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Quarantine, OnNewTool::Accept).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    let [tool] = &bed.acme().tools().await?[..] else { anyhow::bail!("not one") };
    let error = bed.acme().reject_tool(upstream.id, &tool.local, Pin::of(&tool.definition)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotWaiting(_)), "{error}");

    bed.acme().replace_tools(&upstream, &a(NEW)?).await?;
    let waiting = the_only_waiting(&bed).await?;
    assert!(bed.acme().reject_tool(upstream.id, &waiting.tool.local, waiting.pin).await?);
    assert!(!bed.acme().reject_tool(upstream.id, &waiting.tool.local, waiting.pin).await?);
    let upstream = ruled(&bed, &upstream, OnToolChange::Accept, OnNewTool::Accept).await?;
    for list in [a(NEW)?, Vec::new(), a(NEW)?] {
        bed.acme().replace_tools(&upstream, &list).await?;
        assert!(!bed.acme().tools().await?.iter().any(is_usable));
    }
    assert!(the_only_waiting(&bed).await?.is_rejected);
    // Another definition is another matter.
    bed.acme().replace_tools(&upstream, &a(&NEW.replace("new", "newer"))?).await?;
    assert!(bed.acme().tools().await?.iter().all(is_usable));
    Ok(())
}

#[tokio::test]
async fn nobody_approves_another_tenants_tool() -> anyhow::Result<()> {
    let (bed, upstream) = with_rules(OnToolChange::Accept, OnNewTool::Quarantine).await?;
    bed.acme().replace_tools(&upstream, &a(OLD)?).await?;
    let waiting = the_only_waiting(&bed).await?;
    let globex = bed.globex();
    assert!(globex.waiting_tools().await?.is_empty());
    let error = globex.approve_tool(upstream.id, &waiting.tool.local, waiting.pin).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert!(!bed.acme().tools().await?.iter().any(is_usable));
    Ok(())
}
