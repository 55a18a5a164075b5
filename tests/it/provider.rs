//! Signing in at a real authorization server, and what becomes of tokens when it changes its keys, is slow or is gone.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use axum::routing::post;
use axum::{Json, Router};
use mcp_mux::config::{AppOnly, IntrospectionConfig, IssuerConfig, TokenMode};
use serde_json::{Value, json};
use tenant_store::{Clock as _, Level, SystemClock};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer, serve};
use crate::support::upstreams::RealUpstream;

/// A server with the tenants acme and globex, whose people sign in at `issuer`.
async fn two_tenants(name: &str, issuer: IssuerConfig) -> Result<TestServer> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
    ];
    TestServer::start_with(name, &setups, |config| {
        config.issuers = vec![issuer];
        Ok(())
    })
    .await
}

/// The official TypeScript client, from the endpoint alone to a list of tools.
async fn sign_in(server: &TestServer, arguments: &[&str]) -> Result<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/typescript/sign_in.mjs");
    let mut client = Command::new("node");
    client.arg(script).arg(server.url("/mcp")).args(arguments).kill_on_drop(true);
    let output = client.output().await.context("running node")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the client failed: {err}");
    serde_json::from_str(&out).with_context(|| format!("it printed {out}"))
}

async fn status(server: &TestServer, token: &str) -> Result<u16> {
    Ok(Http::new(&server.url("/mcp"), Some(token))?.legacy("ping", &json!({})).await?.status)
}

fn tools_of(tenant: &str) -> Vec<String> {
    ["whoami", "change", "wait"].map(|tool| format!("{tenant}__{tool}")).to_vec()
}

#[tokio::test]
async fn the_official_client_registers_signs_in_and_sees_its_users_tools() -> Result<()> {
    let provider = Provider::start().await?;
    let server = two_tenants("client_signs_in", provider.issuer()?).await?;
    let alice = sign_in(&server, &["alice"]).await?;
    let endpoint = server.app.endpoint();
    assert_eq!(
        alice,
        json!({
            "version": "2026-07-28", "tools": tools_of("acme"), "resource": endpoint, "registered": true,
            "token": {"iss": provider.url, "aud": endpoint, "client": true, "scope": "mcp:use"},
        })
    );
    let carol = sign_in(&server, &["carol", "public-mcp"]).await?;
    assert_eq!(carol["tools"], json!([tools_of("acme"), tools_of("globex")].concat()));
    assert_eq!(carol["registered"], false);
    assert_eq!(sign_in(&server, &["nobody"]).await?["tools"], json!([]));
    Ok(())
}

