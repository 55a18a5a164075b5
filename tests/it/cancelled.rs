//! Ten thousand calls whose clients go away leave nothing behind: no task, no session, no place, no connection, no memory.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tenant_store::{Level, UpstreamAuth};
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::canary;
use crate::support::client::Http;
use crate::support::old_sse::RawOldSse;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{Calls, RealUpstream};

/// How many calls are cancelled in each way, by how many clients at once.
const CALLS: usize = 10_000;
const CLIENTS: usize = 4;
/// How many calls of one principal go on that nobody listens to.
const ALONE_MAX: usize = 8;
/// How much larger the process may be after them, in bytes. It holds the upstreams too, which note each request that they see.
const GROWTH_MAX: usize = 96 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long calls go on that nobody listens to or ends, and how long it may take at most until those are ended that are too many.
const ALONE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(5);

/// The slug of each client's own upstream.
fn slug(index: usize) -> String {
    format!("desk{index}")
}

fn desk<'s>(name: &'s str, url: &'s str, key: Option<&'s str>) -> Setup<'s> {
    Setup { tenant: "acme", upstream: name, url, key, level: Level::Write }
}

/// A client with a tool that answers never, and the calls of it.
struct Fickle {
    client: Http,
    tool: String,
    calls: Calls,
}

impl Fickle {
    /// One for each upstream, in their order, with the tool of that name.
    async fn all(server: &TestServer, tool: &str, upstreams: Vec<Calls>) -> Result<Vec<Self>> {
        let listed = server.client("alice", &["acme"])?.tools().await?;
        let tools: Vec<_> = listed.iter().filter(|name| name.contains(tool)).collect();
        ensure!(tools.len() == upstreams.len(), "{listed:?}");
        let one = |(index, (calls, tool)): (usize, (Calls, &String))| {
            let client = server.client(&format!("caller-{index}"), &["acme"])?;
            Ok(Self { client, tool: tool.clone(), calls })
        };
        upstreams.into_iter().zip(tools).enumerate().map(one).collect()
    }

    /// Goes away from a call when it runs upstream.
    async fn go_away(&self) -> Result<()> {
        let begun = self.calls.count().begun;
        tokio::select! {
            answer = self.client.call(&self.tool, json!({})) => bail!("it answered: {answer:?}"),
            () = self.calls.until(|count| count.begun > begun) => {}
        }
        until_running(&self.calls, 0).await
    }
}

/// A client of a session, whose streams can be taken up.
struct InSession {
    fickle: Fickle,
    next_id: Cell<u64>,
    /// The most calls that went on when it had hung up.
    most_alone: Cell<usize>,
}

impl InSession {
    async fn start(fickle: Fickle) -> Result<Self> {
        let session = fickle.client.begin_session().await?;
        let client = fickle.client.with("mcp-session-id", &session)?.with("mcp-protocol-version", "2025-11-25")?;
        Ok(Self { fickle: Fickle { client, ..fickle }, next_id: Cell::new(1), most_alone: Cell::new(0) })
    }

    /// Cancels one call and hangs up on the next.
    async fn go_away(&self) -> Result<()> {
        let Fickle { client, tool, calls } = &self.fickle;
        let (id, before) = (self.next_id.get(), calls.count());
        self.next_id.set(id + 1);
        let stream = client.legacy_stream(id, "tools/call", &json!({"name": tool})).await?;
        timeout(PATIENCE, calls.until(|count| count.begun > before.begun)).await.context("it runs upstream")?;
        if id.is_multiple_of(2) {
            let cancelled = json!({"requestId": id});
            let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}).to_string();
            ensure!(client.post(note).await?.status == 202);
            stream.end().await?;
            return until_running(calls, before.running).await;
        }
        drop(stream);
        timeout(SOON, until_running(calls, ALONE_MAX)).await.context("too many calls go on")??;
        self.most_alone.set(self.most_alone.get().max(calls.count().running));
        Ok(())
    }
}

