//! The child as a process: started with an environment of its own, in a process group of its own, within bounds of memory, and
//! ended with everything that it started.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::io::AsyncRead;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::lines::{Line, Lines};
use crate::config::ChildEnvironment;

/// How long a child is given to end by itself once its input is closed.
const CLOSED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it is given after SIGTERM before it is killed: five seconds in all.
const TERMINATED_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest line of its stderr that is logged, in bytes.
const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// What is bridged.
#[derive(Debug, Clone)]
pub struct ChildCommand {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// All that it sees of the environment.
    pub environment: ChildEnvironment,
    /// Most address space of each of its processes, in bytes.
    pub memory_bytes_max: Option<u64>,
}

/// A child that runs.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    group: Group,
}

/// The child's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    pub(super) log: ChildStderr,
}

/// A process group, which is killed when this is dropped: whatever happens to us, it is not left behind.
#[derive(Debug)]
struct Group(Option<Pid>);

impl ChildCommand {
    /// Starts it.
    pub(super) fn spawn(&self) -> io::Result<(Child, Pipes)> {
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = Group(process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
        if let Some(bytes) = self.memory_bytes_max {
            // What it starts inherits the limit. It cannot have come far before: its program is only being loaded.
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            prlimit(group.0, Resource::As, limit)?;
        }
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(input), Some(output), Some(log)) = pipes else {
            return Err(io::Error::other("the child has no pipes"));
        };
        Ok((Child { process, group }, Pipes { input, output, log }))
    }
}

impl Child {
    /// Its process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it ends by itself, and ends what it leaves behind.
    pub(super) async fn ended(&mut self) {
        drop(self.process.wait().await);
        self.group.kill();
    }

    /// Ends it, whose input was closed: gently at first. Returns how it ended, in words.
    pub(super) async fn end(mut self) -> String {
        if timeout(CLOSED_TIMEOUT, self.process.wait()).await.is_err() {
            self.group.signal(Signal::TERM);
            if timeout(TERMINATED_TIMEOUT, self.process.wait()).await.is_err() {
                tracing::warn!("the child did not end when it was told to, and is killed");
            }
        }
        self.group.kill();
        // Killed, it ends at once.
        self.process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Group {
    fn signal(&self, signal: Signal) {
        let refused = self.0.and_then(|leader| kill_process_group(leader, signal).err());
        // Nobody is left in the group: that is what is wanted.
        if let Some(error) = refused.filter(|error| *error != Errno::SRCH) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the child's processes cannot be signalled");
        }
    }

    /// Once: later the number may be somebody else's.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Puts what the child says on stderr into our log, line by line.
pub(super) async fn log(output: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(output, LOG_LINE_BYTES_MAX);
    while let Ok(Some(Line { bytes, is_cut })) = lines.next().await {
        tracing::info!(line = ?String::from_utf8_lossy(&bytes), is_cut, "the child says");
    }
}
