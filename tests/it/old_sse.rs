//! Upstreams that speak the transport of 2024-11-05, HTTP with SSE: published ones, and one that says what a test wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tenant_store::{ClientProof, Level, UpstreamAuth};
use tokio::sync::Notify;

use crate::oauth::{issuer, request};
use crate::support::bridge::text;
use crate::support::canary;
use crate::support::client::Http;
use crate::support::old_sse::{Published, RawOldSse};
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer};
use crate::support::tokens::TokenGuard;
use crate::support::upstreams::{ByteUpstream, RealUpstream, Seen};

fn setup<'s>(url: &'s str, key: Option<&'s str>) -> Setup<'s> {
    Setup { tenant: "acme", upstream: "desk", url, key, level: Level::Write }
}

/// A server in front of the published one that is made with Python's SDK.
async fn python(name: &str) -> Result<(TestServer, Published, String)> {
    let key = canary("old-key");
    let published = Published::python(&key).await?;
    let server = TestServer::start(name, &[setup(&published.url, Some(&key))]).await?;
    Ok((server, published, key))
}

/// A server in front of a raw one.
async fn raw(name: &str, upstream: &RawOldSse) -> Result<(TestServer, Seen)> {
    let (url, seen) = upstream.clone().serve().await?;
    Ok((TestServer::start(name, &[setup(&url, None)]).await?, seen))
}

fn alice(server: &TestServer) -> Result<Http> {
    server.client("alice", &["acme"])
}

fn sentence(answer: &Value) -> Result<&str> {
    ensure!(answer["result"]["isError"] == true, "{answer}");
    text(answer).strip_prefix("upstream `desk` of tenant `acme` ").with_context(|| answer.to_string())
}

#[tokio::test]
async fn a_python_server_is_found_by_itself_and_called() -> Result<()> {
    let (server, _published, _) = python("old_python").await?;
    let alice = alice(&server)?;
    ensure!(alice.tools().await?.contains(&"acme__add".to_owned()), "{:?}", alice.tools().await?);
    assert_eq!(text(&alice.call("acme__add", json!({"a": 2, "b": 3})).await?), "5");

    let params = json!({"name": "acme__steps", "_meta": {"progressToken": "mine"}});
    let streamed = alice.legacy("tools/call", &params).await?.text;
    let events: Vec<Value> = streamed
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let progress: Vec<&Value> =
        events.iter().map(|event| &event["params"]).filter(|params| params.is_object()).collect();
    assert_eq!(progress.len(), 3, "{streamed}");
    assert!(progress.iter().all(|params| params["progressToken"] == "mine"), "{streamed}");
    assert_eq!(text(events.last().context("an answer")?), "there", "{streamed}");
    Ok(())
}

