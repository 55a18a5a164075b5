//! `mcp-mux healthcheck`: asks the server beside it whether it is ready, for what has no HTTP client, as a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Settings, say};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// More than any answer of ours.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let listen = settings.load()?.admin.listen;
    let address = reachable(listen.context("nobody can be asked: set `admin.listen`, as 127.0.0.1:8081")?);
    ensure!(address.port() != 0, "where the server listens is not known: give `admin.listen` a port");
    let answer = timeout(ANSWER_TIMEOUT, ask(address)).await.context("the server does not answer in time")?;
    let answer = answer.with_context(|| format!("asking {address}: does the server run?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("that is no answer of ours")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("the server is not ready: {body}");
    }
    say(body);
    Ok(())
}

/// Who listens everywhere is asked at home.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The whole answer. A question of our own to ourselves, so it passes no guard.
async fn ask(address: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
