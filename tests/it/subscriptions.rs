//! Subscriptions to resources: each caller hears of its own, between clients and upstreams of either era, for as long as it may.

use anyhow::{Context as _, Result};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use tenant_store::{Level, Revoked, UpstreamAuth};

use crate::support::client::{Events, Http};
use crate::support::raw_session::RawSession;
use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{Seen, serve_handler};
use crate::support::watched::Watched;

const LEGACY: fn(&str) -> bool = |version| version < "2026";
const MODERN: fn(&str) -> bool = |version| version > "2026";
const UPDATED: &str = "notifications/resources/updated";

/// A server with one such upstream.
async fn bed(name: &str, speaks: fn(&str) -> bool) -> Result<(TestServer, Watched)> {
    let watched = Watched::speaking(speaks);
    let (url, _) = watched.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    Ok((TestServer::start(name, &[setup]).await?, watched))
}

fn note(of: &str, name: &str) -> String {
    format!("mcp-mux://{of}/desk/note://{name}")
}

async fn listen(client: &Http, uris: &[String]) -> Result<(Events, Value)> {
    let mut events =
        client.stream("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": uris}})).await?;
    let acknowledged = events.next().await?;
    Ok((events, acknowledged["params"]["notifications"].clone()))
}

/// A client of the legacy era, in a session.
async fn in_session(server: &TestServer, path: &str, subject: &str, groups: &[&str]) -> Result<Http> {
    let client = server.client_at(path, subject, groups)?;
    let id = client.begin_session().await?;
    client.with("mcp-session-id", &id)
}

