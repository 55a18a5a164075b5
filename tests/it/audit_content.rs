//! Arguments and results in the record of a tenant that wants them there: sealed with its own key, and nobody else's.

use anyhow::{Context as _, Result, ensure};
use mcp_mux::audit::Texts;
use serde_json::{Value, json};
use tenant_store::{AuditContent, Level, Store, Stuck, TenantSpec};

use crate::audit::{events, of, stopped};
use crate::support::canary;
use crate::support::server::{Setup, TestServer, rows};
use crate::support::upstreams::{ByteUpstream, Say};

const TOOLS: &str = r#"[{"name":"read","inputSchema":{},"annotations":{"readOnlyHint":true}}]"#;

/// Lets a tenant's record hold that, with a key or without.
pub(crate) async fn record(
    server: &TestServer,
    tenant: &str,
    audit_content: AuditContent,
    has_key: bool,
) -> Result<()> {
    let change = server.app.store().begin().await?;
    change.put_tenant(&tenant.parse()?, &TenantSpec { audit_content, ..TenantSpec::named(tenant) }).await?;
    change.commit().await?;
    if has_key {
        ensure!(server.rows(tenant).await?.make_recording_key().await?);
        ensure!(!server.rows(tenant).await?.make_recording_key().await?, "there is one");
    }
    server.app.follow().await?;
    Ok(())
}

/// The calls in a tenant's record.
pub(crate) async fn calls(store: &Store, tenant: &str) -> Result<Vec<Value>> {
    let events = events(store, Some(tenant)).await?;
    Ok(of(&events, "call").into_iter().cloned().collect())
}

async fn opened(store: &Store, tenant: &str, call: &Value) -> Result<Option<Texts>> {
    let rows = rows(store, tenant).await?;
    let key = rows.recording_key().await?.context("it has one")?;
    let keys = rows.open_recording_key(&key).await?;
    let request = call["requestId"].as_str().context("it has one")?;
    Ok(Texts::open(&keys, (rows.id(), request), call["content"].as_str().context("it is recorded")?))
}

#[tokio::test]
async fn what_a_call_brings_is_in_the_record_of_a_tenant_that_wants_it_and_only_its_key_opens_it() -> Result<()> {
    let (acme_said, globex_said) = (canary("acme-result"), canary("globex-result"));
    let mut urls = Vec::new();
    let result = |said: &str| format!(r#"{{"resultType":"complete","content":[{{"type":"text","text":"{said}"}}]}}"#);
    let streamed = format!(r#"{{"jsonrpc":"2.0","id":{{id}},"result":{}}}"#, result(&acme_said));
    for says in [Say::Events(vec![streamed]), Say::Result(result(&globex_said))] {
        urls.push(ByteUpstream::with_tools(TOOLS).on("tools/call", says).serve().await?.0);
    }
    let setup = |tenant, upstream, url| Setup { tenant, upstream, url, key: None, level: Level::Write };
    let setups = [setup("acme", "desk", &urls[0]), setup("globex", "bureau", &urls[1])];
    let server = TestServer::start("audit_content", &setups).await?;
    record(&server, "acme", AuditContent::All, true).await?;
    let argument = canary("argument");
    let carol = server.client("carol", &["acme", "globex"])?;
    let long = "x".repeat(40_000);
    carol.call("acme__read", json!({"secret": argument})).await?;
    carol.call("acme__read", json!({"secret": long})).await?;
    carol.call("globex__read", json!({"secret": argument})).await?;
    record(&server, "globex", AuditContent::Arguments, true).await?;
    carol.call("globex__read", json!({"secret": argument})).await?;
    let left = stopped(server).await?;
    let stolen = left.database.stolen()?;
    ensure!(!stolen.windows(argument.len()).any(|bytes| bytes == argument.as_bytes()));

    let acme = calls(&left.store, "acme").await?;
    let texts = opened(&left.store, "acme", &acme[0]).await?.context("it opens")?;
    assert_eq!(texts.arguments, format!(r#""name":"read","arguments":{{"secret":"{argument}"}}"#));
    assert!(texts.result.is_some_and(|result| result.contains(&acme_said)));
    assert_eq!((texts.arguments_bytes, texts.result_bytes), (None, None));
    let texts = opened(&left.store, "acme", &acme[1]).await?.context("it opens")?;
    assert!(texts.arguments.len() == 16 * 1024 && texts.arguments_bytes.is_some_and(|bytes| bytes > 40_000));

    let globex = calls(&left.store, "globex").await?;
    assert_eq!(
        (&globex[0]["content"], &globex[0]["contentMissing"]),
        (&Value::Null, &Value::Null),
        "it was not asked for"
    );
    let texts = opened(&left.store, "globex", &globex[1]).await?.context("it opens")?;
    assert!(texts.arguments.contains(&argument));
    assert_eq!(texts.result, None);
    // Neither for another request nor for another tenant, though somebody moves it there.
    let moved = json!({"requestId": acme[1]["requestId"], "content": acme[0]["content"]});
    assert_eq!(opened(&left.store, "acme", &moved).await?, None);
    assert_eq!(opened(&left.store, "globex", &acme[0]).await?, None);
    Ok(())
}

#[tokio::test]
async fn its_key_outlives_data_keys_that_are_turned_over_and_no_shredded_tenant() -> Result<()> {
    let (url, _) = ByteUpstream::with_tools(TOOLS).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("audit_content_keys", &[setup]).await?;
    record(&server, "acme", AuditContent::All, false).await?;
    let alice = server.client("alice", &["acme"])?;
    alice.call("acme__read", json!({"n": 0})).await?;
    record(&server, "acme", AuditContent::All, true).await?;
    alice.call("acme__read", json!({"n": 1})).await?;
    let rows = server.rows("acme").await?;
    rows.begin_rotation().await?;
    let mut stuck = Stuck::default();
    while rows.reseal_some(&mut stuck).await?.left > 0 {}
    assert_eq!((stuck.count(), rows.is_rotating().await?), (0, false));
    server.app.follow().await?;
    alice.call("acme__read", json!({"n": 2})).await?;
    let left = stopped(server).await?;
    let all = calls(&left.store, "acme").await?;
    assert_eq!((&all[0]["content"], &all[0]["contentMissing"]), (&Value::Null, &json!("noKey")));
    for (call, n) in all[1..].iter().zip(["{\"n\":1}", "{\"n\":2}"]) {
        let texts = opened(&left.store, "acme", call).await?.context("it opens")?;
        assert!(texts.arguments.ends_with(n), "{}", texts.arguments);
    }
    let certificate = left.store.shred(&"acme".parse()?, "somebody").await?;
    assert_eq!(certificate.ciphertexts, 1);
    let rows = crate::support::server::rows(&left.store, "acme").await?;
    assert_eq!(rows.recording_key().await?, None);
    assert!(rows.make_recording_key().await.is_err(), "it gets no other one");
    Ok(())
}
