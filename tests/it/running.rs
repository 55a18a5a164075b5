//! A call that runs while its caller loses access: whatever kind of answer either side wanted, it is not given.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tenant_store::{ApiKeyId, Level, UpstreamSpec};
use tokio::sync::Notify;

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, Say, Seen};

/// How an upstream keeps a caller waiting, and what kind of answer the caller takes.
fn ways() -> [(&'static str, Say, &'static str); 3] {
    let begun = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{id},"progress":1}}"#;
    [
        ("a stream for a client that takes none", Say::Held(begun.to_owned()), "application/json"),
        ("no answer yet", Say::Silence, "application/json, text/event-stream"),
        ("no answer yet, for a client that takes no stream", Say::Silence, "application/json"),
    ]
}

/// A server whose one tool keeps its caller waiting, and a robot with an API key that may call it.
async fn waiting(name: &str, say: Say, accept: &str) -> Result<(TestServer, Seen, Http, ApiKeyId)> {
    let upstream = ByteUpstream::with_tools(r#"[{"name":"run","inputSchema":{"type":"object"}}]"#);
    let (url, seen) = upstream.on("tools/call", say).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.http.recheck_seconds = 1;
        Ok(())
    })
    .await?;
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
    let patient = UpstreamSpec { call_timeout: Duration::from_mins(5), ..upstream.spec };
    rows.put_upstream(&upstream.slug, &patient).await?;
    let (robot, id) = server.robot("acme", Level::Write).await?;
    Ok((server, seen, robot.with("accept", accept)?, id))
}

#[tokio::test]
async fn a_call_ends_when_its_callers_proof_is_taken_back_whatever_the_answer_would_be() -> Result<()> {
    for (way, say, accept) in ways() {
        let (server, seen, robot, id) = waiting("proof_taken_back", say, accept).await?;
        let call = robot.call("acme__run", json!({}));
        let meanwhile = async {
            seen.until("tools/call").await;
            server.app.store().revoke_api_key(id).await?;
            anyhow::Ok(server.app.follow().await?)
        };
        let (answer, meanwhile) = tokio::join!(call, meanwhile);
        meanwhile?;
        let answer = answer?;
        let said = "your sign-in ended while the tool ran: sign in again";
        assert_eq!(answer["result"]["content"][0]["text"], said, "{way}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_comes_after_the_grant_is_gone_is_not_given() -> Result<()> {
    let go = Arc::new(Notify::new());
    let secret = r#"{"resultType":"complete","content":[{"type":"text","text":"of acme"}]}"#;
    let say = Say::Late(Arc::clone(&go), secret.to_owned());
    let (server, seen, robot, _) = waiting("grant_gone", say, "application/json").await?;
    let call = robot.call("acme__run", json!({}));
    let meanwhile = async {
        seen.until("tools/call").await;
        let rows = server.rows("acme").await?;
        for grant in rows.grants().await? {
            rows.remove_grant(grant.id).await?;
        }
        server.app.follow().await?;
        go.notify_one();
        anyhow::Ok(())
    };
    let (answer, meanwhile) = tokio::join!(call, meanwhile);
    meanwhile?;
    assert_eq!(answer?["error"], json!({"code": -32602, "message": "unknown tool"}));
    Ok(())
}
