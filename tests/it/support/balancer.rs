//! A load balancer without affinity: each new connection goes to the next replica that says it is ready, whoever's it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// For how long a new connection is kept waiting for somebody who is ready.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Where a replica is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Where clients call.
    pub clients: SocketAddr,
    /// Where it is asked whether it is ready.
    pub probes: SocketAddr,
}

/// A load balancer that runs as long as the test.
#[derive(Debug, Clone)]
pub(crate) struct Balancer {
    /// Where clients call.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Nobody tells it when one of them ends.
    places: Mutex<Vec<Place>>,
    turn: AtomicUsize,
}

impl Balancer {
    /// One with nothing behind it yet.
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's process")]
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared { places: Mutex::default(), turn: AtomicUsize::new(0) });
        let balancer = Self { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // Whoever's connection breaks notices it.
                tokio::spawn(async move { drop(shared.carry(connection).await) });
            }
        });
        Ok(balancer)
    }

    /// Puts a replica in the place with that number.
    pub(crate) fn put(&self, number: usize, place: Place) {
        let mut places = self.shared.places.lock().expect("no test panics while it holds this");
        if number == places.len() { places.push(place) } else { places[number] = place }
    }

    /// Where the replicas are now.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.shared.places.lock().expect("no test panics while it holds this").clone()
    }
}

impl Shared {
    async fn carry(&self, mut client: TcpStream) -> Result<()> {
        let mut replica = timeout(WAIT_MAX, self.next()).await?;
        copy_bidirectional(&mut client, &mut replica).await?;
        Ok(())
    }

    /// A connection to the next that is ready.
    async fn next(&self) -> TcpStream {
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let place = {
                let places = self.places.lock().expect("no test panics while it holds this");
                places.get(turn % places.len().max(1)).copied()
            };
            if let Some(place) = place
                && is_ready(place.probes).await.unwrap_or(false)
                && let Ok(replica) = TcpStream::connect(place.clients).await
            {
                return replica;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn is_ready(probes: SocketAddr) -> Result<bool> {
    let mut connection = TcpStream::connect(probes).await?;
    connection.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).context("a status")? == "200")
}
