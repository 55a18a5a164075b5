//! `mcp-mux dev`: everything embedded, on this machine only, to see it work and to try clients.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{print, say_lines};
use crate::config::{OtlpConfig, TelemetryConfig};
use crate::dev::{self, DevSettings, PEOPLE};
use crate::lifecycle::StopSignals;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Dev {
    /// The port of the endpoint on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The folder of the database and its key; delete it to start over
    #[arg(long, value_name = "FOLDER", default_value = ".mcp-mux")]
    folder: PathBuf,
    /// Print endpoint, issuer and users with their tokens as one JSON object on stdout, for scripts
    #[arg(long)]
    json: bool,
    /// What is logged, in the syntax of `RUST_LOG`
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

impl Dev {
    pub(super) async fn run(&self) -> Result<()> {
        let traces = OtlpConfig::from_environment()?;
        let telemetry = TelemetryConfig { log: self.log.clone(), traces, ..TelemetryConfig::default() };
        telemetry::init(&telemetry).context("starting the log")?;
        let settings = DevSettings { port: self.port, folder: self.folder.clone(), telemetry };
        let mut signals = StopSignals::listen()?;
        let Some(dev) = signals.unless_told(Box::pin(dev::Dev::start(&settings))).await else { return Ok(()) };
        let dev = dev?;
        let facts = facts(&dev)?;
        if self.json {
            print(&facts.to_string())?;
        } else {
            say_lines(&welcome(&dev, &facts)?);
        }
        signals.until_told(Box::pin(dev.stop())).await;
        Ok(())
    }
}

fn facts(dev: &dev::Dev) -> Result<Value> {
    let mut users = Vec::new();
    for person in &PEOPLE {
        let seen = dev.seen_by(person)?;
        users.push(json!({
            "name": person.name,
            "groups": person.groups,
            "token": dev.token_for(person)?.expose_secret(),
            "tenants": seen.tenants,
            "tools": seen.tools,
        }));
    }
    Ok(json!({ "endpoint": dev.endpoint(), "issuer": dev.issuer(), "users": users }))
}

fn welcome(dev: &dev::Dev, facts: &Value) -> Result<String> {
    let endpoint = dev.endpoint();
    let mut lines = vec![
        format!(
            "mcp-mux {} in DEV MODE: this machine only, no passwords. Do not expose it.",
            env!("CARGO_PKG_VERSION")
        ),
        String::new(),
        format!("  MCP endpoint   {endpoint}"),
        format!("  Issuer         {}", dev.issuer()),
        String::new(),
    ];
    for user in facts.get("users").and_then(Value::as_array).into_iter().flatten() {
        let list = |name: &str| {
            let names = user.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            names.collect::<Vec<_>>().join(", ")
        };
        let name = user.get("name").and_then(Value::as_str).unwrap_or_default();
        lines.push(format!(
            "  {name:<6} may see  {}",
            if list("tools").is_empty() { "nothing".to_owned() } else { list("tools") }
        ));
    }
    let alice = PEOPLE.first().context("there is somebody")?;
    let token = dev.token_for(alice)?;
    let token = token.expose_secret();
    lines.extend([
        String::new(),
        "  Try it as alice:".to_owned(),
        format!("    TOKEN={token}"),
        format!(
            "    curl -s {endpoint} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n      -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}}'"
        ),
        String::new(),
        format!("  Claude Code    claude mcp add --transport http mux {endpoint} --header \"Authorization: Bearer $TOKEN\""),
        format!("  VS Code        {{\"servers\": {{\"mux\": {{\"type\": \"http\", \"url\": \"{endpoint}\", \"headers\": {{\"Authorization\": \"Bearer …\"}}}}}}}}"),
        format!("  Open WebUI     Admin Settings > Integrations > + > MCP (Streamable HTTP), URL {endpoint}, auth Bearer"),
        format!("  Inspector      npx @modelcontextprotocol/inspector --cli {endpoint} --method tools/list --header \"Authorization: Bearer $TOKEN\""),
        String::new(),
        "  Everyone's token: mcp-mux dev --json. Ctrl-C stops.".to_owned(),
    ]);
    Ok(lines.join("\n"))
}
