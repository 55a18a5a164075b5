//! Pages in a browser: those of the configured origins may call, and nobody else's may.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;

use crate::support::client::{Answer, Http};
use crate::support::server::TestServer;

const PAGE: &str = "https://inspector.example.com";

async fn server(name: &str, origins: &[&str]) -> Result<TestServer> {
    TestServer::start_with(name, &[], |config| {
        config.http.allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Ok(())
    })
    .await
}

/// What a browser asks before a page's request.
async fn preflight(server: &TestServer, path: &str, origin: &str, headers: &str) -> Result<Answer> {
    let browser = Http::new(&server.url(path), None)?.with("origin", origin)?;
    let browser = browser.with("access-control-request-method", "POST")?;
    browser.with("access-control-request-headers", headers)?.request(Method::OPTIONS).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_send_what_mcp_needs() -> Result<()> {
    let server = server("browser_listed", &[PAGE]).await?;
    let needed = "authorization,content-type,last-event-id,mcp-method,mcp-name,mcp-param-region,mcp-protocol-version,mcp-session-id";
    for path in ["/mcp", "/t/acme/mcp", "/.well-known/oauth-protected-resource/mcp"] {
        let answer = preflight(&server, path, PAGE, needed).await?;
        assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (200, Some(PAGE)), "{path}");
        assert_eq!(header(&answer, "access-control-allow-headers"), Some(needed));
        assert_eq!(header(&answer, "access-control-allow-methods"), Some("GET,POST,DELETE"));
        assert_eq!(header(&answer, "access-control-allow-credentials"), None);
    }
    let other = preflight(&server, "/mcp", PAGE, "authorization, x-openwebui-user-id").await?;
    assert_eq!(header(&other, "access-control-allow-origin"), None, "no other header");
    Ok(())
}

#[tokio::test]
async fn a_page_of_a_listed_origin_reads_where_to_sign_in() -> Result<()> {
    let server = server("browser_reads", &[PAGE]).await?;
    let anonymous = Http::new(&server.url("/mcp"), None)?.with("origin", PAGE)?;
    let signed_in = server.client("alice", &["acme"])?.with("origin", PAGE)?;
    for (page, status) in [(anonymous, 401), (signed_in, 200)] {
        let answer = page.legacy("ping", &json!({})).await?;
        assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (status, Some(PAGE)));
        let readable = header(&answer, "access-control-expose-headers");
        assert_eq!(readable, Some("www-authenticate,mcp-session-id,mcp-protocol-version"));
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_origin_is_allowed_nothing() -> Result<()> {
    let server = server("browser_unlisted", &[PAGE]).await?;
    for origin in
        ["https://evil.example.com", "null", "http://inspector.example.com", "https://inspector.example.com:444"]
    {
        let asked = preflight(&server, "/mcp", origin, "authorization").await?;
        let called = server.client("alice", &["acme"])?.with("origin", origin)?.legacy("ping", &json!({})).await?;
        for answer in [asked, called] {
            assert_eq!((answer.status, header(&answer, "access-control-allow-origin")), (403, None), "{origin}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_listed_origins_nothing_is_said_to_browsers() -> Result<()> {
    let server = server("browser_none", &[]).await?;
    let own = server.url("");
    assert_eq!(preflight(&server, "/mcp", &own, "authorization").await?.status, 401);
    let answer = server.client("alice", &["acme"])?.with("origin", &own)?.legacy("ping", &json!({})).await?;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
    Ok(())
}