#[tokio::test]
async fn fifty_calls_in_one_stream_each_get_their_own_answer() -> Result<()> {
    let (server, _published, _) = python("old_fifty").await?;
    let alice = alice(&server)?;
    let call = async |number: u64| -> Result<()> {
        let sum = alice.call("acme__add", json!({"a": number, "b": 1000})).await?;
        ensure!(text(&sum) == (number + 1000).to_string(), "{number}: {sum}");
        Ok(())
    };
    futures::future::try_join_all((0..50).map(call)).await?;
    Ok(())
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_its_call_in_the_stream() -> Result<()> {
    let (server, _published, _) = python("old_cancel").await?;
    let alice = alice(&server)?;
    let runs = tokio::select! {
        answer = alice.call("acme__wait", json!({})) => bail!("it ended: {answer:?}"),
        // The upstream's own words for that: another principal shares its process, not its session.
        runs = async { server.client("bob", &["acme"])?.call("acme__until_waiting", json!({})).await } => runs?,
    };
    assert_eq!(text(&runs), "it happened", "{runs}");
    let cancelled = alice.call("acme__until_cancelled", json!({})).await?;
    assert_eq!(text(&cancelled), "it happened", "{cancelled}");
    Ok(())
}

#[tokio::test]
async fn neither_the_key_nor_the_session_is_repeated_to_callers() -> Result<()> {
    let (server, _published, key) = python("old_secrets").await?;
    let said = alice(&server)?.call("acme__secrets", json!({})).await?;
    assert_eq!(
        said["result"]["structuredContent"]["result"],
        json!(["Bearer [redacted]", "the session is [redacted]"])
    );
    assert!(!said.to_string().contains(&key));
    let log = server.logged()?;
    assert!(!log.contains(&key) && !log.contains("session_id="), "the log names a secret or a session");
    Ok(())
}

#[tokio::test]
async fn two_principals_never_share_a_stream() -> Result<()> {
    let (server, _published, _) = python("old_principals").await?;
    let mut sessions = BTreeSet::new();
    for who in ["alice", "bob"] {
        let client = server.client(who, &["acme"])?;
        let mut own = BTreeSet::new();
        for _ in 0..3 {
            own.insert(text(&client.call("acme__session", json!({})).await?).to_owned());
        }
        assert_eq!(own.len(), 1, "{who} keeps one: {own:?}");
        sessions.extend(own);
    }
    assert_eq!(sessions.len(), 2, "one each: {sessions:?}");
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_was_restarted_is_called_in_a_new_session() -> Result<()> {
    let (server, published, key) = python("old_restart").await?;
    let alice = alice(&server)?;
    let before = text(&alice.call("acme__session", json!({})).await?).to_owned();
    let _published = published.restart(&key).await?;
    let after = text(&alice.call("acme__session", json!({})).await?).to_owned();
    assert!(before.len() == after.len() && before != after, "{before} {after}");
    Ok(())
}

#[tokio::test]
async fn the_everything_server_is_used_over_its_old_transport() -> Result<()> {
    let published = Published::everything().await?;
    let server = TestServer::start("old_everything", &[setup(&published.url, None)]).await?;
    let alice = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
    assert_eq!(text(&alice.call("echo", json!({"message": "old"})).await?), "Echo: old");
    let sum = alice.call("get-sum", json!({"a": 20, "b": 22})).await?;
    assert!(text(&sum).contains("42"), "{sum}");

    let listed = alice.modern("resources/list", json!({})).await?.json()?;
    let uri = listed["result"]["resources"][0]["uri"].as_str().with_context(|| listed.to_string())?;
    let read = alice.modern("resources/read", json!({"uri": uri})).await?.json()?;
    assert_eq!(read["result"]["contents"][0]["uri"], uri, "{read}");
    let prompt = alice.modern("prompts/get", json!({"name": "simple-prompt"})).await?.json()?;
    assert_eq!(prompt["result"]["messages"][0]["role"], "user", "{prompt}");
    Ok(())
}

#[tokio::test]
async fn an_endpoint_at_another_origin_gets_nothing() -> Result<()> {
    let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
    let (elsewhere, seen_elsewhere) = ByteUpstream::with_tools("[]").serve().await?;
    let key = canary("raw-key");
    let (url, _) = upstream.clone().serve().await?;
    let server = TestServer::start("old_elsewhere", &[setup(&url, Some(&key))]).await?;
    let alice = alice(&server)?;
    assert_eq!(text(&alice.call("acme__go", json!({})).await?), "done");

    let address = elsewhere.trim_start_matches("http:");
    for endpoint in [elsewhere.clone(), address.to_owned(), url.replace("//", "//user:password@")] {
        upstream.names(&endpoint);
        upstream.hang_up();
        // Whoever asks within a second of a failure hears of that one.
        let said = until(async || {
            let answer = alice.call("acme__go", json!({})).await?;
            Ok(sentence(&answer).ok().filter(|said| said.contains("another origin")).map(ToOwned::to_owned))
        });
        assert_eq!(said.await?, "wants its messages at another origin, where mcp-mux sends none", "{endpoint}");
    }
    assert_eq!(seen_elsewhere.text(), "");
    upstream.names("/messages?s={n}");
    upstream.hang_up();
    let works = until(async || {
        let answer = alice.call("acme__go", json!({})).await?;
        Ok((text(&answer) == "done").then_some(()))
    });
    works.await
}

/// Asks again and again until there is something.
async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return anyhow::Ok(found);
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), looking).await?
}

