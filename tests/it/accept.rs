//! Connections that say nothing, or are too many.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenant_store::{Level, Revoked};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

async fn connect(server: &TestServer) -> Result<TcpStream> {
    Ok(TcpStream::connect(server.app.address()).await?)
}

/// One request and its answer, over a connection that stays open.
async fn ask(stream: &mut TcpStream, server: &TestServer) -> Result<String> {
    let host = server.app.address();
    let request = format!("GET /.well-known/oauth-protected-resource HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"}") {
        let count = timeout(LONG, stream.read(&mut chunk)).await??;
        ensure!(count > 0, "it was closed after {}", String::from_utf8_lossy(&answer));
        answer.extend(chunk.iter().take(count));
    }
    Ok(String::from_utf8(answer)?)
}

#[tokio::test]
async fn who_does_not_say_what_it_wants_is_sent_away() -> Result<()> {
    let server = TestServer::start_with("accept_slow", &[], |config| {
        config.http.header_timeout_seconds = 1;
        Ok(())
    })
    .await?;
    let began = Instant::now();
    for said in ["", "GET /mcp HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut stream = connect(&server).await?;
        stream.write_all(said.as_bytes()).await?;
        let mut rest = Vec::new();
        timeout(LONG, stream.read_to_end(&mut rest)).await??;
        ensure!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    ensure!(began.elapsed() >= Duration::from_secs(1), "nobody was given any time");
    // Who asked before it is let go as well, and everybody else is served.
    let mut stream = connect(&server).await?;
    ensure!(ask(&mut stream, &server).await?.starts_with("HTTP/1.1 200"));
    ensure!(timeout(LONG, stream.read(&mut [0; 1])).await?? == 0, "it is still open");
    ensure!(ask(&mut connect(&server).await?, &server).await?.starts_with("HTTP/1.1 200"));
    Ok(())
}

#[tokio::test]
async fn headers_without_end_are_refused_before_it_is_known_who_asks() -> Result<()> {
    let server = TestServer::start("accept_large", &[]).await?;
    let mut stream = connect(&server).await?;
    stream.write_all(b"GET /mcp HTTP/1.1\r\nhost: a\r\n").await?;
    let line = format!("x-long: {}\r\n", "a".repeat(8_000));
    // The server may close before all of it is written.
    for _ in 0..20 {
        if stream.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await?.ok();
    ensure!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[tokio::test]
async fn who_finds_no_place_waits_until_somebody_leaves() -> Result<()> {
    let server = TestServer::start_with("accept_full", &[], |config| {
        config.http.connections_max = 2;
        Ok(())
    })
    .await?;
    let (mut first, mut second) = (connect(&server).await?, connect(&server).await?);
    ask(&mut first, &server).await?;
    ask(&mut second, &server).await?;
    let mut third = connect(&server).await?;
    let waiting = ask(&mut third, &server);
    let mut waiting = std::pin::pin!(waiting);
    for _ in 0..20 {
        tokio::select! {
            biased;
            answer = waiting.as_mut() => anyhow::bail!("a third was served: {answer:?}"),
            answer = ask(&mut second, &server) => ensure!(answer?.starts_with("HTTP/1.1 200")),
        }
    }
    drop(first);
    ensure!(waiting.await?.starts_with("HTTP/1.1 200"));
    server.until_logged("others wait").await?;
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_of_http2_leaves_its_place_to_others() -> Result<()> {
    let server = TestServer::start_with("accept_idle_http2", &[], |config| {
        config.http.header_timeout_seconds = 1;
        config.http.connections_max = 1;
        Ok(())
    })
    .await?;
    let alice = server.client("alice", &[])?.over_http2()?;
    // One after the other over the same connection, for there is no second.
    for _ in 0..3 {
        ensure!(alice.modern("tools/list", json!({})).await?.status == 200);
    }
    let mut other = connect(&server).await?;
    ensure!(timeout(LONG, ask(&mut other, &server)).await??.starts_with("HTTP/1.1 200"), "it kept its place");
    drop(other);
    ensure!(alice.modern("tools/list", json!({})).await?.status == 200, "it comes back over another");
    // Nor does whoever says no more than that it speaks HTTP/2.
    let mut mute = connect(&server).await?;
    mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut other = connect(&server).await?;
    ensure!(timeout(LONG, ask(&mut other, &server)).await??.starts_with("HTTP/1.1 200"), "it kept its place");
    Ok(())
}

#[tokio::test]
async fn what_runs_over_http2_is_not_cut_however_quiet_it_is() -> Result<()> {
    let (url, seen) = ByteUpstream::with_tools(r#"[{"name":"go","inputSchema":{}}]"#)
        .on(
            "tools/call",
            Say::Held(
                r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#.to_owned(),
            ),
        )
        .serve()
        .await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start_with("accept_busy_http2", &[setup], |config| {
        config.http.header_timeout_seconds = 1;
        Ok(())
    })
    .await?;
    let alice = server.client("alice", &["acme"])?.over_http2()?;
    let mut listening =
        alice.stream("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    listening.next().await?;
    let bob = server.client("bob", &["acme"])?.over_http2()?;
    let call = bob.call("acme__go", json!({}));
    let later = async {
        seen.until("tools/call").await;
        // Longer than an idle connection has: others are sent away meanwhile, one after the other.
        for _ in 0..3 {
            timeout(LONG, connect(&server).await?.read_to_end(&mut Vec::new())).await??;
        }
        // What they hear then is the end of both.
        let who = |name: &str| anyhow::Ok(Revoked::Principal { issuer: "corp".parse()?, subject: name.parse()? });
        server.app.store().revoke(&who("bob")?, "a test").await?;
        server.app.follow().await?;
        anyhow::Ok(())
    };
    let (answer, later) = tokio::join!(call, later);
    later?;
    ensure!(answer?.to_string().contains("your sign-in ended"), "the call was cut");
    let acme = server.rows("acme").await?;
    let upstream = acme.upstreams().await?.pop().context("an upstream")?.id;
    let tool = Revoked::Upstream { tenant: acme.id(), upstream };
    server.app.store().revoke(&tool, "a test").await?;
    server.app.follow().await?;
    ensure!(listening.next().await?["method"] == "notifications/tools/list_changed", "the stream was cut");
    Ok(())
}
