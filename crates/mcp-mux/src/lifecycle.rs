//! Start, drain and stop. The only place that spawns tasks, so that a shutdown can wait for all of them.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long a shutdown waits for running calls before it ends them.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The tasks of one server and the signal that ends them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
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

    /// How many run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// The signal that the server is stopping.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Tells every task to stop and waits for the draining ones; `false` if some had to be left behind.
    pub async fn stop(&self) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(DRAIN_TIMEOUT, self.tracker.wait()).await.is_ok()
    }

    /// A guard that stops everything when it is dropped, for embedding a server in tests and examples.
    pub fn stop_on_drop(&self) -> DropGuard {
        self.shutdown.clone().drop_guard()
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

/// Waits until a signal tells the program to stop, then for `stop`, which says whether everything was finished; a second signal
/// does not wait. `false` if something had to be left behind.
pub async fn until_told(stop: impl Future<Output = bool>) -> bool {
    stop_signal().await;
    tracing::info!("stopping: running calls are finished first; a second signal ends at once");
    tokio::select! {
        finished = stop => finished,
        () = stop_signal() => false,
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the process ends by the signal's default action; there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return interrupt.await;
        };
        tokio::select! {
            () = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
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
