//! The official clients of both languages, in both eras, through both endpoints.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tenant_store::Level;
use tokio::process::Command;

use crate::support::canary;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;

/// A client: what runs it, and where it is.
type Client = (&'static str, &'static str);

const PYTHON: Client = ("target/venv/bin/python", "python/client.py");
const TYPESCRIPT: Client = ("node", "typescript/client.mjs");

/// Runs a client as alice, who serves acme; what it prints is one JSON object.
async fn run(server: &TestServer, (program, script): Client, path: &str, how: &str, tool: &str) -> Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(if program == "node" { program.into() } else { root.join(program) })
        .arg(root.join("tests/clients").join(script))
        .args([&server.url(path), how, tool, r#"{"b":1,"a":2}"#])
        .env("TOKEN", server.token("alice", &["acme"])?)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {program}: `tests/run.sh --install` installs what the clients need"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{script} {how} failed: {err}");
    serde_json::from_str(&out).with_context(|| format!("{script} {how} printed {out}"))
}

async fn both_endpoints(name: &str, client: Client, ways: &[(&str, &str)]) -> Result<()> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    // The era of the upstream does not matter to the client.
    let (acme, _) = RealUpstream::named("acme").legacy().serve(&acme_key, true).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let level = Level::Write;
    let server = TestServer::start(
        name,
        &[
            Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
            Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
        ],
    )
    .await?;
    for (how, version) in ways {
        for (path, prefix) in [("/mcp", "acme__"), ("/t/acme/mcp", "")] {
            let outcome = run(&server, client, path, how, &format!("{prefix}whoami")).await?;
            assert_eq!(outcome["version"], *version, "{how} {path}");
            let tools = ["whoami", "change", "wait"].map(|tool| format!("{prefix}{tool}"));
            assert_eq!(outcome["tools"], serde_json::json!(tools), "{how} {path}");
            let text = outcome["result"]["content"][0]["text"].as_str().unwrap_or_default();
            assert_eq!(text, "whoami at acme with {\"b\":1,\"a\":2}", "{how} {path}");
        }
        let refused = run(&server, client, "/mcp", how, "globex__whoami").await?;
        assert_eq!(refused["error"]["code"], -32602, "{how}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn the_python_client_lists_and_calls_in_both_eras() -> Result<()> {
    let ways = [("auto", "2026-07-28"), ("legacy", "2025-11-25")];
    both_endpoints("python_client", PYTHON, &ways).await
}

#[tokio::test]
async fn the_typescript_clients_list_and_call_in_both_eras() -> Result<()> {
    let ways = [("v1", "2025-11-25"), ("v2", "2026-07-28"), ("v2-legacy", "2025-11-25")];
    both_endpoints("typescript_client", TYPESCRIPT, &ways).await
}
