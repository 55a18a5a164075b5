//! Streams of calls whose connections break: a client of a session comes back and reads on, and nobody else does.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tenant_store::Level;

use crate::support::client::{Events, Http};
use crate::support::conformance::ConformanceServer;
use crate::support::server::{Setup, TestServer};

async fn bed(name: &str) -> Result<TestServer> {
    let url = ConformanceServer::speaking(|version| version < "2026").serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Admin };
    TestServer::start(name, &[setup]).await
}

/// A client in a session, which speaks that version.
struct Client<'s> {
    server: &'s TestServer,
    subject: &'static str,
    session: String,
    version: &'static str,
}

impl<'s> Client<'s> {
    async fn start(server: &'s TestServer, subject: &'static str, version: &'static str) -> Result<Self> {
        let can = json!({"elicitation": {}});
        let session = server.client_at("/t/acme/mcp", subject, &["acme"])?.begin_session_that_can(&can).await?;
        Ok(Self { server, subject, session, version })
    }

    fn http(&self) -> Result<Http> {
        let http = self.server.client_at("/t/acme/mcp", self.subject, &["acme"])?;
        http.with("mcp-session-id", &self.session)?.with("mcp-protocol-version", self.version)
    }

    /// A call that asks something back.
    async fn ask(&self) -> Result<Events> {
        let call = json!({"name": "test_elicitation", "arguments": {"message": "Who?"}});
        self.http()?.legacy_stream(7, "tools/call", &call).await
    }

    /// Reads on from behind the event with that id.
    async fn read_on(&self, id: &str) -> Result<Events> {
        self.http()?.with("last-event-id", id)?.listen().await
    }

    async fn reply(&self, question: &Value) -> Result<()> {
        let content = json!({"username": "al", "email": "al@acme.example"});
        let answer =
            json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": content}});
        assert_eq!(self.http()?.post(answer.to_string()).await?.status, 202);
        Ok(())
    }
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing() -> Result<()> {
    let server = bed("taken_up").await?;
    let alice = Client::start(&server, "alice", "2025-11-25").await?;
    let mut events = alice.ask().await?;
    let question = events.next().await?;
    assert_eq!(question["method"], "elicitation/create");
    let id = events.id.clone().context("events have ids")?;
    let (stream, number) = id.split_once('/').context("of a stream and a number")?;
    assert_eq!((number, events.retry), ("1", Some(1_000)), "behind an event that holds nothing");
    let first = format!("{stream}/0");
    drop(events);

    // From the beginning on it gets the question once more, and then the answer.
    let mut again = alice.read_on(&first).await?;
    assert_eq!(again.next().await?, question);
    // Who comes back later reads in the place of whoever read before.
    let mut newest = alice.read_on(&id).await?;
    again.end().await?;
    alice.reply(&question).await?;
    let answer = newest.next().await?;
    assert_eq!((&answer["id"], newest.id.as_deref()), (&json!(7), Some(&*format!("{stream}/2"))), "{answer}");
    newest.end().await?;
    // It may have been lost on its way.
    assert_eq!(alice.read_on(&id).await?.next().await?, answer);

    for stranger in
        [Client::start(&server, "bob", "2025-11-25").await?, Client::start(&server, "alice", "2025-11-25").await?]
    {
        for id in [&*first, "nothing", "00000000000000000000000000000000/0"] {
            let refused = stranger.http()?.with("last-event-id", id)?.request(reqwest::Method::GET).await?;
            assert_eq!(refused.status, 410, "{id}: {}", refused.text);
        }
    }
    // Nor does she read on at another endpoint, where the same session is good.
    let among = server.client("alice", &["acme"])?.with("mcp-session-id", &alice.session)?;
    assert_eq!(among.with("last-event-id", &first)?.request(reqwest::Method::GET).await?.status, 410);
    // What may not be used any more is not told either.
    let rows = server.rows("acme").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    server.app.follow().await?;
    assert_eq!(alice.http()?.with("last-event-id", &id)?.request(reqwest::Method::GET).await?.status, 410);
    Ok(())
}

#[tokio::test]
async fn a_client_of_an_earlier_version_is_not_told_of_it() -> Result<()> {
    let server = bed("taken_up_earlier").await?;
    let alice = Client::start(&server, "alice", "2025-06-18").await?;
    let mut events = alice.ask().await?;
    let question = events.next().await?;
    assert_eq!((&events.id, events.retry), (&None, None));
    drop(events);
    // Its call ends with the connection, and nobody waits for an answer.
    let content = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}).to_string();
    while alice.http()?.post(content.clone()).await?.status == 202 {
        tokio::task::yield_now().await;
    }
    Ok(())
}
