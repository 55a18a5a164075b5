//! A bridge: an MCP server that speaks over stdin and stdout made reachable over Streamable HTTP, by a process of its own.
//!
//! The gateway starts no programs. Whoever has only a program runs it behind a bridge, with as few rights as it needs, and names the
//! bridge as an upstream. The bridge keeps one child for all callers, gives it nothing of its own environment but what it is told to,
//! lets nobody in without the key, and leaves nothing behind when it stops. Messages pass it byte for byte but for ids and progress
//! tokens.

mod agreement;
mod child;
mod conversation;
mod http;
mod keeper;
mod lines;
mod message;

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::child::ChildCommand;
use self::http::Server;
use self::keeper::Keeper;
use crate::config::BridgeKey;
use crate::lifecycle::Tasks;

/// How long a bridge that stops waits for running calls before it ends the child.
const CALLS_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Most requests that wait for one of the places in which requests run.
const WAITING_REQUESTS_MAX: usize = 256;

/// What a bridge is told.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What callers must show.
    pub key: BridgeKey,
    /// What is bridged.
    pub child: ChildCommand,
    /// Most requests that run at once.
    pub concurrency: usize,
    /// How long one may run.
    pub call_timeout: Duration,
}

/// Why a bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: set `--listen` to a free address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The child cannot be started.
    #[error("cannot start `{program}`: look whether it is installed, and where PATH leads")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A bridge that runs.
#[derive(Debug)]
pub struct Bridge {
    address: SocketAddr,
    tasks: Tasks,
}

impl Bridge {
    /// Starts the child and listens. Whether the child speaks MCP is found out afterwards: it may take long to start.
    pub async fn start(settings: BridgeSettings) -> Result<Self, BridgeError> {
        let address = settings.listen;
        let listened = |source| BridgeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listened)?;
        let address = listener.local_addr().map_err(listened)?;
        let program = settings.child.program.display().to_string();
        let first = settings.child.spawn().map_err(|source| BridgeError::Spawn { program, source })?;

        let tasks = Tasks::default();
        let (ready, children) = watch::channel(None);
        let end = CancellationToken::new();
        let keeper = Keeper {
            command: settings.child,
            concurrency: settings.concurrency,
            ready,
            end: end.clone(),
            is_legacy: false,
        };
        tasks.spawn_draining(keeper.run(first));
        let server = Server {
            key: settings.key,
            children,
            admitted: Semaphore::new(settings.concurrency + WAITING_REQUESTS_MAX),
            places: Arc::new(Semaphore::new(settings.concurrency)),
            call_timeout: settings.call_timeout,
        };
        let shutdown = tasks.shutdown();
        tasks.spawn_draining(async move {
            let stopping = shutdown.clone();
            let served = axum::serve(listener, http::router(server)).with_graceful_shutdown(stopping.cancelled_owned());
            tokio::select! {
                served = served.into_future() => if let Err(error) = served {
                    tracing::error!(error = &error as &dyn std::error::Error, "the listener ended");
                },
                () = async { shutdown.cancelled().await; sleep(CALLS_DRAIN_TIMEOUT).await } => {}
            }
            end.cancel();
        });
        Ok(Self { address, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: nothing new is accepted, what runs is finished, the child is ended. `false` if something had to be left behind.
    pub async fn stop(self) -> bool {
        self.tasks.stop().await
    }
}