#[tokio::test]
async fn what_an_upstream_puts_into_its_stream_reaches_nobody_else() -> Result<()> {
    let forged = [
        r#"data: {"jsonrpc":"2.0","id":424242,"result":{"content":[]}}"#,
        r#"data: {"jsonrpc":"2.0","result":{"content":[]}}"#,
        r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#,
        r#"data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":424242,"progress":1}}"#,
        r#"data: {"jsonrpc":"2.0","id":{id},"method":"notifications/progress","result":{"content":[]}}"#,
        r#"data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{id},"progress":7}}"#,
        r#"data: {"jsonrpc":"2.0","id":"ping-1","method":"ping"}"#,
        r#"data: {"jsonrpc":"2.0","id":"ask-1","method":"sampling/createMessage","params":{}}"#,
        "data: [not, json",
        "event: other\ndata: {}",
    ];
    let upstream = RawOldSse::new(move |_| format!("{}\n\n{}", forged.join("\n\n"), RawOldSse::result("own")));
    let (server, seen) = raw("old_forged", &upstream).await?;
    let params = json!({"name": "acme__go", "_meta": {"progressToken": "mine"}});
    let streamed = alice(&server)?.legacy("tools/call", &params).await?.text;
    insta::assert_snapshot!(streamed, @r#"
    event: message
    data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":7}}

    event: message
    data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"own"}]}}
    "#);

    seen.until(r#"{"jsonrpc":"2.0","id":"ping-1","result":{}}"#).await;
    seen.until(r#"{"jsonrpc":"2.0","id":"ask-1","error":{"code":-32601,"#).await;
    assert!(seen.text().contains(r#""capabilities":{}"#), "nothing can be asked for");
    Ok(())
}

#[tokio::test]
async fn what_is_subscribed_to_is_told_of_in_the_session_and_in_the_one_that_follows() -> Result<()> {
    let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
    let (server, seen) = raw("old_subscriptions", &upstream).await?;
    let alice = alice(&server)?;
    let uri = "mcp-mux://acme/desk/note://one";
    let filter = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let mut heard = alice.stream("subscriptions/listen", filter).await?;
    assert_eq!(heard.next().await?["params"]["notifications"], json!({"resourceSubscriptions": [uri]}));
    seen.until(r#""resources/subscribe","params":{"uri":"note://one""#).await;
    let updated =
        |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    upstream.say(&updated("note://two"));
    upstream.say(&updated("note://one"));
    assert_eq!(heard.next().await?["params"]["uri"], uri);

    upstream.hang_up();
    assert_eq!(heard.next().await?["params"]["uri"], uri, "it may have changed meanwhile");
    upstream.say(&updated("note://one"));
    assert_eq!(heard.next().await?["params"]["uri"], uri);
    drop(heard);
    seen.until(r#""resources/unsubscribe","params":{"uri":"note://one""#).await;
    Ok(())
}

#[tokio::test]
async fn a_call_that_stalls_costs_no_other_call_anything() -> Result<()> {
    let upstream = RawOldSse::new(|tool| if tool == "go" { String::new() } else { RawOldSse::result("quick") });
    let (server, seen) = raw("old_stall", &upstream).await?;
    let alice = alice(&server)?;
    let others = async {
        seen.until(r#""name":"go""#).await;
        for _ in 0..10 {
            assert_eq!(text(&alice.call("acme__quick", json!({})).await?), "quick");
        }
        anyhow::Ok(())
    };
    let (stalled, others) = tokio::join!(alice.call("acme__go", json!({})), others);
    others?;
    assert_eq!(sentence(&stalled?)?, "did not answer in time");
    seen.until("notifications/cancelled").await;
    assert_eq!(upstream.begun(), 2, "one stream to list with, and one of alice's");

    // Of a stream that stayed silent all the time nobody knows whether it is still there.
    assert_eq!(sentence(&alice.call("acme__go", json!({})).await?)?, "did not answer in time");
    assert_eq!(text(&alice.call("acme__quick", json!({})).await?), "quick");
    assert_eq!(upstream.begun(), 3);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_floods_costs_its_own_calls_and_nothing_else() -> Result<()> {
    let noise = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
    let noise = noise.replace('x', &"x".repeat(1024 * 1024));
    let many = format!("{noise}\n\n").repeat(65);
    let long = format!("data: {}\n\n", "x".repeat(17 * 1024 * 1024));
    for (name, flood) in [("old_flood", many), ("old_long_event", long)] {
        let upstream =
            RawOldSse::new(move |tool| if tool == "go" { flood.clone() } else { RawOldSse::result("quick") });
        let (url, _) = upstream.clone().serve().await?;
        let key = canary("key");
        let (good, _) = RealUpstream::named("globex").serve(&key, false).await?;
        let other = Setup { tenant: "globex", upstream: "desk", url: &good, key: Some(&key), level: Level::Write };
        let server = TestServer::start(name, &[setup(&url, None), other]).await?;
        let (alice, bob) = (alice(&server)?, server.client("bob", &["acme", "globex"])?);
        let (flooded, quick, elsewhere) = tokio::join!(
            alice.call("acme__go", json!({})),
            bob.call("acme__quick", json!({})),
            bob.call("globex__whoami", json!({})),
        );
        assert_eq!(sentence(&flooded?)?, "gave an answer that is too large", "{name}");
        assert_eq!(text(&quick?), "quick", "{name}");
        assert_eq!(text(&elsewhere?), "whoami at globex with {}", "{name}");
        assert_eq!(text(&alice.call("acme__quick", json!({})).await?), "quick", "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_ends_ends_its_calls_and_the_next_one_begins_another() -> Result<()> {
    let upstream = RawOldSse::new(|tool| if tool == "go" { String::new() } else { RawOldSse::result("quick") });
    let (server, seen) = raw("old_end", &upstream).await?;
    let alice = alice(&server)?;
    let cut = async {
        seen.until(r#""name":"go""#).await;
        upstream.hang_up();
    };
    let (broken, ()) = tokio::join!(alice.call("acme__go", json!({})), cut);
    assert_eq!(sentence(&broken?)?, "broke off before it answered");
    assert_eq!(text(&alice.call("acme__quick", json!({})).await?), "quick");
    Ok(())
}

#[tokio::test]
async fn a_session_that_the_upstream_forgot_is_begun_again_once() -> Result<()> {
    let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
    let (server, _) = raw("old_forgotten", &upstream).await?;
    let alice = alice(&server)?;
    assert_eq!(text(&alice.call("acme__go", json!({})).await?), "done");
    let begun = upstream.begun();
    upstream.forget();
    assert_eq!(text(&alice.call("acme__go", json!({})).await?), "done");
    assert_eq!(upstream.begun(), begun + 1);
    upstream.answers_posts_with(503);
    assert_eq!(sentence(&alice.call("acme__go", json!({})).await?)?, "answered with HTTP status 503");
    Ok(())
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_is_done_with_the_post() -> Result<()> {
    let go = Arc::new(Notify::new());
    let mut upstream = RawOldSse::new(|_| RawOldSse::result("early"));
    upstream.go = Some(Arc::clone(&go));
    let (server, _) = raw("old_early", &upstream).await?;
    assert_eq!(text(&alice(&server)?.call("acme__go", json!({})).await?), "early");
    go.notify_waiters();
    Ok(())
}

#[tokio::test]
async fn a_stream_is_closed_with_its_link_and_with_the_server() -> Result<()> {
    let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
    let (server, _) = raw("old_closed", &upstream).await?;
    assert_eq!(text(&alice(&server)?.call("acme__go", json!({})).await?), "done");
    let rows = server.rows("acme").await?;
    let desk = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
    rows.remove_upstream(desk.id).await?;
    server.app.refresher().refresh_all().await;
    upstream.until_nobody_reads().await?;

    let (server, _) = raw("old_stopped", &upstream).await?;
    assert_eq!(text(&alice(&server)?.call("acme__go", json!({})).await?), "done");
    assert!(server.app.stop().await);
    upstream.until_nobody_reads().await
}

#[tokio::test]
async fn a_secret_in_the_address_is_shown_to_the_stream_and_to_the_endpoint() -> Result<()> {
    let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
    let (url, seen) = upstream.serve().await?;
    let server = TestServer::start("old_query", &[]).await?;
    let auth = UpstreamAuth::Query { parameter: "api_key".parse()?, secret: "key".parse()? };
    let key = canary("query-key");
    server.add(&setup(&url, None), auth, &[("key", &key)]).await?;
    assert_eq!(text(&alice(&server)?.call("acme__go", json!({})).await?), "done");
    let seen = seen.text();
    assert!(seen.contains(&format!("/sse?api_key={key}\n")), "{seen}");
    assert!(seen.contains(&format!("/messages?s=1&api_key={key}\n")), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_the_stream_or_the_endpoint_refuses_is_replaced() -> Result<()> {
    for stream_ends in [false, true] {
        let provider = Provider::start().await?;
        let guard = TokenGuard::of(&provider).await?;
        let upstream = RawOldSse::new(|_| RawOldSse::result("done"));
        let (url, _) = upstream.clone().serve_to(guard.guard()).await?;
        let server = TestServer::start("old_tokens", &[]).await?;
        let proof = ClientProof::Basic { secret: "client".parse()? };
        let auth = UpstreamAuth::ClientCredentials(Box::new(request(issuer(&provider)?, "upstreams", proof)?));
        server.add(&setup(&url, None), auth, &[("client", "CANARY-client-secret-of-the-tests+/=")]).await?;
        let alice = alice(&server)?;
        assert_eq!(text(&alice.call("acme__go", json!({})).await?), "done");
        let (begun, refused) = (upstream.begun(), guard.last()?.token);
        guard.refuse(&refused);
        if stream_ends {
            upstream.hang_up();
        }
        assert_eq!(text(&alice.call("acme__go", json!({})).await?), "done");
        assert_ne!(guard.last()?.token, refused);
        assert_eq!(upstream.begun() > begun, stream_ends, "an endpoint that refuses a token keeps its session");
    }
    Ok(())
}
