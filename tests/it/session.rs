//! Legacy sessions belong to whoever began them, and a running stream to whoever may still call.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::json;

use crate::support::client::{Answer, Http};
use crate::support::server::TestServer;

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
    assert_eq!(own.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 405, 405]);

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
async fn a_session_of_another_client_or_issuer_with_the_same_subject_is_refused() -> Result<()> {
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
