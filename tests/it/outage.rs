//! One bad upstream hurts only its own tools.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use tenant_store::Level;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::support::canary;
use crate::support::server::{Setup, TestServer, install};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// How many calls an upstream of these tests takes at once.
const PLACES: usize = 8;

const TOOLS: &str = r#"[{"name":"go","inputSchema":{}}]"#;

/// What a caller reads when acme's upstream says `say`, while globex's is healthy.
async fn answer_to(name: &str, say: Say) -> Result<(Value, TestServer)> {
    let (bad, _) = ByteUpstream::with_tools(TOOLS).on("tools/call", say).serve().await?;
    let key = canary("key");
    let (good, _) = RealUpstream::named("globex").serve(&key, false).await?;
    let level = Level::Write;
    let server = TestServer::start(
        name,
        &[
            Setup { tenant: "acme", upstream: "desk", url: &bad, key: None, level },
            Setup { tenant: "globex", upstream: "desk", url: &good, key: Some(&key), level },
        ],
    )
    .await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    let (bad, good) = tokio::join!(carol.call("acme__go", json!({})), carol.call("globex__whoami", json!({})));
    assert_eq!(good?["result"]["content"][0]["text"], "whoami at globex with {}");
    Ok((bad?, server))
}

fn sentence(answer: &Value) -> String {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_web_page_is_not_an_answer() -> Result<()> {
    let page = Say::Http(200, "text/html", Bytes::from_static(b"<html>secret page</html>"));
    let (answer, _server) = answer_to("web_page", page).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered something that is not MCP");
    Ok(())
}

#[tokio::test]
async fn an_error_page_that_claims_to_be_json_is_no_answer_either() -> Result<()> {
    let page = br#"{"error":{"message":"dial tcp 10.0.0.1:5432: Authorization: Bearer s3cr3t refused"}}"#;
    for (status, said) in [(502, "answered with HTTP status 502"), (200, "answered something that is not MCP")] {
        let (answer, _server) =
            answer_to("json_page", Say::Http(status, "application/json", Bytes::from_static(page))).await?;
        assert_eq!(sentence(&answer), format!("upstream `desk` of tenant `acme` {said}"));
    }
    Ok(())
}

#[tokio::test]
async fn a_list_of_huge_definitions_costs_what_is_too_much_and_nothing_else() -> Result<()> {
    let long = |name: &str, bytes: usize| {
        format!(r#"{{"name":"{name}","inputSchema":{{}},"description":"{}"}}"#, "x".repeat(bytes))
    };
    // One that is larger than any definition may be, and more of the largest than a list may hold.
    let mut tools = vec![long("small", 10), long("huge", 300 * 1024)];
    tools.extend((0..40).map(|n| long(&format!("large{n}"), 250 * 1024)));
    let (bad, _) = ByteUpstream::with_tools("[]")
        .on(
            "tools/list",
            Say::Events(vec![format!(r#"{{"jsonrpc":"2.0","id":{{id}},"result":{{"tools":[{}]}}}}"#, tools.join(","))]),
        )
        .serve()
        .await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &bad, key: None, level: Level::Write };
    let server = TestServer::start("huge_list", &[setup]).await?;
    let shown = server.client("alice", &["acme"])?.tools().await?;
    assert!(shown.contains(&"acme__small".to_owned()) && !shown.contains(&"acme__huge".to_owned()), "{shown:?}");
    assert!((30..40).contains(&shown.len()), "{}", shown.len());
    Ok(())
}

#[tokio::test]
async fn an_error_page_is_named_by_its_status_only() -> Result<()> {
    let page = Say::Http(502, "text/html", Bytes::from_static(b"<html>http://10.0.0.1/internal</html>"));
    let (answer, _server) = answer_to("error_page", page).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered with HTTP status 502");
    Ok(())
}

#[tokio::test]
async fn an_answer_of_a_hundred_megabytes_is_cut_off() -> Result<()> {
    let large = Say::Http(200, "application/json", Bytes::from(vec![b' '; 100 * 1024 * 1024]));
    let (answer, _server) = answer_to("hundred_megabytes", large).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` gave an answer that is too large");
    Ok(())
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() -> Result<()> {
    let (answer, _server) = answer_to("without_end", Say::Endless).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` gave an answer that is too large");
    Ok(())
}

#[tokio::test]
async fn a_flood_of_small_messages_ends_its_call() -> Result<()> {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":0,"progress":1}}"#;
    // It is read slowly, and not to its end.
    let (answer, _server) = answer_to("small_messages", Say::Flood(progress.to_owned())).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` did not answer in time");
    Ok(())
}

#[tokio::test]
async fn what_is_compressed_is_not_unpacked() -> Result<()> {
    // The beginning of what would be zeros without end.
    let packed = Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xec, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90]);
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let (answer, _server) = answer_to("compressed", Say::Encoded(encoding, packed.clone())).await?;
        assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered something that is not MCP");
    }
    Ok(())
}

#[tokio::test]
async fn silence_ends_at_the_deadline() -> Result<()> {
    let (answer, _server) = answer_to("silence", Say::Silence).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` did not answer in time");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_answered() -> Result<()> {
    let (answer, _server) = answer_to("breaks_off", Say::Http(200, "text/event-stream", Bytes::new())).await?;
    // The answer itself is the last event of our own stream.
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` broke off before it answered");
    Ok(())
}

#[tokio::test]
async fn an_answer_to_another_request_is_not_taken() -> Result<()> {
    let other = Bytes::from_static(br#"{"jsonrpc":"2.0","id":424242,"result":{"content":[]}}"#);
    let (answer, _server) = answer_to("another_request", Say::Http(200, "application/json", other)).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered something that is not MCP");
    Ok(())
}

#[tokio::test]
async fn one_malformed_tool_costs_only_itself() -> Result<()> {
    let tools = r#"[{"name":"first","inputSchema":{}},{"name":7},{"inputSchema":{}},"x",{"name":"first","inputSchema":{}},{"name":"last","inputSchema":{}}]"#;
    let (url, _) = ByteUpstream::with_tools(tools).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("malformed_tool", &[setup]).await?;
    assert_eq!(server.client("alice", &["acme"])?.tools().await?, ["acme__first", "acme__last"]);
    Ok(())
}

#[tokio::test]
async fn a_cursor_that_does_not_advance_ends_the_list() -> Result<()> {
    let page = format!(r#"{{"resultType":"complete","tools":{TOOLS},"nextCursor":"again"}}"#);
    let (url, _) = ByteUpstream::with_tools(TOOLS).on("tools/list", Say::Result(page)).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("cursor", &[setup]).await?;
    assert_eq!(server.client("alice", &["acme"])?.tools().await?, ["acme__go"]);
    Ok(())
}

#[tokio::test]
async fn a_restart_with_all_upstreams_down_lists_everything_and_says_what_is_wrong() -> Result<()> {
    let key = canary("key");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (healthy, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &healthy, key: Some(&key), level: Level::Write };
    let server = TestServer::start("restart", &[setup]).await?;
    let before = server.client("alice", &["acme"])?.tools().await?;
    assert_eq!(before.len(), 3);

    // The address changes to one where nobody answers: to the gateway the upstream is down.
    drop(listener);
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.expect("it was installed");
    let mut spec = upstream.spec;
    spec.url.set_port(Some(address.port())).expect("an http URL has a port");
    rows.put_upstream(&"desk".parse()?, &spec).await?;
    rows.put_credential(upstream.id, &"key".parse()?, &secrecy::SecretString::from(key)).await?;

    let server = server.restart().await?;
    let alice = server.client("alice", &["acme"])?;
    assert_eq!(alice.tools().await?, before);
    let answer = alice.call("acme__whoami", json!({})).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` cannot be reached");
    Ok(())
}

#[tokio::test]
async fn a_changed_address_gets_no_credential_of_the_old_one() -> Result<()> {
    let key = canary("key");
    let (old, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let (thief, seen) = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Result("{}".to_owned())).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &old, key: Some(&key), level: Level::Write };
    let server = TestServer::start("changed_address", &[setup]).await?;
    let rows = server.rows("acme").await?;
    let mut spec = rows.find_upstream(&"desk".parse()?).await?.expect("it was installed").spec;
    spec.url = thief.parse()?;
    rows.put_upstream(&"desk".parse()?, &spec).await?;
    server.app.refresher().refresh_all().await;

    let answer = server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    assert_eq!(
        sentence(&answer),
        "upstream `desk` of tenant `acme` has no stored secret `key`: an operator must set it"
    );
    assert!(!seen.text().contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_is_silent_delays_neither_new_upstreams_nor_changes() -> Result<()> {
    let (silent, seen) = ByteUpstream::default()
        .on("server/discover", Say::Silence)
        .on("initialize", Say::Silence)
        .on("tools/list", Say::Silence)
        .serve()
        .await?;
    let server = TestServer::start("silent_listing", &[]).await?;
    let level = Level::Write;
    install(server.app.store(), &Setup { tenant: "acme", upstream: "desk", url: &silent, key: None, level }).await?;
    server.app.refresher().wake();
    seen.until("server/discover").await;

    let key = canary("key");
    let (good, _) = RealUpstream::named("globex").serve(&key, false).await?;
    install(server.app.store(), &Setup { tenant: "globex", upstream: "desk", url: &good, key: Some(&key), level })
        .await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    let listed = async {
        while carol.tools().await?.is_empty() {}
        Ok::<_, anyhow::Error>(())
    };
    // The silent one is given five seconds to answer its first question.
    tokio::time::timeout(std::time::Duration::from_secs(4), listed).await??;
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_place_for_ever() -> Result<()> {
    // Large events for small buffers, so that nothing gets through long before the calls' deadline, on a slow machine too.
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{{id}},"progress":1,"message":"{}"}}}}"#,
        "x".repeat(16 * 1024)
    );
    let flood = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Flood(progress));
    let (url, seen) = flood.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("unread", &[setup]).await?;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "acme__go", "_meta": {"progressToken": "p"},
    }})
    .to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        server.app.address(),
        server.token("alice", &["acme"])?,
        body.len()
    );
    let mut unread = Vec::new();
    for _ in 0..PLACES {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4 * 1024)?;
        let mut connection = socket.connect(server.app.address()).await?;
        connection.write_all(request.as_bytes()).await?;
        unread.push(connection);
    }
    seen.times("tools/call", PLACES).await;

    let alice = server.client("alice", &["acme"])?.with("accept", "application/json")?;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = sentence(&alice.call("acme__go", json!({})).await?);
        let is_busy = answer.contains("is busy");
        answers.push(answer);
        if !is_busy {
            // It had a place, and was flooded in turn.
            assert!(
                answers.first().is_some_and(|first| first.contains("is busy")),
                "all places were taken: {answers:?}"
            );
            return Ok(());
        }
    }
    anyhow::bail!("the places were never free again: {answers:?}")
}

