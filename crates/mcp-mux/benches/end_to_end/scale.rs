//! Whether what a request costs stays the same as tenants and views grow.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use mcp_mux::lifecycle::Tasks;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::child::{Child, spent_by};
use super::compare::tokens;
use super::load::Turns;
use super::measure::{Bench, Cost, Effort, median};
use super::report;
use super::wire::{Client, Era, PREFIX};

const CONNECTIONS: usize = 16;
const TENANTS: [usize; 4] = [10, 100, 1_000, 10_000];
const VIEWS: [usize; 4] = [1, 50, 500, 5_000];
/// Who takes turns while views are counted, however many views they have.
const CALLERS: usize = 5_000;
/// Below this share of one processor a server is taken for idle.
const IDLE: f64 = 0.05;
/// How long it may take to become idle.
const SETTLE_MAX: Duration = Duration::from_mins(5);

/// One size, as it is measured.
struct Size {
    what: &'static str,
    count: usize,
    call: Bench,
    list: Bench,
}

/// Grows both and prints what came out.
pub(crate) async fn run(as_json: bool) -> Result<()> {
    let tasks = Tasks::default();
    let upstream = Child::start("upstream", &Value::Null).await?;
    let mut servers = Vec::new();
    for tenants in TENANTS {
        report::note(&format!("{tenants} tenants are set up"))?;
        let is_largest = tenants >= CALLERS;
        let views: &[usize] = if is_largest { &VIEWS } else { &[] };
        let settings =
            json!({ "upstream": upstream.address()?, "tenants": tenants, "views": views, "callers": CALLERS });
        let server = Child::start("mux", &settings).await?;
        settle(&server).await?;
        servers.push(server);
    }
    let mut by_tenants = Vec::new();
    for (server, count) in servers.iter().zip(TENANTS) {
        by_tenants.push(Size::new("tenants", count, (&upstream, server, "acme"), &tasks).await?);
    }
    let largest = servers.last().context("there are servers")?;
    let mut by_views = Vec::new();
    for count in VIEWS {
        report::note(&format!("{CALLERS} callers with {count} views come for the first time"))?;
        by_views.push(Size::new("views", count, (&upstream, largest, &format!("views {count}")), &tasks).await?);
    }
    let mut results = measure(&mut by_tenants).await?;
    results.extend(measure(&mut by_views).await?);
    if as_json { report::print_json(&report_json(&results)?) } else { report::print(&table(&results)?) }
}

/// Waits until a server that was just set up has listed its upstreams.
async fn settle(server: &Child) -> Result<()> {
    let (deadline, pause) = (Instant::now() + SETTLE_MAX, Duration::from_secs(2));
    while Instant::now() < deadline {
        let before = spent_by(server.pid)?;
        // Nobody is told when another process is idle.
        sleep(pause).await;
        if spent_by(server.pid)?.saturating_sub(before).as_secs_f64() < IDLE * pause.as_secs_f64() {
            return Ok(());
        }
    }
    report::note("a server is still busy")
}

impl Size {
    async fn new(
        what: &'static str,
        count: usize,
        (upstream, server, callers): (&Child, &Child, &str),
        tasks: &Tasks,
    ) -> Result<Self> {
        let address = server.address()?;
        let tokens = tokens(server, callers)?;
        let (mut calls, mut lists): (Vec<Turns>, Vec<Turns>) = Default::default();
        for first in 0..CONNECTIONS {
            let own = tokens.iter().skip(first).step_by(CONNECTIONS);
            let client = |token| Client { address: &address, path: "/mcp", token, prefix: PREFIX, era: Era::Modern };
            calls.push(own.clone().map(|token| Ok(vec![client(token).call(256)?])).collect::<Result<_>>()?);
            lists.push(own.map(|token| Ok(vec![client(token).list(20)?])).collect::<Result<_>>()?);
        }
        let call = Bench::new(upstream, Some(server), calls, tasks).await?;
        let list = Bench::new(upstream, Some(server), lists, tasks).await?;
        Ok(Self { what, count, call, list })
    }
}

/// What one size came to: a call and a list, each with its processor time as a multiple of the smallest size's.
struct Grown {
    what: &'static str,
    count: usize,
    call: (Cost, f64),
    list: (Cost, f64),
}

/// All sizes in turn, round after round.
async fn measure(sizes: &mut [Size]) -> Result<Vec<Grown>> {
    let effort = Effort::full();
    let mut rounds: Vec<(Vec<Cost>, Vec<Cost>)> = sizes.iter().map(|_| Default::default()).collect();
    for round in 0..=effort.rounds {
        report::note(&format!("round {round}"))?;
        for (size, (calls, lists)) in sizes.iter_mut().zip(&mut rounds) {
            let (call, list) = (size.call.measure(effort.length).await?, size.list.measure(effort.length).await?);
            // The first round warms up.
            if round > 0 {
                calls.push(call);
                lists.push(list);
            }
        }
    }
    let (first_calls, first_lists) = rounds.first().cloned().context("there are sizes")?;
    let grown = |(size, (calls, lists)): (&Size, &(Vec<Cost>, Vec<Cost>))| Grown {
        what: size.what,
        count: size.count,
        call: (Cost::median(calls), growth(&first_calls, calls)),
        list: (Cost::median(lists), growth(&first_lists, lists)),
    };
    Ok(sizes.iter().zip(&rounds).map(grown).collect())
}

/// By how much the processor time of mcp-mux grew, round by round.
fn growth(first: &[Cost], grown: &[Cost]) -> f64 {
    median(first.iter().zip(grown).map(|(first, grown)| grown.gateway / first.gateway))
}

fn table(results: &[Grown]) -> Result<String> {
    let mut table = format!("load average at the end: {}; microseconds of mcp-mux's CPU\n\n", report::load_average()?);
    table.push_str("| grown | count | per 256 B call | growth | per list of 20 | growth | p99 call | p99 list |\n");
    table.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for Grown { what, count, call: (call, call_growth), list: (list, list_growth) } in results {
        writeln!(
            table,
            "| {what} | {count} | {:.1} | {call_growth:.2} | {:.1} | {list_growth:.2} | {:.0} | {:.0} |",
            call.gateway, list.gateway, call.p99, list.p99,
        )?;
    }
    Ok(table)
}

fn report_json(results: &[Grown]) -> Result<Value> {
    let size = |Grown { what, count, call: (call, call_growth), list: (list, list_growth) }: &Grown| {
        json!({
            "grown": what, "count": count,
            "call": { "growth": call_growth, "cost": call.json() }, "list": { "growth": list_growth, "cost": list.json() },
        })
    };
    Ok(json!({ "load_average": report::load_average()?, "sizes": results.iter().map(size).collect::<Vec<_>>() }))
}
