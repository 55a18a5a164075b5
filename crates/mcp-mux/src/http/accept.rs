//! The accept loop of the clients' listener. It is ours for its bounds: how many connections there are, how long one may take to say what it
//! wants, and how much it may say before it is known who asks.

mod idle;
mod opening;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::idle::Running;
use self::opening::Opening;
use super::address::Peer;
use crate::config::HttpConfig;
use crate::lifecycle::Tasks;

/// Most bytes of the headers of a request.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Most requests that run at once over one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 client shows that it is there, and how long it may take for that.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long nothing is accepted when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(500);

/// What holds for every connection.
#[derive(Debug, Clone)]
struct Terms {
    header_timeout: Duration,
    shutdown: CancellationToken,
}

/// Serves `routes` until the server stops. Connections that are open then are told, and waited for with everything else.
pub async fn serve(listener: TcpListener, routes: Router, config: &HttpConfig, tasks: &Tasks) {
    let shutdown = tasks.shutdown();
    let terms = Terms { header_timeout: config.header_timeout(), shutdown: shutdown.clone() };
    let places = Arc::new(Semaphore::new(config.connections_max));
    while let Some((stream, address, place)) = shutdown.run_until_cancelled(next(&listener, &places)).await {
        let (routes, terms) = (routes.clone(), terms.clone());
        tasks.spawn_draining(async move {
            converse((stream, address), routes, &terms).await;
            drop(place);
        });
    }
}

/// The next connection. Those for which there is no place wait with the operating system.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        if places.available_permits() == 0 {
            tracing::warn!("as many connections are open as `http.connections_max` allows: others wait");
        }
        let Ok(place) = Arc::clone(places).acquire_owned().await else { unreachable!("nobody closes the semaphore") };
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address, place),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no connection can be accepted");
                sleep(REST).await;
            }
        }
    }
}

/// Whether only that one connection is affected.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers what comes over one connection until one side has enough.
async fn converse((stream, address): (TcpStream, SocketAddr), routes: Router, terms: &Terms) {
    // Events are small and are not to wait for each other.
    stream.set_nodelay(true).ok();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.header_timeout)
        .max_buf_size(usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    let running = Running::none();
    let service = running.counting(routes.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(address.ip()));
        request.map(Body::new)
    }));
    let connection = builder
        .serve_connection(TokioIo::new(Opening::new(stream, terms.header_timeout)), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = terms.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        // HTTP/1 has a clock of its own for that; HTTP/2 has none, and whoever only answers pings would keep its place.
        () = running.none_for(terms.header_timeout) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                // Nor is anybody waited for who does not take leave.
                () = running.none_to_wait_for(terms.header_timeout) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &*error, "a connection broke off");
    }
}
