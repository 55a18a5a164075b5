//! `mcp-mux serve` as a process of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::balancer::Place;

const START_TIMEOUT: Duration = Duration::from_mins(1);
const END_TIMEOUT: Duration = Duration::from_mins(1);

/// A server that runs, and is killed when the test ends before it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub place: Place,
    /// Which replica it is.
    pub id: String,
}

/// The program, which is built with whatever tests the whole workspace.
pub(crate) fn program() -> Result<PathBuf> {
    let tests = std::env::current_exe()?;
    let folder = tests.parent().and_then(Path::parent).context("tests lie in target/debug/deps")?;
    let program = folder.join("mcp-mux");
    ensure!(program.exists(), "{} is missing: run the tests with --workspace", program.display());
    Ok(program)
}

impl Process {
    /// Starts one and waits until it serves. The configuration has it log as JSON; its log goes to `log`, too.
    pub(crate) async fn start(config: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new(program()?);
        command.arg("serve").arg("-c").arg(config).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let mut file = File::options().create(true).append(true).open(log)?;
        let (place, id) = timeout(START_TIMEOUT, started(&mut lines, &mut file)).await??;
        keep(lines, file);
        Ok(Self { child, place, id })
    }

    /// Ends it as a machine does that loses its power.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Ends it as an operator does.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus> {
        let id = self.child.id().context("it runs")?.to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status().await?.success(), "the signal was not sent");
        Ok(timeout(END_TIMEOUT, self.child.wait()).await??)
    }
}

/// Reads until it serves.
async fn started(lines: &mut Lines<BufReader<ChildStderr>>, file: &mut File) -> Result<(Place, String)> {
    let (mut probes, mut said) = (None, String::new());
    while let Some(line) = lines.next_line().await? {
        writeln!(file, "{line}")?;
        said = line;
        let Ok(line) = serde_json::from_str::<Value>(&said) else { continue };
        let text = |name: &str| line[name].as_str().map(ToOwned::to_owned).with_context(|| said.clone());
        match line["message"].as_str() {
            Some("probes are answered") => probes = Some(text("address")?.parse()?),
            Some("mcp-mux serves") => {
                let probes = probes.context("it answers probes before it serves")?;
                return Ok((Place { clients: text("address")?.parse()?, probes }, text("replica")?));
            }
            _ => {}
        }
    }
    bail!("it did not start: {said}")
}

/// Keeps what it logs from then on.
#[expect(clippy::disallowed_methods, reason = "it ends with the process that logs")]
fn keep(mut lines: Lines<BufReader<ChildStderr>>, mut file: File) {
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            drop(writeln!(file, "{line}"));
        }
    });
}
