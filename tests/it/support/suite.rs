//! The official conformance suite, `@modelcontextprotocol/conformance`, as a process: see `tests/conformance`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

/// What is below the name of a scenario in a folder's name: `2026-07-28T12-00-00-000Z`, after a dash.
const STAMP_CHARS: usize = 25;

/// What the suite found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Scenarios that were run.
    pub scenarios: usize,
    /// Checks that were passed.
    pub passed: usize,
    /// Scenario and check, and what was wrong.
    pub failed: BTreeMap<(String, String), String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn node() -> PathBuf {
    folder().join("node_modules/node/bin/node")
}

/// What the suite is told to run as the client under test, which reports to `driver`.
pub(crate) fn client_command(driver: &str) -> String {
    format!("{} {} {driver}", node().display(), folder().join("client.mjs").display())
}

/// Runs the suite with these arguments.
pub(crate) async fn run(arguments: &[&str]) -> Result<Report> {
    let results = tempfile::tempdir()?;
    let output = Command::new(node())
        .arg(folder().join("node_modules").join("@modelcontextprotocol/conformance/dist/index.js"))
        .args(arguments)
        .arg("--output-dir")
        .arg(results.path())
        .kill_on_drop(true)
        .output()
        .await
        .context("running the conformance suite: `tests/run.sh --install` installs it")?;
    let report = read(results.path())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(report.scenarios > 0, "the suite ran nothing: {said}{}", String::from_utf8_lossy(&output.stdout));
    Ok(report)
}

/// Reads one folder for each scenario.
fn read(results: &Path) -> Result<Report> {
    let mut report = Report::default();
    for entry in fs::read_dir(results)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let scenario =
            name.split_at_checked(name.len().saturating_sub(STAMP_CHARS)).context("a scenario and a time")?.0;
        let scenario = scenario.strip_prefix("server-").unwrap_or(scenario).to_owned();
        let checks: Vec<Value> = serde_json::from_slice(&fs::read(entry.path().join("checks.json"))?)?;
        report.scenarios += 1;
        for check in checks {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            match text("status").as_str() {
                "SUCCESS" => report.passed += 1,
                "FAILURE" | "WARNING" => {
                    report.failed.insert((scenario.clone(), text("id")), text("errorMessage"));
                }
                _ => {}
            }
        }
    }
    Ok(report)
}
