//! Start, drain and stop. The only place that spawns tasks, so that a shutdown can wait for all of them.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long a shutdown waits for running calls before it ends them.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it waits then for what was spawned to outlive them.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks of one server and the signals that end them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    last: TaskTracker,
    /// The server is about to stop.
    draining: CancellationToken,
    shutdown: CancellationToken,
    /// Nothing runs any more. Ends with it: `shutdown`.
    over: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        let over = CancellationToken::new();
        Self {
            tracker: TaskTracker::new(),
            last: TaskTracker::new(),
            draining: CancellationToken::new(),
            shutdown: over.child_token(),
            over,
        }
    }
}

impl Tasks {
    /// Runs `task` until it ends or the server stops; a task that must tidy up watches [`Tasks::shutdown`] itself.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        #[expect(clippy::disallowed_methods, reason = "this is the module that spawns")]
        tokio::spawn(self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        }));
    }

    /// Runs `task` to its own end; a shutdown waits for it up to [`DRAIN_TIMEOUT`].
    pub fn spawn_draining(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "this is the module that spawns")]
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Runs what outlives everything else: `task` is given the signal that nothing else runs any more, and ends then by itself.
    pub fn spawn_last<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        #[expect(clippy::disallowed_methods, reason = "this is the module that spawns")]
        tokio::spawn(self.last.track_future(task(self.over.clone())));
    }

    /// Runs `task` until it ends or nothing else runs any more: what calls depend on that are still being finished.
    pub fn spawn_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_last(|over| async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// The signal that the server is stopping.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Says that the server is about to stop. Everything goes on meanwhile.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether it is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled() || self.shutdown.is_cancelled()
    }

    /// Tells every task to stop and waits for the draining ones; `false` if some had to be left behind.
    pub async fn stop(&self) -> bool {
        self.stop_within(DRAIN_TIMEOUT).await
    }

    /// The same where the draining ones have that much time.
    pub async fn stop_within(&self, drain_timeout: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        let finished = timeout(drain_timeout, self.tracker.wait()).await.is_ok();
        self.over.cancel();
        self.last.close();
        // Nothing of it is anybody's call.
        timeout(LAST_TIMEOUT, self.last.wait()).await.ok();
        finished
    }

    /// A guard that stops everything when it is dropped, for embedding a server in tests and examples.
    pub fn stop_on_drop(&self) -> DropGuard {
        self.over.clone().drop_guard()
    }
}

/// Waits for what may not be there, such as a moment: for ever, if it is not.
pub async fn or_never<F: Future>(awaited: Option<F>) -> F::Output {
    match awaited {
        Some(awaited) => awaited.await,
        None => std::future::pending().await,
    }
}

/// Keeps what is in memory, keys and tokens, out of core dumps and out of reach of other processes of the same user. Where the system
/// has no such switch, there is nothing to do.
pub fn withhold_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// The signals that tell the program to stop, Ctrl-C and SIGTERM: heard from the moment on in which this is made, so that none is lost and
/// none ends the program by the system's default.
#[derive(Debug)]
pub struct StopSignals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the process ends by the signal's default action; there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }

    /// What `start` comes to; nothing, if the program is told to stop before.
    pub async fn unless_told<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            started = start => Some(started),
            () = self.next() => None,
        }
    }

    /// Waits until the program is told to stop, then for `stop`, which says whether everything was finished; a second signal does not wait.
    /// `false` if something had to be left behind.
    pub async fn until_told(mut self, stop: impl Future<Output = bool>) -> bool {
        self.next().await;
        tracing::info!("stopping: running calls are finished first; a second signal ends at once");
        tokio::select! {
            finished = stop => finished,
            () = self.next() => false,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn nothing_of_the_memory_goes_into_a_core_dump() {
        super::withhold_memory().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
