//! Access tokens for upstreams, from a real authorization server: client credentials in each way a client may prove itself, one
//! request however many wait, and what becomes of calls when tokens end, are refused or cannot be had.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use futures::future::join_all;
use serde_json::{Value, json};
use tenant_store::{AuthorizationServer, ClientProof, Level, TokenRequest, UpstreamAuth, UpstreamSpec};

use crate::support::client::Http;
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer};
use crate::support::tokens::{RESOURCE, TokenGuard};
use crate::support::upstreams::RealUpstream;

const CLIENT_SECRET: &str = "CANARY-client-secret-of-the-tests+/=";

/// How long a test that watches time pass waits between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn issuer(provider: &Provider) -> Result<AuthorizationServer> {
    Ok(AuthorizationServer::Issuer(provider.url.parse()?))
}

/// A token of `mcp:use` for the resource.
pub(crate) fn request(server: AuthorizationServer, client: &str, proof: ClientProof) -> Result<TokenRequest> {
    Ok(TokenRequest {
        server,
        client_id: client.parse()?,
        proof,
        scope: Some("mcp:use".parse()?),
        resource: Some(RESOURCE.parse()?),
        audience: None,
    })
}

fn client_credentials(provider: &Provider) -> Result<UpstreamAuth> {
    let proof = ClientProof::Basic { secret: "client".parse()? };
    Ok(UpstreamAuth::ClientCredentials(Box::new(request(issuer(provider)?, "upstreams", proof)?)))
}

/// A server with one upstream that wants the provider's tokens, and that upstream's view of them.
struct Bed {
    provider: Provider,
    guard: TokenGuard,
    server: TestServer,
}

impl Bed {
    async fn new(name: &str) -> Result<Self> {
        let provider = Provider::start().await?;
        let auth = client_credentials(&provider)?;
        Self::with(name, provider, auth, CLIENT_SECRET).await
    }

    async fn with(name: &str, provider: Provider, auth: UpstreamAuth, secret: &str) -> Result<Self> {
        let guard = TokenGuard::of(&provider).await?;
        let (url, _) = RealUpstream::named("acme").serve_to(guard.guard(), false).await?;
        let server = TestServer::start(name, &[]).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
        server.add(&setup, auth, &[("client", secret)]).await?;
        Ok(Self { provider, guard, server })
    }

    fn alice(&self) -> Result<Http> {
        self.server.client("alice", &["acme"])
    }

    /// The text of an answer: the tool's, or why there is none.
    async fn call(&self, alice: &Http) -> Result<String> {
        Ok(text(&alice.call("acme__whoami", json!({})).await?))
    }

    async fn asked(&self) -> Result<u64> {
        self.provider.asked("token").await
    }
}

pub(crate) fn text(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().map_or_else(|| answer.to_string(), ToOwned::to_owned)
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
}

/// A private key as PEM, and its public half as a JWK.
fn rsa_key() -> Result<(String, Value)> {
    let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let public = key.public_key();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let modulus = public.modulus().big_endian_without_leading_zero();
    let exponent = public.exponent().big_endian_without_leading_zero();
    let jwk = json!({"kty": "RSA", "n": part(modulus), "e": part(exponent), "alg": "RS256", "use": "sig", "kid": "k1"});
    Ok((pem("PRIVATE KEY", key.as_der()?.as_ref()), jwk))
}

fn ec_key() -> Result<(String, Value)> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref())?;
    let point = key.public_key().as_ref();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]), "alg": "ES256", "use": "sig", "kid": "k1",
    });
    Ok((pem("PRIVATE KEY", der.as_ref()), jwk))
}

/// Registers a client that signs, and answers its id.
async fn register(provider: &Provider, jwk: &Value) -> Result<String> {
    let client = json!({
        "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
        "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": jwk["alg"],
        "jwks": {"keys": [jwk]},
    });
    let answer = Http::new(&format!("{}/reg", provider.url), None)?.post(client.to_string()).await?;
    Ok(answer.json()?["client_id"].as_str().with_context(|| answer.text.clone())?.to_owned())
}