#[tokio::test]
async fn a_modern_listener_hears_of_what_it_named_whatever_the_upstream_speaks() -> Result<()> {
    for speaks in [LEGACY, MODERN] {
        let (server, watched) = bed("subscriptions_modern", speaks).await?;
        let alice = server.client("alice", &["acme"])?;
        let wanted =
            [note("acme", "one"), note("globex", "one"), note("acme", "one/../../two"), "note://one".to_owned()];
        let (mut heard, acknowledged) = listen(&alice, &wanted).await?;
        assert_eq!(acknowledged, json!({"resourceSubscriptions": [note("acme", "one")]}), "what is hers, and no more");
        watched.until_heard(1).await;
        watched.touch("note://two").await?;
        watched.touch("note://one").await?;
        let meta = json!({"io.modelcontextprotocol/subscriptionId": "s-1"});
        let expected = json!({
            "jsonrpc": "2.0", "method": UPDATED, "params": {"_meta": meta, "uri": note("acme", "one")},
        });
        assert_eq!(heard.next().await?, expected);

        // At the tenant's own endpoint the upstream's own name says enough, and both are heard by that.
        let here = server.client_at("/t/acme/mcp", "alice", &["acme"])?;
        let (mut heard_here, acknowledged) = listen(&here, &["note://two".to_owned()]).await?;
        assert_eq!(acknowledged, json!({"resourceSubscriptions": ["note://two"]}));
        watched.until_heard(2).await;
        watched.touch("note://two").await?;
        assert_eq!(heard_here.next().await?["params"]["uri"], "note://two");
        // Who listens no more is not listened for.
        drop(heard_here);
        watched.until_heard(1).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_legacy_session_hears_of_what_it_subscribed_to_and_nobody_elses_does() -> Result<()> {
    for speaks in [LEGACY, MODERN] {
        let (server, watched) = bed("subscriptions_legacy", speaks).await?;
        let alice = in_session(&server, "/mcp", "alice", &["acme"]).await?;
        let other = in_session(&server, "/mcp", "alice", &["acme"]).await?;
        let bob = in_session(&server, "/mcp", "bob", &["globex"]).await?;
        let about = |name: &str| json!({"uri": note("acme", name)});
        assert_eq!(bob.legacy("resources/subscribe", &about("one")).await?.code()?, Some(-32002), "none of his");
        assert_eq!(alice.legacy("resources/subscribe", &about("one")).await?.json()?["result"], json!({}));
        let (mut heard, mut heard_by_other) = (alice.listen().await?, other.listen().await?);
        // What it adds while it listens counts as well.
        assert_eq!(other.legacy("resources/subscribe", &about("two")).await?.json()?["result"], json!({}));
        watched.until_heard(2).await;
        let expected = |name: &str| json!({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": note("acme", name)}});
        assert_eq!(heard.next().await?, expected("one"), "it may have changed between the answer and now");
        assert_eq!(heard_by_other.next().await?, expected("two"));
        watched.touch("note://one").await?;
        assert_eq!(heard.next().await?, expected("one"));
        watched.touch("note://two").await?;
        assert_eq!(heard_by_other.next().await?, expected("two"), "and never of the first");
        // A session has one stream, which is the newest.
        let mut newer = other.listen().await?;
        heard_by_other.end().await?;
        assert_eq!(newer.next().await?, expected("two"));

        assert_eq!(alice.legacy("resources/unsubscribe", &about("one")).await?.json()?["result"], json!({}));
        watched.until_heard(1).await;
        drop(newer);
        watched.until_heard(0).await;
    }
    Ok(())
}

#[tokio::test]
async fn parts_of_a_resource_are_told_of_under_the_name_that_they_have_here() -> Result<()> {
    let (server, watched) = bed("subscriptions_parts", LEGACY).await?;
    let (mut heard, _) = listen(&server.client("alice", &["acme"])?, &[note("acme", "one")]).await?;
    watched.until_heard(1).await;
    // No such name can be read here, so nobody hears of it.
    watched.touch("note://one/../two").await?;
    watched.touch("note://one/part").await?;
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one/part"));
    Ok(())
}

#[tokio::test]
async fn who_loses_a_grant_is_not_listened_for_any_more() -> Result<()> {
    for speaks in [LEGACY, MODERN] {
        let (server, watched) = bed("subscriptions_revoked", speaks).await?;
        let (mut heard, _) = listen(&server.client("alice", &["acme"])?, &[note("acme", "one")]).await?;
        watched.until_heard(1).await;
        let rows = server.rows("acme").await?;
        for grant in rows.grants().await? {
            rows.remove_grant(grant.id).await?;
        }
        server.app.follow().await?;
        watched.until_heard(0).await;
        watched.touch("note://one").await?;
        server.app.tasks().stop().await;
        assert_eq!(heard.next().await?["result"]["resultType"], "complete", "nothing but the end");
    }
    Ok(())
}

#[tokio::test]
async fn after_a_lost_session_everything_may_have_changed() -> Result<()> {
    let (server, watched) = bed("subscriptions_lost", LEGACY).await?;
    let (mut heard, _) = listen(&server.client("alice", &["acme"])?, &[note("acme", "one")]).await?;
    watched.until_heard(1).await;
    watched.forget_sessions().await;
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"));
    watched.until_heard(1).await;
    watched.touch("note://one").await?;
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"), "and it is heard of again");
    Ok(())
}

/// A server in front of an upstream whose own stream alice hears; the upstream, and what it was asked.
async fn heard_in_its_own_stream(name: &str) -> Result<(TestServer, RawSession, Seen, Events)> {
    let upstream = RawSession::default();
    let (url, seen) = upstream.serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start(name, &[setup]).await?;
    let (heard, _) = listen(&server.client("alice", &["acme"])?, &[note("acme", "one")]).await?;
    upstream.until_begun(1).await;
    Ok((server, upstream, seen, heard))
}

#[tokio::test]
async fn after_a_stream_that_broke_off_everything_may_have_changed() -> Result<()> {
    let (server, upstream, seen, mut heard) = heard_in_its_own_stream("subscriptions_broken").await?;
    upstream.hang_up();
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"));
    upstream.until_begun(2).await;
    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}});
    upstream.say(&updated("note://two"));
    upstream.say(&updated("note://one"));
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"));
    // What is subscribed to besides joins what is heard in the same session.
    let alice = in_session(&server, "/mcp", "alice", &["acme"]).await?;
    alice.legacy("resources/subscribe", &json!({"uri": note("acme", "two")})).await?;
    let mut heard_by_other = alice.listen().await?;
    assert_eq!(heard_by_other.next().await?["params"]["uri"], note("acme", "two"));
    assert_eq!(seen.text().matches("\"resources/subscribe\"").count(), 2);
    upstream.say(&updated("note://one"));
    upstream.say(&updated("note://two"));
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"));
    assert_eq!(heard_by_other.next().await?["params"]["uri"], note("acme", "two"), "and nothing of the other's");
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_was_taken_away_is_told_nothing_more() -> Result<()> {
    let (server, upstream, seen, mut heard) = heard_in_its_own_stream("subscriptions_removed").await?;
    let elsewhere = RawSession::default();
    let (url, seen_elsewhere) = elsewhere.serve().await?;
    server
        .add(
            &Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write },
            UpstreamAuth::None,
            &[],
        )
        .await?;
    elsewhere.until_begun(1).await;
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"), "it is another one there");
    upstream.until_nobody_reads().await;
    assert!(!seen.text().contains("resources/unsubscribe"), "{}", seen.text());

    let rows = server.rows("acme").await?;
    let mut suspended = rows.upstreams().await?.into_iter().next().context("an upstream")?;
    suspended.spec.enabled = false;
    rows.put_upstream(&suspended.slug, &suspended.spec).await?;
    server.app.follow().await?;
    elsewhere.until_nobody_reads().await;
    assert!(!seen_elsewhere.text().contains("resources/unsubscribe"), "{}", seen_elsewhere.text());
    Ok(())
}

#[tokio::test]
async fn a_legacy_upstream_that_tells_of_changed_lists_is_listed_at_once() -> Result<()> {
    let watched = Watched::speaking(LEGACY);
    let (url, seen) = watched.serve().await?;
    // Nothing else would have it listed again within this test.
    let server = TestServer::start_with("subscriptions_lists", &[], |config| {
        config.catalog.refresh_seconds = 3_600;
        Ok(())
    })
    .await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    let alice = server.client("alice", &["acme"])?;
    let mut heard = alice.stream("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    heard.next().await?;
    // It is listed once more when it begins to be listened to.
    seen.times("\"tools/list\"", 2).await;
    watched.add_tool().await?;
    assert_eq!(heard.next().await?["method"], "notifications/tools/list_changed");
    assert!(alice.tools().await?.contains(&"acme__tool-1".to_owned()));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_listened_to_is_not_promised() -> Result<()> {
    let rich = Rich { name: "acme".to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
    let (url, _) = serve_handler(rich, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("subscriptions_silent", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    let (_heard, acknowledged) = listen(&alice, &[note("acme", "one")]).await?;
    assert_eq!(acknowledged, json!({}));
    let session = in_session(&server, "/mcp", "alice", &["acme"]).await?;
    let refused = session.legacy("resources/subscribe", &json!({"uri": note("acme", "one")})).await?;
    assert_eq!(refused.code()?, Some(-32602));
    assert!(refused.text.contains("upstream `desk` of tenant `acme` does not tell of changes"), "{}", refused.text);

    let many: Vec<String> = (0..65).map(|number| note("acme", &number.to_string())).collect();
    let params = json!({"notifications": {"resourceSubscriptions": many}});
    assert_eq!(alice.modern("subscriptions/listen", params).await?.code()?, Some(-32602));
    let params = json!({"notifications": {"resourceSubscriptions": "note://one"}});
    assert_eq!(alice.modern("subscriptions/listen", params).await?.code()?, Some(-32602));
    let outside = server.client("alice", &["acme"])?;
    let refused = outside.legacy("resources/subscribe", &json!({"uri": note("acme", "one")})).await?;
    assert_eq!(refused.code()?, Some(-32600), "outside of a session: {}", refused.text);
    Ok(())
}

#[tokio::test]
async fn a_session_subscribes_to_a_few_resources_only() -> Result<()> {
    let (server, _) = bed("subscriptions_many", MODERN).await?;
    let alice = in_session(&server, "/mcp", "alice", &["acme"]).await?;
    let subscribe =
        async |name: String| alice.legacy("resources/subscribe", &json!({"uri": note("acme", &name)})).await;
    for number in 0..64 {
        assert_eq!(subscribe(format!("n{number}")).await?.json()?["result"], json!({}));
    }
    assert_eq!(subscribe("one-more".to_owned()).await?.code()?, Some(-32602));
    assert_eq!(subscribe("n3".to_owned()).await?.json()?["result"], json!({}), "it is subscribed to already");
    alice.legacy("resources/unsubscribe", &json!({"uri": note("acme", "n3")})).await?;
    assert_eq!(subscribe("one-more".to_owned()).await?.json()?["result"], json!({}));
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_is_refused_when_it_is_repeated_stays() -> Result<()> {
    let (server, watched) = bed("subscriptions_repeated", MODERN).await?;
    let alice = in_session(&server, "/mcp", "alice", &["acme"]).await?;
    let subscribe = async || alice.legacy("resources/subscribe", &json!({"uri": note("acme", "one")})).await;
    assert_eq!(subscribe().await?.json()?["result"], json!({}));
    let (store, acme) = (server.app.store(), server.rows("acme").await?);
    let upstream = acme.upstreams().await?.pop().context("an upstream")?.id;
    let taken = Revoked::Upstream { tenant: acme.id(), upstream };
    store.revoke(&taken, "a test").await?;
    server.app.follow().await?;
    assert_eq!(subscribe().await?.code()?, Some(-32002));
    store.reinstate(&taken).await?;
    server.app.follow().await?;
    let mut heard = alice.listen().await?;
    watched.until_heard(1).await;
    assert_eq!(heard.next().await?["params"]["uri"], note("acme", "one"));
    Ok(())
}
