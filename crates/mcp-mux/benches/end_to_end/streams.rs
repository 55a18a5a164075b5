//! What open streams cost in memory: listeners of many people, each on a connection of its own, as desktop clients keep them.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::child::Child;
use super::compare::tokens;
use super::report;
use super::wire::{Client, Era, PREFIX};

/// How many streams, unless another number is given.
pub(crate) const STREAMS: usize = 10_000;
/// How many one person may have open.
const STREAMS_OF_ONE: usize = 32;
/// How many people there are at least.
const PEOPLE_MIN: usize = 4;
/// Most memory that a server may take for [`STREAMS`] of them, in KiB.
const MEMORY_MAX_KIB: u64 = 1_048_576;
/// What a listener is told first.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens that many, and prints what came out.
pub(crate) async fn run(streams: usize) -> Result<()> {
    let upstream = Child::start("upstream", &Value::Null).await?;
    let people = streams.div_ceil(STREAMS_OF_ONE).max(PEOPLE_MIN);
    let settings = json!({ "upstream": upstream.address()?, "tenants": 1, "views": [1], "callers": people });
    let server = Child::start("mux", &settings).await?;
    let (address, tokens) = (server.address()?, tokens(&server, "views 1")?);
    let before = memory(&server, "VmRSS")?;
    let (mut open, began) = (Vec::with_capacity(streams), Instant::now());
    for number in 0..streams {
        let token = tokens.get(number % people).context("everybody has a token")?;
        let client = Client { address: &address, path: "/mcp", token, prefix: PREFIX, era: Era::Modern };
        let stream = timeout(PATIENCE, listen(&client)).await.context("no stream in time")?;
        open.push(stream.with_context(|| format!("stream {number}"))?);
    }
    let (took, after) = (began.elapsed(), memory(&server, "VmRSS")?);
    let highest = memory(&server, "VmHWM")?;
    // All of them are open still.
    for stream in &mut open {
        let read = timeout(Duration::ZERO, stream.read_u8()).await;
        ensure!(read.is_err(), "a stream says something or is over: {read:?}");
    }
    let each = after.saturating_sub(before) * 1_024 / streams as u64;
    let table = format!(
        "| streams, each on a connection of its own | {streams} |\n| --- | ---: |\n| people | {people} |\n| to open them | {:.1} s |\n\
         | memory before / after | {} / {} MiB |\n| memory at most | {} MiB |\n| memory of a stream | {each} bytes |\n",
        took.as_secs_f64(),
        before / 1_024,
        after / 1_024,
        highest / 1_024
    );
    std::io::stdout().write_all(table.as_bytes())?;
    report::note("all were open at the same time")?;
    ensure!(highest < MEMORY_MAX_KIB, "{highest} KiB are more than {MEMORY_MAX_KIB}");
    Ok(())
}

/// A stream that has begun.
async fn listen(client: &Client<'_>) -> Result<TcpStream> {
    let mut connection = TcpStream::connect(client.address).await?;
    connection.write_all(client.listen()?.as_bytes()).await?;
    let (mut said, mut part) = (Vec::new(), [0; 1_024]);
    loop {
        let count = connection.read(&mut part).await?;
        said.extend_from_slice(part.get(..count).unwrap_or_default());
        let text = String::from_utf8_lossy(&said);
        ensure!(count > 0 && (said.len() < 16 || text.starts_with("HTTP/1.1 200")), "no stream: {text}");
        // The whole event, with the end of its chunk.
        if text.split_once(ACKNOWLEDGED).is_some_and(|(_, rest)| rest.ends_with("\n\n\r\n")) {
            return Ok(connection);
        }
    }
}

/// How much memory a process has, in KiB.
fn memory(server: &Child, what: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid)).context("memory is read from /proc")?;
    let line = status.lines().find(|line| line.starts_with(what)).context("a process has memory")?;
    let number = line.split_whitespace().nth(1).context("a number")?;
    Ok(number.parse()?)
}
