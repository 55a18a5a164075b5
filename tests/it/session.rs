//! Legacy sessions belong to whoever began them, and a running stream to whoever may still call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mcp_mux::config::{FrontConfig, IssuerConfig};
use reqwest::Method;
use serde_json::json;
use tenant_store::{Clock as _, Level, OnToolChange, SystemClock, Upstream, UpstreamSpec};

use crate::support::canary;
use crate::support::client::{Answer, Http};
use crate::support::identity::Idp;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Guard, RealUpstream, Say, Seen};

async fn everything_with(client: Http, session: &str) -> Result<Vec<Answer>> {
    let client = client.with("mcp-session-id", session)?;
    Ok(vec![
        client.legacy("tools/list", &json!({})).await?,
        client.legacy("ping", &json!({})).await?,
        client.request(Method::GET).await?,
        client.request(Method::DELETE).await?,
    ])
}

#[tokio::test]
async fn a_session_is_its_owners_and_nobody_elses_on_every_method() -> Result<()> {
    let server = TestServer::start("session_owner", &[]).await?;
    let session = server.client("alice", &["acme"])?.begin_session().await?;

    let own = everything_with(server.client("alice", &["acme"])?, &session).await?;
    assert_eq!(own.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 405]);

    let unknown = everything_with(server.client("bob", &["globex"])?, "bm9ib2R5cw").await?;
    let stolen = everything_with(server.client("bob", &["globex"])?, &session).await?;
    for (stolen, unknown) in stolen.iter().zip(&unknown) {
        assert_eq!((stolen.status, &stolen.text), (404, &unknown.text), "as if there were no such session");
    }
    for answer in everything_with(Http::new(&server.url("/mcp"), None)?, &session).await? {
        assert_eq!(answer.status, 401, "a session proves nobody");
    }
    Ok(())
}

#[tokio::test]
async fn a_session_of_another_client_with_the_same_subject_is_refused() -> Result<()> {
    let server = TestServer::start("session_client", &[]).await?;
    let as_client = |client: &str| {
        let mut claims = server.idp.claims("alice", &["acme"], &server.app.endpoint());
        claims["client_id"] = json!(client);
        Http::new(&server.url("/mcp"), Some(&server.idp.sign(&claims)?))
    };
    let session = as_client("desktop")?.begin_session().await?;
    assert_eq!(everything_with(as_client("desktop")?, &session).await?[0].status, 200);
    assert_eq!(everything_with(as_client("browser")?, &session).await?[0].status, 404);
    Ok(())
}

#[tokio::test]
async fn a_session_of_another_issuer_or_front_with_the_same_subject_is_refused() -> Result<()> {
    let (other, key) = (Idp::start().await?, format!("{}-0123456789abcdef", canary("front-key")));
    let front: FrontConfig = serde_json::from_value(json!({"name": "webui", "mode": "headers", "key": key}))?;
    let server = TestServer::start_with("session_issuer", &[], |config| {
        config.issuers.push(IssuerConfig::new("other".parse()?, &other.url));
        config.fronts.push(front);
        Ok(())
    })
    .await?;
    let token = other.sign(&other.claims("alice", &["acme"], &server.app.endpoint()))?;
    let clients = || {
        Ok::<_, anyhow::Error>([
            server.client("alice", &["acme"])?,
            Http::new(&server.url("/mcp"), Some(&token))?,
            Http::new(&server.url("/mcp"), Some(&key))?.with("x-openwebui-user-id", "alice")?,
        ])
    };
    for (owner, client) in clients()?.into_iter().enumerate() {
        let session = client.begin_session().await?;
        for (holder, client) in clients()?.into_iter().enumerate() {
            let statuses = everything_with(client, &session).await?;
            let statuses: Vec<_> = statuses.iter().map(|answer| answer.status).collect();
            let expected = if holder == owner { [200, 200, 200, 405] } else { [404; 4] };
            assert_eq!(statuses, expected, "{holder} with the session of {owner}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_session_ends_with_the_token_it_was_begun_with() -> Result<()> {
    let server = TestServer::start("session_token", &[]).await?;
    let mut claims = server.idp.claims("alice", &["acme"], &server.app.endpoint());
    // Good for one more second: clocks may differ by thirty.
    claims["exp"] = json!(SystemClock.now().as_millis() / 1000 - 28);
    let session = Http::new(&server.url("/mcp"), Some(&server.idp.sign(&claims)?))?.begin_session().await?;
    let later = server.client("alice", &["acme"])?.with("mcp-session-id", &session)?;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&404) {
        let status = later.legacy("ping", &json!({})).await?.status;
        if statuses.last() != Some(&status) {
            statuses.push(status);
        }
    }
    assert_eq!(statuses, [200, 404], "a later token of the same caller does not prolong it");
    Ok(())
}

#[tokio::test]
async fn a_session_that_was_changed_or_doubled_is_none() -> Result<()> {
    let server = TestServer::start("session_changed", &[]).await?;
    let session = server.client("alice", &["acme"])?.begin_session().await?;
    let middle = session.len() / 2;
    let (head, tail) = session.split_at_checked(middle).context("a session id is ASCII")?;
    let other = if tail.starts_with('A') { "B" } else { "A" };
    let changed = format!("{head}{other}{}", tail.get(1..).context("it is longer")?);
    for bad in [changed.as_str(), head, "", "..", "%00"] {
        let answers = everything_with(server.client("alice", &["acme"])?, bad).await?;
        assert!(answers.iter().all(|answer| answer.status == 404), "{bad:?}");
    }
    Ok(())
}

/// A server whose one tool streams, says that it has begun, and never ends by itself.
async fn streaming(name: &str) -> Result<(TestServer, Seen)> {
    let begun = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{id},"progress":1}}"#;
    let upstream = ByteUpstream::with_tools(r#"[{"name":"run","inputSchema":{"type":"object"}}]"#);
    let (url, seen) = upstream.on("tools/call", Say::Held(begun.to_owned())).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.http.recheck_seconds = 1;
        Ok(())
    })
    .await?;
    Ok((server, seen))
}

