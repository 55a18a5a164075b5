//! Spellings of URIs that no list has: upstreams read them in their own ways, and none of these leads past a grant.

use anyhow::{Context as _, Result};
use rmcp::model::ProtocolVersion;
use serde_json::json;
use tenant_store::{GrantSpec, Level, Revoked, UpstreamAuth};

use crate::support::rich::Rich;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::serve_handler;

/// What says in the legacy era that there is no such resource. No header repeats the URI there, so that it may have anything in it.
const NONE: Option<i64> = Some(-32002);

/// An upstream that reads whatever it is asked for, and a group for which `allow` and `deny` hold.
async fn bed(name: &str, (allow, deny): (&str, &[&str])) -> Result<TestServer> {
    let server = TestServer::start(name, &[]).await?;
    let rich = Rich { name: "files".to_owned(), versions: ProtocolVersion::KNOWN_VERSIONS.to_vec() };
    let (url, _) = serve_handler(rich, false).await?;
    let setup = Setup { tenant: "acme", upstream: "files", url: &url, key: None, level: Level::Write };
    server.add(&setup, UpstreamAuth::None, &[]).await?;
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["readers".parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec![allow.parse()?],
        deny: deny.iter().map(|deny| deny.parse()).collect::<Result<_, _>>()?,
    };
    server.rows("acme").await?.put_grant(&"readers".parse()?, &grant).await?;
    server.app.follow().await?;
    Ok(server)
}

async fn read(server: &TestServer, own: &str) -> Result<Option<i64>> {
    let uri = format!("mcp-mux://acme/files/{own}");
    server.client("dave", &["readers"])?.legacy("resources/read", &json!({"uri": uri})).await?.code()
}

#[tokio::test]
async fn what_is_not_allowed_is_not_read_under_another_spelling() -> Result<()> {
    let server = bed("spellings_allow", ("files/file:///public/*", &[])).await?;
    for own in ["file:///public/a", "file:///public/a b", "file:///public/a%20b?c=.d#e"] {
        assert_eq!(read(&server, own).await?, None, "{own:?}");
    }
    for own in ["file:///public/.\t./secret/k", "file:///public/./k", "file:///public/%252e%252e/k", "file:///other/k"]
    {
        assert_eq!(read(&server, own).await?, NONE, "{own:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_denied_is_not_read_under_another_spelling() -> Result<()> {
    for (name, deny) in
        [("spellings_deny", "*/file:///private/*"), ("spellings_deny_shown", "mcp-mux://acme/files/file:///private*")]
    {
        let server = bed(name, ("*", &[deny])).await?;
        for own in ["file:///public/a", "note://any", "urn:any:thing"] {
            assert_eq!(read(&server, own).await?, None, "{deny} {own:?}");
        }
        for own in [
            "file:///private/k",
            "file:///./private/k",
            "file:///%2e/private/k",
            "file:/private/k",
            "file://localhost/private/k",
            "file:///pri\nvate/k",
            " file:///private/k",
            "file:\\\\\\private/k",
            "file:///%70rivate/k",
            "file:///%2570rivate/k",
        ] {
            assert_eq!(read(&server, own).await?, NONE, "{deny} {own:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_revoked_is_not_read_under_another_spelling() -> Result<()> {
    let server = bed("spellings_revoked", ("*", &[])).await?;
    let files = server.rows("acme").await?.find_upstream(&"files".parse()?).await?.context("the upstream")?;
    let local = "file:///private/k".parse()?;
    let revoked = Revoked::Tool { tenant: files.tenant, upstream: files.id, local };
    server.app.store().revoke(&revoked, "a test").await?;
    server.app.follow().await?;
    assert_eq!(read(&server, "file:///private/other").await?, None);
    for own in [
        "file:///private/k",
        "file:///./private/k",
        "file:///%2e/private/k",
        "file:/private/k",
        "file:///pri\nvate/k",
        "file:///private/%6b",
        "file:///private/%256b",
    ] {
        assert_eq!(read(&server, own).await?, NONE, "{own:?}");
    }
    Ok(())
}
