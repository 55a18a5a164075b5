//! `mcp-mux bridge stdio` as operators and service managers meet it: what it refuses, what it says, how it stops.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const KEY: &str = "CANARY-bridge-key-0123456789abcdef0123456789abcdef";
/// A child that is no MCP server: it says what it sees of the environment and its id, and waits for the end of its input.
const CHILD: &str = "env >&2; echo PID=$$ >&2; cat >/dev/null; echo the input is closed >&2";

/// A bridge that runs, and is killed when the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn start(command: &mut Command) -> Result<(Self, Lines<BufReader<ChildStderr>>)> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        Ok((Self(child), lines))
    }

    fn signal(&self, signal: &str) -> Result<()> {
        ensure!(Command::new("kill").args([signal, &self.0.id().to_string()]).status()?.success());
        Ok(())
    }
}

fn bridge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-mux"));
    command.args(["bridge", "stdio", "--listen", "127.0.0.1:0"]).args(arguments);
    command
}

/// Reads up to the line with `text` in it; `seen` gets all of them.
fn until(lines: &mut Lines<BufReader<ChildStderr>>, text: &str, seen: &mut Vec<String>) -> Result<String> {
    for line in lines {
        let line = line?;
        seen.push(line.clone());
        if line.contains(text) {
            return Ok(line);
        }
    }
    bail!("`{text}` was not said: {seen:#?}")
}

#[test]
fn sigterm_ends_the_child_which_saw_no_secret_of_the_bridge() -> Result<()> {
    let mut command = bridge(&["--env", "GIVEN", "--", "sh", "-c", CHILD]);
    let command = command.env("MCP_MUX_BRIDGE_KEY", KEY).env("GIVEN", "given-value").env("OTHER", "CANARY-other");
    let (mut running, mut lines) = Running::start(command)?;
    let mut seen = Vec::new();
    let pid = until(&mut lines, "PID=", &mut seen)?;
    let pid: String = pid.chars().skip_while(|c| *c != '=').filter(char::is_ascii_digit).collect();
    assert!(Path::new("/proc").join(&pid).exists(), "{pid}");
    running.signal("-TERM")?;
    until(&mut lines, "the input is closed", &mut seen)?;
    ensure!(running.0.wait()?.success(), "{seen:#?}");
    assert!(!Path::new("/proc").join(&pid).exists(), "the child is gone");
    let said = seen.join("\n");
    assert!(said.contains("bridging sh at http://127.0.0.1:") && said.contains("auth: { bearer:"), "{said}");
    assert!(said.contains("GIVEN=given-value") && !said.contains("CANARY-"), "{said}");
    Ok(())
}

#[test]
fn a_second_signal_kills_the_child_at_once() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pid");
    let mut command = bridge(&["--"]);
    command.args([root.join("target/venv/bin/python"), root.join("tests/bridge/stubborn.py"), file.clone()]);
    let (mut running, mut lines) = Running::start(command.env("MCP_MUX_BRIDGE_KEY", KEY))?;
    let mut seen = Vec::new();
    until(&mut lines, "stubborn starts", &mut seen)?;
    let pid = fs::read_to_string(&file)?.trim().to_owned();
    assert!(Path::new("/proc").join(&pid).exists(), "{pid}");
    running.signal("-INT")?;
    until(&mut lines, "stopping", &mut seen)?;
    running.signal("-INT")?;
    running.0.wait()?;
    // It was killed; the kernel may still be at it.
    let give_up_at = Instant::now() + Duration::from_secs(10);
    loop {
        let state = fs::read_to_string(Path::new("/proc").join(&pid).join("stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return Ok(());
        }
        assert!(Instant::now() < give_up_at, "{state}");
        std::thread::yield_now();
    }
}

#[test]
fn there_is_no_bridge_without_a_good_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let short = folder.path().join("short");
    fs::write(&short, "too-short\n")?;
    let short = short.to_string_lossy();
    let refused = [
        (bridge(&["--", "cat"]), "openssl rand -hex 32"),
        (bridge(&["--key-file", &short, "--", "cat"]), "at least 32 visible ASCII characters"),
        (bridge(&["--key-file", "/no/such/file", "--", "cat"]), "cannot be read"),
    ];
    for (mut command, words) in refused {
        let output = command.env_remove("MCP_MUX_BRIDGE_KEY").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert!(!said.contains("too-short"), "{said}");
    }
    Ok(())
}
