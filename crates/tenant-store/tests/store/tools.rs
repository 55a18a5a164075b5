//! Tools: stored byte for byte, named once, approved as their upstream's rule says.

use std::time::Duration;

use sea_orm::Value;
use tenant_store::{Digest, NewTool, OnToolChange, Replaced, StoreError, Tool, Upstream, UpstreamSpec};

use crate::support::{Bed, put_upstream, tool};

const ACCEPT: OnToolChange = OnToolChange::Accept;
const QUARANTINE: OnToolChange = OnToolChange::Quarantine;

/// A store in which `acme` has the upstream `jira`.
async fn with_upstream() -> anyhow::Result<(Bed, Upstream)> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    Ok((bed, upstream))
}

/// Stores `tools` as the list of `upstream`, which has that rule from now on.
async fn replace(bed: &Bed, upstream: &Upstream, tools: &[NewTool], on_change: OnToolChange) -> anyhow::Result<bool> {
    let spec = UpstreamSpec { on_tool_change: on_change, ..upstream.spec.clone() };
    let (upstream, _) = bed.acme().put_upstream(&upstream.slug, &spec).await?;
    Ok(bed.acme().replace_tools(&upstream, tools).await? == Replaced::Changed)
}

/// Local name, exposed name and whether the present definition is the approved one.
fn summary(tools: &[Tool]) -> Vec<(&str, &str, bool)> {
    tools.iter().map(|t| (t.local.as_str(), t.exposed.as_str(), t.approved == Some(t.digest))).collect()
}

#[tokio::test]
async fn definitions_survive_byte_for_byte() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let definitions = [
        r#"{"z":1,"a":2,"name":"odd order","a":3}"#,
        r#"{"n":123456789012345678901234567890,"f":1.50,"e":1E+2,"m":-0}"#,
        r#"{"u":"\u0061\u0000\ud800 é\/","s":"\\\""}"#,
        "{ \"white\" :\t[ 1 ,\n 2\r\n] }",
        r#""a string""#,
    ];
    let tools = definitions.iter().enumerate().map(|(n, text)| tool(&format!("t{n}"), &format!("acme__t{n}"), text));
    assert!(replace(&bed, &upstream, &tools.collect::<Result<Vec<_>, _>>()?, ACCEPT).await?);
    let stored = bed.acme().tools().await?;
    assert_eq!(stored.iter().map(|tool| tool.definition.get()).collect::<Vec<_>>(), definitions);
    for tool in &stored {
        assert_eq!(tool.digest, Digest::of(&tool.definition));
    }
    Ok(())
}

