//! What an upstream is shown that does not come from an authorization server: a password, a parameter, a signature, a certificate.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::request::Parts;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tenant_store::{Level, UpstreamAuth};

use crate::oauth::text;
use crate::support::canary;
use crate::support::server::{Setup, TestServer};
use crate::support::tls::Authority;
use crate::support::upstreams::{Guard, RealUpstream, Seen};

/// A server with one upstream of that kind, and what reached it.
async fn with_guard(
    name: &str,
    guard: Guard,
    auth: UpstreamAuth,
    secrets: &[(&str, &str)],
) -> Result<(TestServer, Seen)> {
    let (url, seen) = RealUpstream::named("acme").serve_to(guard, false).await?;
    Ok((with_upstream(name, &format!("{url}?fixed=a%20b"), auth, secrets).await?, seen))
}

async fn with_upstream(name: &str, url: &str, auth: UpstreamAuth, secrets: &[(&str, &str)]) -> Result<TestServer> {
    let server = TestServer::start(name, &[]).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url, key: None, level: Level::Write };
    server.add(&setup, auth, secrets).await?;
    Ok(server)
}

async fn called(server: &TestServer) -> Result<String> {
    Ok(text(&server.client("alice", &["acme"])?.call("acme__whoami", json!({"a": "b"})).await?))
}

const ANSWER: &str = "whoami at acme with {\"a\":\"b\"}";

#[tokio::test]
async fn an_upstream_is_shown_a_user_name_and_a_password() -> Result<()> {
    let password = format!("{}: ä", canary("password"));
    let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("svc:{password}")));
    let header = expected.clone();
    let guard: Guard = Arc::new(move |parts, _| {
        parts.headers.get_all("authorization").iter().map(http::HeaderValue::as_bytes).eq([header.as_bytes()])
    });
    let auth = UpstreamAuth::Basic { username: "svc".parse()?, secret: "password".parse()? };
    let (server, _) = with_guard("basic", guard, auth, &[("password", &password)]).await?;
    assert_eq!(called(&server).await?, ANSWER);
    let log = server.logged()?;
    assert!(!log.contains("CANARY") && !log.contains(&expected));
    Ok(())
}

#[tokio::test]
async fn an_upstream_is_shown_a_parameter_that_nobody_else_sees() -> Result<()> {
    let secret = format!("{}&b=c#d ü", canary("parameter"));
    let pairs = [("fixed".to_owned(), "a b".to_owned()), ("api_key".to_owned(), secret.clone())];
    let guard: Guard = Arc::new(move |parts, _| {
        let query = parts.uri.query().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes()).into_owned().eq(pairs.iter().cloned())
    });
    let auth = UpstreamAuth::Query { parameter: "api_key".parse()?, secret: "key".parse()? };
    let (server, seen) = with_guard("query", guard, auth, &[("key", &secret)]).await?;
    assert_eq!(called(&server).await?, ANSWER);
    assert!(seen.text().contains("api_key=CANARY-parameter"));
    // Neither while it works nor when the address cannot be reached.
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    assert!(!format!("{upstream:?}").contains("CANARY"));
    assert!(!server.logged()?.contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn a_secret_in_an_address_is_not_in_the_error_about_it() -> Result<()> {
    let secret = canary("unreachable");
    let guard: Guard = Arc::new(|_, _| true);
    let auth = UpstreamAuth::Query { parameter: "api_key".parse()?, secret: "key".parse()? };
    let (server, _) = with_guard("query_unreachable", guard, auth.clone(), &[("key", &secret)]).await?;
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    let mut spec = upstream.spec.clone();
    spec.url.set_port(Some(9)).ok().context("a port")?;
    rows.put_upstream(&upstream.slug, &spec).await?;
    rows.put_credential(upstream.id, &"key".parse()?, &secret.as_str().into()).await?;
    server.app.follow().await?;
    let answer = called(&server).await?;
    assert!(answer.contains("cannot be reached") && !answer.contains("CANARY"), "{answer}");
    assert!(!server.logged()?.contains("CANARY"));
    Ok(())
}

const AWS_KEY: &str = "CANARY-aws-secret-access-key+/";

/// AWS Signature Version 4 as the service verifies it: from what came in and the key it knows.
fn is_signed(parts: &Parts, body: &[u8]) -> Option<()> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization")?.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
    let (credential, rest) = authorization.split_once(", SignedHeaders=")?;
    let (names, signature) = rest.split_once(", Signature=")?;
    let (id, scope) = credential.split_once('/')?;
    let time = header("x-amz-date")?;
    assert_eq!((id, header("x-amz-security-token")), ("AKIDEXAMPLE", Some("CANARY-session-token")));
    assert_eq!(scope, format!("{}/eu-central-1/bedrock-agentcore/aws4_request", time.get(..8)?));
    for needed in ["content-type", "host", "mcp-method", "mcp-protocol-version", "x-amz-date", "x-amz-security-token"] {
        assert!(names.split(';').any(|name| name == needed), "{needed} is signed: {names}");
    }
    let mut canonical = format!("{}\n{}\n{}\n", parts.method, parts.uri.path().replace('%', "%25"), parts.uri.query()?);
    for name in names.split(';') {
        writeln!(canonical, "{name}:{}", header(name)?).ok()?;
    }
    write!(canonical, "\n{names}\n{}", hex(&Sha256::digest(body))).ok()?;
    let mut key = format!("AWS4{AWS_KEY}").into_bytes();
    for part in scope.split('/') {
        key = keyed(&key, part.as_bytes());
    }
    let signed = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    (hex(&keyed(&key, signed.as_bytes())) == signature).then_some(())
}

fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn each_request_is_signed_for_aws() -> Result<()> {
    let guard: Guard = Arc::new(|parts, body| is_signed(parts, body).is_some());
    let auth = UpstreamAuth::AwsSigV4 {
        access_key_id: "AKIDEXAMPLE".parse()?,
        secret_access_key: "aws".parse()?,
        session_token: Some("session".parse()?),
        region: "eu-central-1".parse()?,
        service: "bedrock-agentcore".parse()?,
    };
    let secrets = [("aws", AWS_KEY), ("session", "CANARY-session-token")];
    let (server, seen) = with_guard("aws", guard, auth, &secrets).await?;
    assert_eq!(called(&server).await?, ANSWER);
    assert!(!seen.text().contains(AWS_KEY), "the key itself stays here");
    assert!(!server.logged()?.contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_demands_a_certificate_is_shown_the_tenants() -> Result<()> {
    let authority = Authority::new()?;
    let (certificate, key) = authority.client()?;
    let bearer = canary("behind-tls");
    let expected = format!("Bearer {bearer}");
    let guard: Guard = Arc::new(move |parts, _| {
        parts.headers.get("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes())
    });
    let (routes, seen) = RealUpstream::named("acme").routes(guard, false);
    let url = authority.serve(routes).await?;
    let auth = UpstreamAuth::Mtls {
        secret: "pair".parse()?,
        ca: Some(authority.pem.clone()),
        with: Box::new(UpstreamAuth::Bearer { secret: "key".parse()? }),
    };
    let pair = format!("{certificate}{key}");
    let server = with_upstream("mtls", &url, auth, &[("pair", &pair), ("key", &bearer)]).await?;
    assert_eq!(called(&server).await?, ANSWER);
    let log = server.logged()?;
    assert!(!log.contains("CANARY") && !log.contains("PRIVATE KEY"));
    assert!(seen.text().contains("tools/call"));

    // Another tenant's pair, of another authority, opens nothing here; nor does this one believe another authority's server.
    let stranger = Authority::new()?;
    let (certificate, key) = stranger.client()?;
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    rows.put_credential(upstream.id, &"pair".parse()?, &format!("{key}{certificate}").into()).await?;
    server.app.follow().await?;
    let answer = called(&server).await?;
    assert!(answer.contains("upstream `desk` of tenant `acme` cannot be reached"), "{answer}");

    rows.put_credential(upstream.id, &"pair".parse()?, &pair.as_str().into()).await?;
    server.app.follow().await?;
    assert_eq!(called(&server).await?, ANSWER);
    let mut spec = upstream.spec.clone();
    spec.auth = UpstreamAuth::Mtls {
        secret: "pair".parse()?,
        ca: Some(stranger.pem.clone()),
        with: Box::new(UpstreamAuth::Bearer { secret: "key".parse()? }),
    };
    rows.put_upstream(&upstream.slug, &spec).await?;
    server.app.follow().await?;
    let answer = called(&server).await?;
    assert!(answer.contains("cannot be reached"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_stored_secret_of_the_wrong_form_is_never_sent() -> Result<()> {
    let bearer = UpstreamAuth::Bearer { secret: "s".parse()? };
    let basic = UpstreamAuth::Basic { username: "svc".parse()?, secret: "s".parse()? };
    let query = UpstreamAuth::Query { parameter: "key".parse()?, secret: "s".parse()? };
    let headers = UpstreamAuth::Headers { headers: [("x-key".parse()?, "s".parse()?)].into() };
    let aws = UpstreamAuth::AwsSigV4 {
        access_key_id: "A".parse()?,
        secret_access_key: "s".parse()?,
        session_token: None,
        region: "r".parse()?,
        service: "s".parse()?,
    };
    let guard: Guard = Arc::new(|_, _| true);
    let good = canary("good");
    let (server, seen) = with_guard("wrong_form", guard, bearer.clone(), &[("s", &good)]).await?;
    let rows = server.rows("acme").await?;
    let upstream = rows.find_upstream(&"desk".parse()?).await?.context("the upstream")?;
    for auth in [bearer, basic, query, headers, aws] {
        let mut spec = upstream.spec.clone();
        spec.auth = auth;
        rows.put_upstream(&upstream.slug, &spec).await?;
        for bad in ["CANARY-a\r\nX-Evil: 1", "CANARY-a\nb", "CANARY-a\0b", "CANARY-a\u{7f}"] {
            rows.put_credential(upstream.id, &"s".parse()?, &bad.into()).await?;
            server.app.follow().await?;
            let answer = called(&server).await?;
            assert!(answer.contains("has a stored secret `s` that cannot be used"), "{answer}");
            assert!(!answer.contains("CANARY"), "{answer}");
        }
    }
    assert!(!seen.text().to_lowercase().contains("evil"));
    Ok(())
}
