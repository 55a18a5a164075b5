//! The audit record: which credential a call was made with, and what credentials are used for that is nobody's call.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::audit::{checked, events, of, stopped};
use crate::support::canary;
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer, rows};
use crate::support::upstreams::{RealUpstream, serve_handler};

/// Whose, at which upstream, and for what; and how often that was, altogether.
fn uses(events: &[Value]) -> Vec<(Value, u64)> {
    let mut found: Vec<(Value, u64)> = Vec::new();
    for event in of(events, "secret") {
        let what = json!([event["upstream"], event["credential"], event["purpose"], event["failed"]]);
        let count = event["count"].as_u64().unwrap_or(0);
        match found.iter_mut().find(|(known, _)| *known == what) {
            Some((_, sum)) => *sum += count,
            None => found.push((what, count)),
        }
    }
    found
}

#[tokio::test]
async fn a_call_says_what_its_upstream_was_shown_and_what_is_nobodys_call_is_counted_for_its_tenant() -> Result<()> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level: Level::Read },
        Setup { tenant: "globex", upstream: "bureau", url: &globex, key: Some(&globex_key), level: Level::Write },
    ];
    let server = TestServer::start("audit_secrets", &setups).await?;
    let (open, _) = RealUpstream::named("open").serve_to(Arc::new(|_, _| true), false).await?;
    let setup = Setup { tenant: "acme", upstream: "open", url: &open, key: None, level: Level::Read };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    let shown = carol.tools().await?;
    let at = |upstream: &str| shown.iter().find(|name| name.contains(upstream) && name.ends_with("whoami"));
    let open = at("open").or_else(|| shown.iter().find(|name| name.starts_with("acme__whoami_"))).cloned();
    for name in ["acme__whoami", "globex__whoami"].into_iter().map(ToOwned::to_owned).chain(open.clone()) {
        assert!(carol.call(&name, json!({})).await?["result"].is_object(), "{name}");
    }
    // What is refused shows nothing to anybody.
    assert!(carol.call("acme__change", json!({})).await?["error"].is_object());
    let left = stopped(server).await?;
    let (acme, globex) = (events(&left.store, Some("acme")).await?, events(&left.store, Some("globex")).await?);

    let key = json!({"owner": "tenant", "secrets": [{"name": "key", "version": 1}]});
    for call in of(&acme, "call").into_iter().chain(of(&globex, "call")) {
        let is_shown = call["outcome"] == "ok" && call["upstream"] != "open";
        assert_eq!(call["credential"], if is_shown { key.clone() } else { Value::Null }, "{call}");
    }
    let of_open: Vec<_> = of(&acme, "call").into_iter().filter(|call| call["upstream"] == "open").collect();
    assert!(open.is_none() || of_open.len() == 1, "{acme:#?}");
    // What older lines do not have stands behind what they have.
    let line = rows(&left.store, "globex").await?.audit_rows(None).await?;
    let line = line.iter().find(|row| row.line.contains("\"event\":\"call\"")).context("a call")?;
    assert!(line.line.ends_with(&format!(",\"credential\":{key}}}")), "{}", line.line);

    for (events, upstream) in [(&acme, "desk"), (&globex, "bureau")] {
        let [(what, count)] = &uses(events)[..] else { anyhow::bail!("{events:#?}") };
        assert_eq!(*what, json!([upstream, key, "list", 0]));
        // At once when it began, and at the end all that came since.
        let times = of(events, "secret").len();
        assert!(*count >= 2 && times == 2, "{count} uses in {times} events");
    }
    assert!(checked(&left.store).await?.iter().all(|checked| checked.wrong.is_empty()));
    assert!(!format!("{acme:?}{globex:?}").contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn who_subscribes_and_who_may_not_is_recorded_for_whose_resource_it_is() -> Result<()> {
    let server = TestServer::start("audit_subscriptions", &[]).await?;
    for tenant in ["acme", "globex"] {
        let rich = Rich { name: tenant.to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
        let (url, _) = serve_handler(rich, false).await?;
        let setup = Setup { tenant, upstream: "files", url: &url, key: None, level: Level::Write };
        server.add(&setup, UpstreamAuth::None, &[]).await?;
    }
    let note = |tenant: &str| format!("mcp-mux://{tenant}/files/note://one");
    let alice = server.client("alice", &["acme"])?;
    let filter = json!({"notifications": {"resourceSubscriptions": [note("acme"), note("globex")]}});
    alice.stream("subscriptions/listen", filter).await?.next().await?;
    let session = alice.begin_session().await?;
    let alice = alice.with("mcp-session-id", &session)?;
    alice.legacy("resources/subscribe", &json!({"uri": note("acme")})).await?;
    assert!(alice.legacy("resources/subscribe", &json!({"uri": note("globex")})).await?.code()?.is_some());

    let left = stopped(server).await?;
    let (acme, platform) = (events(&left.store, Some("acme")).await?, events(&left.store, None).await?);
    let told = |events: &[Value]| -> Vec<Value> {
        let calls = of(events, "call").into_iter();
        calls.map(|call| json!([call["method"], call["name"], call["decision"], call["reason"]])).collect()
    };
    let by = ["subscriptions/listen", "resources/subscribe"];
    assert_eq!(told(&acme), by.map(|method| json!([method, "note://one", "allow", "allowed"])));
    assert_eq!(told(&platform), by.map(|method| json!([method, null, "deny", "unknown"])));
    assert!(of(&events(&left.store, Some("globex")).await?, "call").is_empty());
    Ok(())
}
