//! The official conformance suite, on both sides of mcp-mux. What may fail stands in `tests/conformance/baseline.txt`, and nothing
//! else may.
//!
//! As a server it is asked at a tenant's endpoint. The server behind passes the suite by itself, so whatever fails is lost on the
//! way. As a client it has the suite's server for its upstream.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tenant_store::Level;

use crate::support::conformance::ConformanceServer;
use crate::support::driver;
use crate::support::forwarder;
use crate::support::server::{Setup, TestServer};
use crate::support::suite::{self, Report};

/// The revisions, and how all of the suite is run for each.
const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

async fn run(url: &str, version: &str) -> Result<Report> {
    suite::run(&["server", "--url", url, "--suite", "all", "--spec-version", version]).await
}

/// What of a role and a revision may fail: pairs of scenario and check.
fn baseline(role: &str) -> Result<BTreeSet<(String, String)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/baseline.txt");
    let mut listed = BTreeSet::new();
    for line in fs::read_to_string(file)?.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [of, scenario, check] = words[..] else { anyhow::bail!("not three words: {line}") };
        if of == role {
            ensure!(listed.insert((scenario.to_owned(), check.to_owned())), "listed twice: {line}");
        }
    }
    Ok(listed)
}

/// Fails unless exactly what is listed has failed.
fn compare(report: &Report, listed: &BTreeSet<(String, String)>, role: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (failure, problem) in &report.failed {
        if !listed.contains(failure) {
            wrong.push(format!("failed: {role} {} {}\n    {problem}", failure.0, failure.1));
        }
    }
    for (scenario, check) in listed.iter().filter(|listed| !report.failed.contains_key(*listed)) {
        wrong.push(format!("passed, so it must leave the baseline: {role} {scenario} {check}"));
    }
    let scenarios = report.scenarios;
    ensure!(wrong.is_empty(), "{} passed in {scenarios} scenarios\n{}", report.passed, wrong.join("\n"));
    Ok(())
}

/// A server with one tenant, whose upstream is this one, and the URL of that tenant's endpoint for clients without a token.
async fn in_front_of(upstream: &str, name: &str) -> Result<(TestServer, String)> {
    let setup = Setup { tenant: "acme", upstream: "conformance", url: upstream, key: None, level: Level::Admin };
    let server = TestServer::start(name, &[setup]).await?;
    let there = server.url("/t/acme/mcp");
    let (there, path) = there.strip_prefix("http://").and_then(|url| url.split_once('/')).context("a URL")?;
    let here = forwarder::start(there, &server.token("alice", &["acme"])?).await?;
    Ok((server, format!("http://{here}/{path}")))
}

#[tokio::test]
async fn the_server_behind_passes_conformance_by_itself() -> Result<()> {
    let url = ConformanceServer::speaking(|_| true).serve().await?;
    for version in [MODERN, LEGACY] {
        compare(&run(&url, version).await?, &BTreeSet::new(), version)?;
    }
    Ok(())
}

#[tokio::test]
async fn what_conformance_to_the_modern_revision_demands_arrives_through_the_mux() -> Result<()> {
    let upstream = ConformanceServer::speaking(|_| true).serve().await?;
    let (_server, url) = in_front_of(&upstream, "conformance_modern").await?;
    let listed = baseline("server-2026-07-28")?;
    compare(&run(&url, MODERN).await?, &listed, "server-2026-07-28")?;
    // The list that was frozen when the revision was released: no more may fail in it either.
    for scenario in ["sep-2640-skills-enumeration", "sep-2640-skills-manifest"] {
        let skills = suite::run(&["server", "--url", &url, "--scenario", scenario]).await?;
        ensure!(skills.passed > 3, "{scenario} checked nothing: {skills:?}");
        compare(&skills, &listed, "server-2026-07-28")?;
    }
    let required = suite::run(&["server", "--url", &url, "--requirements", MODERN]).await?;
    compare(&required, &listed, "server-2026-07-28")
}

#[tokio::test]
async fn what_conformance_to_the_legacy_revision_demands_arrives_through_the_mux() -> Result<()> {
    // Of the same era, because what a server asks of its client is said in another way in the other.
    let upstream = ConformanceServer::speaking(|version| version < MODERN).serve().await?;
    let (_server, url) = in_front_of(&upstream, "conformance_legacy").await?;
    compare(&run(&url, LEGACY).await?, &baseline("server-2025-11-25")?, "server-2025-11-25")
}

/// Runs scenarios of the client's side, one after the other.
async fn run_as_client(role: &str, version: &str, scenarios: &[&str]) -> Result<()> {
    let command = suite::client_command(&driver::start().await?);
    let mut all = Report::default();
    for scenario in scenarios {
        let arguments = ["client", "--command", &command, "--scenario", scenario, "--spec-version", version];
        let report = suite::run(&arguments).await?;
        ensure!(report.passed + report.failed.len() > 0, "{scenario} checked nothing");
        all.scenarios += report.scenarios;
        all.passed += report.passed;
        all.failed.extend(report.failed);
    }
    compare(&all, &baseline(role)?, role)
}

#[tokio::test]
async fn the_mux_is_a_client_in_conformance_with_the_modern_revision() -> Result<()> {
    let scenarios = [
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ];
    run_as_client("client-2026-07-28", MODERN, &scenarios).await
}

#[tokio::test]
async fn the_mux_is_a_client_in_conformance_with_the_legacy_revision() -> Result<()> {
    let scenarios = [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ];
    run_as_client("client-2025-11-25", LEGACY, &scenarios).await
}