#[tokio::test]
async fn keys_that_are_rotated_with_and_without_overlap_are_followed() -> Result<()> {
    let provider = Provider::start().await?;
    let server = two_tenants("rotation", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    let first = provider.token(&endpoint).await?;
    assert_eq!(status(&server, &first).await?, 200);

    provider.rotate(true).await?;
    let second = provider.token(&endpoint).await?;
    assert_eq!(status(&server, &second).await?, 200, "a new key is found at its first token");
    assert_eq!(status(&server, &first).await?, 200, "the old one is published still");

    // A server of its own: what the first one was caused to fetch keeps its gate shut for a while.
    let server = two_tenants("rotation_alone", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    assert_eq!(status(&server, &provider.token(&endpoint).await?).await?, 200);
    provider.rotate(false).await?;
    assert_eq!(status(&server, &provider.token(&endpoint).await?).await?, 200, "without overlap too");
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_taken_away_takes_its_tokens_along() -> Result<()> {
    let provider = Provider::start().await?;
    let server = two_tenants("rotation_without_overlap", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    let first = provider.token(&endpoint).await?;
    assert_eq!(status(&server, &first).await?, 200);

    provider.rotate(false).await?;
    assert_eq!(status(&server, &first).await?, 200, "nobody has heard of it yet");
    let second = provider.token(&endpoint).await?;
    assert_eq!(status(&server, &second).await?, 200);
    assert_eq!(status(&server, &first).await?, 401, "not even remembered");
    Ok(())
}

#[tokio::test]
async fn two_thousand_invented_keys_cause_one_fetch_and_a_provider_that_is_gone_harms_no_known_token() -> Result<()> {
    let provider = Provider::start().await?;
    let server = two_tenants("invented_keys", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    let good = provider.token(&endpoint).await?;
    assert_eq!(status(&server, &good).await?, 200);
    let before = provider.asked("jwks").await?;
    let (_, rest) = good.split_once('.').context("a JWT")?;
    let client = Http::new(&server.url("/mcp"), None)?;
    for number in 0..2_000 {
        let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": format!("invented-{number}")}).to_string();
        let forged = format!("{}.{rest}", base64_url(header.as_bytes()));
        let answer = client.as_bearer(&forged)?.legacy("ping", &json!({})).await?;
        // One was looked for in vain. Whether the others exist nobody asks, so nobody says that they are bad.
        assert_eq!(answer.status, if number == 0 { 401 } else { 503 }, "{number}");
        assert_eq!(answer.headers.contains_key("retry-after"), number > 0);
    }
    assert!(provider.asked("jwks").await? <= before + 1);

    provider.set("jwksDown=1").await?;
    let other = provider.mint(&json!({"claims": {"aud": endpoint, "sub": "bob"}})).await?;
    assert_eq!(status(&server, &other).await?, 200, "a new token of a known key");
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_slow_at_the_start_is_waited_for_and_delays_nobody_elses_tokens() -> Result<()> {
    let provider = Provider::start().await?;
    provider.set("jwksDelayMs=3000").await?;
    let slow = IssuerConfig { name: "slow".parse()?, ..provider.issuer()? };
    let server = TestServer::start_with("slow_start", &[], |config| {
        config.issuers.push(slow);
        Ok(())
    })
    .await?;
    let (of_slow, other) = (provider.token(&server.app.endpoint()).await?, server.token("alice", &["acme"])?);
    let (waiting, others) = (status(&server, &of_slow), status(&server, &other));
    tokio::pin!(waiting);
    tokio::select! {
        early = &mut waiting => bail!("the keys cannot be known yet, and the answer was {early:?}"),
        other = others => assert_eq!(other?, 200),
    }
    assert_eq!(waiting.await?, 200, "it was not refused for want of keys");
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token_even_from_an_allowed_client() -> Result<()> {
    let provider = Provider::start().await?;
    provider.set("format=opaque").await?;
    let issuer = IssuerConfig {
        mode: TokenMode::Introspect,
        allowed_clients: vec!["public-mcp".to_owned()],
        introspection: Some(introspection()?),
        ..provider.issuer()?
    };
    let server = two_tenants("refresh_token", issuer).await?;
    let tokens = provider.sign_in("openid offline_access", None).await?;
    let token =
        |name: &str| tokens[name].as_str().map(ToOwned::to_owned).with_context(|| format!("no {name}: {tokens}"));
    assert_eq!(status(&server, &token("access_token")?).await?, 200, "it names no audience either");
    assert_eq!(status(&server, &token("refresh_token")?).await?, 401);
    Ok(())
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_and_its_scope_and_client_are_judged() -> Result<()> {
    let provider = Provider::start().await?;
    provider.set("format=opaque").await?;
    let issuer = IssuerConfig {
        mode: TokenMode::Introspect,
        app_only: AppOnly::Allow,
        required_scopes: vec!["mcp:use".to_owned()],
        introspection: Some(introspection()?),
        ..provider.issuer()?
    };
    let server = two_tenants("introspection", issuer).await?;
    let endpoint = server.app.endpoint();
    let token = service_token(&provider, &endpoint, "mcp:use").await?;
    assert!(!token.contains('.'), "it is opaque");
    let before = provider.asked("introspection").await?;
    for path in ["/mcp", "/mcp", "/t/acme/mcp", "/t/globex/mcp"] {
        let answer = Http::new(&server.url(path), Some(&token))?.legacy("ping", &json!({})).await?;
        assert_eq!(answer.status, 200, "{path}");
    }
    assert_eq!(provider.asked("introspection").await?, before + 1, "the answer is remembered, for every route");
    let narrow = service_token(&provider, &server.url("/t/acme/mcp"), "mcp:use").await?;
    for (path, expected) in [("/t/acme/mcp", 200), ("/mcp", 401), ("/t/globex/mcp", 401), ("/t/acme/mcp", 200)] {
        let answer = Http::new(&server.url(path), Some(&narrow))?.legacy("ping", &json!({})).await?;
        assert_eq!(answer.status, expected, "what is remembered is good where the token is: {path}");
    }
    assert_eq!(provider.asked("introspection").await?, before + 2);
    let before = before + 1;

    for _ in 0..3 {
        assert_eq!(status(&server, "nobody-made-this-token").await?, 401);
    }
    assert_eq!(provider.asked("introspection").await?, before + 2, "so is a refusal");
    assert_eq!(status(&server, "sk-0123456789abcdef0123456789abcdef").await?, 401);
    assert_eq!(provider.asked("introspection").await?, before + 2, "nobody is shown another product's key");
    let elsewhere = service_token(&provider, "https://other.example.com/mcp", "mcp:use").await?;
    assert_eq!(status(&server, &elsewhere).await?, 401, "it was issued for somebody else");
    let narrow = service_token(&provider, &endpoint, "").await?;
    let answer = Http::new(&server.url("/mcp"), Some(&narrow))?.legacy("ping", &json!({})).await?;
    assert_eq!(answer.status, 403);
    let challenge = answer.headers["www-authenticate"].to_str()?;
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\"mcp:use\""),
        "{challenge}"
    );
    Ok(())
}

#[tokio::test]
async fn a_token_that_names_no_audience_is_good_from_an_allowed_client_only() -> Result<()> {
    let provider = Provider::start().await?;
    for (clients, expected) in [(vec!["service"], 200), (vec!["open-webui"], 401), (vec![], 401)] {
        let issuer = IssuerConfig {
            mode: TokenMode::Introspect,
            app_only: AppOnly::Allow,
            allowed_clients: clients.iter().map(|client| (*client).to_owned()).collect(),
            introspection: Some(introspection()?),
            ..provider.issuer()?
        };
        let server = two_tenants("no_audience", issuer).await?;
        let token = service_token(&provider, "", "").await?;
        assert_eq!(status(&server, &token).await?, expected, "{clients:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_lets_nobody_in() -> Result<()> {
    let provider = Provider::start().await?;
    let introspection = IntrospectionConfig { url: Some("http://127.0.0.1:9/".parse()?), ..introspection()? };
    let issuer = IssuerConfig { mode: TokenMode::Introspect, introspection: Some(introspection), ..provider.issuer()? };
    let server = two_tenants("introspection_down", issuer).await?;
    assert_eq!(status(&server, "some-opaque-token").await?, 503);
    Ok(())
}

fn introspection() -> Result<IntrospectionConfig> {
    Ok(serde_json::from_value(json!({
        "client_id": "mcp-mux", "client_secret": "introspection-secret-for-tests-only",
    }))?)
}

/// A token that the service got for itself.
async fn service_token(provider: &Provider, resource: &str, scope: &str) -> Result<String> {
    let form = [("grant_type", "client_credentials"), ("resource", resource), ("scope", scope)];
    let form = form.into_iter().filter(|(_, value)| !value.is_empty());
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let secret = base64_standard(b"service:service-secret-for-tests-only");
    let client = Http::new(&format!("{}/token", provider.url), None)?
        .with("content-type", "application/x-www-form-urlencoded")?
        .with("authorization", &format!("Basic {secret}"))?;
    let answer = client.post(body).await?;
    Ok(answer.json()?["access_token"].as_str().with_context(|| answer.text.clone())?.to_owned())
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn base64_standard(bytes: &[u8]) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(bytes)
}

/// A provider that answers every question about a token with the same document.
async fn answering(answer: Value) -> Result<IssuerConfig> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/introspect", listener.local_addr()?);
    serve(listener, Router::new().route("/introspect", post(move || async move { Json(answer) })));
    let introspection = IntrospectionConfig { url: Some(url.parse()?), ..introspection()? };
    Ok(IssuerConfig {
        mode: TokenMode::Introspect,
        audiences: vec!["us".to_owned()],
        introspection: Some(introspection),
        ..IssuerConfig::new("corp".parse()?, "https://idp.example.com")
    })
}

#[tokio::test]
async fn an_answer_about_a_token_is_judged_as_a_token_would_be() -> Result<()> {
    let now = SystemClock.now().as_millis() / 1000;
    for (what, changes, expected) in [
        ("as it should be", json!({}), 200),
        ("about the issuer that was asked", json!({"iss": "https://idp.example.com"}), 200),
        ("about another issuer", json!({"iss": "https://other.example.com"}), 401),
        ("about a list of issuers", json!({"iss": ["https://idp.example.com"]}), 401),
        ("not active", json!({"active": false}), 401),
        ("active as a text", json!({"active": "true"}), 401),
        ("nothing about being active", json!({"active": null}), 401),
        ("for somebody else", json!({"aud": "them"}), 401),
        ("for nobody", json!({"aud": null}), 401),
        ("of the past", json!({"exp": now - 31}), 401),
        ("of the future", json!({"nbf": now + 600}), 401),
        ("without a user", json!({"sub": null}), 401),
        ("about a token that whoever holds it may use", json!({"token_type": "bearer"}), 200),
        ("about another kind of token", json!({"token_type": "refresh_token"}), 401),
        ("about a kind of another shape", json!({"token_type": ["Bearer"]}), 401),
        ("about what Keycloak calls a refresh token", json!({"typ": "Refresh"}), 401),
        ("bound to a key", json!({"cnf": {"jkt": "x"}}), 401),
        ("with groups of another shape", json!({"groups": 7}), 401),
    ] {
        let mut answer = json!({"active": true, "sub": "alice", "aud": ["us"], "groups": ["acme"]});
        for (name, value) in changes.as_object().into_iter().flatten() {
            answer[name] = value.clone();
        }
        if let Some(answer) = answer.as_object_mut() {
            answer.retain(|_, value| !value.is_null());
        }
        let server = two_tenants("introspection_answers", answering(answer).await?).await?;
        assert_eq!(status(&server, "opaque").await?, expected, "{what}");
    }
    Ok(())
}
