//! What came out, as a table for people or as JSON for programs, on standard output. What goes on is said on standard error.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::compare::Outcome;
use super::flow::Costs;
use super::measure::WAYS;

/// Says what is measured now.
pub(crate) fn note(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "measuring: {text}")?)
}

pub(crate) fn print(text: &str) -> Result<()> {
    Ok(write!(std::io::stdout(), "{text}")?)
}

pub(crate) fn print_json(value: &Value) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{value:#}")?)
}

/// How busy the machine was, in the last one, five and fifteen minutes.
pub(crate) fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Every case in three lines, one for each way.
pub(crate) fn table(outcomes: &[Outcome], guard: &Costs) -> Result<String> {
    let mut table = format!("load average at the end: {}; times are microseconds per turn\n\n", load_average()?);
    table.push_str("| case | connections | way | per second | p50 | p99 | CPU gateway | CPU upstream | CPU load | CPU mcp-mux ÷ floor |\n");
    table.push_str("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for Outcome { case, costs, ratio } in outcomes {
        for (way, cost) in WAYS.into_iter().zip(costs) {
            let ratio = if way == super::measure::Way::Mux { format!("{ratio:.2}") } else { String::new() };
            writeln!(
                table,
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {ratio} |",
                case.name(),
                case.connections,
                way.as_str(),
                cost.turns_per_second,
                cost.median,
                cost.p99,
                cost.gateway,
                cost.upstream,
                cost.load,
            )?;
        }
    }
    table.push_str("\n| the flow guard, for callers of several tenants | microseconds |\n| --- | ---: |\n");
    for (what, microseconds) in guard {
        writeln!(table, "| {what} | {microseconds:.1} |")?;
    }
    Ok(table)
}

/// The same for programs.
pub(crate) fn json(outcomes: &[Outcome], guard: &Costs) -> Result<Value> {
    let case = |Outcome { case, costs: [direct, floor, mux], ratio }: &Outcome| {
        json!({
            "case": case.name(), "connections": case.connections, "gateway_cpu_ratio": ratio,
            "direct": direct.json(), "floor": floor.json(), "mcp_mux": mux.json(),
        })
    };
    let cases: Vec<Value> = outcomes.iter().map(case).collect();
    let guard: serde_json::Map<String, Value> =
        guard.iter().map(|(what, cost)| ((*what).to_owned(), json!(cost))).collect();
    Ok(json!({ "load_average": load_average()?, "cases": cases, "flow_guard_microseconds": guard }))
}
