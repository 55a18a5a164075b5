//! Who is let in, and what the others are told.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use jsonwebtoken::{Algorithm, Header};
use mcp_mux::auth::doctor;
use mcp_mux::config::{Config, IssuerConfig, PublicUrl};
use mcp_mux::http::ProtectedResources;
use serde_json::{Value, json};
use tenant_store::{Clock, SystemClock};

use crate::support::client::Http;
use crate::support::identity::Idp;
use crate::support::server::TestServer;

#[tokio::test]
async fn an_anonymous_request_is_told_where_to_sign_in_before_anything_else_is_judged() -> Result<()> {
    let server = TestServer::start("anonymous", &[]).await?;
    // What Open WebUI sends first.
    let probe = Http::new(&server.url("/mcp"), None)?.with("accept", "*/*")?;
    let answer = probe.post(r#"{"jsonrpc":"2.0","method":"initialize","params":{},"id":1}"#).await?;
    assert_eq!(answer.status, 401);
    let challenge = answer.headers["www-authenticate"].to_str()?.to_owned();
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", server.url(""));
    assert_eq!(challenge, format!("Bearer resource_metadata=\"{metadata}\", scope=\"mcp:use\""));

    let garbage = Http::new(&server.url("/t/acme/mcp"), None)?.with("content-type", "text/html")?;
    assert_eq!(garbage.post("<html>").await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn the_metadata_is_at_all_three_places() -> Result<()> {
    let server = TestServer::start("metadata", &[]).await?;
    for (path, resource) in [("", "/mcp"), ("/mcp", "/mcp"), ("/t/acme/mcp", "/t/acme/mcp")] {
        let url = server.url(&format!("/.well-known/oauth-protected-resource{path}"));
        let document = Http::new(&url, None)?.request(reqwest::Method::GET).await?.json()?;
        assert_eq!(
            document,
            json!({
                "resource": server.url(resource),
                "authorization_servers": [server.idp.url],
                "bearer_methods_supported": ["header"],
                "resource_name": "mcp-mux",
                "scopes_supported": ["mcp:use"],
            })
        );
    }
    Ok(())
}

#[tokio::test]
async fn where_issuers_want_different_scopes_each_client_is_told_its_own_issuers() -> Result<()> {
    let other = Idp::start().await?;
    let server = TestServer::start_with("scopes_of_two_issuers", &[], |config| {
        config.issuers[0].required_scopes = vec!["mcp:use".to_owned()];
        let second = IssuerConfig::new("other".parse()?, &other.url);
        config.issuers.push(IssuerConfig { required_scopes: vec!["api://mcp/access".to_owned()], ..second });
        Ok(())
    })
    .await?;
    let challenge = async |token: Option<&str>| {
        let answer = Http::new(&server.url("/mcp"), token)?.legacy("ping", &json!({})).await?;
        Ok::<_, anyhow::Error>((answer.status, answer.headers["www-authenticate"].to_str()?.to_owned()))
    };
    let (status, anonymous) = challenge(None).await?;
    assert_eq!((status, anonymous.contains("scope")), (401, false), "{anonymous}");
    let document = server.url("/.well-known/oauth-protected-resource/mcp");
    let document = Http::new(&document, None)?.request(reqwest::Method::GET).await?.json()?;
    assert_eq!(document["authorization_servers"], json!([server.idp.url, other.url]));
    assert_eq!(document.get("scopes_supported"), None, "a client asks one issuer for all that it finds there");

    for (idp, scope) in [(&server.idp, "mcp:use"), (&other, "api://mcp/access")] {
        let token = idp.sign(&idp.claims("alice", &["acme"], &server.app.endpoint()))?;
        let (status, challenge) = challenge(Some(&token)).await?;
        assert_eq!(status, 403);
        assert!(challenge.contains(&format!("scope=\"{scope}\", error=\"insufficient_scope\"")), "{challenge}");
    }
    Ok(())
}

#[tokio::test]
async fn doctor_compares_the_whole_metadata_document_with_the_settings() -> Result<()> {
    let server = TestServer::start("doctor_metadata", &[]).await?;
    let mut config = server.config.clone();
    config.public_url = PublicUrl::try_from(url::Url::parse(&server.url(""))?).map_err(anyhow::Error::msg)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let found = async |config: &Config| {
        let metadata = ProtectedResources::new(config, &config.public_url).aggregate_document();
        let findings = doctor::examine(config, &metadata, &mcp_mux::Egress::new(&server.config.egress)?, &clock).await;
        let finding = findings.into_iter().find(|finding| finding.what == "metadata").context("a finding")?;
        Ok::<_, anyhow::Error>((finding.mend.is_none(), finding.found))
    };
    let (is_well, found_text) = found(&config).await?;
    assert!(is_well, "{found_text}");
    config.issuers[0].scopes = vec!["mcp:other".to_owned()];
    let (is_well, found_text) = found(&config).await?;
    assert!(!is_well && found_text.contains("scopes_supported"), "{found_text}");
    Ok(())
}

#[tokio::test]
async fn a_token_for_one_tenants_endpoint_is_good_there_and_nowhere_else() -> Result<()> {
    let server = TestServer::start("narrow_audience", &[]).await?;
    let token = server.idp.sign(&server.idp.claims("alice", &["acme"], &server.url("/t/acme/mcp")))?;
    let status = async |path: &str| {
        let client = Http::new(&server.url(path), Some(&token))?;
        Ok::<_, anyhow::Error>(client.legacy("ping", &json!({})).await?.status)
    };
    assert_eq!(status("/t/acme/mcp").await?, 200);
    assert_eq!(status("/mcp").await?, 401);
    assert_eq!(status("/t/globex/mcp").await?, 401);
    Ok(())
}

#[tokio::test]
async fn a_bad_token_is_refused_and_learns_nothing() -> Result<()> {
    let server = TestServer::start("bad_tokens", &[]).await?;
    let good = server.idp.claims("alice", &["acme"], &server.app.endpoint());
    let now = good["iat"].as_i64().context("a time")?;
    let with = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().cloned().unwrap_or_default() {
            if value.is_null() {
                claims.as_object_mut().map(|claims| claims.remove(&name))
            } else {
                claims[name] = value;
                None
            };
        }
        claims
    };
    let mut bad: Vec<(&str, String)> = vec![
        ("not a token", "abc".to_owned()),
        ("three empty parts", "..".to_owned()),
        ("too long", "a".repeat(20_000)),
        ("a foreign key", Idp::sign_with_foreign_key(&good)?),
        ("an unsigned token", unsigned(&good)),
    ];
    for (name, changes) in [
        ("another audience", json!({"aud": "https://other.example.com"})),
        ("no audience", json!({"aud": null})),
        ("another issuer", json!({"iss": "https://other.example.com"})),
        ("a list of issuers", json!({"iss": ["https://evil.example.com", server.idp.url]})),
        ("no subject", json!({"sub": null})),
        ("no expiry", json!({"exp": null})),
        ("expired", json!({"exp": now - 120})),
        ("not valid yet", json!({"nbf": now + 3600})),
        ("issued in the future", json!({"iat": now + 3600, "exp": now + 3700})),
        ("a life too long", json!({"exp": now + 40 * 24 * 3600})),
        ("an ID token", json!({"nonce": "n"})),
        ("a bound token", json!({"cnf": {"jkt": "x"}})),
        ("groups of another shape", json!({"groups": {"acme": true}})),
    ] {
        bad.push((name, server.idp.sign(&with(changes))?));
    }
    for (name, token) in bad {
        let answer = Http::new(&server.url("/mcp"), Some(&token))?.legacy("ping", &json!({})).await?;
        assert_eq!(answer.status, 401, "{name}");
        let challenge = answer.headers["www-authenticate"].to_str()?;
        assert!(challenge.contains("error=\"invalid_token\""), "{name}: {challenge}");
        assert!(!answer.text.contains(&token), "{name}");
    }
    let good = Http::new(&server.url("/mcp"), Some(&server.idp.sign(&good)?))?;
    assert_eq!(good.legacy("ping", &json!({})).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn key_material_in_a_tokens_header_is_not_believed() -> Result<()> {
    let server = TestServer::start("header_keys", &[]).await?;
    let claims = server.idp.claims("alice", &["acme"], &server.app.endpoint());
    let header = Header {
        kid: Some("unknown".to_owned()),
        jku: Some("https://evil.example.com".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    let token = server.idp.sign_as(&header, &claims)?;
    assert_eq!(Http::new(&server.url("/mcp"), Some(&token))?.legacy("ping", &json!({})).await?.status, 401);
    Ok(())
}

fn unsigned(claims: &Value) -> String {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "at+jwt"})), part(claims))
}
