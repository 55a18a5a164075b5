//! Of twenty upstreams one stalls, one floods and one lies, and the people of the other seventeen do not notice.
//!
//! Both ways of the world are measured in turn, in the same run, so that whatever else the machine does falls on both.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::{join_all, try_join_all};
use serde_json::json;
use tenant_store::Level;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

const GOOD: usize = 17;
/// How long a good upstream works on an answer.
const WORK: Duration = Duration::from_millis(400);
/// How often each way is measured, and how many calls each person makes then.
const TURNS: usize = 5;
const ROUNDS: usize = 8;
/// How many people call each of the others.
const PEOPLE_MISLED: usize = 3;
/// What a call may take longer among the disturbed.
const SLOWER_PERCENT_MAX: u32 = 20;
/// What a list may: it takes a few milliseconds, and so does a busy machine's other work.
const LIST_SLOWER_MAX: Duration = Duration::from_millis(50);

const ANSWER: &str = r#"{"resultType":"complete","content":[{"type":"text","text":"done"}]}"#;

/// How long calls and lists took.
#[derive(Default)]
struct Took {
    calls: Vec<Duration>,
    lists: Vec<Duration>,
}

/// What that came to in each turn, in 99 of 100.
#[derive(Default)]
struct Turns {
    calls: Vec<Duration>,
    lists: Vec<Duration>,
}

impl Turns {
    fn add(&mut self, took: Took) {
        self.calls.push(p99(took.calls));
        self.lists.push(p99(took.lists));
    }

    /// Of calls and of lists that of the turn in the middle: whatever else the machine did for a moment is in none.
    fn middle(mut self) -> (Duration, Duration) {
        self.calls.sort_unstable();
        self.lists.sort_unstable();
        (self.calls[TURNS / 2], self.lists[TURNS / 2])
    }
}

/// The time within which 99 of 100 were over.
fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

/// What one person sees who works with one tool.
async fn work(client: &Http, tool: &str) -> Result<Took> {
    let mut took = Took::default();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ensure!(client.tools().await? == [tool]);
        took.lists.push(began.elapsed());
        let began = Instant::now();
        let answer = client.call(tool, json!({})).await?;
        took.calls.push(began.elapsed());
        ensure!(answer["result"]["content"][0]["text"] == "done", "{answer}");
    }
    Ok(took)
}

async fn work_of_all(people: &[(Http, String)]) -> Result<Took> {
    let mut all = Took::default();
    for took in try_join_all(people.iter().map(|(client, tool)| work(client, tool))).await? {
        all.calls.extend(took.calls);
        all.lists.extend(took.lists);
    }
    Ok(all)
}

/// Calls again and again, whatever comes of it, as often as the others do.
async fn be_misled(client: &Http, tool: &str) -> Result<()> {
    let mut pace = interval(WORK);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let answer = client.call(tool, json!({})).await?;
        ensure!(answer["result"]["content"][0]["text"] != "done", "{answer}");
    }
}

/// Somebody's client at the endpoint of all tenants, and the tool that it sees there.
fn person(server: &TestServer, name: &str, tenant: &str) -> Result<(Http, String)> {
    Ok((server.client(name, &[tenant])?, format!("{tenant}__run")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stalls_floods_or_lies_is_not_noticed_by_the_people_of_other_upstreams() -> Result<()> {
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{id},"progress":1}}"#;
    let lie = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"done"}]"#;
    let says = vec![Say::Working(WORK, ANSWER.to_owned()); GOOD].into_iter().chain([
        Say::Silence,
        Say::Flood(progress.to_owned()),
        Say::Http(200, "application/json", lie.into()),
    ]);
    let mut upstreams = Vec::new();
    for (number, say) in says.enumerate() {
        let upstream = ByteUpstream::with_tools(r#"[{"name":"run","inputSchema":{"type":"object"}}]"#);
        upstreams.push((format!("t{number}"), upstream.on("tools/call", say).serve().await?.0));
    }
    let mut setups = Vec::new();
    for (tenant, url) in &upstreams {
        setups.push(Setup { tenant, upstream: "desk", url, key: None, level: Level::Write });
    }
    let server = TestServer::start_with("chaos", &setups, |config| {
        // A flood in the log is a flood of its own.
        config.telemetry.log = "warn".to_owned();
        Ok(())
    })
    .await?;
    let people =
        upstreams[..GOOD].iter().map(|(tenant, _)| person(&server, "alice", tenant)).collect::<Result<Vec<_>>>()?;
    let misled = upstreams[GOOD..]
        .iter()
        .flat_map(|(tenant, _)| (0..PEOPLE_MISLED).map(|number| person(&server, &format!("misled{number}"), tenant)));
    let misled = misled.collect::<Result<Vec<_>>>()?;

    work_of_all(&people).await?;
    let (mut alone, mut disturbed) = (Turns::default(), Turns::default());
    for _ in 0..TURNS {
        alone.add(work_of_all(&people).await?);
        let calls = join_all(misled.iter().map(|(client, tool)| be_misled(client, tool)));
        disturbed.add(tokio::select! {
            took = work_of_all(&people) => took?,
            ended = calls => anyhow::bail!("{ended:?}"),
        });
    }
    let ((calm, list_calm), (now, list_now)) = (alone.middle(), disturbed.middle());
    println!("p99 of calls: {calm:?} alone, {now:?} disturbed; of lists: {list_calm:?} alone, {list_now:?} disturbed");
    ensure!(now <= calm + calm * SLOWER_PERCENT_MAX / 100, "calls: {now:?} instead of {calm:?}");
    ensure!(list_now <= list_calm + LIST_SLOWER_MAX, "lists: {list_now:?} instead of {list_calm:?}");
    Ok(())
}
