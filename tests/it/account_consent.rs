//! The consent that connects an account: what comes back is believed only as the answer to what was asked, by whoever asked, from whom
//! it was asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use mcp_mux::AccountError;
use serde_json::{Value, json};
use tenant_store::{AccountAuth, UpstreamAuth};
use tokio::net::TcpListener;
use url::Url;

use crate::oauth::text;
use crate::support::accounts::{Bed, account_auth, configured};
use crate::support::provider::Provider;
use crate::support::server;

/// The address with another value for one parameter, or without it.
fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let kept: Vec<_> = url.query_pairs().into_owned().filter(|(known, _)| known != name).collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(value.map(|value| (name, value)));
    url
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_browser_is_sent_with_all_that_keeps_a_code_to_this_flow() -> Result<()> {
    let bed = Bed::new("consent_url").await?;
    let (one, other) = (bed.begin("alice").await??, bed.begin("alice").await??);
    let get = |name| parameter(&one.url, name);
    assert!(one.url.as_str().starts_with(&format!("{}/auth?", bed.provider.url)));
    assert_eq!(get("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(get("resource").as_deref(), Some("https://mcp.acme.example/mcp"));
    assert_eq!(get("redirect_uri"), Some(bed.server.url("/connect/acme/desk/callback")));
    assert_eq!(get("prompt").as_deref(), Some("consent"));
    for name in ["state", "code_challenge"] {
        assert_ne!(parameter(&one.url, name), parameter(&other.url, name), "{name}");
        assert_eq!(get(name).map(|value| value.len()), Some(43), "256 bits");
    }
    assert_eq!(get("client_id"), parameter(&other.url, "client_id"), "registered once");
    let shown = format!("{:?}", one.flow);
    assert!(!shown.contains(&get("state").unwrap_or_default()), "{shown}");
    Ok(())
}

#[tokio::test]
async fn an_answer_to_another_flow_or_from_another_server_connects_nothing() -> Result<()> {
    let bed = Bed::new("consent_refused").await?;
    let wrong: [(&str, Option<&str>, AccountError); 6] = [
        ("state", None, AccountError::OtherFlow),
        ("state", Some("CANARY-state"), AccountError::OtherFlow),
        ("iss", None, AccountError::OtherIssuer),
        ("iss", Some("https://evil.example"), AccountError::OtherIssuer),
        ("code", None, AccountError::NoCode),
        ("code", Some("CANARY-code"), AccountError::NoCode),
    ];
    for (name, value, error) in wrong {
        let consent = bed.begin("alice").await??;
        let way_back = bed.provider.consent(&consent.url, "alice").await?;
        let answer = bed.finish("alice", consent, &with(&way_back, name, value)).await?;
        assert_eq!(answer, Err(error), "{name} {value:?}");
    }
    // The right answer to a flow of somebody else.
    let consent = bed.begin("alice").await??;
    let way_back = bed.provider.consent(&consent.url, "alice").await?;
    assert_eq!(bed.finish("bob", consent, &way_back).await?, Err(AccountError::OtherFlow));
    // The code of another flow, with whose verifier it does not go.
    let (one, other) = (bed.begin("alice").await??, bed.begin("alice").await??);
    let code = parameter(&bed.provider.consent(&one.url, "bob").await?, "code");
    let way_back = bed.provider.consent(&other.url, "alice").await?;
    let answer = bed.finish("alice", other, &with(&way_back, "code", code.as_deref())).await?;
    assert_eq!(answer, Err(AccountError::NoCode));
    let consent = bed.begin("alice").await??;
    let way_back = with(&bed.provider.consent(&consent.url, "alice").await?, "code", None);
    let said_no = with(&way_back, "error", Some("access_denied"));
    assert_eq!(bed.finish("alice", consent, &said_no).await?, Err(AccountError::Declined));
    assert!(bed.rows().await?.accounts().await?.is_empty());
    assert!(!bed.server.logged()?.contains("CANARY"));
    Ok(())
}

#[tokio::test]
async fn an_authorization_server_elsewhere_is_named_by_an_operator_and_not_by_the_upstream() -> Result<()> {
    let bed = Bed::with("consent_elsewhere", account_auth(None)?).await?;
    assert_eq!(bed.begin("alice").await?.err(), Some(AccountError::NoIssuer));
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_moved_meanwhile_gets_nothing() -> Result<()> {
    let bed = Bed::new("consent_moved").await?;
    let consent = bed.begin("alice").await??;
    let way_back = bed.provider.consent(&consent.url, "alice").await?;
    let upstream = bed.upstream().await?;
    let mut spec = upstream.spec.clone();
    spec.url = "http://127.0.0.1:9/mcp".parse()?;
    bed.rows().await?.put_upstream(&upstream.slug, &spec).await?;
    assert_eq!(bed.finish("alice", consent, &way_back).await?, Err(AccountError::Changed));
    assert!(bed.rows().await?.accounts().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_was_given_and_cannot_be_stored_is_taken_back() -> Result<()> {
    let provider = Provider::start().await?;
    let auth = configured(&provider.url)?;
    let bed = Bed::at("consent_unstored", provider, auth).await?;
    let consent = bed.begin("alice").await??;
    let way_back = bed.provider.consent(&consent.url, "alice").await?;
    bed.server.refuse_accounts().await?;
    assert_eq!(bed.finish("alice", consent, &way_back).await?, Err(AccountError::Unavailable));
    assert_eq!(bed.provider.asked("revocation").await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_exchanged_once() -> Result<()> {
    let bed = Bed::new("consent_twice").await?;
    let consent = bed.begin("alice").await??;
    let way_back = bed.provider.consent(&consent.url, "alice").await?;
    let flow = serde_json::from_value(serde_json::to_value(&consent.flow)?)?;
    let again = mcp_mux::Consent { url: consent.url.clone(), flow };
    assert_eq!(bed.finish("alice", consent, &way_back).await?, Ok(()));
    let asked = bed.provider.asked("token").await?;
    assert_eq!(bed.finish("alice", again, &way_back).await?, Err(AccountError::OtherFlow));
    assert_eq!(bed.provider.asked("token").await?, asked, "a code that is seen twice could cost the account");
    Ok(())
}

#[tokio::test]
async fn a_browser_that_goes_away_in_the_middle_leaves_a_whole_account() -> Result<()> {
    let bed = Bed::new("consent_gone").await?;
    let consent = bed.begin("alice").await??;
    let way_back = bed.provider.consent(&consent.url, "alice").await?;
    bed.provider.set("tokenDelayMs=300").await?;
    let finish = bed.finish("alice", consent, &way_back);
    assert!(tokio::time::timeout(Duration::from_millis(100), finish).await.is_err(), "nobody waits any more");
    let stored = async {
        while bed.row("alice").await?.is_none() {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs(30), stored).await??;
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_registered_anew_leaves_accounts_of_the_one_before_alone() -> Result<()> {
    let bed = Bed::new("consent_anew").await?;
    bed.connect("alice").await?;
    let upstream = bed.upstream().await?;
    let mut spec = upstream.spec.clone();
    let auth = AccountAuth { scope: Some("openid offline_access".parse()?), ..account_auth(Some(&bed.provider.url))? };
    spec.auth = UpstreamAuth::Account(Box::new(auth));
    bed.rows().await?.put_upstream(&upstream.slug, &spec).await?;
    bed.server.app.follow().await?;
    bed.connect("bob").await?;
    assert_eq!(bed.provider.asked("registration").await?, 2, "another scope is another wish");
    let (alice, bob) = (bed.tokens("alice").await?, bed.tokens("bob").await?);
    assert_ne!(alice["source"]["clientId"], bob["source"]["clientId"]);
    for who in ["alice", "bob"] {
        bed.expire(who).await?;
        let answer = bed.client_of(&bed.server.app, who)?.call("acme__whoami", json!({})).await?;
        assert_eq!(text(&answer), "whoami at acme with {}", "{who}");
    }
    Ok(())
}

#[tokio::test]
async fn an_operators_client_is_used_and_none_is_registered() -> Result<()> {
    let provider = Provider::start().await?;
    let auth = configured(&provider.url)?;
    let bed = Bed::at("consent_configured", provider, auth).await?;
    bed.connect("alice").await?;
    assert_eq!(bed.tokens("alice").await?["source"]["clientId"], "accounts");
    assert_eq!(bed.provider.asked("registration").await?, 0);
    Ok(())
}

/// An authorization server that says `metadata` about itself, where `{issuer}` is its own address.
async fn saying(metadata: Value) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let text = Arc::new(metadata.to_string().replace("{issuer}", &issuer));
    let describe = get(move || async move { ([("content-type", "application/json")], text.to_string()) });
    server::serve(listener, Router::new().route("/.well-known/oauth-authorization-server", describe));
    Ok(issuer)
}

#[tokio::test]
async fn an_authorization_server_that_is_not_safe_is_not_used() -> Result<()> {
    let good = json!({
        "issuer": "{issuer}", "token_endpoint": "{issuer}/token", "authorization_endpoint": "{issuer}/auth",
        "registration_endpoint": "{issuer}/reg", "code_challenge_methods_supported": ["S256"],
    });
    let changed = |name: &str, value: Value| {
        let mut metadata = good.clone();
        metadata[name] = value;
        metadata
    };
    let bed = Bed::new("consent_hostile").await?;
    let upstream = bed.upstream().await?;
    let undiscovered = "has no metadata that can be used";
    for (metadata, said) in [
        (changed("code_challenge_methods_supported", json!(["plain"])), "does not say that it supports PKCE with S256"),
        (changed("code_challenge_methods_supported", json!([])), "does not say that it supports PKCE with S256"),
        (changed("issuer", json!("https://as.example")), undiscovered),
        (changed("issuer", json!("{issuer}/")), undiscovered),
        (changed("token_endpoint", json!("file:///etc/passwd")), undiscovered),
        (changed("registration_endpoint", json!("file:///etc/passwd")), "lets no client register itself"),
        (
            changed("registration_endpoint", json!("http://169.254.169.254/reg")),
            "has an address that mcp-mux may not call",
        ),
        (changed("registration_endpoint", json!("{issuer}/nothing")), "did not register mcp-mux"),
    ] {
        let mut spec = upstream.spec.clone();
        let issuer = saying(metadata.clone()).await?;
        spec.auth = UpstreamAuth::Account(Box::new(account_auth(Some(&issuer))?));
        bed.rows().await?.put_upstream(&upstream.slug, &spec).await?;
        let answer = bed.begin("alice").await?;
        assert!(answer.as_ref().is_err_and(|error| error.to_string().contains(said)), "{metadata} {answer:?}");
    }
    Ok(())
}
