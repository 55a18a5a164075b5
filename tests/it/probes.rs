//! What operators' own programs ask: whether a server lives, whether it is ready, and what it does between the signal to stop and its end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::App;
use serde_json::{Value, json};
use tenant_store::{Level, Revoked, UpstreamSpec};

use crate::support::canary;
use crate::support::client::{Answer, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;

/// What each probe answers of a server that is well. What it says is the same to everybody: nothing here is about a caller, and only the
/// metrics name tenants and upstreams.
const ROUTES: [(&str, Option<&str>); 3] = [("/healthz", Some("alive")), ("/readyz", Some("ready")), ("/metrics", None)];

/// Long enough for whatever is to happen in it.
const DELAY_SECONDS: u64 = 3;
/// As long has a call to end that was told to.
const DRAIN_SECONDS: u64 = 3;

/// A server with one tenant and probes, and its upstream.
async fn probed(name: &str, drain_delay_seconds: u64) -> Result<(TestServer, RealUpstream)> {
    let (key, upstream) = (canary("key"), RealUpstream::named("acme"));
    let (url, _) = upstream.clone().serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.admin.listen = Some("127.0.0.1:0".parse()?);
        (config.http.drain_delay_seconds, config.http.drain_timeout_seconds) = (drain_delay_seconds, DRAIN_SECONDS);
        Ok(())
    })
    .await?;
    // Calls take as long as the test wants.
    let rows = server.rows("acme").await?;
    let desk = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
    rows.put_upstream(&desk.slug, &UpstreamSpec { call_timeout: Duration::from_mins(1), ..desk.spec }).await?;
    server.app.follow().await?;
    Ok((server, upstream))
}

async fn probe(app: &App, path: &str) -> Result<Answer> {
    let address = app.admin_address().context("it answers probes")?;
    Http::new(&format!("http://{address}{path}"), None)?.request(reqwest::Method::GET).await
}

async fn status(app: &App) -> Result<(u16, Value)> {
    let answer = probe(app, "/readyz").await?;
    Ok((answer.status, answer.json()?["status"].clone()))
}

#[test]
fn every_probe_has_its_row() {
    assert_eq!(mcp_mux::http::PROBES.map(|probe| probe.path), ROUTES.map(|(path, _)| path));
}

#[tokio::test]
async fn a_probe_tells_everybody_the_same_and_clients_nothing() -> Result<()> {
    let (server, _) = probed("probes", 0).await?;
    let token = server.token("alice", &["acme"])?;
    for (path, wanted) in ROUTES {
        let answer = probe(&server.app, path).await?;
        assert_eq!(answer.status, 200, "{path}");
        if let Some(wanted) = wanted {
            assert_eq!(answer.json()?["status"], json!(wanted), "{path}");
        }
        let is_named = answer.text.contains("acme") || answer.text.contains("desk");
        assert!(!is_named || path == "/metrics", "{}", answer.text);
        assert!(!answer.text.contains("alice"), "{}", answer.text);
        let address = server.app.admin_address().context("it answers probes")?;
        let known = Http::new(&format!("http://{address}{path}"), Some(&token))?;
        let known = known.with("host", "evil.example")?.request(reqwest::Method::GET).await?;
        // What is measured goes on meanwhile.
        if path == "/metrics" {
            assert_eq!(known.status, answer.status);
        } else {
            assert_eq!(known.all(), answer.all(), "{path}");
        }
        // Where clients call there are none, and here nothing else is.
        assert_eq!(server.client_at(path, "alice", &["acme"])?.request(reqwest::Method::GET).await?.status, 404);
        assert_eq!(Http::new(&format!("http://{address}/mcp"), Some(&token))?.post("{}").await?.status, 404);
    }
    let revision = server.app.store().revision().await?;
    assert_eq!(probe(&server.app, "/readyz").await?.json()?["revision"], json!(revision.0));
    let metrics = probe(&server.app, "/metrics").await?;
    assert_eq!(metrics.headers.get("content-type").context("a type")?, "text/plain; version=0.0.4");
    assert!(metrics.text.contains(&format!("\nmcp_mux_config_revision {revision}\n")), "{}", metrics.text);
    Ok(())
}

