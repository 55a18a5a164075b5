//! The bridge to servers that speak over stdin and stdout: real servers behind it, real clients and the gateway in front of it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mcp_mux::bridge::{Bridge, BridgeSettings};
use serde_json::{Value, json};
use tenant_store::Level;
use tokio::process::Command;

use crate::support::bridge::{Bridged, file, hello, node, python, settings, starts, starts_file, text};
use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};

#[tokio::test]
async fn clients_and_the_gateway_list_and_call_the_everything_server() -> Result<()> {
    let bridged = Bridged::start(node("server-everything", &["stdio"])).await?;
    let hello = bridged.client()?.legacy("initialize", &hello("2025-06-18")).await?;
    assert!(!hello.headers.contains_key("mcp-session-id"), "there are no sessions");
    assert_eq!(hello.json()?["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(hello.json()?["result"]["serverInfo"]["name"], "mcp-servers/everything");
    let echo = bridged.call("echo", json!({"message": "over the bridge"})).await?;
    assert_eq!(text(&echo), "Echo: over the bridge");

    let server = behind_gateway("bridge_gateway", &bridged).await?;
    let alice = server.client("alice", &["acme"])?;
    ensure!(alice.tools().await?.contains(&"acme__echo".to_owned()), "{:?}", alice.tools().await?);
    let echo = alice.call("acme__echo", json!({"message": "through both"})).await?;
    assert_eq!(text(&echo), "Echo: through both");
    assert!(bridged.bridge.stop().await);
    Ok(())
}

/// A server in front of a bridge.
async fn behind_gateway(name: &str, bridged: &Bridged) -> Result<TestServer> {
    let setup =
        Setup { tenant: "acme", upstream: "all", url: &bridged.url, key: Some(&bridged.key), level: Level::Write };
    TestServer::start(name, &[setup]).await
}

#[tokio::test]
async fn what_the_everything_server_has_is_used_through_the_gateway() -> Result<()> {
    let bridged = Bridged::start(node("server-everything", &["stdio"])).await?;
    let server = behind_gateway("bridge_everything", &bridged).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let sum = alice.call("get-sum", json!({"a": 20, "b": 22})).await?;
    assert!(text(&sum).contains("42"), "{sum}");
    let weather = alice.call("get-structured-content", json!({"location": "Chicago"})).await?;
    assert!(weather["result"]["structuredContent"]["temperature"].is_number(), "{weather}");
    let wrong = alice.call("get-sum", json!({"a": "many"})).await?;
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");

    let steps = json!({
        "name": "trigger-long-running-operation", "arguments": {"duration": 0.1, "steps": 2},
        "_meta": {"progressToken": "mine"},
    });
    let streamed = alice.legacy("tools/call", &steps).await?.text;
    assert_eq!(streamed.matches(r#""progressToken":"mine""#).count(), 2, "{streamed}");
    assert!(streamed.contains("Long running operation completed"), "{streamed}");

    let listed = alice.modern("resources/list", json!({})).await?.json()?;
    let uri = listed["result"]["resources"][0]["uri"].as_str().with_context(|| listed.to_string())?;
    let read = alice.modern("resources/read", json!({"uri": uri})).await?.json()?;
    assert_eq!(read["result"]["contents"][0]["uri"], uri, "{read}");
    ensure!(read["result"]["contents"][0]["text"].as_str().is_some_and(|text| !text.is_empty()), "{read}");
    let wish = json!({"name": "args-prompt", "arguments": {"city": "Berlin"}});
    let prompt = alice.modern("prompts/get", wish).await?.json()?;
    assert_eq!(prompt["result"]["messages"][0]["content"]["text"], "What's weather in Berlin?", "{prompt}");
    Ok(())
}

/// Runs one of the official clients, which prints one JSON object.
async fn official(bridged: &Bridged, (program, script): (&str, &str), how: &str, call: (&str, &str)) -> Result<Value> {
    let output = Command::new(if program == "node" { program.into() } else { file(program) })
        .arg(file(&format!("tests/clients/{script}")))
        .args([&bridged.url, how, call.0, call.1])
        .env("TOKEN", &bridged.key)
        .kill_on_drop(true)
        .output()
        .await?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script} {how} failed: {err}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test]
async fn official_clients_of_each_era_find_out_what_the_server_speaks() -> Result<()> {
    let legacy = Bridged::start(node("server-everything", &["stdio"])).await?;
    let modern = Bridged::start(python("modern.py", &[])).await?;
    let python = ("target/venv/bin/python", "python/client.py");
    let typescript = ("node", "typescript/client.mjs");
    for (client, how, speaks_modern) in [
        (python, "auto", true),
        (python, "legacy", false),
        (typescript, "v1", false),
        (typescript, "v2", true),
        (typescript, "v2-legacy", false),
    ] {
        let echo = official(&legacy, client, how, ("echo", r#"{"message":"hello"}"#)).await?;
        assert_eq!(echo["version"], "2025-11-25", "{how} {echo}");
        assert_eq!(text(&echo), "Echo: hello", "{how} {echo}");
        let sum = official(&modern, client, how, ("add", r#"{"a":2,"b":3}"#)).await?;
        assert_eq!(sum["version"], if speaks_modern { "2026-07-28" } else { "2025-11-25" }, "{how} {sum}");
        assert_eq!(text(&sum), "5", "{how} {sum}");
    }
    Ok(())
}

#[tokio::test]
async fn fifty_calls_at_once_each_get_their_own_answer() -> Result<()> {
    let bridged = Bridged::start(node("server-everything", &["stdio"])).await?;
    let call = async |number: usize| -> Result<()> {
        let echo = bridged.call("echo", json!({"message": number.to_string()})).await?;
        ensure!(text(&echo) == format!("Echo: {number}"), "{number}: {echo}");
        Ok(())
    };
    futures::future::try_join_all((0..50).map(call)).await?;
    Ok(())
}

#[tokio::test]
async fn the_filesystem_server_reads_only_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("note.txt"), "in the folder")?;
    let path = folder.path().to_string_lossy();
    let bridged = Bridged::start(node("server-filesystem", &[&path])).await?;
    let note = bridged.call("read_text_file", json!({"path": format!("{path}/note.txt")})).await?;
    assert_eq!(text(&note), "in the folder");
    let server = behind_gateway("bridge_filesystem", &bridged).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    let listed = alice.call("list_directory", json!({"path": path})).await?;
    assert_eq!(text(&listed), "[FILE] note.txt");
    let note = alice.call("read_text_file", json!({"path": format!("{path}/note.txt")})).await?;
    assert_eq!(text(&note), "in the folder");
    for outside in ["/etc/hostname".to_owned(), format!("{path}/../../etc/hostname")] {
        let wish = json!({"path": outside});
        for other in [bridged.call("read_text_file", wish.clone()).await?, alice.call("read_text_file", wish).await?] {
            assert_eq!(other["result"]["isError"], true, "{other}");
            assert!(text(&other).contains("Access denied"), "{other}");
        }
    }
    let written = json!({"path": "/etc/of-the-tests", "content": "x"});
    assert_eq!(alice.call("write_file", written).await?["result"]["isError"], true);
    Ok(())
}

#[tokio::test]
async fn a_server_of_the_modern_era_serves_clients_of_both() -> Result<()> {
    let bridged = Bridged::start(python("modern.py", &[])).await?;
    let client = bridged.client()?;
    let discovered = client.modern("server/discover", json!({})).await?.json()?;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]), "{discovered}");
    let sum = client.call("add", json!({"a": 2, "b": 3})).await?;
    assert_eq!(text(&sum), "5", "{sum}");
    let unknown = client.modern("no/such", json!({})).await?;
    assert_eq!((unknown.status, unknown.code()?), (404, Some(-32601)));

    let hello = client.legacy("initialize", &hello("2025-11-25")).await?.json()?;
    assert_eq!(hello["result"]["protocolVersion"], "2025-11-25", "{hello}");
    assert_eq!(hello["result"]["serverInfo"]["name"], "modern", "{hello}");
    assert_eq!(client.legacy("ping", &json!({})).await?.json()?["result"], json!({}));
    assert_eq!(text(&bridged.call("add", json!({"a": 4, "b": 5})).await?), "9");

    let server = behind_gateway("bridge_modern", &bridged).await?;
    let sum = server.client("alice", &["acme"])?.call("acme__add", json!({"a": 6, "b": 7})).await?;
    assert_eq!(text(&sum), "13", "{sum}");
    Ok(())
}

#[tokio::test]
async fn a_modern_client_is_told_that_a_legacy_server_is_one() -> Result<()> {
    let bridged = Bridged::start(python("raw.py", &[])).await?;
    let client = bridged.client()?;
    let discovered = client.modern("server/discover", json!({})).await?.json()?;
    let versions = json!(["2025-11-25", "2025-06-18", "2025-03-26"]);
    assert_eq!(discovered["result"]["supportedVersions"], versions, "{discovered}");
    let list = client.modern("tools/list", json!({})).await?;
    assert_eq!((list.status, list.code()?), (400, Some(-32022)));
    assert_eq!(list.json()?["error"]["data"]["supported"], versions);
    Ok(())
}

#[tokio::test]
async fn bytes_pass_unchanged_but_for_the_id() -> Result<()> {
    let bridged = Bridged::start(python("raw.py", &[])).await?;
    let client = bridged.client()?;
    let body = r#"{"jsonrpc":"2.0","id":"my-id","method":"tools/call","params":{"name":"bytes"}}"#;
    let answer = client.post(body).await?.text;
    let result = r#"{ "x" : 1.50, "content":[{"type":"video","u":"\u00e4\/"}],"big":123456789012345678901234567890,"_meta":{"k":[ ]} }"#;
    assert_eq!(answer, format!(r#"{{"result":{result},"jsonrpc":"2.0","id":"my-id"}}"#));

    let rest = r#""x" : 1.50,"params":{ "name":"line","arguments":{"n":1e400,"u":"\u00e4"},"future":[ ]}"#;
    let seen =
        client.post(format!(r#"{{"jsonrpc":"2.0","id":"my-id","method":"tools/call",{rest}}}"#)).await?.json()?;
    let line = text(&seen);
    ensure!(line.ends_with(&format!(r#","method":"tools/call",{rest}}}"#)) && !line.contains("my-id"), "{line}");
    Ok(())
}

#[tokio::test]
async fn progress_reaches_only_the_client_that_asked_for_it() -> Result<()> {
    let bridged = Bridged::start(python("raw.py", &[])).await?;
    let body = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"progress","_meta":{"progressToken":"mine"}}}"#;
    let streamed = bridged.client()?.post(body).await?;
    let events: Vec<&str> = streamed.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.len(), 3, "{events:?}");
    let first: Value = serde_json::from_str(events[0])?;
    assert_eq!(first["params"], json!({"progressToken": "mine", "progress": 1, "x": 1.0}));
    let last: Value = serde_json::from_str(events[2])?;
    assert_eq!((&last["id"], text(&last)), (&json!(5), "done"));
    let whole = bridged.client()?.with("accept", "application/json")?.post(body).await?;
    assert_eq!(text(&serde_json::from_str(&whole.text)?), "done");
    Ok(())
}

#[tokio::test]
async fn a_server_can_ask_clients_nothing_and_its_noise_is_dropped() -> Result<()> {
    let bridged = Bridged::start(python("raw.py", &[])).await?;
    let asked = bridged.call("ask", json!({})).await?;
    let reply: Value = serde_json::from_str(text(&asked))?;
    assert_eq!(reply["error"]["code"], -32601, "{reply}");
    assert_eq!(text(&bridged.call("noise", json!({})).await?), "but this is");
    Ok(())
}

#[tokio::test]
async fn a_line_over_the_limit_costs_its_own_call_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let change = |settings: &mut BridgeSettings| settings.call_timeout = Duration::from_secs(3);
    let bridged = Bridged::start_with(python("raw.py", &[&file.to_string_lossy()]), &[], change).await?;
    let large = bridged.call("long", json!({"bytes": 15 * 1024 * 1024})).await?;
    assert_eq!(text(&large).len(), 15 * 1024 * 1024);
    let larger = bridged.call("long", json!({"bytes": 17 * 1024 * 1024})).await?;
    assert_eq!(larger["error"]["message"], "the bridged server did not answer in time");
    assert_eq!(bridged.call("bytes", json!({})).await?["result"]["x"], 1.5);
    assert_eq!(starts(&file)?, 1);
    Ok(())
}

#[tokio::test]
async fn a_crash_ends_its_calls_in_words_and_the_server_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let bridged = Bridged::start(python("raw.py", &[&file.to_string_lossy()])).await?;
    let (waiting, crashed) = tokio::join!(bridged.call("wait", json!({})), bridged.call("crash", json!({})));
    for answer in [waiting?, crashed?] {
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("stopped while the request ran"), "{answer}");
    }
    // It waits for the next start instead of failing.
    let bytes = bridged.call("bytes", json!({})).await?;
    assert_eq!(bytes["result"]["x"], 1.5, "{bytes}");
    assert_eq!(starts(&file)?, 2);
    Ok(())
}

#[tokio::test]
async fn a_server_that_dies_of_an_unknown_question_is_not_asked_it_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let command = python("raw.py", &[&file.to_string_lossy()]);
    let bridged = Bridged::start_with(command, &["DIES_OF_DISCOVER=1"], |_| {}).await?;
    assert_eq!(bridged.call("bytes", json!({})).await?["result"]["x"], 1.5);
    assert_eq!(starts(&file)?, 2);
    Ok(())
}

#[tokio::test]
async fn only_the_key_opens_and_no_browser_gets_in() -> Result<()> {
    let bridged = Bridged::start(python("raw.py", &[])).await?;
    let longer = format!("{}x", bridged.key);
    let shorter = bridged.key.get(..bridged.key.len() - 1).context("a key")?;
    for key in [None, Some(""), Some("x"), Some(longer.as_str()), Some(shorter)] {
        let answer = Http::new(&bridged.url, key)?.legacy("ping", &json!({})).await?;
        assert_eq!(answer.status, 401, "{key:?} {}", answer.text);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let twice = bridged.client()?.and("authorization", "Bearer x")?.legacy("ping", &json!({})).await?;
    assert_eq!(twice.status, 401);
    let page = bridged.client()?.with("origin", "http://127.0.0.1:8081")?.legacy("ping", &json!({})).await?;
    assert_eq!(page.status, 403);
    let elsewhere = Http::new(&bridged.url.replace("/mcp", "/other"), None)?.legacy("ping", &json!({})).await?;
    assert_eq!(elsewhere.status, 401, "the key comes first");
    let get = bridged.client()?.request(reqwest::Method::GET).await?;
    assert_eq!(get.status, 405);
    let large = bridged.client()?.post(vec![b' '; 4 * 1024 * 1024 + 1]).await?;
    assert_eq!(large.status, 413);
    Ok(())
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_call() -> Result<()> {
    for script in ["raw.py", "modern.py"] {
        let bridged = Bridged::start(python(script, &[])).await?;
        let (wait, runs) = (bridged.call("wait", json!({})), bridged.call("until_waiting", json!({})));
        let runs = tokio::select! { answer = wait => bail!("it ended: {answer:?}"), answer = runs => answer? };
        assert_eq!(text(&runs), "it happened", "{script}: {runs}");
        let cancelled = bridged.call("until_cancelled", json!({})).await?;
        assert_eq!(text(&cancelled), "it happened", "{script}: {cancelled}");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_and_is_cancelled() -> Result<()> {
    let change = |settings: &mut BridgeSettings| settings.call_timeout = Duration::from_secs(1);
    let bridged = Bridged::start_with(python("raw.py", &[]), &[], change).await?;
    let late = bridged.call("wait", json!({})).await?;
    assert_eq!(late["error"]["message"], "the bridged server did not answer in time");
    assert_eq!(text(&bridged.call("until_cancelled", json!({})).await?), "it happened");
    Ok(())
}

#[tokio::test]
async fn who_finds_no_place_is_told_that_the_bridge_is_busy() -> Result<()> {
    let bridged = Bridged::start_with(python("raw.py", &[]), &[], |settings| settings.concurrency = 1).await?;
    let client = bridged.client()?;
    let wait = bridged.call("wait", json!({}));
    let other = async {
        loop {
            let answer = client.legacy("tools/call", &json!({"name": "bytes"})).await?;
            if answer.status != 200 {
                return anyhow::Ok(answer);
            }
        }
    };
    let late = tokio::select! { answer = wait => bail!("it ended: {answer:?}"), late = other => late? };
    assert_eq!((late.status, late.code()?), (503, Some(-32000)), "{}", late.text);
    assert_eq!(bridged.call("bytes", json!({})).await?["result"]["x"], 1.5, "the place is free again");
    Ok(())
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the environment of the test is what must not be seen")]
async fn a_server_sees_only_what_it_is_given_of_the_environment() -> Result<()> {
    let bridged = Bridged::start_with(python("raw.py", &[]), &["GIVEN=value"], |_| {}).await?;
    let seen: serde_json::Map<String, Value> = serde_json::from_str(text(&bridged.call("env", json!({})).await?))?;
    assert_eq!(seen["GIVEN"], "value");
    // Python itself sets LC_CTYPE.
    let known = ["PATH", "HOME", "LANG", "TMPDIR", "GIVEN", "LC_CTYPE"];
    let other: Vec<_> = seen.keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(other.is_empty() && std::env::vars_os().count() > known.len(), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn a_greedy_server_does_not_get_more_memory_than_it_may() -> Result<()> {
    let mebibyte = 1024 * 1024;
    let change = |settings: &mut BridgeSettings| settings.child.memory_bytes_max = Some(256 * mebibyte);
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let bridged = Bridged::start_with(python("raw.py", &[&file.to_string_lossy()]), &[], change).await?;
    let little = bridged.call("eat", json!({"bytes": mebibyte})).await?;
    assert_eq!(text(&little), mebibyte.to_string());
    let much = bridged.call("eat", json!({"bytes": 512 * mebibyte})).await?;
    assert_eq!(much["error"]["code"], -32000, "it dies of a MemoryError: {much}");
    assert_eq!(text(&bridged.call("eat", json!({"bytes": 1})).await?), "1");
    assert_eq!(starts(&file)?, 2);
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind_when_it_stops() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let bridged = Bridged::start(python("raw.py", &[&file.to_string_lossy()])).await?;
    let grandchild = text(&bridged.call("grandchild", json!({})).await?).to_owned();
    let child = std::fs::read_to_string(&file)?.trim().to_owned();
    let runs = |pid: &str| Path::new("/proc").join(pid).exists();
    assert!(runs(&child) && runs(&grandchild));
    assert!(bridged.bridge.stop().await);
    assert!(!runs(&child));
    // It was killed; the kernel may still be at it, and whoever adopted it has to notice.
    let is_over = || {
        let state = std::fs::read_to_string(Path::new("/proc").join(&grandchild).join("stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    let over = async {
        while !is_over() {
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(10), over).await?)
}

#[tokio::test]
async fn a_server_that_does_not_want_to_end_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = starts_file(&folder);
    let command = python("stubborn.py", &[&file.to_string_lossy()]);
    let bridge = Bridge::start(settings(command, &[], &canary("bridge-key"))?).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !std::fs::read_to_string(&file).unwrap_or_default().ends_with('\n') {
        ticks.tick().await;
    }
    let child = std::fs::read_to_string(&file)?.trim().to_owned();
    assert!(Path::new("/proc").join(&child).exists());
    assert!(bridge.stop().await);
    assert!(!Path::new("/proc").join(&child).exists());
    Ok(())
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_said_at_the_start() -> Result<()> {
    let Err(error) = Bridged::start(vec![OsString::from("no-such-program")]).await else { bail!("it started") };
    assert!(format!("{error:#}").contains("cannot start `no-such-program`"), "{error:#}");
    Ok(())
}