#[tokio::test]
async fn how_an_upstream_fares_is_remembered_for_operators_and_says_no_secret() -> Result<()> {
    let key = canary("health");
    let page = Say::Http(503, "text/plain", Bytes::from(format!("down; your key was {key}")));
    let (url, _) = ByteUpstream::with_tools(TOOLS).on("tools/list", page).serve().await?;
    let (good, _) = RealUpstream::named("globex").serve(&key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level },
        Setup { tenant: "globex", upstream: "desk", url: &good, key: Some(&key), level },
    ];
    let server = TestServer::start("health", &setups).await?;
    let failing = server.rows("acme").await?.health().await?.pop().context("it was asked")?;
    let failure = failing.failure.context("it fails")?;
    assert_eq!(failure.error, "the upstream answered with HTTP status 503");
    assert_eq!(failing.listed_at, None);
    let well = server.rows("globex").await?.health().await?.pop().context("it was asked")?;
    assert!(well.failure.is_none() && well.listed_at.is_some(), "{well:?}");
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_fails_again_and_again_is_left_alone_and_called_again_when_it_answers() -> Result<()> {
    let upstream = ByteUpstream::with_tools(TOOLS).on("tools/call", Say::Http(503, "text/plain", Bytes::new()));
    let (url, seen) = upstream.clone().serve().await?;
    let calls = || seen.text().matches(r#""method":"tools/call""#).count();
    let key = canary("key");
    let (good, _) = RealUpstream::named("globex").serve(&key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level },
        Setup { tenant: "globex", upstream: "desk", url: &good, key: Some(&key), level },
    ];
    let server = TestServer::start("breaker", &setups).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    // What one caller brings about may be that caller's own doing.
    for _ in 0..12 {
        let answer = carol.call("acme__go", json!({})).await?;
        assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered with HTTP status 503");
    }
    let alice = server.client("alice", &["acme"])?;
    let answer = alice.call("acme__go", json!({})).await?;
    assert_eq!(sentence(&answer), "upstream `desk` of tenant `acme` answered with HTTP status 503");
    let asked = calls();
    let refused = sentence(&carol.call("acme__go", json!({})).await?);
    assert!(refused.contains("is left alone for a while: try again in"), "{refused}");
    assert_eq!(calls(), asked, "nobody asked it");
    // Nobody else is concerned, and its tools stay listed.
    assert_ne!(carol.call("globex__whoami", json!({})).await?["result"]["isError"], true);
    assert!(carol.tools().await?.contains(&"acme__go".to_owned()));

    upstream.says("tools/call", Say::Result(r#"{"resultType":"complete","content":[]}"#.to_owned()));
    let began = tokio::time::Instant::now();
    while carol.call("acme__go", json!({})).await?["result"]["isError"] == true {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "it is never called again");
    }
    assert_eq!(calls(), asked + 1, "the first call that was made was answered");
    Ok(())
}
