//! `mcp-mux bridge stdio`: a process of its own around an MCP server that speaks over stdin and stdout.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{say, say_lines};
use crate::bridge::{Bridge, BridgeSettings, ChildCommand};
use crate::config::{BridgeKey, ChildEnvironment, ChildVariable, TelemetryConfig};
use crate::lifecycle::StopSignals;
use crate::telemetry;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct BridgeCommand {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Makes an MCP server that speaks over stdin and stdout reachable over Streamable HTTP
    ///
    /// The server is a child of this process, shared by all callers, and is started again when it stops. Whatever its callers may
    /// not share (a signed-in account, files of one of them) needs a bridge of its own. The child can ask callers nothing (no
    /// elicitation, sampling or roots), and nobody is told when its lists change.
    ///
    /// Callers show the key as `Authorization: Bearer KEY`. The child sees PATH, HOME, LANG and TMPDIR of the environment, and
    /// what --env names. What it writes to stderr goes to the log.
    #[command(after_long_help = EXAMPLE)]
    Stdio(Stdio),
}

const EXAMPLE: &str = "\
Example:
  openssl rand -hex 32 > bridge.key
  mcp-mux bridge stdio --key-file bridge.key -- npx -y @modelcontextprotocol/server-filesystem /srv/docs

  In the manifest:       http: { url: http://127.0.0.1:8081/mcp }
                         auth: { bearer: { secret: bridge-key } }
  Then:                  mcp-mux secret set TENANT/UPSTREAM/bridge-key < bridge.key
  In mcp-mux.toml:       [egress]
                         private_networks = [\"127.0.0.1/32\"]
                         ports = [443, 8081]";

#[derive(Debug, Args)]
struct Stdio {
    /// The address to listen on. Traffic is plain HTTP: keep it on this machine, or put TLS in front
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// A file with the key that callers must show: at least 32 visible ASCII characters. Without it, the key is taken from
    /// `MCP_MUX_BRIDGE_KEY` in the environment; there is no bridge without a key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A variable that the child gets besides PATH, HOME, LANG and TMPDIR. `NAME` hands on the bridge's own value, which nobody can
    /// read in the list of processes; may be given more than once
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<ChildVariable>,
    /// Most requests that run at once. Others wait for 5 seconds, then they are told that the bridge is busy
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How long a request may run
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
    /// Most address space of each of the child's processes (Linux only). More than what they use: Node.js reserves some hundred MiB.
    /// For what they use together, set `MemoryMax` of a systemd service
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1_048_576))]
    memory: Option<u64>,
    /// What is logged, in the syntax of `RUST_LOG`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// The server, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl BridgeCommand {
    pub(super) async fn run(self) -> Result<()> {
        let Kind::Stdio(stdio) = self.kind;
        stdio.run().await
    }
}

impl Stdio {
    async fn run(self) -> Result<()> {
        let settings = self.settings()?;
        let log = TelemetryConfig { log: self.log, ..TelemetryConfig::default() };
        telemetry::init(&log).context("starting the log")?;
        let program = settings.child.program.display().to_string();
        let mut signals = StopSignals::listen()?;
        let Some(bridge) = signals.unless_told(Box::pin(Bridge::start(settings))).await else { return Ok(()) };
        let bridge = bridge?;
        let address = bridge.address();
        say(&format!(
            "bridging {program} at http://{address}/mcp: name it as an upstream with `http: {{ url: http://{address}/mcp }}` and \
             `auth: {{ bearer: {{ secret: NAME }} }}`"
        ));
        if !address.ip().is_loopback() {
            say_lines(
                "others than this machine can reach it, and the key crosses the network in the clear: put TLS in front",
            );
        }
        if !signals.until_told(bridge.stop()).await {
            tracing::warn!("some calls were ended before they finished");
        }
        Ok(())
    }

    fn settings(&self) -> Result<BridgeSettings> {
        let (program, arguments) = self.command.split_first().context("there is no command to run")?;
        Ok(BridgeSettings {
            listen: self.listen,
            key: BridgeKey::load(self.key_file.as_deref())?,
            child: ChildCommand {
                program: program.clone(),
                arguments: arguments.to_vec(),
                environment: ChildEnvironment::of(&self.env)?,
                memory_bytes_max: self.memory.map(|mebibytes| mebibytes * MIB),
            },
            concurrency: self.concurrency.into(),
            call_timeout: Duration::from_secs(self.timeout.into()),
        })
    }
}
