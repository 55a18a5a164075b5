//! One measurement: a load against one of the three, and what each process spent on it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_mux::lifecycle::Tasks;
use serde_json::{Value, json};

use super::child::{Child, spent_by};
use super::load::{self, Connection, Turns};

/// How long is measured, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
    pub(crate) warm_up: Duration,
}

impl Effort {
    /// What the figures in the documentation were measured with.
    pub(crate) fn full() -> Self {
        Self { rounds: 5, length: Duration::from_secs(2), warm_up: Duration::from_millis(500) }
    }

    /// Enough to see that everything works, and no more.
    pub(crate) fn quick() -> Self {
        Self { rounds: 1, length: Duration::from_millis(50), warm_up: Duration::ZERO }
    }
}

/// Who is asked: the upstream directly, the floor, or mcp-mux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Floor,
    Mux,
}

/// All of them, in the order in which a round asks them.
pub(crate) const WAYS: [Way; 3] = [Way::Direct, Way::Floor, Way::Mux];

impl Way {
    /// What tables call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Mux => "mcp-mux",
        }
    }
}

/// What one turn cost on one way. Times are microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) turns_per_second: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    /// Processor time of the process in between; none where there is none.
    pub(crate) gateway: f64,
    pub(crate) upstream: f64,
    pub(crate) load: f64,
}

impl Cost {
    /// The median of each figure.
    pub(crate) fn median(costs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(costs.iter().map(figure));
        Self {
            turns_per_second: of(|cost| cost.turns_per_second),
            median: of(|cost| cost.median),
            p99: of(|cost| cost.p99),
            gateway: of(|cost| cost.gateway),
            upstream: of(|cost| cost.upstream),
            load: of(|cost| cost.load),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "turns_per_second": self.turns_per_second, "latency_us": { "p50": self.median, "p99": self.p99 },
            "cpu_us": { "gateway": self.gateway, "upstream": self.upstream, "load": self.load },
        })
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// The connections of one way, and the processes whose time counts.
pub(crate) struct Bench {
    connections: Vec<Connection>,
    gateway: Option<u32>,
    upstream: u32,
}

impl Bench {
    /// Connects to `gateway`, or to `upstream` itself.
    pub(crate) async fn new(
        upstream: &Child,
        gateway: Option<&Child>,
        turns: Vec<Turns>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let connections = load::connect(&gateway.unwrap_or(upstream).address()?, turns, tasks).await?;
        Ok(Self { connections, gateway: gateway.map(|child| child.pid), upstream: upstream.pid })
    }

    /// Lets the load run, and says what it cost.
    pub(crate) async fn measure(&mut self, length: Duration) -> Result<Cost> {
        let pids = [self.gateway.unwrap_or(self.upstream), self.upstream, std::process::id()];
        let before = spent(pids)?;
        let sample = load::run(&mut self.connections, length).await?;
        let after = spent(pids)?;
        let turns = u32::try_from(sample.turns()).context("a count")?;
        let each = |which: fn(&[Duration; 3]) -> Duration| {
            which(&after).saturating_sub(which(&before)).as_secs_f64() * 1e6 / f64::from(turns)
        };
        Ok(Cost {
            turns_per_second: f64::from(turns) / sample.elapsed.as_secs_f64(),
            median: sample.quantile(0.5),
            p99: sample.quantile(0.99),
            gateway: if self.gateway.is_some() { each(|[gateway, _, _]| *gateway) } else { 0.0 },
            upstream: each(|[_, upstream, _]| *upstream),
            load: each(|[_, _, load]| *load),
        })
    }
}

fn spent([gateway, upstream, load]: [u32; 3]) -> Result<[Duration; 3]> {
    Ok([spent_by(gateway)?, spent_by(upstream)?, spent_by(load)?])
}