/// Runs the tool, and `meanwhile` once it streams; what the call ended with.
async fn interrupted(client: &Http, seen: &Seen, meanwhile: impl Future<Output = Result<()>>) -> Result<String> {
    let params = json!({"name": "acme__run", "_meta": {"progressToken": "p"}});
    let call = client.legacy("tools/call", &params);
    let meanwhile = async {
        seen.until("tools/call").await;
        meanwhile.await
    };
    let (answer, meanwhile) = tokio::join!(call, meanwhile);
    meanwhile?;
    let last = answer?.json()?;
    // Where nothing was streamed yet it is an error.
    let text = last["result"]["content"][0]["text"].as_str().or(last["error"]["message"].as_str());
    Ok(text.with_context(|| last.to_string())?.to_owned())
}

#[tokio::test]
async fn a_stream_ends_when_its_grant_is_taken_away() -> Result<()> {
    let (server, seen) = streaming("stream_grant").await?;
    let alice = server.client("alice", &["acme"])?;
    let ended = interrupted(&alice, &seen, async {
        let rows = server.rows("acme").await?;
        for grant in rows.grants().await? {
            rows.remove_grant(grant.id).await?;
        }
        Ok(server.app.follow().await?)
    });
    assert_eq!(ended.await?, "unknown tool");
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_key_is_taken_back() -> Result<()> {
    for can_be_taken_up in [false, true] {
        let (server, seen) = streaming("stream_key").await?;
        let (mut robot, id) = server.robot("acme", Level::Write).await?;
        if can_be_taken_up {
            let session = robot.begin_session().await?;
            robot = robot.with("mcp-session-id", &session)?.with("mcp-protocol-version", "2025-11-25")?;
        }
        let ended = interrupted(&robot, &seen, async {
            server.app.store().revoke_api_key(id).await?;
            Ok(server.app.follow().await?)
        });
        assert_eq!(ended.await?, "your sign-in ended while the tool ran: sign in again");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_with_its_token() -> Result<()> {
    let (server, _) = streaming("stream_token").await?;
    let mut claims = server.idp.claims("alice", &["acme"], &server.app.endpoint());
    // Good for one more second: clocks may differ by thirty.
    claims["exp"] = json!(SystemClock.now().as_millis() / 1000 - 28);
    let short = Http::new(&server.url("/mcp"), Some(&server.idp.sign(&claims)?))?;
    let long = server.client("alice", &["acme"])?;
    let params = json!({"name": "acme__run", "_meta": {"progressToken": "p"}});
    tokio::select! {
        answer = short.legacy("tools/call", &params) => assert!(answer?.text.contains("progress")),
        answer = long.legacy("tools/call", &params) => bail!("it outlived the other: {answer:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn callers_of_one_upstream_never_share_its_session() -> Result<()> {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&shown);
    let guard: Guard = Arc::new(move |parts, body| {
        let session = parts.headers.get("mcp-session-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let body = String::from_utf8_lossy(body).into_owned();
        noted.lock().expect("no test panics while it notes").push((session, body));
        true
    });
    let (url, _) = RealUpstream::named("acme").legacy().serve_to(guard, true).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("session_upstream", &[setup]).await?;
    for _ in 0..2 {
        for who in ["alice", "bob"] {
            let client = server.client(who, &["acme"])?;
            client.call("acme__whoami", json!({"as": who})).await?;
        }
    }
    let shown = shown.lock().expect("no test panics while it notes").clone();
    let of = |text: &str| -> BTreeSet<String> {
        shown.iter().filter(|(_, body)| body.contains(text)).filter_map(|(session, _)| session.clone()).collect()
    };
    let sessions = [of("\"as\":\"alice\""), of("\"as\":\"bob\""), of("tools/list")];
    assert!(sessions.iter().all(|sessions| sessions.len() == 1), "{sessions:?}");
    assert_eq!(sessions.iter().flatten().collect::<BTreeSet<_>>().len(), 3, "one each, and one to list with");
    Ok(())
}

/// A server in front of an upstream with sessions, in which alice has called a tool; the upstream, and what it was asked.
async fn with_sessions(name: &str) -> Result<(TestServer, RealUpstream, Seen)> {
    let real = RealUpstream::named("acme").legacy();
    let key = canary("key");
    let (url, seen) = real.clone().serve(&key, true).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start(name, &[setup]).await?;
    server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    assert_eq!(held(&real).await.len(), 2, "alice's, and one to list with");
    Ok((server, real, seen))
}

/// Changes the upstream, and lists what there is then.
async fn change(server: &TestServer, change: impl FnOnce(&mut UpstreamSpec)) -> Result<Upstream> {
    let rows = server.rows("acme").await?;
    let mut desk = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
    change(&mut desk.spec);
    rows.put_upstream(&desk.slug, &desk.spec).await?;
    server.app.refresher().refresh_all().await;
    Ok(desk)
}

#[tokio::test]
async fn a_session_that_is_needed_no_more_is_ended_at_its_upstream() -> Result<()> {
    let (server, real, _) = with_sessions("session_ended").await?;
    let before = held(&real).await;
    change(&server, |spec| spec.on_tool_change = OnToolChange::Quarantine).await?;
    server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    until_left(&real, &before, 0).await?;
    assert_eq!(held(&real).await.len(), 2, "those that are in use");
    Ok(())
}

/// The sessions that an upstream holds.
async fn held(real: &RealUpstream) -> BTreeSet<String> {
    real.sessions.sessions.read().await.keys().map(ToString::to_string).collect()
}

/// Waits until only so many of these sessions are left.
async fn until_left(real: &RealUpstream, sessions: &BTreeSet<String>, left: usize) -> Result<()> {
    let ended = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while held(real).await.intersection(sessions).count() > left {
            ticks.tick().await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(10), ended).await?)
}

#[tokio::test]
async fn a_session_is_not_ended_while_a_call_runs_in_it() -> Result<()> {
    let (server, real, _) = with_sessions("session_in_use").await?;
    let (alice, before) = (server.client("alice", &["acme"])?, held(&real).await);
    let changed = async {
        real.waiting.notified().await;
        change(&server, |spec| spec.on_tool_change = OnToolChange::Quarantine).await?;
        // It begins a session of the new link, beside the one in which the first call runs.
        server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
        // The one to list with is ended.
        until_left(&real, &before, 1).await?;
        anyhow::Ok(held(&real).await.intersection(&before).count())
    };
    tokio::select! {
        answer = alice.call("acme__wait", json!({})) => bail!("it ended: {answer:?}"),
        left = changed => ensure!(left? == 1, "the session in which the call runs"),
    }
    // Nobody waits for the call any more.
    tokio::time::timeout(Duration::from_secs(10), real.cancelled.notified()).await?;
    until_left(&real, &before, 0).await
}

#[tokio::test]
async fn an_upstream_that_is_not_to_be_called_any_more_is_not_told() -> Result<()> {
    for way in ["removed", "suspended"] {
        let (server, real, seen) = with_sessions("session_untold").await?;
        let asked = seen.text();
        if way == "removed" {
            let rows = server.rows("acme").await?;
            let desk = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
            rows.remove_upstream(desk.id).await?;
            server.app.refresher().refresh_all().await;
        } else {
            change(&server, |spec| spec.enabled = false).await?;
        }
        // What was begun is finished before this returns.
        assert!(server.app.stop().await);
        assert_eq!(seen.text(), asked, "{way}");
        assert_eq!(held(&real).await.len(), 2, "{way}");
    }
    Ok(())
}
