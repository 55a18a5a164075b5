//! An upstream that is called as whoever calls: each caller's own access token is exchanged for one of the upstream's (RFC 8693), at the
//! authorization server that the operator named and nowhere else.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde_json::json;
use tenant_store::{ClientProof, GrantSpec, Level, Listing, RequestedType, TokenExchange, UpstreamAuth};

use crate::oauth::{issuer, request, text};
use crate::support::canary;
use crate::support::client::Http;
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer};
use crate::support::tokens::TokenGuard;
use crate::support::upstreams::{Guard, RealUpstream, Seen};

const CLIENT_SECRET: &str = "CANARY-client-secret-of-the-tests+/=";

fn exchange(provider: &Provider, listing: Listing) -> Result<UpstreamAuth> {
    let proof = ClientProof::Basic { secret: "client".parse()? };
    let request = request(issuer(provider)?, "upstreams", proof)?;
    Ok(UpstreamAuth::TokenExchange(Box::new(TokenExchange {
        request,
        requested_type: RequestedType::AccessToken,
        listing,
    })))
}

/// A server whose callers sign in at the provider, and an upstream of `acme` that wants tokens of theirs.
struct Bed {
    provider: Provider,
    guard: TokenGuard,
    seen: Seen,
    server: TestServer,
}

impl Bed {
    async fn new(name: &str, upstream: RealUpstream, sessions: bool) -> Result<Self> {
        let provider = Provider::start().await?;
        let guard = TokenGuard::of(&provider).await?;
        let corp = provider.issuer()?;
        let server = TestServer::start_with(name, &[], |config| {
            config.issuers = vec![corp];
            Ok(())
        })
        .await?;
        let (url, seen) = upstream.serve_to(guard.guard(), sessions).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
        server.add(&setup, exchange(&provider, Listing::ClientCredentials)?, &[("client", CLIENT_SECRET)]).await?;
        Ok(Self { provider, guard, seen, server })
    }

    /// Somebody's access token, and a client that shows it.
    async fn client(&self, subject: &str) -> Result<(String, Http)> {
        let claims = json!({"claims": {"aud": self.server.app.endpoint(), "sub": subject}});
        let token = self.provider.mint(&claims).await?;
        let client = Http::new(&self.server.url("/mcp"), Some(&token))?;
        Ok((token, client))
    }
}

async fn call(client: &Http, who: &str) -> Result<String> {
    Ok(text(&client.call("acme__whoami", json!({"as": who})).await?))
}

fn expected(who: &str) -> String {
    format!("whoami at acme with {{\"as\":\"{who}\"}}")
}

#[tokio::test]
async fn each_caller_is_exchanged_for_itself_and_nobodys_own_token_reaches_the_upstream() -> Result<()> {
    let bed = Bed::new("exchange_modern", RealUpstream::named("acme"), false).await?;
    three_callers(&bed).await
}

#[tokio::test]
async fn each_caller_of_a_legacy_upstream_has_a_session_of_its_own() -> Result<()> {
    let bed = Bed::new("exchange_legacy", RealUpstream::named("acme").legacy(), true).await?;
    three_callers(&bed).await?;
    let sessions = bed.guard.shown().iter().filter(|shown| shown.body.contains("\"initialize\"")).count();
    assert_eq!(sessions, 4, "one for the list and one for each caller");
    Ok(())
}

