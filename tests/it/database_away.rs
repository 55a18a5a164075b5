//! The database is away for a while: what is known goes on being served, and what changes afterwards is followed. Says nothing on SQLite, whose
//! file does not go away.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::App;
use mcp_mux::audit::Checked;
use mcp_mux::config::DatabaseConfig;
use serde_json::json;
use tempfile::TempDir;
use tenant_store::Level;
use tenant_store::testing::is_on_postgres;
use tokio::time::{Instant, interval};

use crate::audit::checked;
use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer, rows};
use crate::support::upstreams::RealUpstream;

const AWAY: Duration = Duration::from_mins(1);
/// How often each replica is called.
const ROUND_EVERY: Duration = Duration::from_millis(50);
/// In this time a change is on every replica, also where nobody was told of it.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

/// A server of PostgreSQL that can be stopped.
struct OwnPostgres(TempDir);

impl OwnPostgres {
    fn new() -> Result<Self> {
        let own = Self(tempfile::tempdir()?);
        own.command("new")?;
        Ok(own)
    }

    fn command(&self, what: &str) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres.sh");
        ensure!(Command::new(script).arg(what).arg(self.0.path()).status()?.success(), "{what}");
        Ok(())
    }

    fn config(&self) -> Result<DatabaseConfig> {
        let socket = self.0.path().display();
        let url = |role: &str| format!("postgres://{role}@localhost/mux?host={socket}");
        let make = Command::new("createdb").args(["-h", &socket.to_string(), "-U", "mux_owner", "mux"]).status()?;
        ensure!(make.success());
        Ok(DatabaseConfig { owner_url: Some(url("mux_owner").into()), ..DatabaseConfig::at(url("mux")) })
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        drop(self.command("stop"));
    }
}

#[tokio::test]
async fn a_database_that_is_away_for_a_minute_costs_no_call_and_what_changes_then_is_followed() -> Result<()> {
    if !is_on_postgres() {
        return Ok(());
    }
    let postgres = OwnPostgres::new()?;
    let key = canary("key");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with("database_away", &[setup], |config| {
        config.database = postgres.config()?;
        config.admin.listen = Some("127.0.0.1:0".parse()?);
        Ok(())
    })
    .await?;
    let others = [server.replica().await?, server.replica().await?];
    let client = |app: &App| {
        let token = server.idp.sign(&server.idp.claims("alice", &["acme"], &app.endpoint()))?;
        Http::new(&app.endpoint(), Some(&token))
    };
    let clients = [client(&server.app)?, client(&others[0])?, client(&others[1])?];

    postgres.command("stop")?;
    let back_at = Instant::now() + AWAY;
    let (mut calls, mut rounds) = (0, interval(ROUND_EVERY));
    while rounds.tick().await < back_at {
        for client in &clients {
            let answer = client.call("acme__whoami", json!({})).await?;
            assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}", "{answer}");
            assert!(!client.tools().await?.is_empty());
            calls += 1;
        }
    }
    assert!(calls > 100, "{calls} calls");
    // Which is said, and is no reason to call somebody else.
    let admin = server.app.admin_address().context("probes are answered")?;
    let ready = Http::new(&format!("http://{admin}/readyz"), None)?;
    let answer = ready.request(reqwest::Method::GET).await?;
    assert_eq!((answer.status, &answer.json()?["status"]), (200, &json!("degraded")), "{}", answer.text);
    postgres.command("start")?;

    let rows = server.rows("acme").await?;
    let grant = rows.grants().await?.pop().context("a grant")?;
    assert!(rows.remove_grant(grant.id).await?);
    let deadline = Instant::now() + FOLLOWED_WITHIN;
    for client in &clients {
        while !client.tools().await?.is_empty() {
            ensure!(Instant::now() < deadline, "a replica still shows what was taken away");
        }
    }
    assert_eq!(ready.request(reqwest::Method::GET).await?.json()?["status"], "ready");
    all_is_recorded(server, others, calls).await
}

/// Nothing of what was called meanwhile is missing in the audit record.
async fn all_is_recorded(server: TestServer, others: [App; 2], calls: usize) -> Result<()> {
    let TestServer { app, config, .. } = server;
    for app in others.into_iter().chain([app]) {
        ensure!(app.stop().await);
    }
    let store = mcp_mux::open_store(&config).await?;
    let (rows, mut recorded, mut after) = (rows(&store, "acme").await?, 0, None);
    loop {
        let page = rows.audit_rows(after).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.writer, last.seq));
        recorded += page.iter().filter(|row| row.line.contains(r#""event":"call""#)).count();
    }
    assert_eq!(recorded, calls);
    for Checked { name, found, wrong } in checked(&store).await? {
        ensure!(wrong.is_empty() && found.lost == 0, "{name}: {wrong:?}");
    }
    Ok(())
}
