//! What a change means for people, and what stops it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use proptest::prelude::*;
use tenant_store::{NewTool, Revision, Revoked, Store};

use super::{apply_all, apply_with, store};
use crate::caller::{Bounds, Caller, Principal};
use crate::catalog::{Face, Snapshot};
use crate::manifest::{Became, Effect, Kind, Named, Options, delete};
use crate::policy::Administration;

const COMPANIES: &str = include_str!("../../../../../examples/access/companies.yaml");
const TESTS: &str = include_str!("../../../../../examples/access/tests.yaml");
const MISTAKE: &str = include_str!("../../../../../examples/access/mistake.yaml");

/// What an upstream of that tenant lists from now on: names, of which those that begin with `search` only look.
async fn list(store: &Store, tenant: &str, upstream: &str, names: &[&str]) -> Result<()> {
    let id = store.find_tenant(&tenant.parse()?).await?.context("the tenant")?.id;
    let rows = store.tenant(Administration::of_test().scope(id));
    let upstream = rows.find_upstream(&upstream.parse()?).await?.context("the upstream")?;
    let tool = |name: &&str| {
        let look = if name.starts_with("search") { r#","annotations":{"readOnlyHint":true}"# } else { "" };
        let definition = format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}{look}}}"#);
        anyhow::Ok(NewTool {
            local: name.parse()?,
            exposed: format!("{tenant}__{name}").parse()?,
            definition: serde_json::value::RawValue::from_string(definition)?,
            looks_like_another: false,
        })
    };
    let tools = names.iter().map(tool).collect::<Result<Vec<_>>>()?;
    rows.replace_tools(&upstream, &tools).await?;
    Ok(())
}

/// The companies of the example, and what their servers list.
async fn companies() -> Result<Store> {
    let store = store().await?;
    apply_all(&store, &[COMPANIES]).await?;
    list(&store, "acme", "jira", &["search_issues", "create_issue"]).await?;
    list(&store, "globex", "wiki", &["search_pages", "write_page"]).await?;
    Ok(store)
}