async fn until_running(calls: &Calls, most: usize) -> Result<()> {
    let fewer = calls.until(|count| count.running <= most);
    timeout(PATIENCE, fewer).await.with_context(|| format!("{:?}, but at most {most} may run", calls.count()))
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a size")?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// How many connections and files this process holds open.
fn open() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Lets each client go away from so many calls, and sees to it that nothing of them stays.
async fn nothing_stays<C>(
    server: &TestServer,
    (clients, upstreams): (&[C], &[Calls]),
    times: usize,
    go_away: impl AsyncFn(&C) -> Result<()>,
) -> Result<()> {
    let all = async |times: usize| -> Result<()> {
        let each = async |client: &C| -> Result<()> {
            for _ in 0..times {
                go_away(client).await?;
            }
            Ok(())
        };
        try_join_all(clients.iter().map(each)).await?;
        try_join_all(upstreams.iter().map(|calls| until_running(calls, 0))).await?;
        Ok(())
    };
    all(times / 10).await?;
    let (tasks, opened, before) = (server.app.tasks().running(), open()?, resident()?);
    all(times).await?;
    let grown = resident()?.saturating_sub(before);
    ensure!(grown < GROWTH_MAX, "the process grew by {} MiB", grown / 1024 / 1024);
    // The last cancellations are being told, and the last connections closed.
    let settled = async {
        while server.app.tasks().running() > tasks || open()? > opened + clients.len() {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    let settled = timeout(PATIENCE, settled).await;
    settled.with_context(|| format!("{} tasks of {tasks}, {:?} of {opened}", server.app.tasks().running(), open()))?
}

/// A server in front of upstreams that speak Streamable HTTP.
async fn streamable(name: &str, is_legacy: bool) -> Result<(TestServer, Vec<RealUpstream>)> {
    let (server, key) = (TestServer::start(name, &[]).await?, canary("key"));
    let mut upstreams = Vec::new();
    for name in (0..CLIENTS).map(slug) {
        let real = RealUpstream::named("acme");
        let real = if is_legacy { real.legacy() } else { real };
        let (url, _) = real.clone().serve(&key, is_legacy).await?;
        upstreams.push(real);
        let bearer = UpstreamAuth::Bearer { secret: "key".parse()? };
        server.add(&desk(&name, &url, Some(&key)), bearer, &[("key", &key)]).await?;
    }
    Ok((server, upstreams))
}

fn calls_of(upstreams: &[RealUpstream]) -> Vec<Calls> {
    upstreams.iter().map(|upstream| upstream.calls.clone()).collect()
}

async fn few_sessions(upstreams: &[RealUpstream]) -> Result<()> {
    for upstream in upstreams {
        // One of the lister and one of the caller's.
        let sessions = upstream.sessions.sessions.read().await.len();
        ensure!(sessions <= 2, "{sessions} sessions");
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_cancelled_calls_leave_nothing_behind() -> Result<()> {
    for is_legacy in [false, true] {
        let (server, upstreams) = streamable("cancelled", is_legacy).await?;
        let calls = calls_of(&upstreams);
        let clients = Fickle::all(&server, "wait", calls.clone()).await?;
        nothing_stays(&server, (&clients, &calls), CALLS / 2 / CLIENTS, Fickle::go_away).await?;
        few_sessions(&upstreams).await?;
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_cancelled_calls_over_the_old_transport_leave_nothing_behind() -> Result<()> {
    let server = TestServer::start("cancelled_old", &[]).await?;
    let mut upstreams = Vec::new();
    for name in (0..CLIENTS).map(slug) {
        let raw = RawOldSse::new(|tool| if tool == "go" { String::new() } else { RawOldSse::result("quick") });
        let (url, _) = raw.clone().serve().await?;
        upstreams.push(raw);
        server.add(&desk(&name, &url, None), UpstreamAuth::None, &[]).await?;
    }
    let calls: Vec<_> = upstreams.iter().map(|raw| raw.calls.clone()).collect();
    let clients = Fickle::all(&server, "go", calls.clone()).await?;
    nothing_stays(&server, (&clients, &calls), CALLS / CLIENTS, Fickle::go_away).await?;
    for raw in upstreams {
        assert_eq!((raw.begun(), raw.read()), (2, 2), "a stream to list with, and one of the caller's");
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_cancelled_calls_of_an_api_leave_nothing_behind() -> Result<()> {
    let server = TestServer::start("cancelled_api", &[]).await?;
    let paths = json!({"/wait": {"get": {"operationId": "wait"}}});
    let document = json!({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths});
    let mut calls = Vec::new();
    for name in (0..CLIENTS).map(slug) {
        let api = Api::serve(&document, |_, _, _, _| (404, "text/plain", Vec::new())).await?;
        calls.push(api.calls.clone());
        server.add_api(&desk(&name, &api.url, None), &api.document(), UpstreamAuth::None, &[]).await?;
    }
    let clients = Fickle::all(&server, "wait", calls.clone()).await?;
    nothing_stays(&server, (&clients, &calls), CALLS / CLIENTS, Fickle::go_away).await
}

#[tokio::test]
async fn ten_thousand_cancelled_calls_whose_streams_could_be_taken_up_leave_nothing_behind() -> Result<()> {
    let (server, upstreams) = streamable("cancelled_taken_up", true).await?;
    let rows = server.rows("acme").await?;
    for mut desk in rows.upstreams().await? {
        // So that the next call finds a place beside those that go on.
        desk.spec.concurrency = 2 * u32::try_from(ALONE_MAX)?;
        desk.spec.call_timeout = ALONE;
        rows.put_upstream(&desk.slug, &desk.spec).await?;
    }
    server.app.follow().await?;
    let calls = calls_of(&upstreams);
    let clients = Fickle::all(&server, "wait", calls.clone()).await?;
    let clients = try_join_all(clients.into_iter().map(InSession::start)).await?;
    nothing_stays(&server, (&clients, &calls), CALLS / CLIENTS, InSession::go_away).await?;
    for client in clients {
        assert_eq!(client.most_alone.get(), ALONE_MAX, "each principal's calls go on, up to so many");
    }
    few_sessions(&upstreams).await
}
