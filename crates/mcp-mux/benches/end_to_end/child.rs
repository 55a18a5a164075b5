//! The processes that are measured: how they are started, what they say when they are ready, and what they have spent.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};

/// How long the kernel's unit of processor time is: `USER_HZ` is 100 wherever we run.
const TICK: Duration = Duration::from_millis(10);

/// A process that plays a role until this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number.
    pub(crate) pid: u32,
    /// What it said when it was ready.
    pub(crate) hello: Value,
    /// It ends when this closes, also if we are killed.
    _stdin: ChildStdin,
    _process: Process,
}

impl Child {
    /// Starts this program in another role.
    pub(crate) async fn start(role: &str, settings: &Value) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["role", role, &settings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = process.stdin.take().context("it was piped")?;
        let mut stdout = BufReader::new(process.stdout.take().context("it was piped")?);
        let mut hello = String::new();
        stdout.read_line(&mut hello).await?;
        ensure!(!hello.is_empty(), "the {role} ended before it was ready");
        let pid = process.id().context("it runs")?;
        Ok(Self { pid, hello: serde_json::from_str(&hello)?, _stdin: stdin, _process: process })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.hello.get("address").and_then(Value::as_str).context("it says where it listens")?.to_owned())
    }
}

/// Tells the process that started us that we are ready, and waits until it is gone.
pub(crate) async fn ready(hello: &Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{hello}")?;
    stdout.flush()?;
    drop(stdout);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// The processor time that a process has spent so far, in its own code and in the kernel's.
pub(crate) fn spent_by(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("processor time is read from /proc")?;
    // The name of the program, in parentheses, may hold anything. `utime` and `stime` are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Ok(ticks.sum::<Result<u32, _>>().map(|ticks| TICK * ticks)?)
}
