//! Kill switches: what is revoked is gone on every replica within moments, and so is what runs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use mcp_mux::App;
use reqwest::Method;
use serde_json::{Value, json};
use tenant_store::testing::is_on_postgres;
use tenant_store::{Level, Revoked, Store, Upstream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::support::canary;
use crate::support::client::{Events, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// In this time every replica has it, where the database tells of changes, and where it does not.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// Shorter than an upstream is left alone at the least.
const RESET_WITHIN: Duration = Duration::from_secs(4);
/// How many changes are measured.
const CHANGES: u32 = 100;
const TOOLS: &str = r#"[{"name":"go","inputSchema":{}}]"#;

fn user(subject: &str) -> Result<Revoked> {
    Ok(Revoked::Principal { issuer: "corp".parse()?, subject: subject.parse()? })
}

async fn desk(server: &TestServer) -> Result<Upstream> {
    server.rows("acme").await?.find_upstream(&"desk".parse()?).await?.context("acme has it")
}

/// One client at each replica.
fn clients(server: &TestServer, others: &[App], subject: &str) -> Result<Vec<Http>> {
    let apps = std::iter::once(&server.app).chain(others);
    let client = |app: &App| {
        let token = server.idp.sign(&server.idp.claims(subject, &["acme"], &app.endpoint()))?;
        Http::new(&app.endpoint(), Some(&token))
    };
    apps.map(client).collect()
}

/// What a list is answered with: its status, and how many tools there are.
async fn listed(client: &Http) -> Result<(u16, usize)> {
    let answer = client.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string()).await?;
    let tools = answer.json().ok().and_then(|body| body["result"]["tools"].as_array().map(Vec::len));
    Ok((answer.status, tools.unwrap_or(0)))
}

/// Waits until all clients are answered so, and says how long that took since `began`.
async fn until(clients: &[Http], wanted: (u16, usize), began: Instant) -> Result<Duration> {
    let one = async |client: &Http| -> Result<()> {
        while listed(client).await? != wanted {
            ensure!(began.elapsed() < FOUND_WITHIN * 2, "it is never {wanted:?}");
        }
        Ok(())
    };
    try_join_all(clients.iter().map(one)).await?;
    Ok(began.elapsed())
}

/// The 99th of a hundred, from the shortest to the longest.
fn p99(mut delays: Vec<Duration>) -> Duration {
    assert_eq!(delays.len(), CHANGES as usize);
    delays.sort();
    delays[98]
}

/// How many revocations that replica says it has measured, by the end of the metric's name.
async fn measured(app: &App, end: &str) -> Result<u32> {
    let address = app.admin_address().context("it answers operators")?;
    let metrics = Http::new(&format!("http://{address}/metrics"), None)?.request(Method::GET).await?;
    let line = metrics
        .text
        .lines()
        .find_map(|line| line.strip_prefix("mcp_mux_revocation_delay_seconds_")?.strip_prefix(end)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no {end}: {}", metrics.text))?.parse()?)
}

async fn bed(name: &str) -> Result<(TestServer, [App; 2])> {
    let key = canary("key");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.admin.listen = Some("127.0.0.1:0".parse()?);
        Ok(())
    })
    .await?;
    let others = [server.replica().await?, server.replica().await?];
    Ok((server, others))
}

