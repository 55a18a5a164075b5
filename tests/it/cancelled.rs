//! Ten thousand calls whose clients go away leave nothing behind: no task, no session, no place, no memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tenant_store::Level;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;

/// How many calls are cancelled in each era, by how many clients at once.
const CALLS: usize = 5_000;
const CLIENTS: usize = 4;
/// How much larger the process may be after them, in bytes. It holds the upstreams too, which note each request that they see.
const GROWTH_MAX: usize = 96 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that goes away from one call after the other, each time when it runs upstream.
struct Fickle {
    client: Http,
    tool: String,
    waiting: Arc<Notify>,
    cancelled: Arc<Notify>,
}

impl Fickle {
    async fn go_away(&self, times: usize) -> Result<()> {
        for _ in 0..times {
            tokio::select! {
                answer = self.client.call(&self.tool, json!({})) => bail!("it answered: {answer:?}"),
                () = self.waiting.notified() => {}
            }
            timeout(PATIENCE, self.cancelled.notified()).await.context("the upstream hears of it")?;
        }
        Ok(())
    }
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a size")?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

#[tokio::test]
async fn ten_thousand_cancelled_calls_leave_nothing_behind() -> Result<()> {
    for is_legacy in [false, true] {
        let key = canary("key");
        let server = TestServer::start("cancelled", &[]).await?;
        let (mut clients, mut held) = (Vec::new(), Vec::new());
        for index in 0..CLIENTS {
            let real = RealUpstream::named("acme");
            let real = if is_legacy { real.legacy() } else { real };
            let (waiting, cancelled) = (real.waiting.clone(), real.cancelled.clone());
            held.push(real.sessions.clone());
            let (url, _) = real.serve(&key, is_legacy).await?;
            let name = format!("desk{index}");
            let setup = Setup { tenant: "acme", upstream: &name, url: &url, key: Some(&key), level: Level::Write };
            server.add(&setup, tenant_store::UpstreamAuth::Bearer { secret: "key".parse()? }, &[("key", &key)]).await?;
            clients.push((name, waiting, cancelled));
        }
        let tools = server.client("alice", &["acme"])?.tools().await?;
        let waits: Vec<_> = tools.iter().filter(|tool| tool.contains("wait")).collect();
        ensure!(waits.len() == CLIENTS, "{tools:?}");
        let clients = clients.into_iter().zip(waits).map(|((_, waiting, cancelled), tool)| {
            Ok(Fickle { client: server.client("alice", &["acme"])?, tool: tool.clone(), waiting, cancelled })
        });
        let clients = clients.collect::<Result<Vec<_>>>()?;
        let all = async |times: usize| try_join_all(clients.iter().map(|client| client.go_away(times))).await;

        all(CALLS / CLIENTS / 10).await?;
        let (tasks, before) = (server.app.tasks().running(), resident()?);
        all(CALLS / CLIENTS).await?;
        let grown = resident()?.saturating_sub(before);
        ensure!(grown < GROWTH_MAX, "the process grew by {} MiB", grown / 1024 / 1024);
        // The last cancellations are being told.
        let settled = async {
            while server.app.tasks().running() > tasks {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, settled).await.context("every task ends")?;
        for sessions in held {
            // One of the lister and one of alice's.
            let sessions = sessions.sessions.read().await.len();
            ensure!(sessions <= 2, "{sessions} sessions");
        }
    }
    Ok(())
}
