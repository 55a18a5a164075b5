//! Who loses what by a directory, who gains nothing, and what its token is good for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::IssuerConfig;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tenant_store::testing::is_on_postgres;
use tokio::time::{Instant, timeout};

use super::{BY_NAMES, Bed, ERROR, FOUND_WITHIN, GROUP, USER, directory, upstream};
use crate::support::canary;
use crate::support::client::{Events, Http};
use crate::support::upstreams::{ByteUpstream, Say};

/// In this time every replica has it, where the database tells of changes.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

fn held() -> Say {
    Say::Held(
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"working"}}"#.to_owned(),
    )
}

/// Reads a stream to its end.
async fn over(mut events: Events) {
    while events.next().await.is_ok() {}
}

#[tokio::test]
async fn whoever_is_deactivated_loses_what_runs_and_is_let_in_by_no_replica() -> Result<()> {
    let tools = r#"[{"name":"go","inputSchema":{}}]"#;
    let (url, seen) = ByteUpstream::with_tools(tools).on("tools/call", held()).serve().await?;
    let bed = Bed::new("scim_deactivated", &url, BY_NAMES).await?;
    let other = bed.server.replica().await?;
    let token = bed.server.idp.sign(&bed.server.idp.claims("alice", &["acme"], &other.endpoint()))?;
    let elsewhere = Http::new(&other.endpoint(), Some(&token))?;
    assert!(!elsewhere.tools().await?.is_empty());
    let user = format!("/Users/{}", bed.add("alice").await?);
    bed.add("bob").await?;
    let (alice, bob) = (bed.server.client("alice", &["acme"])?, bed.server.client("bob", &["acme"])?);
    let session = alice.begin_session().await?;
    let own_stream = alice.with("mcp-session-id", &session)?.listen().await?;
    let alice = bed.server.client("alice", &["acme"])?;
    let listening = alice.stream("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    let call = alice.call("acme__go", json!({}));
    let deactivating = async {
        seen.until("tools/call").await;
        let began = Instant::now();
        bed.patch(&user, json!([{"op": "Replace", "path": "active", "value": "False"}]), 200).await?;
        anyhow::Ok(began)
    };
    let (answer, began) = tokio::join!(call, deactivating);
    let (answer, began) = (answer?, began?);
    assert!(answer.to_string().contains("your sign-in ended"), "{answer}");
    timeout(TOLD_WITHIN, over(own_stream)).await?;
    timeout(TOLD_WITHIN, over(listening)).await?;
    let refused = alice.request(Method::POST).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("your access was revoked"), "{}", refused.text);
    let within = if is_on_postgres() { TOLD_WITHIN } else { FOUND_WITHIN };
    while elsewhere.request(Method::POST).await?.status != 403 {
        ensure!(began.elapsed() < within, "the other replica lets them in for {:?}", began.elapsed());
    }
    println!("in force everywhere after {:?}", began.elapsed());
    ensure!(began.elapsed() < within, "{:?}", began.elapsed());
    assert!(!bob.tools().await?.is_empty(), "nobody else is concerned");

    bed.patch(&user, json!([{"op": "Replace", "path": "active", "value": true}]), 200).await?;
    bed.server.app.follow().await?;
    assert!(!alice.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn who_tries_one_token_after_the_other_is_made_to_wait_and_the_directory_is_not() -> Result<()> {
    let bed = Bed::with("scim_attempts", &upstream().await?, BY_NAMES, |config| {
        config.limits = serde_json::from_value(json!({"address_failures_per_minute": 3}))?;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().map_err(anyhow::Error::msg)?];
        Ok(())
    })
    .await?;
    let from = |client: Http, address: &str| client.with("x-forwarded-for", address);
    let tries = |number: usize| bed.as_bearer(Some(&format!("guess-{number}")), "/scim/v2/corp/Users");
    let (here, there) = ("198.51.100.7", "198.51.100.8");
    // Who shows nothing tries nothing.
    for _ in 0..5 {
        let nothing = from(bed.as_bearer(None, "/scim/v2/corp/Users")?, here)?;
        assert_eq!(nothing.request(Method::GET).await?.status, 401);
    }
    for number in 0..3 {
        assert_eq!(from(tries(number)?, here)?.request(Method::GET).await?.status, 401);
    }
    let refused = from(tries(3)?, here)?.request(Method::GET).await?;
    let seconds: u64 = refused.headers["retry-after"].to_str()?.parse()?;
    assert!(refused.status == 429 && (1..=20).contains(&seconds), "{refused:?}");
    assert_eq!(refused.json()?["schemas"], json!([ERROR]));
    // It is one count with that of sign-ins.
    let bob = from(bed.server.client("bob", &[])?, here)?;
    assert_eq!(bob.modern("tools/list", json!({})).await?.status, 429);
    assert_eq!(from(bed.at("/Users")?, here)?.request(Method::GET).await?.status, 200, "the directory itself");
    assert_eq!(from(tries(4)?, there)?.request(Method::GET).await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn whoever_was_removed_stays_out_until_created_again() -> Result<()> {
    let bed = Bed::new("scim_removed", &upstream().await?, BY_NAMES).await?;
    let id = bed.add("alice").await?;
    let user = format!("/Users/{id}");
    bed.send(Method::DELETE, &user, &Value::Null, 204).await?;
    for (method, body) in [
        (Method::GET, Value::Null),
        (Method::DELETE, Value::Null),
        (Method::PUT, json!({"userName": "alice", "active": true})),
        (Method::PATCH, json!({"Operations": [{"op": "replace", "value": {"active": true}}]})),
    ] {
        let answer = bed.send(method, &user, &body, 404).await?;
        assert_eq!((&answer["schemas"], &answer["status"]), (&json!([ERROR]), &json!("404")));
    }
    assert_eq!(bed.get("/Users").await?["totalResults"], 0);
    let Bed { server, token } = bed;
    let bed = Bed { server: server.restart().await?, token };
    let refused = bed.server.client("alice", &["acme"])?.request(Method::POST).await?;
    assert_eq!(refused.status, 403, "a restart brings nobody back");
    assert_ne!(bed.add("alice").await?, id);
    bed.server.app.follow().await?;
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_directory_gives_nobody_anything() -> Result<()> {
    let bed = Bed::new("scim_gives_nothing", &upstream().await?, BY_NAMES).await?;
    let id = bed.add("alice").await?;
    let group = json!({"schemas": [GROUP], "displayName": "acme", "members": [{"value": id}]});
    bed.send(Method::POST, "/Groups", &group, 201).await?;
    bed.server.app.follow().await?;
    assert_eq!(bed.groups_of("alice").await?, ["acme"]);
    assert!(bed.server.client("alice", &[])?.tools().await?.is_empty(), "the token is what says it");
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty());
    Ok(())
}

/// A server with directories of `corp` and of `partner`, the token of the second, and the id of alice in the first.
async fn two_directories(name: &str) -> Result<(Bed, String, String)> {
    let partner = crate::support::identity::Idp::start().await?;
    let theirs = canary("partner-token");
    let bed = Bed::with(name, &upstream().await?, BY_NAMES, |config| {
        config.issuers.push(IssuerConfig::new("partner".parse()?, &partner.url));
        config.issuers.push(IssuerConfig::new("bare".parse()?, "https://bare.example"));
        config.directories.push(directory("partner", &theirs, BY_NAMES)?);
        Ok(())
    })
    .await?;
    let alice = bed.add("alice").await?;
    Ok((bed, theirs, alice))
}

#[tokio::test]
async fn every_other_token_is_the_same_401_at_every_directory() -> Result<()> {
    let (bed, theirs, alice) = two_directories("scim_tokens").await?;
    let users = bed.server.token("alice", &["acme"])?;
    let key = canary("not-a-key");
    let mut answers = Vec::new();
    for (issuer, token) in [
        ("corp", Some(theirs.as_str())),
        ("corp", Some(users.as_str())),
        ("corp", Some(key.as_str())),
        ("corp", Some("")),
        ("corp", None),
        ("partner", Some(bed.token.as_str())),
        ("bare", Some(bed.token.as_str())),
        ("nobody", Some(bed.token.as_str())),
        ("CORP", Some(bed.token.as_str())),
        ("%ff", Some(bed.token.as_str())),
    ] {
        for (method, path) in [
            (Method::GET, "/Users".to_owned()),
            (Method::GET, format!("/Users/{alice}")),
            (Method::DELETE, format!("/Users/{alice}")),
            (Method::POST, "/Groups".to_owned()),
            (Method::GET, "/ServiceProviderConfig".to_owned()),
            (Method::GET, "/nothing".to_owned()),
        ] {
            let client = bed.as_bearer(token, &format!("/scim/v2/{issuer}{path}"))?;
            answers.push(client.request(method).await?.all());
        }
    }
    let (status, body, headers) = answers.first().context("an answer")?;
    assert_eq!(
        (*status, headers.get("www-authenticate").map(HeaderValue::as_bytes)),
        (401, Some(b"Bearer".as_slice()))
    );
    assert!(body.contains(ERROR) && !body.contains("corp"), "{body}");
    assert!(answers.iter().all(|answer| answer == &answers[0]), "all are the same to the byte: {answers:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_opens_its_own_directory_and_nothing_else() -> Result<()> {
    let (bed, theirs, alice) = two_directories("scim_own_token").await?;
    let twice = bed.at("/Users")?.and("authorization", &format!("Bearer {}", bed.token))?;
    assert_eq!(twice.request(Method::GET).await?.status, 401);
    assert_eq!(
        bed.as_bearer(None, &format!("/scim/v2/corp/Users?access_token={}", bed.token))?
            .request(Method::GET)
            .await?
            .status,
        401
    );
    for path in ["/mcp", "/t/acme/mcp"] {
        let refused = Http::new(&bed.server.url(path), Some(&bed.token))?.modern("tools/list", json!({})).await?;
        assert_eq!(refused.status, 401);
    }
    let there = bed.as_bearer(Some(&theirs), &format!("/scim/v2/partner/Users/{alice}"))?;
    assert_eq!(there.request(Method::GET).await?.status, 404, "another directory's user is nobody");
    assert_eq!(there.request(Method::DELETE).await?.status, 404);
    let name = json!({"schemas": [USER], "userName": "alice", "active": false});
    let there = bed.as_bearer(Some(&theirs), "/scim/v2/partner/Users")?;
    assert_eq!(there.send_as(Method::POST, name.to_string()).await?.status, 201);
    bed.server.app.follow().await?;
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty(), "their alice is not ours");
    Ok(())
}