#[tokio::test]
async fn a_digest_is_the_sha_256_of_the_bytes() -> anyhow::Result<()> {
    let digest = Digest::of(&tool("a", "a", "{}")?.definition);
    assert_eq!(digest.to_string(), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    for text in ["", "44", "G4136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"] {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
    assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    Ok(())
}

#[tokio::test]
async fn tools_are_listed_by_upstream_and_then_as_the_upstream_does() -> anyhow::Result<()> {
    let (bed, jira) = with_upstream().await?;
    let earlier = put_upstream(&bed.acme(), "a-wiki").await?;
    replace(&bed, &jira, &[tool("z", "acme__z", "{}")?, tool("a", "acme__a", "{}")?], ACCEPT).await?;
    replace(&bed, &earlier, &[tool("m", "acme__m", "{}")?], ACCEPT).await?;
    let tools = bed.acme().tools().await?;
    assert_eq!(tools.iter().map(|tool| tool.local.as_str()).collect::<Vec<_>>(), ["m", "z", "a"]);
    assert_eq!(tools.iter().map(|tool| tool.position).collect::<Vec<_>>(), [0, 0, 1]);
    Ok(())
}

#[tokio::test]
async fn the_same_list_changes_nothing() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let tools = [tool("a", "acme__a", "{}")?, tool("b", "acme__b", "{}")?];
    assert!(replace(&bed, &upstream, &tools, QUARANTINE).await?);
    let revision = bed.revision().await?;
    assert!(!replace(&bed, &upstream, &tools, QUARANTINE).await?);
    assert_eq!(bed.revision().await?, revision);
    Ok(())
}

#[tokio::test]
async fn an_exposed_name_stays_once_assigned() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    replace(&bed, &upstream, &[tool("a", "acme__a", "{}")?], ACCEPT).await?;
    let again = [tool("a", "acme__other", r#"{"new":1}"#)?, tool("b", "acme__other", "{}")?];
    replace(&bed, &upstream, &again, ACCEPT).await?;
    assert_eq!(summary(&bed.acme().tools().await?), [("a", "acme__a", true), ("b", "acme__other", true)]);
    Ok(())
}

#[tokio::test]
async fn an_exposed_name_has_one_holder_in_a_tenant() -> anyhow::Result<()> {
    let (bed, jira) = with_upstream().await?;
    let wiki = put_upstream(&bed.acme(), "wiki").await?;
    replace(&bed, &jira, &[tool("a", "acme__a", "{}")?], ACCEPT).await?;
    let taken = [tool("x", "acme__a", "{}")?];
    let error = bed.acme().replace_tools(&wiki, &taken).await.unwrap_err();
    assert!(matches!(&error, StoreError::NameTaken(name) if name.as_str() == "acme__a"), "{error}");

    // Its holder is not listed any more, and still nobody takes its place.
    replace(&bed, &jira, &[], ACCEPT).await?;
    let error = bed.acme().replace_tools(&wiki, &taken).await.unwrap_err();
    assert!(matches!(&error, StoreError::NameTaken(_)), "{error}");
    let given = bed.acme().names_given().await?;
    assert_eq!(
        given.iter().map(|name| (name.local.as_str(), name.exposed.as_str())).collect::<Vec<_>>(),
        [("a", "acme__a")]
    );

    // It is free once the upstream is gone.
    assert!(bed.acme().remove_upstream(jira.id).await?);
    replace(&bed, &wiki, &taken, ACCEPT).await?;
    assert_eq!(summary(&bed.acme().tools().await?), [("x", "acme__a", true)]);
    Ok(())
}

#[tokio::test]
async fn a_list_that_was_asked_for_under_another_configuration_does_not_count() -> anyhow::Result<()> {
    let (bed, listed) = with_upstream().await?;
    replace(&bed, &listed, &[tool("a", "acme__a", r#"{"v":1}"#)?], QUARANTINE).await?;
    // It was asked while changes were accepted, and answers after that was over.
    let late = bed.acme().replace_tools(&listed, &[tool("a", "acme__a", r#"{"v":2}"#)?]).await?;
    assert_eq!(late, Replaced::Stale);
    assert_eq!(bed.acme().tools().await?[0].definition.get(), r#"{"v":1}"#);
    Ok(())
}

#[tokio::test]
async fn a_changed_definition_is_approved_again_only_where_changes_are_accepted() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let (old, new) = ([tool("a", "acme__a", r#"{"v":1}"#)?], [tool("a", "acme__a", r#"{"v":2}"#)?]);
    replace(&bed, &upstream, &old, QUARANTINE).await?;
    assert_eq!(summary(&bed.acme().tools().await?), [("a", "acme__a", true)]);

    assert!(replace(&bed, &upstream, &new, QUARANTINE).await?);
    let tools = bed.acme().tools().await?;
    assert_eq!(summary(&tools), [("a", "acme__a", false)]);
    assert_eq!((tools[0].definition.get(), tools[0].approved), (r#"{"v":2}"#, Some(Digest::of(&old[0].definition))));

    // The old definition is still the approved one.
    replace(&bed, &upstream, &old, QUARANTINE).await?;
    assert_eq!(summary(&bed.acme().tools().await?), [("a", "acme__a", true)]);

    replace(&bed, &upstream, &new, QUARANTINE).await?;
    assert!(replace(&bed, &upstream, &new, ACCEPT).await?);
    assert_eq!(summary(&bed.acme().tools().await?), [("a", "acme__a", true)]);
    Ok(())
}

#[tokio::test]
async fn another_order_alone_is_no_news_and_takes_no_turn() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let [a, b, c] = [tool("a", "acme__a", "{}")?, tool("b", "acme__b", "{}")?, tool("c", "acme__c", "{}")?];
    assert!(replace(&bed, &upstream, &[a.clone(), b.clone()], ACCEPT).await?);
    let writes = bed.begin().await?;
    let turned = bed.acme().replace_tools(&upstream, &[b.clone(), a.clone()]).await?;
    assert_eq!(turned, Replaced::Unchanged, "while somebody else writes");
    drop(writes);
    assert_eq!(summary(&bed.acme().tools().await?), [("a", "acme__a", true), ("b", "acme__b", true)]);
    // With news, the order is the upstream's.
    assert!(replace(&bed, &upstream, &[c, b, a], ACCEPT).await?);
    let tools = bed.acme().tools().await?;
    assert_eq!(tools.iter().map(|tool| tool.local.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    Ok(())
}

#[tokio::test]
async fn a_vanished_tool_is_not_listed() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    replace(&bed, &upstream, &[tool("a", "acme__a", "{}")?, tool("b", "acme__b", "{}")?], ACCEPT).await?;
    let revision = bed.revision().await?;
    assert!(replace(&bed, &upstream, &[tool("b", "acme__b", "{}")?], ACCEPT).await?);
    assert!(bed.revision().await? > revision);
    assert_eq!(summary(&bed.acme().tools().await?), [("b", "acme__b", true)]);
    assert!(!replace(&bed, &upstream, &[tool("b", "acme__b", "{}")?], ACCEPT).await?);
    Ok(())
}

#[tokio::test]
async fn going_and_coming_back_is_no_way_around_the_quarantine() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let (old, new) = ([tool("a", "acme__a", r#"{"v":1}"#)?], [tool("a", "acme__a", r#"{"v":2}"#)?]);
    replace(&bed, &upstream, &old, QUARANTINE).await?;
    bed.sql("UPDATE tool SET enabled = ?", vec![Value::from(false)]).await?;
    replace(&bed, &upstream, &[], QUARANTINE).await?;
    replace(&bed, &upstream, &new, QUARANTINE).await?;
    let tools = bed.acme().tools().await?;
    assert_eq!(summary(&tools), [("a", "acme__a", false)]);
    assert!(!tools[0].enabled, "it was switched off before it went");
    Ok(())
}

#[tokio::test]
async fn a_tool_that_comes_back_has_the_name_that_it_had() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    replace(&bed, &upstream, &[tool("a.b", "acme__a_b", "{}")?], ACCEPT).await?;
    replace(&bed, &upstream, &[], ACCEPT).await?;
    let list = [tool("a_b", "acme__a_b_abcdef", "{}")?, tool("a.b", "acme__a_b_012345", "{}")?];
    replace(&bed, &upstream, &list, ACCEPT).await?;
    assert_eq!(summary(&bed.acme().tools().await?), [("a_b", "acme__a_b_abcdef", true), ("a.b", "acme__a_b", true)]);
    Ok(())
}

#[tokio::test]
async fn a_list_with_a_tool_twice_is_refused() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let twice = [tool("a", "acme__a", "{}")?, tool("a", "acme__b", "{}")?];
    let error = bed.acme().replace_tools(&upstream, &twice).await.unwrap_err();
    assert_eq!(error.to_string(), "the tool `a` is in the list twice");
    assert!(bed.acme().tools().await?.is_empty());
    Ok(())
}

/// The most that an upstream may list; each of them differs from the lists of other rounds.
fn full_list(round: u32) -> anyhow::Result<Vec<NewTool>> {
    (0..10_000).map(|n| tool(&format!("r{round}-{n}"), &format!("r{round}-{n}"), "{}")).collect()
}

#[tokio::test]
async fn lists_and_the_memory_of_vanished_tools_have_an_end() -> anyhow::Result<()> {
    let (bed, upstream) = with_upstream().await?;
    let mut list = full_list(0)?;
    list.push(tool("one-more", "one-more", "{}")?);
    let error = bed.acme().replace_tools(&upstream, &list).await.unwrap_err();
    assert_eq!(error.to_string(), "a list of 10001 tools is longer than the 10000 that an upstream may have");

    for round in 0..3 {
        bed.away.clock.advance(Duration::from_mins(1));
        replace(&bed, &upstream, &full_list(round)?, ACCEPT).await?;
    }
    assert_eq!(bed.acme().tools().await?.len(), 10_000);
    // Of the 20,000 that are gone the later half is remembered.
    assert_eq!(bed.sql("DELETE FROM tool WHERE local LIKE 'r0-%'", vec![]).await?, 0);
    assert_eq!(bed.sql("DELETE FROM tool WHERE local LIKE 'r1-%'", vec![]).await?, 10_000);
    Ok(())
}

#[tokio::test]
async fn a_flood_of_new_tools_makes_nobody_forget_what_was_quarantined_or_switched_off() -> anyhow::Result<()> {
    for on_change in [ACCEPT, QUARANTINE] {
        let (bed, upstream) = with_upstream().await?;
        let (old, new) = ([tool("a", "acme__a", r#"{"v":1}"#)?], [tool("a", "acme__a", r#"{"v":2}"#)?]);
        replace(&bed, &upstream, &old, on_change).await?;
        bed.sql("UPDATE tool SET enabled = ?", vec![Value::from(false)]).await?;
        for round in 0..3 {
            bed.away.clock.advance(Duration::from_mins(1));
            replace(&bed, &upstream, &full_list(round)?, on_change).await?;
        }
        replace(&bed, &upstream, &new, on_change).await?;
        let tools = bed.acme().tools().await?;
        assert_eq!(summary(&tools), [("a", "acme__a", on_change == ACCEPT)]);
        assert!(!tools[0].enabled, "it was switched off before it went");
        assert!(bed.sql("DELETE FROM tool", vec![]).await? <= 20_001, "the memory has an end");
    }
    Ok(())
}