#[tokio::test]
async fn a_hundred_revocations_are_on_three_replicas_within_two_seconds_each() -> Result<()> {
    // Elsewhere nobody is told, and it is looked every second.
    if !is_on_postgres() {
        return Ok(());
    }
    let (server, others) = bed("revoked_told").await?;
    let clients = clients(&server, &others, "alice")?;
    let (store, desk) = (server.app.store(), desk(&server).await?);
    let tools = listed(&clients[0]).await?.1;
    let local = server.rows("acme").await?.tools().await?.pop().context("a tool")?.local;
    let (tenant, upstream) = (desk.tenant, desk.id);
    let things = [
        (user("alice")?, (403, 0)),
        (Revoked::Group { issuer: "corp".parse()?, group: "acme".parse()? }, (200, 0)),
        (Revoked::Tenant { tenant }, (200, 0)),
        (Revoked::Upstream { tenant, upstream }, (200, 0)),
        (Revoked::Tool { tenant, upstream, local }, (200, tools - 1)),
    ];
    let mut delays = Vec::new();
    for (thing, wanted) in things.iter().cycle().take(CHANGES as usize / 2) {
        let began = Instant::now();
        store.revoke(thing, "a test").await?;
        delays.push(until(&clients, *wanted, began).await?);
        let began = Instant::now();
        ensure!(store.reinstate(thing).await?.is_some());
        delays.push(until(&clients, (200, tools), began).await?);
    }
    let p99 = p99(delays);
    println!("with notifications: p99 {p99:?}");
    assert!(p99 < TOLD_WITHIN, "{p99:?}");
    // Each replica has measured the same.
    for app in std::iter::once(&server.app).chain(&others) {
        let (within, all) = (measured(app, "bucket{le=\"2\"}").await?, measured(app, "count").await?);
        assert_eq!(all, CHANGES / 2);
        assert!(within + 1 >= all, "{within} of {all}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hundred_revocations_of_which_nobody_is_told_are_on_three_replicas_within_ten_seconds_each() -> Result<()> {
    let (server, others) = bed("revoked_untold").await?;
    server.tell_nobody().await?;
    // One after the other, so that each meets another moment of the replicas' looks; what waits for one keeps no other back.
    let mut ticks = interval(Duration::from_millis(60));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut measured = JoinSet::new();
    for number in 0..CHANGES {
        ticks.tick().await;
        let subject = format!("user-{number}");
        let clients = clients(&server, &others, &subject)?;
        let began = Instant::now();
        server.app.store().revoke(&user(&subject)?, "a test").await?;
        measured.spawn(async move { slowly(&clients, (403, 0), began).await });
    }
    let mut delays = Vec::new();
    while let Some(delay) = measured.join_next().await {
        delays.push(delay??);
    }
    let p99 = p99(delays);
    println!("without notifications: p99 {p99:?}");
    assert!(p99 < FOUND_WITHIN, "{p99:?}");
    Ok(())
}

/// The same as [`until`], for many at the same time.
async fn slowly(clients: &[Http], wanted: (u16, usize), began: Instant) -> Result<Duration> {
    let mut ticks = interval(Duration::from_secs(1));
    for client in clients {
        while listed(client).await? != wanted {
            ensure!(began.elapsed() < FOUND_WITHIN * 2, "it is never {wanted:?}");
            ticks.tick().await;
        }
    }
    Ok(began.elapsed())
}

/// A call that its upstream never answers, and what it is answered with when the upstream, the tool or its caller is revoked meanwhile.
async fn revoked_while_it_runs(name: &str, say: Say, thing: impl Fn(&Upstream) -> Result<Revoked>) -> Result<Value> {
    let (url, seen) = ByteUpstream::with_tools(TOOLS).on("tools/call", say).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start(name, &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let revoking = async {
        seen.until("tools/call").await;
        let thing = thing(&desk(&server).await?)?;
        server.app.store().revoke(&thing, "a test").await?;
        anyhow::Ok(Instant::now())
    };
    // The upstream has five seconds for its answer.
    let (answer, revoked_at) = tokio::join!(alice.call("acme__go", json!({})), revoking);
    let after = revoked_at?.elapsed();
    ensure!(after < TOLD_WITHIN, "it went on for {after:?}");
    answer
}

/// Reads a stream to its end.
async fn over(mut events: Events) {
    while events.next().await.is_ok() {}
}

fn held() -> Say {
    Say::Held(
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"working"}}"#.to_owned(),
    )
}

#[tokio::test]
async fn what_runs_at_a_revoked_upstream_ends_as_if_there_were_none() -> Result<()> {
    for (name, say) in [("revoked_silent", Say::Silence), ("revoked_stream", held())] {
        let upstream = |desk: &Upstream| Ok(Revoked::Upstream { tenant: desk.tenant, upstream: desk.id });
        let answer = revoked_while_it_runs(name, say, upstream).await?;
        assert!(answer.to_string().to_lowercase().contains("unknown tool"), "{answer}");
    }
    let tool = |desk: &Upstream| Ok(Revoked::Tool { tenant: desk.tenant, upstream: desk.id, local: "go".parse()? });
    let answer = revoked_while_it_runs("revoked_tool", Say::Silence, tool).await?;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    Ok(())
}

#[tokio::test]
async fn what_runs_for_a_revoked_user_ends_and_the_next_request_is_refused() -> Result<()> {
    let (url, seen) = ByteUpstream::with_tools(TOOLS).on("tools/call", held()).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("revoked_user", &[setup]).await?;
    let (alice, bob) = (server.client("alice", &["acme"])?, server.client("bob", &["acme"])?);
    let session = alice.begin_session().await?;
    let own_stream = alice.with("mcp-session-id", &session)?.listen().await?;
    let alice = server.client("alice", &["acme"])?;
    let listening = alice.stream("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    let call = alice.call("acme__go", json!({}));
    let revoking = async {
        seen.until("tools/call").await;
        server.app.store().revoke(&user("alice")?, "a test").await?;
        anyhow::Ok(Instant::now())
    };
    let (answer, began) = tokio::join!(call, revoking);
    let (answer, began) = (answer?, began?);
    assert!(answer.to_string().contains("your sign-in ended"), "{answer}");
    timeout(TOLD_WITHIN, over(own_stream)).await?;
    timeout(TOLD_WITHIN, over(listening)).await?;
    ensure!(began.elapsed() < TOLD_WITHIN, "{:?}", began.elapsed());

    let refused = alice.request(Method::POST).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("your access was revoked"), "{}", refused.text);
    assert!(!bob.tools().await?.is_empty(), "nobody else is concerned");
    let (robot, _) = server.robot("acme", Level::Write).await?;
    assert!(!robot.tools().await?.is_empty());

    let store: &Store = server.app.store();
    assert!(store.reinstate(&user("alice")?).await?.is_some());
    assert!(store.reinstate(&user("alice")?).await?.is_none());
    server.app.follow().await?;
    assert!(!alice.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_revoked_upstream_is_not_called_for_its_lists_either() -> Result<()> {
    let (url, seen) = ByteUpstream::with_tools(TOOLS).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("revoked_lists", &[setup]).await?;
    let desk = desk(&server).await?;
    for what in [Revoked::Upstream { tenant: desk.tenant, upstream: desk.id }, Revoked::Tenant { tenant: desk.tenant }]
    {
        server.app.store().revoke(&what, "a test").await?;
        server.app.follow().await?;
        let before = seen.text().len();
        server.app.refresher().refresh_all().await;
        assert_eq!(seen.text().len(), before, "{what:?}");
        server.app.store().reinstate(&what).await?;
        server.app.follow().await?;
        server.app.refresher().refresh_all().await;
        assert!(seen.text().len() > before, "{what:?} is called again");
    }
    Ok(())
}

/// What a call of the tool is answered with, as a sentence.
async fn said(client: &Http) -> Result<String> {
    Ok(client.call("acme__go", json!({})).await?["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

#[tokio::test]
async fn an_upstream_that_is_left_alone_is_called_by_every_replica_again_once_it_is_reset() -> Result<()> {
    let upstream = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Http(503, "text/plain", Bytes::new()));
    let (url, _) = upstream.clone().serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("upstream_reset", &[setup]).await?;
    let others = [server.replica().await?, server.replica().await?];
    let [alices, bobs] = ["alice", "bob"].map(|subject| clients(&server, &others, subject));
    let (alices, bobs) = (alices?, bobs?);
    for (alice, bob) in alices.iter().zip(&bobs) {
        while !said(alice).await?.contains("is left alone") {
            said(bob).await?;
        }
    }
    upstream.says(
        "tools/call",
        Say::Result(r#"{"resultType":"complete","content":[{"type":"text","text":"went"}]}"#.to_owned()),
    );
    for alice in &alices {
        assert!(said(alice).await?.contains("is left alone"), "nobody knows that it is mended");
    }
    let began = Instant::now();
    server.rows("acme").await?.reset_upstream(desk(&server).await?.id).await?;
    let again = async |alice: &Http| -> Result<()> {
        while said(alice).await? != "went" {
            ensure!(began.elapsed() < FOUND_WITHIN, "it is not called again");
        }
        Ok(())
    };
    try_join_all(alices.iter().map(again)).await?;
    assert!(began.elapsed() < RESET_WITHIN, "after {:?}", began.elapsed());
    Ok(())
}
