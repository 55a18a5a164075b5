//! The audit record when its beginning is deleted because its time is over: what remains is checked and exported as before.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mcp_mux::App;
use mcp_mux::audit::{Administered, Event, Pruned, Pruning, What, Wrong, record_once};
use mcp_mux::policy::Administration;
use serde_json::Value;
use tempfile::TempDir;
use tenant_store::{AuditChain, Clock as _, ManualClock, Store, SystemClock, Timestamp};
use tokio::time::timeout;

use crate::audit::{
    Left, PATIENCE, altered, checked, events, exported, found_after, of, signer, stopped, two_tenants, verified, wrong,
};
use crate::support::server::{rows, scope};

const DAY: Duration = Duration::from_hours(24);

/// So many days ago.
fn ago(days: u32) -> Timestamp {
    let ago_ms = i64::try_from((DAY * days).as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(SystemClock.now().as_millis() - ago_ms)
}

/// What somebody did so many days ago, in each of these records.
async fn done(store: &Store, days: u32, chains: &[(AuditChain, usize)]) -> Result<()> {
    let at = ago(days);
    let event = |chain: AuditChain| {
        let (operator, name) = ("somebody".to_owned(), format!("{days} days ago"));
        let what = Administered { operator, action: "apply", kind: "upstream", name, became: None, revision: None };
        Event { at, chain, what: What::Administration(what) }
    };
    let events = chains.iter().flat_map(|(chain, count)| (0..*count).map(|_| event(*chain))).collect();
    record_once(store, Arc::new(ManualClock::at(at)), events).await?;
    Ok(())
}

/// A server's record with something in it from 90, from 40 and from 20 days ago.
async fn old_record(name: &str) -> Result<(Left, [AuditChain; 2])> {
    let server = two_tenants(name).await?;
    server.client("carol", &["acme", "globex"])?.call("acme__whoami", serde_json::json!({})).await?;
    let left = stopped(server).await?;
    let mut chains = [AuditChain::Platform; 2];
    for (chain, tenant) in chains.iter_mut().zip(["acme", "globex"]) {
        *chain = AuditChain::Tenant(scope(rows(&left.store, tenant).await?.id()));
    }
    let [acme, globex] = chains;
    done(&left.store, 90, &[(acme, 2), (globex, 1)]).await?;
    done(&left.store, 40, &[(acme, 2_500), (AuditChain::Platform, 1)]).await?;
    done(&left.store, 20, &[(acme, 3), (globex, 2), (AuditChain::Platform, 1)]).await?;
    ensure!(wrong(&left.store).await?.is_empty());
    Ok((left, chains))
}

#[expect(clippy::disallowed_methods, reason = "a test prunes as an operator would")]
async fn pruned(store: &Store, days: u32, is_dry: bool) -> Result<Pruned> {
    let signer = signer(store).await?;
    let (mut pruned, administration) = (Pruned::default(), Administration::for_the_platform());
    Pruning::new((store, &signer), administration, ago(days), &mut pruned).dry(is_dry).run().await;
    ensure!(pruned.ended_by.is_none(), "{pruned:?}");
    Ok(pruned)
}

/// Of which days something is left in a record, each once.
fn days(events: &[Value]) -> Vec<&str> {
    let mut days: Vec<&str> = of(events, "administration").iter().filter_map(|event| event["name"].as_str()).collect();
    days.dedup();
    days
}

#[tokio::test]
async fn what_is_too_old_is_deleted_and_the_rest_is_checked_and_exported_as_before() -> Result<()> {
    let (left, _) = Box::pin(old_record("audit_pruned")).await?;
    let before = events(&left.store, Some("acme")).await?.len();
    let dry = pruned(&left.store, 31, true).await?;
    assert_eq!(events(&left.store, Some("acme")).await?.len(), before, "that was only counted");
    let found = pruned(&left.store, 31, false).await?;
    assert_eq!((found.events, found.tenants), (dry.events, dry.tenants));
    // Of the platform: two checkpoints, two ends, and an event.
    let went_wrong = (found.wrong.len(), found.failed.len());
    assert_eq!((found.events, found.tenants, went_wrong), (2 + 2_500 + 1 + 5, 2, (0, 0)));
    for tenant in [Some("acme"), Some("globex"), None] {
        assert_eq!(days(&events(&left.store, tenant).await?), ["20 days ago"], "{tenant:?}");
    }
    let report = checked(&left.store).await?;
    let told: Vec<_> = report.iter().map(|one| (one.name.as_str(), one.found.pruned, one.wrong.len())).collect();
    assert_eq!(told, [("platform", 5, 0), ("acme", 2_502, 0), ("globex", 1, 0)]);

    let file = exported(&left.store, "acme").await?;
    let found = verified(&file)?.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    assert_eq!((found.events, found.pruned), (4, 2_502));
    let lines: Vec<&str> = file.lines().collect();
    let places: Vec<usize> = (0..lines.len()).filter(|place| lines[*place].starts_with("{\"pruned\"")).collect();
    assert_eq!(places.len(), 2);
    for place in places {
        let mut without = lines.clone();
        without.remove(place);
        assert!(verified(&(without.join("\n") + "\n"))?.is_err(), "line {place} is left out");
        assert!(verified(&file.replacen("\"pruned\":{", "\"checkpoint\":{", 1))?.is_err());
    }
    // Again, and there is nothing left to do.
    let again = pruned(&left.store, 31, false).await?;
    assert!(again.events == 0 && again.wrong.is_empty() && again.failed.is_empty(), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn whoever_deletes_more_or_says_that_it_was_pruned_is_found_out() -> Result<()> {
    let (left, [acme, _]) = Box::pin(old_record("audit_pruned_tampered")).await?;
    let folder = TempDir::new()?;
    pruned(&left.store, 31, false).await?;
    ensure!(wrong(&left.store).await?.is_empty());
    let of_acme = format!("chain = '{acme}'");
    let rows = rows(&left.store, "acme").await?;
    let young = rows.audit_rows(None).await?;
    let writer = young.iter().find(|row| row.line.contains("20 days ago")).context("it is kept")?.writer;
    let old = rows.audit_pruned(None).await?.remove(0).0.writer;
    let unguarded_too = if tenant_store::testing::is_on_postgres() {
        String::new()
    } else {
        "DROP TRIGGER audit_pruned_forward; DROP TRIGGER audit_pruned_kept_on_delete; ".to_owned()
    };
    let first = format!("{of_acme} AND writer = '{writer}' AND seq = 1");
    let attempts = [
        // It says something else.
        format!("UPDATE audit_pruned SET seq = seq + 1 WHERE {of_acme}"),
        format!("UPDATE audit_pruned SET hash = '{}' WHERE {of_acme}", "0".repeat(64)),
        format!("UPDATE audit_pruned SET at_ms = at_ms + 1 WHERE {of_acme} AND writer = '{old}'"),
        // What is signed of something else is no such word.
        format!(
            "INSERT INTO audit_pruned SELECT chain, writer, seq, at_ms, hash, key_id, signature FROM audit_checkpoint \
             WHERE {first}; DELETE FROM audit_event WHERE {first}; DELETE FROM audit_checkpoint WHERE {first}"
        ),
        // More is gone than it says.
        format!("DELETE FROM audit_event WHERE {first}"),
        format!("DELETE FROM audit_event WHERE {of_acme} AND writer = '{writer}'"),
    ];
    for (number, sql) in attempts.iter().enumerate() {
        let found = found_after(&left, folder.path(), (number, &format!("{unguarded_too}{sql}"))).await?;
        assert!(!found.is_empty(), "{sql}");
        assert!(found.iter().all(|(name, _)| name == "acme"), "{sql}: {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_as_it_was_written_stays_and_with_it_what_would_prove_it() -> Result<()> {
    let (left, [acme, _]) = Box::pin(old_record("audit_pruned_wrong")).await?;
    let folder = TempDir::new()?;
    let change = format!(
        "UPDATE audit_event SET line = replace(line, 'somebody', 'nobody') WHERE chain = '{acme}' AND seq = 7 AND \
         line LIKE '%40 days ago%'"
    );
    let (store, _copy) = altered(&left, folder.path(), (0, &change)).await?;
    let found = pruned(&store, 31, false).await?;
    let [(chain, Wrong::Unlinked { seq: 8, .. }), ..] = &found.wrong[..] else { bail!("{found:?}") };
    assert_eq!(*chain, acme);
    // Of acme what is older and sound, of globex all, of the platform nothing.
    assert_eq!(days(&events(&store, Some("acme")).await?)[0], "40 days ago");
    assert_eq!(days(&events(&store, Some("globex")).await?), ["20 days ago"]);
    assert_eq!(days(&events(&store, None).await?), ["40 days ago", "20 days ago"]);
    let report = checked(&store).await?;
    let told: Vec<_> = report.iter().map(|one| (one.name.as_str(), one.wrong.is_empty())).collect();
    assert_eq!(told, [("platform", true), ("acme", false), ("globex", true)]);
    Ok(())
}

#[tokio::test]
async fn a_server_deletes_what_is_too_old_by_itself_and_says_so() -> Result<()> {
    let (left, _) = Box::pin(old_record("audit_pruned_by_server")).await?;
    let mut config = left.config.clone();
    config.audit.keep_days = Some(31);
    let app = App::start(&config).await?;
    let gone = async {
        while of(&events(&left.store, None).await?, "pruned").is_empty() {}
        anyhow::Ok(())
    };
    timeout(PATIENCE, gone).await??;
    ensure!(app.stop().await);
    let platform = events(&left.store, None).await?;
    let [word] = of(&platform, "pruned")[..] else { bail!("{platform:#?}") };
    assert_eq!((&word["events"], &word["tenantCount"]), (&Value::from(2_508), &Value::from(2)));
    assert_eq!(days(&events(&left.store, Some("acme")).await?), ["20 days ago"]);
    assert!(wrong(&left.store).await?.is_empty());
    Ok(())
}