#[tokio::test]
async fn a_change_says_who_gains_and_who_loses_what() -> Result<()> {
    let store = companies().await?;
    let dry = Options { dry_run: true, ..Options::default() };
    let revision = store.revision().await?;
    assert_snapshot!(apply_with(&store, &[MISTAKE], dry).await?, @r#"
    changed    Grant       acme/analysts
    in acme, group globex-staff of corp, whom no grant covered there
      + tool acme__search_issues
    0 created, 1 changed, 0 unchanged; nothing was applied, revision 3 was looked at
    "#);
    let denies = COMPANIES.replace(
        "groups: [acme-analysts], level: read, tools: { allow: [\"*\"] }",
        "groups: [acme-editors], subjects: [\"00u1\"], level: write, tools: { allow: [\"*\"], deny: [\"search*\"] }",
    );
    assert_snapshot!(apply_with(&store, &[&denies], dry).await?, @r#"
    unchanged  Tenant      acme
    unchanged  Tenant      globex
    unchanged  Upstream    acme/jira
    unchanged  Upstream    globex/wiki
    changed    Grant       acme/analysts
    unchanged  Grant       globex/staff
    in acme, group acme-analysts of corp, whom no grant covers there any more
      - tool acme__search_issues
    in acme, group acme-editors of corp, whom no grant covered there
      + tool acme__create_issue
      ! tool acme__search_issues: denied, whatever other grants allow
    in acme, 00u1 of corp, whom no grant covered there
      + tool acme__create_issue
      ! tool acme__search_issues: denied, whatever other grants allow
    0 created, 1 changed, 5 unchanged; nothing was applied, revision 3 was looked at
    "#);
    assert_eq!(store.revision().await?, revision, "nothing was applied");
    Ok(())
}

#[tokio::test]
async fn a_change_that_breaks_an_access_test_is_not_applied() -> Result<()> {
    let store = companies().await?;
    assert_snapshot!(apply_all(&store, &[TESTS]).await?, @r#"
    created    AccessTest  acme/analysts-only-look
    created    AccessTest  globex/staff-stay-at-home
    2 access tests: none fails
    2 created, 0 changed, 0 unchanged; revision 4
    "#);
    let revision = store.revision().await?;
    assert_snapshot!(apply_all(&store, &[MISTAKE]).await.unwrap_err(), @r#"
    what these manifests say breaks access tests:
      globex/staff-stay-at-home: they must not be able to use `acme__*`, and can use `acme__search_issues` by grant analysts
    "#);
    let demoted =
        COMPANIES.replace("allow: [\"*\"] }", "allow: [\"create*\"] }").replace("level: read", "level: write");
    assert_snapshot!(apply_all(&store, &[&demoted]).await.unwrap_err(), @r#"
    what these manifests say breaks access tests:
      acme/analysts-only-look: they must be able to use `acme__search_issues`, and cannot
      acme/analysts-only-look: they must not be able to use `acme__create_issue`, and can use `acme__create_issue` by grant analysts
    "#);
    assert_eq!(store.revision().await?, revision);
    Ok(())
}

#[tokio::test]
async fn what_is_not_listed_yet_is_covered_by_tests_of_whole_tenants() -> Result<()> {
    let store = store().await?;
    assert_snapshot!(apply_all(&store, &[COMPANIES, TESTS]).await?.to_string().lines().last().unwrap_or_default(), @"8 created, 0 changed, 0 unchanged; revision 1");
    assert_snapshot!(apply_all(&store, &[MISTAKE]).await.unwrap_err(), @r#"
    what these manifests say breaks access tests:
      globex/staff-stay-at-home: they must not be able to use `acme__*`, and a grant in tenant acme covers them
    "#);
    Ok(())
}

#[tokio::test]
async fn what_failed_before_keeps_nobody_from_taking_access_away() -> Result<()> {
    let store = companies().await?;
    apply_all(&store, &[TESTS]).await?;
    // The upstream lists something else than it did.
    list(&store, "acme", "jira", &["create_issue"]).await?;
    let staff = &"globex".parse()?;
    let report = delete(&store, (Kind::Grant, staff, "staff"), Administration::of_test()).await?.context("a grant")?;
    assert_eq!(report.tests.already.len(), 1, "{report}");
    assert!(report.to_string().contains("and there is no such thing; so it was before"), "{report}");
    assert!(apply_all(&store, &[MISTAKE]).await.is_err(), "what is worse than before is refused");
    Ok(())
}

#[tokio::test]
async fn what_is_revoked_hides_no_mistake() -> Result<()> {
    let store = companies().await?;
    apply_all(&store, &[TESTS]).await?;
    let acme = store.find_tenant(&"acme".parse()?).await?.context("acme")?.id;
    let group = Revoked::Group { issuer: "corp".parse()?, group: "globex-staff".parse()? };
    for what in [Revoked::Tenant { tenant: acme }, group] {
        store.revoke(&what, "a test").await?;
        assert!(apply_all(&store, &[MISTAKE]).await.is_err(), "{what:?}");
        store.reinstate(&what).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_revoked_upstream_is_not_taken_away() -> Result<()> {
    let store = companies().await?;
    let tenant = store.find_tenant(&"globex".parse()?).await?.context("globex")?;
    let rows = store.tenant(Administration::of_test().scope(tenant.id));
    let upstream = rows.find_upstream(&"wiki".parse()?).await?.context("wiki")?.id;
    let what = Revoked::Upstream { tenant: tenant.id, upstream };
    store.revoke(&what, "a test").await?;
    let (acme, _) = COMPANIES.split_once("---\nkind: Tenant").unwrap_or_default();
    let prune = Options { prune: true, ..Options::default() };
    let error = apply_with(&store, &[acme], prune).await.unwrap_err().to_string();
    assert!(error.starts_with("upstream `globex/wiki`, or a tool of it, is revoked"), "{error}");
    assert!(delete(&store, (Kind::Upstream, &tenant.slug, "wiki"), Administration::of_test()).await.is_err());
    store.reinstate(&what).await?;
    apply_with(&store, &[acme], prune).await?;
    Ok(())
}

#[tokio::test]
async fn only_what_the_same_manager_managed_is_taken_away() -> Result<()> {
    let store = companies().await?;
    let own = "apiVersion: mcp-mux/v1\nkind: Grant\nmetadata: { tenant: acme, name: own }\n\
               spec: { issuer: corp, groups: [g], level: read, tools: { allow: [\"*\"] } }\n";
    let theirs = own.replace("name: own", "name: theirs, managedBy: acme-team");
    apply_all(&store, &[own, &theirs]).await?;
    let (acme, globex) = COMPANIES.split_once("---\nkind: Tenant").unwrap_or_default();
    assert!(!globex.is_empty());
    let prune = Options { prune: true, ..Options::default() };
    let report = apply_with(&store, &[acme], prune).await?;
    let removed: Vec<_> = report.applied.iter().filter(|applied| applied.became == Became::Removed).collect();
    let names: Vec<_> = removed.iter().map(|applied| applied.name.as_str()).collect();
    assert_eq!((names, &report.kept), (vec!["globex/staff", "globex/wiki"], &vec!["globex".to_owned()]));

    let error = apply_with(&store, &[own], prune).await.unwrap_err();
    assert_snapshot!(error, @"`--prune` takes away what the same manager managed before: say `managedBy` under `metadata` of each document");
    let unnamed = theirs.replace(", managedBy: acme-team", "");
    assert_snapshot!(apply_all(&store, &[&unnamed]).await.unwrap_err(), @"one.yaml:3:33: `metadata.managedBy`: `acme-team` manages this already: leave it to them, or take it over with `--take-over`");
    let taken = theirs.replace("acme-team", "platform");
    assert_snapshot!(apply_all(&store, &[&taken]).await.unwrap_err(), @"one.yaml:3:33: `metadata.managedBy`: `acme-team` manages this already: leave it to them, or take it over with `--take-over`");
    let over = apply_with(&store, &[&taken], Options { take_over: true, ..Options::default() }).await?;
    assert!(over.is_a_change() && over.revision > report.revision, "{over}");
    let report = apply_with(&store, &[acme], prune).await?;
    assert!(report.to_string().contains("removed    Grant       acme/theirs"), "{report}");
    Ok(())
}

#[tokio::test]
async fn what_changed_since_somebody_looked_is_not_written_over() -> Result<()> {
    let store = companies().await?;
    let looked_at = apply_with(&store, &[MISTAKE], Options { dry_run: true, ..Options::default() }).await?.revision;
    let then = Options { if_revision: Some(looked_at), ..Options::default() };
    apply_with(&store, &[MISTAKE], then).await?;
    let error = apply_with(&store, &[COMPANIES], then).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the configuration is at revision {}, and not at {looked_at}: somebody changed it meanwhile; look at `mcp-mux diff` again",
            Revision(looked_at.0 + 1)
        )
    );
    Ok(())
}

/// A grant of the property test: to which groups, which level, which patterns.
type Given = (BTreeSet<usize>, bool, usize, Option<usize>);

const GROUPS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["search_issues", "search_pages", "create_issue"];
const PATTERNS: [&str; 4] = ["*", "search*", "*issue*", "create_issue"];

fn grants() -> impl Strategy<Value = Vec<Given>> {
    let groups = proptest::collection::btree_set(0..GROUPS.len(), 1..3);
    let grant = (groups, any::<bool>(), 0..PATTERNS.len(), proptest::option::of(0..PATTERNS.len()));
    proptest::collection::vec(grant, 0..4)
}

fn manifest(grants: &[Given]) -> String {
    let mut text =
        "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme, managedBy: test }\nspec: {}\n".to_owned();
    text += "---\nkind: Upstream\nmetadata: { tenant: acme, name: jira, managedBy: test }\nspec: { http: { url: https://a.example }, auth: none }\n";
    for (number, (groups, writes, allow, deny)) in grants.iter().enumerate() {
        let groups: Vec<_> = groups.iter().filter_map(|group| GROUPS.get(*group)).collect();
        let level = if *writes { "write" } else { "read" };
        let deny = deny.map_or_else(String::new, |deny| format!(", deny: [\"{}\"]", PATTERNS[deny]));
        write!(
            text,
            "---\nkind: Grant\nmetadata: {{ tenant: acme, name: g{number}, managedBy: test }}\n\
             spec: {{ issuer: corp, groups: {groups:?}, level: {level}, tools: {{ allow: [\"{}\"]{deny} }} }}\n",
            PATTERNS[*allow]
        )
        .unwrap();
    }
    text
}

/// What somebody in these groups is shown.
async fn shown(store: &Store, groups: &[usize]) -> Result<BTreeSet<String>> {
    let snapshot = Snapshot::load(store, Administration::of_test()).await?;
    let principal = Principal { issuer: "corp".parse()?, subject: "s".parse()? };
    let groups = groups.iter().map(|group| GROUPS[*group].parse()).collect::<Result<Vec<_>, _>>()?;
    let caller = Caller::supposed(principal, groups.into(), Bounds::Everything);
    let reach = snapshot.grants().reach(&caller);
    Ok(snapshot.view(Face::Aggregate, &reach).tools.names().map(ToOwned::to_owned).collect())
}

/// What a group of the test has: what it allows by itself, and what it denies.
type Has = (BTreeSet<String>, BTreeSet<String>);

/// Follows what a report says of a group.
fn follow((allowed, denied): &mut Has, effect: &Effect) {
    for thing in &effect.lost {
        assert!(allowed.remove(&thing.name), "{effect} takes what was not there");
    }
    for thing in &effect.undenied {
        assert!(denied.remove(&thing.name), "{effect} takes what was not there");
    }
    allowed.extend(effect.gained.iter().map(|thing| thing.name.clone()));
    denied.extend(effect.denied.iter().map(|thing| thing.name.clone()));
}

async fn effects_tell_what_anybody_is_shown(rounds: &[Vec<Given>]) -> Result<()> {
    let store = store().await?;
    let mut has: [Has; 3] = Default::default();
    apply_all(&store, &[&manifest(&[])]).await?;
    list(&store, "acme", "jira", &NAMES).await?;
    for grants in rounds {
        let report = apply_with(&store, &[&manifest(grants)], Options { prune: true, ..Options::default() }).await?;
        for effect in &report.effects {
            let Named::Group(group) = &effect.whom.named else { anyhow::bail!("{effect}") };
            let index = GROUPS.iter().position(|known| *known == group.as_str()).context("a group")?;
            follow(&mut has[index], effect);
        }
        for groups in [vec![0], vec![1], vec![2], vec![0, 1], vec![1, 2], vec![0, 2], vec![0, 1, 2]] {
            let allowed: BTreeSet<String> = groups.iter().flat_map(|group| has[*group].0.clone()).collect();
            let denied: BTreeSet<String> = groups.iter().flat_map(|group| has[*group].1.clone()).collect();
            let told: BTreeSet<String> = allowed.difference(&denied).cloned().collect();
            assert_eq!(shown(&store, &groups).await?, told, "{groups:?} after {report}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn gains_losses_and_denials_say_what_people_in_any_groups_are_shown(rounds in proptest::collection::vec(grants(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(effects_tell_what_anybody_is_shown(&rounds)).unwrap();
    }
}
