//! API keys: what scripts and services prove themselves with.

use std::time::Duration;

use anyhow::Result;
use secrecy::SecretString;
use serde_json::json;
use tenant_store::{ApiKeyDigest, Clock as _, GrantSpec, Level, NewApiKey, SystemClock};
use tokio::time::timeout;

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;
use crate::support::{api_key, canary};

fn new_key(key: &str) -> Result<NewApiKey> {
    Ok(NewApiKey {
        name: "nightly".parse()?,
        issuer: "scripts".parse()?,
        subject: "nightly-report".parse()?,
        digest: ApiKeyDigest::of(&SecretString::from(key)),
        tenants: None,
        expires_at: None,
    })
}

/// Two tenants, each with a grant for the service `scripts/nightly-report`.
async fn two_tenants(name: &str) -> Result<TestServer> {
    let (acme_key, globex_key) = (canary("acme-key"), canary("globex-key"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let level = Level::Write;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level },
    ];
    let server = TestServer::start(name, &setups).await?;
    for tenant in ["acme", "globex"] {
        let grant = GrantSpec {
            issuer: "scripts".parse()?,
            groups: Vec::new(),
            subjects: vec!["nightly-report".parse()?],
            level: Level::Read,
            allow: vec!["*".parse()?],
            deny: Vec::new(),
        };
        server.rows(tenant).await?.put_grant(&"scripts".parse()?, &grant).await?;
    }
    Ok(server)
}

/// The tenants whose tools a key lists.
async fn tenants(server: &TestServer, key: &str) -> Result<Vec<String>> {
    let tools = Http::new(&server.url("/mcp"), Some(key))?.tools().await?;
    let mut tenants: Vec<_> = tools.iter().filter_map(|tool| Some(tool.split_once("__")?.0.to_owned())).collect();
    tenants.dedup();
    Ok(tenants)
}

async fn status(server: &TestServer, key: &str) -> Result<u16> {
    Ok(Http::new(&server.url("/mcp"), Some(key))?.legacy("ping", &json!({})).await?.status)
}

#[tokio::test]
async fn a_key_does_what_grants_allow_its_principal_within_its_tenants() -> Result<()> {
    let server = two_tenants("key_bounds").await?;
    let (wide, narrow) = (api_key("wide"), api_key("narrow"));
    let acme = server.app.store().find_tenant(&"acme".parse()?).await?.map(|tenant| tenant.id);
    server.app.store().add_api_key(&new_key(&wide)?).await?;
    server.app.store().add_api_key(&NewApiKey { tenants: acme.map(|id| vec![id]), ..new_key(&narrow)? }).await?;
    server.app.follow().await?;

    assert_eq!(tenants(&server, &wide).await?, ["acme", "globex"]);
    assert_eq!(tenants(&server, &narrow).await?, ["acme"]);
    let narrow = Http::new(&server.url("/mcp"), Some(&narrow))?;
    let forbidden = narrow.call("globex__whoami", json!({})).await?;
    assert_eq!(forbidden, narrow.call("nobody__whoami", json!({})).await?, "as if there were no such tool");
    Ok(())
}

#[tokio::test]
async fn a_key_that_ended_was_taken_back_or_was_never_made_is_refused() -> Result<()> {
    let server = two_tenants("key_refused").await?;
    let store = server.app.store();
    let (ended, taken_back) = (api_key("ended"), api_key("taken back"));
    store.add_api_key(&NewApiKey { expires_at: Some(SystemClock.now()), ..new_key(&ended)? }).await?;
    let id = store.add_api_key(&new_key(&taken_back)?).await?.id;
    server.app.follow().await?;
    assert_eq!(status(&server, &taken_back).await?, 200);
    assert!(store.revoke_api_key(id).await?);
    server.app.follow().await?;
    for key in [ended, taken_back, api_key("never made"), "mcpmux_".to_owned(), "mcpmux_x".to_owned()] {
        assert_eq!(status(&server, &key).await?, 401);
    }
    Ok(())
}

#[tokio::test]
async fn what_runs_for_a_key_that_is_taken_back_ends_at_once_and_nothing_else_does() -> Result<()> {
    let server = two_tenants("key_stream").await?;
    let store = server.app.store();
    let (gone, stays) = (api_key("gone"), api_key("stays"));
    let id = store.add_api_key(&new_key(&gone)?).await?.id;
    store.add_api_key(&new_key(&stays)?).await?;
    server.app.follow().await?;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let open = async |key: &str| {
        Http::new(&server.url("/mcp"), Some(key))?.stream("subscriptions/listen", wanted.clone()).await
    };
    let (mut gone, mut stays) = (open(&gone).await?, open(&stays).await?);
    assert!(store.revoke_api_key(id).await?);
    // Far sooner than it is looked again anyway.
    let over = async { while gone.next().await.is_ok() {} };
    timeout(Duration::from_secs(5), over).await?;
    // The other one is still told.
    let acme = server.rows("acme").await?;
    for grant in acme.grants().await? {
        acme.remove_grant(grant.id).await?;
    }
    let told = async {
        while !stays.next().await?.to_string().contains("notifications/tools/list_changed") {}
        Ok(())
    };
    timeout(Duration::from_secs(10), told).await?
}
