//! The load: a number of connections, each of which asks, waits for the whole answer, and asks again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{HeaderName, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mcp_mux::lifecycle::Tasks;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::http1;
use super::wire::Ask;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// What one connection asks: turns, one after the other, and then from the start.
pub(crate) type Turns = Vec<Vec<Ask>>;

/// One connection of a client.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    turns: Turns,
    next: usize,
}

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// How long each turn took, in microseconds, shortest first.
    pub(crate) latencies: Vec<u32>,
}

impl Sample {
    /// How many turns there were.
    pub(crate) fn turns(&self) -> usize {
        self.latencies.len()
    }

    /// The latency that this share of all turns did not exceed, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list"
        )]
        let at = (self.latencies.len().saturating_sub(1) as f64 * share).round() as usize;
        self.latencies.get(at).copied().map_or(f64::NAN, f64::from)
    }
}

/// Opens one connection for each of `turns`, and proves on each that every answer is right.
pub(crate) async fn connect(address: &str, turns: Vec<Turns>, tasks: &Tasks) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(turns.len());
    for turns in turns {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tasks.spawn(async move { drop(connection.await) });
        let mut connection = Connection { sender, turns, next: 0 };
        for _ in 0..connection.turns.len() {
            connection.turn(true).await?;
        }
        connections.push(connection);
    }
    Ok(connections)
}

/// Lets all connections ask for `length`; each asks at least once.
pub(crate) async fn run(connections: &mut [Connection], length: Duration) -> Result<Sample> {
    let started = Instant::now();
    let runs = try_join_all(connections.iter_mut().map(|connection| connection.ask_until(started + length))).await?;
    let elapsed = started.elapsed();
    let mut latencies: Vec<u32> = runs.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok(Sample { elapsed, latencies })
}

impl Connection {
    async fn ask_until(&mut self, end: Instant) -> Result<Vec<u32>> {
        let mut latencies = Vec::new();
        loop {
            let started = Instant::now();
            self.turn(false).await?;
            latencies.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
            if Instant::now() >= end {
                return Ok(latencies);
            }
        }
    }

    /// One turn, within a session where one is begun in it.
    async fn turn(&mut self, proves: bool) -> Result<()> {
        let asks = self.turns.get(self.next).context("a connection has something to ask")?;
        self.next = (self.next + 1) % self.turns.len();
        let mut session = None;
        for Ask { request, expected } in asks {
            let mut request = request.clone();
            if let Some(id) = &session {
                request.headers_mut().insert(SESSION_ID, Clone::clone(id));
            }
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            session = response.headers().get(SESSION_ID).cloned().or(session);
            judge(response, expected, proves).await?;
        }
        Ok(())
    }
}

/// Reads an answer to its end. What it says is looked at when a connection is new; later its status and its end will do.
async fn judge(response: Response<Incoming>, expected: &str, proves: bool) -> Result<()> {
    let status = response.status();
    let body = http1::read(response.into_body()).await?;
    let is_right = status.is_success() && (!proves || says(&body, expected));
    ensure!(is_right, "a wrong answer: {status} {}", String::from_utf8_lossy(body.get(..400).unwrap_or(&body)));
    Ok(())
}

fn says(body: &[u8], expected: &str) -> bool {
    expected.is_empty() || memchr::memmem::find(body, expected.as_bytes()).is_some()
}
