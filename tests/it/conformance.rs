//! The official conformance suite through a tenant's endpoint. The server behind it passes the suite by itself, so whatever fails
//! here is lost on the way; what may fail stands in `tests/conformance/baseline.txt`, and nothing else may.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tenant_store::Level;

use crate::support::conformance::ConformanceServer;
use crate::support::forwarder;
use crate::support::server::{Setup, TestServer};
use crate::support::suite::{self, Report};

/// The revisions, and how all of the suite is run for each.
const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// Tasks are an extension: they are run with the requirements, but no revision requires them.
const EXTENSION: &str = "tasks-";

async fn run(url: &str, version: &str) -> Result<Report> {
    suite::run(&["server", "--url", url, "--suite", "all", "--spec-version", version]).await
}

/// What of a revision may fail: pairs of scenario and check.
fn baseline(version: &str) -> Result<BTreeSet<(String, String)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/baseline.txt");
    let mut listed = BTreeSet::new();
    for line in fs::read_to_string(file)?.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [revision, scenario, check] = words[..] else { anyhow::bail!("not three words: {line}") };
        if revision == version {
            ensure!(listed.insert((scenario.to_owned(), check.to_owned())), "listed twice: {line}");
        }
    }
    Ok(listed)
}

/// Fails unless exactly what is listed has failed.
fn compare(report: &Report, listed: &BTreeSet<(String, String)>, version: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (failure, problem) in &report.failed {
        if !listed.contains(failure) {
            wrong.push(format!("failed: {version} {} {}\n    {problem}", failure.0, failure.1));
        }
    }
    for (scenario, check) in listed.iter().filter(|listed| !report.failed.contains_key(*listed)) {
        wrong.push(format!("passed, so it must leave the baseline: {version} {scenario} {check}"));
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
async fn what_the_modern_revision_requires_arrives_through_the_mux() -> Result<()> {
    let upstream = ConformanceServer::speaking(|_| true).serve().await?;
    let (_server, url) = in_front_of(&upstream, "conformance_modern").await?;
    let listed = baseline(MODERN)?;
    compare(&run(&url, MODERN).await?, &listed, MODERN)?;
    // The list that was frozen when the revision was released: no more may fail in it either.
    let mut required = suite::run(&["server", "--url", &url, "--requirements", MODERN]).await?;
    required.failed.retain(|failure, _| !failure.0.starts_with(EXTENSION) && !listed.contains(failure));
    compare(&required, &BTreeSet::new(), MODERN)
}

#[tokio::test]
async fn what_the_legacy_revision_requires_arrives_through_the_mux() -> Result<()> {
    // Of the same era, because what a server asks of its client is said in another way in the other.
    let upstream = ConformanceServer::speaking(|version| version < MODERN).serve().await?;
    let (_server, url) = in_front_of(&upstream, "conformance_legacy").await?;
    compare(&run(&url, LEGACY).await?, &baseline(LEGACY)?, LEGACY)
}