async fn three_callers(bed: &Bed) -> Result<()> {
    assert!(bed.guard.shown().iter().all(|shown| shown.subject == "upstreams"), "the list is the client's own");
    let people = ["alice", "bob", "carol"];
    let mut clients = Vec::new();
    for who in people {
        clients.push((who, bed.client(who).await?));
    }
    let calls = (0..10).flat_map(|_| &clients).map(|(who, (_, client))| async move {
        assert_eq!(call(client, who).await?, expected(who));
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(calls).await?;
    for shown in bed.guard.shown() {
        for who in people.into_iter().filter(|who| shown.body.contains(&format!("\"as\":\"{who}\""))) {
            assert_eq!(shown.subject, who, "{}", shown.body);
        }
    }
    assert_eq!(bed.provider.asked("token").await?, 4, "one for the list and one for each caller");
    let (seen, log) = (bed.seen.text(), bed.server.logged()?);
    for (who, (token, _)) in &clients {
        assert!(!seen.contains(token.as_str()), "the caller's token ends at the authorization server");
        assert!(!log.contains(token.as_str()) && !log.contains(CLIENT_SECRET));
        let event = log.lines().find(|line| line.contains("was exchanged") && line.contains(who));
        let event = event.context("each exchange is on record")?;
        for field in ["principal.issuer=corp", "tenant.id=ten_", "upstream.id=ups_", "request.id="] {
            assert!(event.contains(field), "{event}");
        }
    }
    assert!(!seen.contains(CLIENT_SECRET), "the client's secret is not the upstream's");
    assert!(!log.contains(&bed.guard.last()?.token));
    Ok(())
}

#[tokio::test]
async fn a_new_token_of_the_same_caller_is_exchanged_anew() -> Result<()> {
    let bed = Bed::new("exchange_again", RealUpstream::named("acme"), false).await?;
    let (_, first) = bed.client("alice").await?;
    let (_, second) = bed.client("alice").await?;
    for client in [&first, &first, &second, &second] {
        assert_eq!(call(client, "alice").await?, expected("alice"));
    }
    assert_eq!(bed.provider.asked("token").await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_callers_first_token_that_the_upstream_refuses_is_replaced_before_a_version_is_agreed_on() -> Result<()> {
    let bed = Bed::new("exchange_refused_first", RealUpstream::named("acme"), false).await?;
    bed.guard.refuse_first_of("alice");
    let (_, alice) = bed.client("alice").await?;
    assert_eq!(call(&alice, "alice").await?, expected("alice"));
    assert_eq!(bed.provider.asked("token").await?, 3);
    Ok(())
}

#[tokio::test]
async fn fifty_calls_of_a_new_caller_ask_for_one_token() -> Result<()> {
    let bed = Bed::new("exchange_fifty", RealUpstream::named("acme"), false).await?;
    bed.provider.set("tokenDelayMs=300").await?;
    let (_, alice) = bed.client("alice").await?;
    try_join_all((0..50).map(|_| async {
        assert_eq!(call(&alice, "alice").await?, expected("alice"));
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    assert_eq!(bed.provider.asked("token").await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_caller_without_an_access_token_is_told_so_and_is_nobody_elses() -> Result<()> {
    let bed = Bed::new("exchange_api_key", RealUpstream::named("acme"), false).await?;
    let (robot, _) = bed.server.robot("acme", Level::Write).await?;
    let answer = call(&robot, "robot").await?;
    assert!(answer.contains("is called with your own access token in exchange, and you showed none"), "{answer}");
    assert!(bed.guard.shown().iter().all(|shown| !shown.body.contains("robot")), "nothing reached the upstream");
    assert_eq!(bed.provider.asked("token").await?, 1, "and nothing the authorization server");
    Ok(())
}

#[tokio::test]
async fn a_refused_exchange_is_the_callers_own_and_the_servers_words_stay_there() -> Result<()> {
    let bed = Bed::new("exchange_refused", RealUpstream::named("acme"), false).await?;
    let (old_token, old) = bed.client("alice").await?;
    old.legacy("ping", &json!({})).await?;
    // Known here for a minute, and no more to the provider.
    bed.provider.rotate(false).await?;
    for _ in 0..3 {
        let answer = call(&old, "alice").await?;
        assert!(answer.contains("its authorization server did not take your access token in exchange"), "{answer}");
        assert!(!answer.contains("CANARY") && !answer.contains(&old_token), "{answer}");
    }
    assert_eq!(bed.provider.asked("token").await?, 2, "the answer is remembered");
    let log = bed.server.logged()?;
    assert!(log.contains("code=\"invalid_request\"") && !log.contains("CANARY"), "the log knows the code alone");
    Ok(())
}

#[tokio::test]
async fn a_list_without_proof_is_asked_for_where_the_operator_says_so() -> Result<()> {
    let provider = Provider::start().await?;
    let tokens = TokenGuard::of(&provider).await?;
    let corp = provider.issuer()?;
    let server = TestServer::start_with("exchange_open_list", &[], |config| {
        config.issuers = vec![corp];
        Ok(())
    })
    .await?;
    let with_token = tokens.guard();
    let guard: Guard = std::sync::Arc::new(move |parts, body| {
        let is_call = String::from_utf8_lossy(body).contains("tools/call");
        if is_call { with_token(parts, body) } else { true }
    });
    let (url, _) = RealUpstream::named("acme").serve_to(guard, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, exchange(&provider, Listing::None)?, &[("client", CLIENT_SECRET)]).await?;
    assert_eq!(provider.asked("token").await?, 0, "nothing was needed for the list");

    let token = provider.token(&server.app.endpoint()).await?;
    let alice = Http::new(&server.url("/mcp"), Some(&token))?;
    assert_eq!(call(&alice, "alice").await?, expected("alice"));
    assert_eq!(tokens.last()?.subject, "alice");
    Ok(())
}

#[tokio::test]
async fn a_server_that_gives_the_callers_token_back_makes_nobody_see_it() -> Result<()> {
    let bed = Bed::new("exchange_echo", RealUpstream::named("acme"), false).await?;
    bed.provider.set("exchangeEcho=1").await?;
    let (token, alice) = bed.client("alice").await?;
    let answer = call(&alice, "alice").await?;
    assert!(answer.contains("its authorization server gave your own access token back"), "{answer}");
    assert!(!bed.seen.text().contains(&token));
    Ok(())
}

#[tokio::test]
async fn a_server_that_only_a_manifest_names_is_shown_no_callers_token() -> Result<()> {
    let (provider, stranger) = (Provider::start().await?, Provider::start().await?);
    let corp = provider.issuer()?;
    let server = TestServer::start_with("exchange_stranger", &[], |config| {
        config.issuers = vec![corp];
        Ok(())
    })
    .await?;
    let guard: Guard = std::sync::Arc::new(|_, _| true);
    let (url, _) = RealUpstream::named("acme").serve_to(guard, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, exchange(&stranger, Listing::ClientCredentials)?, &[("client", CLIENT_SECRET)]).await?;
    let before = stranger.asked("token").await?;
    assert_eq!(before, 1, "our own secret is for it, and so the tools are listed");

    let token = provider.token(&server.app.endpoint()).await?;
    let alice = Http::new(&server.url("/mcp"), Some(&token))?;
    let answer = call(&alice, "alice").await?;
    assert!(answer.contains("its authorization server may not be shown your access token"), "{answer}");
    assert_eq!(stranger.asked("token").await?, before);

    // The operator of the process says so.
    let mut config = server.config.clone();
    config.issuers[0].token_exchange = vec![stranger.url.clone()];
    let server = TestServer { config, ..server }.restart().await?;
    let alice = Http::new(&server.url("/mcp"), Some(&provider.token(&server.app.endpoint()).await?))?;
    let answer = call(&alice, "alice").await?;
    assert!(answer.contains("did not take your access token in exchange"), "{answer}");
    assert!(stranger.asked("token").await? > before);
    Ok(())
}

#[tokio::test]
async fn a_caller_of_another_tenant_has_no_token_there() -> Result<()> {
    let bed = Bed::new("exchange_two_tenants", RealUpstream::named("acme"), false).await?;
    let key = canary("globex-key");
    let (url, globex) = RealUpstream::named("globex").serve(&key, false).await?;
    let setup = Setup { tenant: "globex", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    crate::support::server::install(bed.server.app.store(), &setup).await?;
    let rows = bed.server.rows("globex").await?;
    rows.put_grant(
        &"alice".parse()?,
        &GrantSpec {
            issuer: "corp".parse()?,
            groups: Vec::new(),
            subjects: vec!["alice".parse()?],
            level: Level::Write,
            allow: vec!["*".parse()?],
            deny: Vec::new(),
        },
    )
    .await?;
    bed.server.app.follow().await?;
    bed.server.app.refresher().refresh_all().await;
    let (token, alice) = bed.client("alice").await?;
    assert_eq!(call(&alice, "alice").await?, expected("alice"));
    let exchanged = bed.guard.last()?.token;
    assert_eq!(text(&alice.call("globex__whoami", json!({})).await?), "whoami at globex with {}");
    let seen = globex.text();
    assert!(seen.contains(&key) && !seen.contains(&exchanged) && !seen.contains(&token));
    Ok(())
}
