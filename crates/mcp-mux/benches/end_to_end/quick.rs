//! The benchmark as a test of itself: that all three answer rightly and that the table is whole. How long anything takes is not
//! judged.

use std::io::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::compare::{CASES, Stage};
use super::measure::{Cost, Effort};
use super::{flow, report, streams};

const NAME: &str = "all_three_answer_rightly_and_the_table_is_whole";

/// What `cargo nextest` asks for first.
pub(crate) fn list(only_ignored: bool) -> Result<()> {
    if !only_ignored {
        writeln!(std::io::stdout(), "{NAME}: test")?;
    }
    Ok(())
}

/// The test. That an answer is right is seen to by whoever connects.
pub(crate) async fn run() -> Result<()> {
    let stage = Stage::start().await?;
    let mut outcomes = Vec::new();
    for case in CASES {
        let outcome = stage.measure(case, Effort::quick()).await?;
        let is_measured = |cost: &Cost| cost.turns_per_second > 0.0 && cost.p99 >= cost.median && cost.median > 0.0;
        ensure!(outcome.costs.iter().all(is_measured), "{} came to nothing: {outcome:?}", case.name());
        outcomes.push(outcome);
    }
    streams::run(40).await?;
    let guard = flow::costs(3)?;
    let table = report::table(&outcomes, &guard)?;
    let whole =
        CASES.iter().all(|case| table.matches(&format!("| {} | {} |", case.name(), case.connections)).count() == 3);
    ensure!(whole, "the table has not three lines for each case:\n{table}");
    let json = report::json(&outcomes, &guard)?;
    let cases = json.get("cases").and_then(Value::as_array);
    ensure!(cases.is_some_and(|cases| cases.len() == CASES.len()), "{json}");
    report::print(&table)
}
