//! Credentials go to their own upstream and nowhere else; a caller's own never travels on.

use anyhow::Result;
use serde_json::json;
use tenant_store::Level;

use crate::support::canary;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;

#[tokio::test]
async fn nothing_of_an_inbound_request_but_name_arguments_and_trace_reaches_an_upstream() -> Result<()> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, acme_seen) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, globex_seen) = RealUpstream::named("globex").legacy().serve(&globex_key, true).await?;
    let level = Level::Write;
    let server = TestServer::start(
        "inbound",
        &[
            Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
            Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
        ],
    )
    .await?;
    let token = server.token("carol", &["acme", "globex"])?;
    let inbound = canary("inbound");
    let begun = server.client("carol", &["acme", "globex"])?.begin_session().await?;
    let carol = server
        .client("carol", &["acme", "globex"])?
        .with("cookie", &inbound)?
        .with("proxy-authorization", &inbound)?
        .with("dpop", &inbound)?
        .with("x-forwarded-for", &inbound)?
        .with("x-forwarded-user", &inbound)?
        .with("x-openwebui-user-email", &inbound)?
        .with("forwarded", &inbound)?
        .with("x-request-id", &inbound)?
        .with("mcp-session-id", &begun)?
        .with("last-event-id", &inbound)?
        .with("user-agent", &inbound)?;
    for name in ["acme__whoami", "globex__whoami"] {
        let params = json!({"name": name, "arguments": {"a": 1}, "_meta": {
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "other": inbound, "baggage": inbound,
        }});
        assert_eq!(carol.legacy("tools/call", &params).await?.status, 200);
    }
    for (seen, own, other) in [(acme_seen, &acme_key, &globex_key), (globex_seen, &globex_key, &acme_key)] {
        let seen = seen.text();
        assert!(seen.contains(own.as_str()), "its own key reaches an upstream");
        assert!(!seen.contains(other.as_str()), "another tenant's key does not");
        assert!(!seen.contains(&inbound), "no inbound header does: {seen}");
        assert!(!seen.contains(&begun), "no session of a client does");
        assert!(!seen.contains(&token) && !seen.contains("carol"), "nothing about the caller does");
        assert!(seen.contains("00-4bf92f3577b34da6a3ce929d0e0e4736"), "the trace does");
    }
    Ok(())
}

#[tokio::test]
async fn neither_the_database_nor_the_log_tells_a_secret() -> Result<()> {
    let key = canary("stored");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start("dump", &[setup]).await?;
    let token = server.token("alice", &["acme"])?;
    server.client("alice", &["acme"])?.call("acme__whoami", json!({"password": canary("argument")})).await?;
    let dump = server.database.stolen()?;
    let log = server.logged()?;
    assert!(dump.len() > 4096 && log.contains("answered"), "there is something to look at");
    for secret in [key.as_str(), "CANARY", token.as_str()] {
        assert!(!String::from_utf8_lossy(&dump).contains(secret), "the database holds a secret");
        assert!(!log.contains(secret), "the log holds a secret");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_noticed_at_start() -> Result<()> {
    let server = TestServer::start("wrong_key", &[]).await?;
    let mut config = server.config.clone();
    config.keys.primary = Some(crypto::Key::generate()?.encode());
    let error = mcp_mux::open_store(&config).await.expect_err("another key does not open the database");
    let chain = anyhow::Error::from(error).chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(chain.contains("key"), "{chain}");
    Ok(())
}