#[tokio::test]
async fn what_stops_says_so_first_and_serves_on_until_its_clients_are_elsewhere() -> Result<()> {
    let (server, upstream) = probed("drain", DELAY_SECONDS).await?;
    let alice = server.client("alice", &["acme"])?;
    let session = alice.begin_session().await?;
    let stream = server.client("alice", &["acme"])?.with("mcp-session-id", &session)?.listen().await?;
    let in_session = server.client("alice", &["acme"])?.with("mcp-session-id", &session)?;
    let (other, tasks) = (server.client("alice", &["acme"])?, server.app.tasks().clone());
    let address = server.app.address();
    assert_eq!(status(&server.app).await?, (200, json!("ready")));

    let admin = server.app.admin_address().context("it answers probes")?;
    let readiness = Http::new(&format!("http://{admin}/readyz"), None)?;
    let meanwhile = async {
        upstream.waiting.notified().await;
        while readiness.request(reqwest::Method::GET).await?.status == 200 {}
        let answer = readiness.request(reqwest::Method::GET).await?;
        assert_eq!((answer.status, answer.json()?["status"].clone()), (503, json!("draining")));
        // New connections, old ones, sessions: everything is answered, and told to come back another way.
        for client in [&other, &in_session] {
            let answer = client.legacy("tools/call", &json!({"name": "acme__whoami"})).await?;
            assert_eq!(answer.json()?["result"]["content"][0]["text"], "whoami at acme with null");
            assert_eq!(answer.headers.get("connection").context("a last word")?, "close");
        }
        assert!(!tasks.shutdown().is_cancelled(), "that took longer than it is served");
        // Then streams end, nothing new is accepted, and what runs is finished.
        stream.end().await?;
        while tokio::net::TcpStream::connect(address).await.is_ok() {}
        assert_eq!(readiness.request(reqwest::Method::GET).await?.status, 503, "it is asked until its end");
        upstream.go_on.notify_one();
        anyhow::Ok(())
    };
    let call = alice.call("acme__wait", json!({}));
    let stopped = async {
        upstream.calls.until(|count| count.running > 0).await;
        Ok(server.app.stop().await)
    };
    let (answer, (), stopped) = tokio::try_join!(call, meanwhile, stopped)?;
    assert_eq!(answer["result"]["content"][0]["text"], "wait at acme with {}", "{answer}");
    ensure!(stopped, "something was left behind");
    assert!(readiness.request(reqwest::Method::GET).await.is_err(), "it is over");
    Ok(())
}

#[tokio::test]
async fn what_runs_too_long_is_left_behind() -> Result<()> {
    let (server, upstream) = probed("drain_timeout", 0).await?;
    let alice = server.client("alice", &["acme"])?;
    let stopped = async {
        upstream.waiting.notified().await;
        server.app.stop().await
    };
    tokio::select! {
        answer = alice.call("acme__wait", json!({})) => anyhow::bail!("it answered: {answer:?}"),
        stopped = tokio::time::timeout(Duration::from_secs(10), stopped) => assert!(!stopped?),
    }
    Ok(())
}

#[tokio::test]
async fn what_is_revoked_while_a_server_stops_ends_what_it_was_still_finishing() -> Result<()> {
    let (server, upstream) = probed("drain_revoked", 0).await?;
    let (alice, bob) = (server.client("alice", &["acme"])?, server.client("bob", &["acme"])?);
    let (store, tasks) = (server.app.store().clone(), server.app.tasks().clone());
    let tell = async {
        upstream.calls.until(|count| count.running > 1).await;
        anyhow::Ok(server.app.stop().await)
    };
    let revoke = async {
        tasks.shutdown().cancelled().await;
        store.revoke(&Revoked::Principal { issuer: "corp".parse()?, subject: "alice".parse()? }, "").await?;
        anyhow::Ok(())
    };
    let calls = async {
        let ended = alice.call("acme__wait", json!({})).await;
        // Her call is over, and his goes on.
        upstream.go_on.notify_waiters();
        anyhow::Ok(ended?)
    };
    let (ended, finished, stopped, ()) = tokio::try_join!(calls, bob.call("acme__wait", json!({})), tell, revoke)?;
    assert_eq!(ended["result"]["isError"], true, "{ended}");
    assert_eq!(finished["result"]["content"][0]["text"], "wait at acme with {}", "{finished}");
    ensure!(stopped, "something was left behind");
    Ok(())
}
