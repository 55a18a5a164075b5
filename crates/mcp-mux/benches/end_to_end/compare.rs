//! The comparison: each case on each way, in turn and round after round, so that whatever else the machine does meets all three.

use anyhow::{Context as _, Result};
use mcp_mux::lifecycle::Tasks;
use serde_json::{Value, json};

use super::child::Child;
use super::flow;
use super::load::Turns;
use super::measure::{Bench, Cost, Effort, WAYS, Way, median};
use super::report;
use super::wire::{Ask, Client, Era, PREFIX};

const KIB: usize = 1_024;

/// What is asked in a case.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// A call with so many bytes, there and back.
    Call(usize),
    /// A list of so many tools.
    List(usize),
    /// All that Open WebUI does for one question.
    Turn(Era),
}

/// What is asked, over how many connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    asked: Asked,
    pub(crate) connections: usize,
}

/// Every case that is measured.
pub(crate) const CASES: [Case; 12] = [
    Case { asked: Asked::Call(256), connections: 1 },
    Case { asked: Asked::Call(256), connections: 16 },
    Case { asked: Asked::Call(256), connections: 64 },
    Case { asked: Asked::Call(64 * KIB), connections: 1 },
    Case { asked: Asked::Call(64 * KIB), connections: 16 },
    Case { asked: Asked::Call(64 * KIB), connections: 64 },
    Case { asked: Asked::List(20), connections: 1 },
    Case { asked: Asked::List(20), connections: 16 },
    Case { asked: Asked::List(1_000), connections: 1 },
    Case { asked: Asked::List(1_000), connections: 16 },
    Case { asked: Asked::Turn(Era::Modern), connections: 16 },
    Case { asked: Asked::Turn(Era::Legacy), connections: 16 },
];

/// What a case came to: one cost for each of [`WAYS`], and how many times the floor's processor time mcp-mux spent.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) costs: [Cost; 3],
    pub(crate) ratio: f64,
}

impl Case {
    /// What tables call it.
    pub(crate) fn name(&self) -> String {
        match self.asked {
            Asked::Call(bytes) if bytes < KIB => format!("call, {bytes} B"),
            Asked::Call(bytes) => format!("call, {} KiB", bytes / KIB),
            Asked::List(count) => format!("list of {count} tools"),
            Asked::Turn(Era::Modern) => "Open WebUI turn, 2026-07-28".to_owned(),
            Asked::Turn(Era::Legacy) => "Open WebUI turn, 2025-11-25".to_owned(),
        }
    }

    fn tools(&self) -> usize {
        if let Asked::List(count) = self.asked { count } else { 20 }
    }

    fn asks(&self, client: &Client<'_>) -> Result<Vec<Ask>> {
        match self.asked {
            Asked::Call(bytes) => Ok(vec![client.call(bytes)?]),
            Asked::List(count) => Ok(vec![client.list(count)?]),
            Asked::Turn(_) => client.turn(20, 256),
        }
    }
}

/// The three, up and ready.
pub(crate) struct Stage {
    pub(crate) upstream: Child,
    floor: Child,
    mux: Child,
    pub(crate) tasks: Tasks,
}

impl Stage {
    pub(crate) async fn start() -> Result<Self> {
        let upstream = Child::start("upstream", &Value::Null).await?;
        let address = upstream.address()?;
        let floor = Child::start("floor", &json!(address)).await?;
        let settings = json!({ "upstream": address, "tenants": 0, "views": [], "callers": 0 });
        let mux = Child::start("mux", &settings).await?;
        Ok(Self { upstream, floor, mux, tasks: Tasks::default() })
    }

    async fn bench(&self, case: &Case, way: Way) -> Result<Bench> {
        let (gateway, prefix) = match way {
            Way::Direct => (None, ""),
            Way::Floor => (Some(&self.floor), PREFIX),
            Way::Mux => (Some(&self.mux), PREFIX),
        };
        let address = gateway.unwrap_or(&self.upstream).address()?;
        let path = if way == Way::Mux { "/mcp".to_owned() } else { format!("/{}/mcp", case.tools()) };
        let tokens = tokens(&self.mux, if case.tools() == 20 { "acme" } else { "globex" })?;
        let era = if let Asked::Turn(era) = case.asked { era } else { Era::Modern };
        let turns = |token: &&str| {
            let client = Client { address: &address, path: &path, token, prefix, era };
            Ok(vec![case.asks(&client)?])
        };
        let turns = tokens.iter().take(case.connections).map(turns).collect::<Result<Vec<Turns>>>()?;
        Bench::new(&self.upstream, gateway, turns, &self.tasks).await
    }

    pub(crate) async fn measure(&self, case: Case, effort: Effort) -> Result<Outcome> {
        let mut benches = Vec::new();
        for way in WAYS {
            let mut bench = self.bench(&case, way).await?;
            bench.measure(effort.warm_up).await?;
            benches.push(bench);
        }
        let mut rounds: [Vec<Cost>; 3] = Default::default();
        for _ in 0..effort.rounds {
            for (bench, costs) in benches.iter_mut().zip(&mut rounds) {
                costs.push(bench.measure(effort.length).await?);
            }
        }
        let [_, floor, mux] = &rounds;
        let ratio = median(floor.iter().zip(mux).map(|(floor, mux)| mux.gateway / floor.gateway));
        Ok(Outcome { case, costs: rounds.map(|costs| Cost::median(&costs)), ratio })
    }
}

/// The tokens of the callers of that name.
pub(crate) fn tokens<'c>(mux: &'c Child, name: &str) -> Result<Vec<&'c str>> {
    let tokens = mux.hello.get(name).and_then(Value::as_array).context("there are callers of that name")?;
    Ok(tokens.iter().filter_map(Value::as_str).collect())
}

/// Measures every case whose name holds one of the `wanted` words, or all if none is, and prints what came out.
pub(crate) async fn run(effort: Effort, wanted: &[&str], as_json: bool) -> Result<()> {
    let stage = Stage::start().await?;
    let mut outcomes = Vec::new();
    let is_wanted = |case: &Case| wanted.is_empty() || wanted.iter().any(|words| case.name().contains(words));
    for case in CASES.into_iter().filter(is_wanted) {
        report::note(&format!("{}, {} connections", case.name(), case.connections))?;
        outcomes.push(stage.measure(case, effort).await?);
    }
    report::note("the flow guard")?;
    let guard = flow::costs(200)?;
    if as_json {
        report::print_json(&report::json(&outcomes, &guard)?)
    } else {
        report::print(&report::table(&outcomes, &guard)?)
    }
}