#[tokio::test]
async fn an_upstream_is_shown_a_token_that_our_client_got_for_itself() -> Result<()> {
    let bed = Bed::new("client_credentials").await?;
    let alice = bed.alice()?;
    for _ in 0..3 {
        assert_eq!(bed.call(&alice).await?, "whoami at acme with {}");
    }
    assert_eq!(bed.asked().await?, 1, "one token serves the list and all calls");
    assert!(bed.guard.shown().iter().all(|shown| shown.subject == "upstreams"));
    let log = bed.server.logged()?;
    assert!(log.contains("got an access token for an upstream"));
    assert!(!log.contains(&bed.guard.last()?.token) && !log.contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn a_client_proves_itself_in_the_form_where_the_server_wants_that() -> Result<()> {
    let provider = Provider::start().await?;
    let server = AuthorizationServer::TokenUrl(format!("{}/token", provider.url).parse()?);
    let proof = ClientProof::Post { secret: "client".parse()? };
    let auth = UpstreamAuth::ClientCredentials(Box::new(request(server, "upstreams-by-form", proof)?));
    let bed = Bed::with("client_by_form", provider, auth, "CANARY-other-client-secret-of-the-tests").await?;
    assert_eq!(bed.call(&bed.alice()?).await?, "whoami at acme with {}");
    assert_eq!(bed.guard.last()?.subject, "upstreams-by-form");
    Ok(())
}

#[tokio::test]
async fn a_client_signs_with_its_private_key() -> Result<()> {
    for (name, (pem, jwk)) in [("rsa", rsa_key()?), ("ec", ec_key()?)] {
        for by_issuer in [true, false] {
            let provider = Provider::start().await?;
            let client = register(&provider, &jwk).await?;
            let server = if by_issuer {
                issuer(&provider)?
            } else {
                AuthorizationServer::TokenUrl(format!("{}/token", provider.url).parse()?)
            };
            let proof = ClientProof::PrivateKeyJwt { private_key: "client".parse()?, key_id: Some("k1".parse()?) };
            let auth = UpstreamAuth::ClientCredentials(Box::new(request(server, &client, proof)?));
            let bed = Bed::with(&format!("client_signs_{name}"), provider, auth, &pem).await?;
            assert_eq!(bed.call(&bed.alice()?).await?, "whoami at acme with {}", "{name} {by_issuer}");
            assert_eq!(bed.guard.last()?.subject, client);
        }
    }
    Ok(())
}

#[tokio::test]
async fn fifty_calls_with_one_expired_token_ask_for_one_new_one() -> Result<()> {
    let bed = Bed::new("fifty_calls").await?;
    let rows = bed.server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    let spec = UpstreamSpec { concurrency: 64, call_timeout: Duration::from_secs(20), ..upstream.spec };
    bed.provider.set("ttl=1").await?;
    rows.put_upstream(&upstream.slug, &spec).await?;
    bed.server.app.follow().await?;
    bed.server.app.refresher().refresh_all().await;
    let (before, alice) = (bed.asked().await?, bed.alice()?);
    let short = bed.guard.last()?.token;
    bed.provider.set("ttl=300&tokenDelayMs=1000").await?;
    // The upstream refuses a token that has ended, so the one that is held is of no use any more.
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while bed.guard.guard()(&parts(&short)?, b"") {
        ticks.tick().await;
    }
    let answers = join_all((0..50).map(|_| bed.call(&alice))).await;
    for answer in answers {
        assert_eq!(answer?, "whoami at acme with {}");
    }
    assert_eq!(bed.asked().await?, before + 1);
    assert_ne!(bed.guard.last()?.token, short);
    Ok(())
}

/// The head of a request that shows `token`.
fn parts(token: &str) -> Result<http::request::Parts> {
    Ok(http::Request::builder().header("authorization", format!("Bearer {token}")).body(())?.into_parts().0)
}

#[tokio::test]
async fn a_token_is_asked_for_anew_before_it_ends_and_nobody_waits_for_that() -> Result<()> {
    let provider = Provider::start().await?;
    provider.set("ttl=4").await?;
    let auth = client_credentials(&provider)?;
    let bed = Bed::with("renewal", provider, auth, CLIENT_SECRET).await?;
    let (first, alice) = (bed.guard.last()?.token, bed.alice()?);
    bed.provider.set("ttl=300&tokenDelayMs=400").await?;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut with_first_meanwhile = 0;
    while bed.guard.last()?.token == first {
        let began = bed.asked().await? == 2;
        assert_eq!(bed.call(&alice).await?, "whoami at acme with {}");
        with_first_meanwhile += usize::from(began && bed.guard.last()?.token == first);
        ticks.tick().await;
    }
    assert!(with_first_meanwhile > 0, "calls went on with the old token while the new one was on its way");
    assert_eq!(bed.asked().await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_replaced_once_and_the_call_is_made_once() -> Result<()> {
    let bed = Bed::new("refused_token").await?;
    let alice = bed.alice()?;
    let first = bed.guard.last()?.token;
    bed.guard.refuse(&first);
    assert_eq!(bed.call(&alice).await?, "whoami at acme with {}");
    assert_eq!(bed.asked().await?, 2);
    assert_ne!(bed.guard.last()?.token, first);

    // What is refused again and again is not asked for again and again.
    bed.guard.refuse_all(true);
    for _ in 0..5 {
        let answer = bed.call(&alice).await?;
        assert!(answer.contains("upstream `desk` of tenant `acme` refused the access token"), "{answer}");
    }
    assert_eq!(bed.asked().await?, 2);
    bed.guard.refuse_all(false);
    assert_eq!(bed.call(&alice).await?, "whoami at acme with {}");
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_refused_takes_the_token_from_nobody_else() -> Result<()> {
    let bed = Bed::new("one_refused_call").await?;
    let (alice, good) = (bed.alice()?, "whoami at acme with {}");
    assert_eq!(bed.call(&alice).await?, good);
    bed.guard.refuse_bodies_with("\"as\":\"bad\"");
    bed.provider.set("tokenDown=1").await?;
    let answer = text(&alice.call("acme__whoami", json!({"as": "bad"})).await?);
    assert!(answer.contains("its authorization server cannot answer now"), "{answer}");
    assert_eq!(bed.call(&alice).await?, good, "the token is as good as before");
    Ok(())
}

#[tokio::test]
async fn tokens_that_end_as_they_come_are_asked_for_once_however_many_wait() -> Result<()> {
    let provider = Provider::start().await?;
    let (auth, secret) = (client_credentials(&provider)?, CLIENT_SECRET);
    let (url, _) = RealUpstream::named("acme").serve_to(Arc::new(|_, _| true), false).await?;
    let server = TestServer::start("ended_tokens", &[]).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, auth, &[("client", secret)]).await?;
    server.app.refresher().refresh_all().await;
    provider.set("ttl=1&tokenDelayMs=1100").await?;
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    // Another link, which has no token yet.
    let spec = UpstreamSpec { concurrency: 64, call_timeout: Duration::from_secs(20), ..upstream.spec };
    rows.put_upstream(&upstream.slug, &spec).await?;
    server.app.follow().await?;
    let (before, alice) = (provider.asked("token").await?, server.client("alice", &["acme"])?);
    let answers = join_all((0..10).map(|_| alice.call("acme__whoami", json!({})))).await;
    for answer in answers {
        assert_eq!(text(&answer?), "whoami at acme with {}");
    }
    assert!(provider.asked("token").await? <= before + 2, "for the calls, and perhaps for a listing");
    Ok(())
}

#[tokio::test]
async fn a_failure_answers_for_a_while_in_our_own_words() -> Result<()> {
    let bed = Bed::new("no_token").await?;
    let alice = bed.alice()?;
    bed.provider.set("tokenDown=1").await?;
    bed.guard.refuse(&bed.guard.last()?.token);
    for _ in 0..10 {
        let answer = bed.call(&alice).await?;
        let said = "upstream `desk` of tenant `acme` cannot be called: its authorization server cannot answer now; try again in half a \
                    minute";
        assert!(answer.contains(said), "{answer}");
        assert!(!answer.contains("CANARY"), "{answer}");
    }
    assert_eq!(bed.asked().await?, 2, "one token, one failure, and then memory");
    Ok(())
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_neither_logged_nor_shown() -> Result<()> {
    let bed = Bed::new("unknown_code").await?;
    let alice = bed.alice()?;
    bed.provider.set("tokenError=CANARY-code").await?;
    bed.guard.refuse(&bed.guard.last()?.token);
    let answer = bed.call(&alice).await?;
    assert!(answer.contains("its authorization server does not take this kind of request"), "{answer}");
    let log = bed.server.logged()?;
    assert!(log.contains("code=\"another\"") && !log.contains("CANARY") && !answer.contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn a_new_secret_drops_the_token_that_the_old_one_got() -> Result<()> {
    let bed = Bed::new("new_client_secret").await?;
    let alice = bed.alice()?;
    assert_eq!(bed.call(&alice).await?, "whoami at acme with {}");
    let rows = bed.server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    rows.put_credential(upstream.id, &"client".parse()?, &"CANARY-wrong-secret".into()).await?;
    bed.server.app.follow().await?;
    let answer = bed.call(&alice).await?;
    assert!(answer.contains("its authorization server refused mcp-mux as its client"), "{answer}");

    rows.put_credential(upstream.id, &"client".parse()?, &CLIENT_SECRET.into()).await?;
    bed.server.app.follow().await?;
    assert_eq!(
        bed.call(&alice).await?,
        "whoami at acme with {}",
        "a failure with the old secret is not held against the new one"
    );
    Ok(())
}
