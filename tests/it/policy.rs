//! What grants, classes, approvals and switches do to the tools of a running server: to the list and to the call alike.

use anyhow::{Context as _, Result};
use serde_json::json;
use tenant_store::{GrantSpec, Level, OnToolChange, ToolClass, UpstreamSpec};

use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const TOOLS: &str = r#"[
    {"name":"search","inputSchema":{},"annotations":{"readOnlyHint":true}},
    {"name":"export.all","inputSchema":{},"annotations":{"readOnlyHint":true}},
    {"name":"change","inputSchema":{}}
]"#;

/// A server whose tenant `acme` has three tools, and the upstream that offers them.
async fn acme(name: &str, level: Level) -> Result<(TestServer, ByteUpstream)> {
    let upstream = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result(r#"{"content":[]}"#.to_owned()));
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level };
    Ok((TestServer::start(name, &[setup]).await?, upstream))
}

/// What alice is shown; that and nothing else can be called.
async fn shown(server: &TestServer) -> Result<Vec<String>> {
    let alice = server.client("alice", &["acme"])?;
    let shown = alice.tools().await?;
    for tool in ["acme__search", "acme__export_all", "acme__change"] {
        let answer = alice.call(tool, json!({})).await?;
        let listed = shown.iter().any(|name| name == tool);
        assert_eq!(answer.get("result").is_some(), listed, "{tool}: {answer}");
        assert_eq!(answer["error"]["code"] == -32602, !listed, "{tool}: {answer}");
    }
    Ok(shown)
}

/// Changes acme's upstream.
async fn configure(server: &TestServer, change: impl FnOnce(&mut UpstreamSpec)) -> Result<()> {
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("acme has it")?;
    let mut spec = upstream.spec;
    change(&mut spec);
    rows.put_upstream(&upstream.slug, &spec).await?;
    Ok(server.app.follow().await?)
}

#[tokio::test]
async fn a_denial_of_another_grant_wins_under_whichever_name() -> Result<()> {
    for (pattern, denied) in
        [("EXPORT*", "acme__export_all"), ("export_all", "acme__export_all"), ("acme__search", "acme__search")]
    {
        let (server, _) = acme("denial", Level::Write).await?;
        assert_eq!(shown(&server).await?.len(), 3);
        let denial = GrantSpec {
            issuer: "corp".parse()?,
            groups: Vec::new(),
            subjects: vec!["alice".parse()?],
            level: Level::Read,
            allow: vec!["nothing".parse()?],
            deny: vec![pattern.parse()?],
        };
        server.rows("acme").await?.put_grant(&"not-alice".parse()?, &denial).await?;
        server.app.follow().await?;
        assert!(!shown(&server).await?.iter().any(|name| name == denied), "{pattern}");
    }
    Ok(())
}

#[tokio::test]
async fn the_operators_class_counts_more_than_the_upstreams_hint() -> Result<()> {
    let (server, _) = acme("classes", Level::Read).await?;
    assert_eq!(shown(&server).await?, ["acme__search", "acme__export_all"]);
    let classes = [("search".parse()?, ToolClass::Admin), ("change".parse()?, ToolClass::Read)];
    configure(&server, |spec| spec.classes = classes.into()).await?;
    assert_eq!(shown(&server).await?, ["acme__export_all", "acme__change"]);
    // By the name that clients see, too.
    let classes = [("acme__export_all".parse()?, ToolClass::Admin)];
    configure(&server, |spec| spec.classes = classes.into()).await?;
    assert_eq!(shown(&server).await?, ["acme__search"]);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_is_switched_off_has_no_tools() -> Result<()> {
    let (server, _) = acme("switched_off", Level::Write).await?;
    configure(&server, |spec| spec.enabled = false).await?;
    assert!(shown(&server).await?.is_empty());
    configure(&server, |spec| spec.enabled = true).await?;
    assert_eq!(shown(&server).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_tool_whose_definition_changed_is_hidden_where_changes_are_quarantined() -> Result<()> {
    for (rule, hidden) in [(OnToolChange::Quarantine, true), (OnToolChange::Accept, false)] {
        let (server, upstream) = acme("quarantined", Level::Write).await?;
        configure(&server, |spec| spec.on_tool_change = rule).await?;
        let turned = TOOLS.replace(r#""name":"change","#, r#""name":"change","description":"now does more","#);
        upstream.says("tools/list", Say::Result(format!("{{\"resultType\":\"complete\",\"tools\":{turned}}}")));
        server.app.refresher().refresh_all().await;
        assert_eq!(shown(&server).await?.len(), if hidden { 2 } else { 3 });
        upstream.says("tools/list", Say::Result(format!("{{\"resultType\":\"complete\",\"tools\":{TOOLS}}}")));
        server.app.refresher().refresh_all().await;
        assert_eq!(shown(&server).await?.len(), 3, "what was approved is back");
    }
    Ok(())
}

#[tokio::test]
async fn a_tenant_with_an_unreadable_row_is_not_served_and_costs_nobody_else_anything() -> Result<()> {
    let (server, _) = acme("unreadable", Level::Write).await?;
    let (url, _) = ByteUpstream::with_tools(TOOLS).serve().await?;
    let globex = Setup { tenant: "globex", upstream: "desk", url: &url, key: None, level: Level::Write };
    crate::support::server::install(server.app.store(), &globex).await?;
    server.app.refresher().refresh_all().await;
    server.alter("UPDATE tool SET digest = 'broken' WHERE exposed = 'acme__search'").await?;

    // A grant is taken away elsewhere at the same time, and that is followed all the same.
    let rows = server.rows("globex").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    server.app.follow().await?;
    assert!(server.client("carol", &["acme", "globex"])?.tools().await?.is_empty());
    assert!(server.logged()?.contains("a tenant's rows are unreadable"));
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_somebody_deletes_is_gone_and_its_name_opens_nothing_of_it() -> Result<()> {
    let (server, _) = acme("policy_deleted_tenant", Level::Write).await?;
    let alice = server.client("alice", &["acme"])?;
    assert!(alice.tools().await?.contains(&"acme__search".to_owned()));
    server.alter("DELETE FROM tenant WHERE slug = 'acme'").await?;
    // Its name is another company's now, and that is how the server hears of anything.
    let other = ByteUpstream::with_tools(r#"[{"name":"other","inputSchema":{}}]"#);
    let (url, _) = other.on("tools/call", Say::Result(r#"{"content":[]}"#.to_owned())).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, tenant_store::UpstreamAuth::None, &[]).await?;
    assert_eq!(alice.tools().await?, ["acme__other"]);
    assert_eq!(alice.call("acme__search", json!({})).await?["error"]["code"], -32602);
    Ok(())
}
