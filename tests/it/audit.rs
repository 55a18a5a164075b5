//! The audit record of running servers: what is in it and whose it is, and that nobody changes it unnoticed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::audit::{
    Checked, ExportError, FileReport, Found, Report, Signer, Wrong, export, name_digest, verify_file, verify_store,
};
use mcp_mux::config::{Config, DatabaseConfig};
use mcp_mux::open_store;
use mcp_mux::policy::Administration;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenant_store::testing::{TestDatabase, is_on_postgres};
use tenant_store::{AuditRow, Level, Store};
use tokio::time::timeout;

use crate::support::canary;
use crate::support::server::{Setup, TestServer, rows, scope};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// How long something may take to be written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server with two tenants, whose upstreams are shown nothing; acme's team may only read there.
pub(crate) async fn two_tenants(name: &str) -> Result<TestServer> {
    let (acme, _) = RealUpstream::named("acme").serve_to(Arc::new(|_, _| true), false).await?;
    let (globex, _) = RealUpstream::named("globex").serve_to(Arc::new(|_, _| true), false).await?;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: None, level: Level::Read },
        Setup { tenant: "globex", upstream: "bureau", url: &globex, key: None, level: Level::Write },
    ];
    TestServer::start(name, &setups).await
}

/// What a server left behind once it had stopped.
pub(crate) struct Left {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) database: TestDatabase,
    log: std::path::PathBuf,
}

pub(crate) async fn stopped(server: TestServer) -> Result<Left> {
    let TestServer { app, config, database, log, .. } = server;
    ensure!(app.stop().await, "something was left behind");
    let store = open_store(&config).await?;
    Ok(Left { store, config, database, log })
}

/// A tenant's events, or the platform's.
pub(crate) async fn events(store: &Store, tenant: Option<&str>) -> Result<Vec<Value>> {
    let tenant = match tenant {
        Some(tenant) => Some(rows(store, tenant).await?),
        None => None,
    };
    let mut events = Vec::new();
    let mut after = None;
    loop {
        let lines = match &tenant {
            Some(tenant) => tenant.audit_rows(after).await?,
            None => store.still().await?.platform_audit_rows(after).await?,
        };
        let Some(last) = lines.last() else { return Ok(events) };
        after = Some((last.writer, last.seq));
        for row in &lines {
            events.push(serde_json::from_str(&row.line)?);
        }
    }
}

/// The events of a kind.
pub(crate) fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

pub(crate) async fn signer(store: &Store) -> Result<Signer> {
    Ok(Signer::of(store, &store.platform_keys().await?).await?)
}

#[expect(clippy::disallowed_methods, reason = "a test checks as an operator would")]
pub(crate) async fn checked(store: &Store) -> Result<Report> {
    Ok(verify_store(store, &signer(store).await?, Administration::for_the_platform()).await?)
}

/// What is wrong in a database: the chain, and what.
pub(crate) async fn wrong(store: &Store) -> Result<Vec<(String, Vec<Wrong>)>> {
    let report = checked(store).await?.into_iter().filter(|checked| !checked.wrong.is_empty());
    Ok(report.map(|Checked { name, wrong, .. }| (name, wrong)).collect())
}

pub(crate) async fn exported(store: &Store, tenant: &str) -> Result<String> {
    let mut out = Vec::new();
    let id = rows(store, tenant).await?.id();
    export(&store.still().await?, (Some(scope(id)), tenant), (&signer(store).await?, store.now()), &mut out).await?;
    Ok(String::from_utf8(out)?)
}

pub(crate) fn verified(file: &str) -> Result<Result<Found, Vec<(usize, Wrong)>>> {
    let FileReport { found, .. } = verify_file(file.as_bytes(), None)?;
    Ok(found)
}

#[tokio::test]
async fn who_called_who_was_refused_and_who_was_shown_what_is_in_the_record_of_whose_it_is() -> Result<()> {
    let server = two_tenants("audit_whose").await?;
    let (argument, guess) = (canary("argument"), canary("guess"));
    let alice = server.client("alice", &["acme"])?;
    assert!(!alice.tools().await?.is_empty());
    alice.call("acme__whoami", json!({"secret": argument})).await?;
    // Hers, but not allowed; another company's; nobody's.
    for name in ["acme__change", "globex__whoami", &guess] {
        assert_eq!(alice.call(name, json!({"secret": argument})).await?["error"]["code"], -32602, "{name}");
    }
    let (robot, key) = server.robot("globex", Level::Read).await?;
    robot.call("globex__whoami", json!({})).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    carol.tools().await?;
    // At a tenant's own endpoint its neighbour's name is nobody's.
    server.client_at("/t/acme/mcp", "carol", &["acme", "globex"])?.call("globex__whoami", json!({})).await?;
    let left = stopped(server).await?;
    let (acme, globex) = (events(&left.store, Some("acme")).await?, events(&left.store, Some("globex")).await?);
    let platform = events(&left.store, None).await?;

    let calls = of(&acme, "call");
    assert_eq!(calls.len(), 2, "{acme:#?}");
    let who = json!({"issuer": "corp", "subject": "alice"});
    let grant = &rows(&left.store, "acme").await?.grants().await?[0].id.to_string();
    for (call, (name, decision, reason, outcome)) in
        calls.iter().zip([("whoami", "allow", "allowed", "ok"), ("change", "deny", "levelTooLow", "refused")])
    {
        assert_eq!(call["who"]["issuer"], who["issuer"]);
        assert_eq!(call["who"]["subject"], who["subject"]);
        let said = [&call["name"], &call["decision"], &call["reason"], &call["outcome"], &call["upstream"]];
        assert_eq!(said, [name, decision, reason, outcome, "desk"]);
        assert_eq!((&call["exposed"], &call["method"]), (&json!(format!("acme__{name}")), &json!("tools/call")));
        assert_eq!(call["grants"], json!([grant]));
        assert!(call["requestId"].as_str().is_some_and(|id| id.len() == 32) && call["durationMs"].is_u64());
    }
    let [list] = of(&acme, "list")[..] else { anyhow::bail!("{acme:#?}") };
    assert_eq!(
        (&list["list"], &list["tenantCount"], &list["who"]["subject"]),
        (&json!("tools"), &json!(1), &json!("alice"))
    );
    assert!(list["sha256"].as_str().is_some_and(|digest| digest.len() == 64));

    let [call] = of(&globex, "call")[..] else { anyhow::bail!("{globex:#?}") };
    assert_eq!(call["who"], json!({"issuer": "scripts", "subject": "robot", "apiKey": key.to_string()}));
    // What alice and carol guessed of globex is the platform's to know.
    let refused = of(&platform, "call");
    let reasons: Vec<_> =
        refused.iter().map(|call| (&call["exposed"], &call["reason"], call["nameSha256"].is_string())).collect();
    let unknown = (&Value::Null, &json!("unknown"), true);
    assert_eq!(reasons, [(&json!("globex__whoami"), &json!("noGrant"), false), unknown, unknown]);
    assert_eq!(of(&platform, "list")[0]["tenantCount"], 2);

    let all = format!("{acme:?}{globex:?}{platform:?}");
    assert!(!all.contains("CANARY"), "what nobody may read is in the record");
    assert!(wrong(&left.store).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn how_a_call_went_is_recorded_however_it_ends() -> Result<()> {
    let upstream =
        ByteUpstream::with_tools(r#"[{"name":"fails","inputSchema":{}},{"name":"streams","inputSchema":{}}]"#);
    let failed = r#"{"resultType":"complete","content":[],"isError":true}"#;
    let (url, seen) = upstream.clone().on("tools/call", Say::Result(failed.to_owned())).serve().await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    let server = TestServer::start("audit_outcomes", &[setup]).await?;
    let alice = server.client("alice", &["acme"])?;
    alice.call("acme__fails", json!({})).await?;
    let answer = r#"{"jsonrpc":"2.0","id":{id},"error":{"code":-32000,"message":"CANARY-said"}}"#;
    upstream.says("tools/call", Say::Events(vec![answer.to_owned()]));
    alice.call("acme__streams", json!({})).await?;
    upstream.says("tools/call", Say::Http(503, "text/plain", "away".into()));
    alice.call("acme__fails", json!({})).await?;
    upstream.says("tools/call", Say::Silence);
    // Whoever goes away leaves no answer, but a call.
    tokio::select! {
        answer = alice.call("acme__fails", json!({"mark": "the-last"})) => anyhow::bail!("it answered: {answer:?}"),
        () = seen.until("the-last") => {}
    }
    let left = stopped(server).await?;
    let events = events(&left.store, Some("acme")).await?;
    let outcomes: Vec<_> = of(&events, "call").iter().map(|call| call["outcome"].clone()).collect();
    assert_eq!(outcomes, ["toolError", "error", "upstreamFailure", "gone"]);
    assert!(!format!("{events:?}").contains("CANARY"));
    Ok(())
}

/// A record with three events of either tenant, signed once.
async fn some_record(name: &str) -> Result<Left> {
    let server = two_tenants(name).await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    for _ in 0..3 {
        carol.call("acme__whoami", json!({})).await?;
        carol.call("globex__change", json!({})).await?;
    }
    let left = stopped(server).await?;
    ensure!(wrong(&left.store).await?.is_empty());
    Ok(left)
}

/// Lets somebody with a database tool change what is recorded.
fn unguarded() -> String {
    if is_on_postgres() {
        "SET session_replication_role = replica;".to_owned()
    } else {
        let kept =
            |table: &str| ["update", "delete"].map(|event| format!("DROP TRIGGER {table}_kept_on_{event};")).concat();
        ["audit_event", "audit_checkpoint"].map(kept).concat()
    }
}

/// A copy of the database that somebody altered.
pub(crate) async fn altered(left: &Left, folder: &Path, (number, sql): (usize, &str)) -> Result<(Store, TestDatabase)> {
    let copy = left.database.copy(&folder.join(format!("{number}.db"))).await?;
    copy.alter(&format!("{} {sql}", unguarded())).await.with_context(|| sql.to_owned())?;
    let database = DatabaseConfig { owner_url: copy.owner_url.clone(), ..DatabaseConfig::at(copy.url.clone()) };
    Ok((open_store(&Config { database, ..left.config.clone() }).await?, copy))
}

/// What is found in it.
pub(crate) async fn found_after(
    left: &Left,
    folder: &Path,
    altering: (usize, &str),
) -> Result<Vec<(String, Vec<Wrong>)>> {
    let (store, _copy) = altered(left, folder, altering).await?;
    wrong(&store).await
}

#[tokio::test]
async fn whoever_changes_deletes_or_cuts_off_what_was_signed_is_found_out() -> Result<()> {
    let left = some_record("audit_tampered").await?;
    let folder = TempDir::new()?;
    let acme = rows(&left.store, "acme").await?.id().to_string();
    let of_acme = format!("chain = '{acme}'");
    let attempts = [
        format!("UPDATE audit_event SET line = replace(line, 'carol', 'alice') WHERE {of_acme} AND seq = 2"),
        format!("UPDATE audit_event SET line = replace(line, '\"ok\"', '\"gone\"') WHERE {of_acme} AND seq = 3"),
        format!("UPDATE audit_event SET at_ms = at_ms - 1 WHERE {of_acme} AND seq = 1"),
        format!("DELETE FROM audit_event WHERE {of_acme} AND seq = 1"),
        format!("DELETE FROM audit_event WHERE {of_acme} AND seq = 2"),
        format!("DELETE FROM audit_event WHERE {of_acme} AND seq = 3"),
        format!("DELETE FROM audit_event WHERE {of_acme}"),
        // With its signature: the platform's record says how far it had come.
        format!("DELETE FROM audit_event WHERE {of_acme}; DELETE FROM audit_checkpoint WHERE {of_acme}"),
        format!("DELETE FROM audit_event WHERE {of_acme} AND seq = 3; DELETE FROM audit_checkpoint WHERE {of_acme}"),
        format!("UPDATE audit_checkpoint SET seq = 2 WHERE {of_acme} AND seq = 3"),
        format!("UPDATE audit_checkpoint SET at_ms = at_ms + 1 WHERE {of_acme}"),
        format!("UPDATE audit_event SET seq = 4 WHERE {of_acme} AND seq = 3"),
        "DELETE FROM audit_event WHERE chain = 'platform' AND seq = 1".to_owned(),
        "UPDATE audit_event SET line = replace(line, 'checkpoint', 'started') WHERE chain = 'platform'".to_owned(),
    ];
    for (number, sql) in attempts.iter().enumerate() {
        let found = found_after(&left, folder.path(), (number, sql)).await?;
        assert_eq!(found.len(), 1, "{sql}: {found:?}");
        let chain = if sql.contains("'platform'") { "platform" } else { "acme" };
        assert_eq!(found[0].0, chain, "{sql}");
    }
    assert!(found_after(&left, folder.path(), (99, "SELECT 1")).await?.is_empty(), "an untouched copy is sound");
    Ok(())
}

#[tokio::test]
async fn one_damaged_line_hides_nothing_else() -> Result<()> {
    let left = some_record("audit_damaged").await?;
    let folder = TempDir::new()?;
    let acme = format!("chain = '{}'", rows(&left.store, "acme").await?.id());
    // Heads behind the damage are known all the same, and so is what lacks of the other records.
    let sql = format!(
        "UPDATE audit_event SET line = 'x' WHERE chain = 'platform' AND seq = 1; DELETE FROM audit_event WHERE {acme} AND seq = 3; \
         DELETE FROM audit_checkpoint WHERE {acme} AND seq = 3"
    );
    let found = found_after(&left, folder.path(), (0, &sql)).await?;
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["platform", "acme"], "{found:?}");
    let sql = format!("UPDATE audit_event SET at_ms = at_ms + 1 WHERE {acme} AND seq IN (1, 3)");
    let found = found_after(&left, folder.path(), (1, &sql)).await?;
    assert_eq!(found, [("acme".to_owned(), vec![Wrong::Elsewhere, Wrong::Elsewhere])]);
    Ok(())
}

/// A line as somebody without the key writes it, behind that one: SQL that adds it.
fn forged(chain: &str, last: &AuditRow, writer: &str) -> Result<String> {
    let mut event: Value = serde_json::from_str(&last.line)?;
    let (seq, prev) = if writer == last.writer.to_string() {
        (last.seq + 1, name_digest(&format!("{}\n", last.line)))
    } else {
        (1, "0".repeat(64))
    };
    for (key, value) in [("seq", json!(seq)), ("prev", json!(prev)), ("writer", json!(writer))] {
        event[key] = value;
    }
    let at_ms = last.at.as_millis();
    Ok(format!(
        "INSERT INTO audit_event (chain, writer, seq, at_ms, line) VALUES ('{chain}', '{writer}', {seq}, {at_ms}, '{event}')"
    ))
}

#[tokio::test]
async fn what_its_writer_never_signed_is_found_and_no_export_signs_it() -> Result<()> {
    let left = some_record("audit_unsigned").await?;
    let folder = TempDir::new()?;
    let acme = rows(&left.store, "acme").await?;
    let (lines, chain) = (acme.audit_rows(None).await?, acme.id().to_string());
    let last = lines.last().context("it has lines")?;
    let (invented, own) = ("wri_0198a2f4c1a07d3e8f5b6c7d8e9f0a1b", last.writer.to_string());
    let attempts = [
        (
            format!("DELETE FROM audit_checkpoint WHERE chain = '{chain}'"),
            Wrong::Unsigned { writer: own.clone(), seq: 1 },
        ),
        (forged(&chain, last, invented)?, Wrong::Unsigned { writer: invented.to_owned(), seq: 1 }),
        (forged(&chain, last, &own)?, Wrong::Added { writer: own.clone(), seq: 4 }),
    ];
    for (number, (sql, wanted)) in attempts.into_iter().enumerate() {
        let (store, _copy) = altered(&left, folder.path(), (number, &sql)).await?;
        assert_eq!(wrong(&store).await?, [("acme".to_owned(), vec![wanted])], "{sql}");
        let error = exported(&store, "acme").await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ExportError::Wrong { .. })), "{sql}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_too_new_to_be_signed_is_counted_and_no_export_has_it() -> Result<()> {
    let server = two_tenants("audit_too_new").await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    for _ in 0..2 {
        carol.call("acme__whoami", json!({})).await?;
    }
    let store = server.app.store();
    let written = async {
        while events(store, Some("acme")).await?.len() < 2 {}
        anyhow::Ok(())
    };
    timeout(PATIENCE, written).await??;
    let report = checked(store).await?;
    let told: Vec<_> = report.iter().map(|one| (one.name.as_str(), one.found.unsigned, one.wrong.len())).collect();
    assert_eq!(told, [("platform", 0, 0), ("acme", 1, 0), ("globex", 0, 0)]);
    let found = verified(&exported(store, "acme").await?)?.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    assert_eq!((found.events, found.unsigned), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_whole_record_that_is_gone_is_found_by_what_stands_elsewhere() -> Result<()> {
    let left = some_record("audit_anchor").await?;
    let folder = TempDir::new()?;
    // Whoever deletes everything of a writer leaves nothing by itself: only the log still knows.
    let everything = "DELETE FROM audit_event; DELETE FROM audit_checkpoint";
    assert!(found_after(&left, folder.path(), (0, everything)).await?.is_empty());
    let log = std::fs::read_to_string(&left.log)?;
    let heads = left.store.platform_audit_heads((1, 1_000)).await?;
    let head = heads.first().context("it was signed")?;
    let anchor = log.lines().rev().find(|line| line.contains("audit checkpoint")).context("it is in the log")?;
    assert!(anchor.contains(&format!("audit.seq={}", head.seq)) && anchor.contains(&head.hash), "{anchor}");
    // A later writer says in its first event how far others had come, and so finds one that is gone.
    let app = mcp_mux::App::start(&left.config).await?;
    ensure!(app.stop().await);
    assert!(wrong(&left.store).await?.is_empty());
    let writer = head.writer;
    let gone = format!(
        "DELETE FROM audit_event WHERE writer = '{writer}'; DELETE FROM audit_checkpoint WHERE writer = '{writer}'"
    );
    let found = found_after(&left, folder.path(), (1, &gone)).await?;
    assert_eq!(found, [("platform".to_owned(), vec![Wrong::CutOff { writer: writer.to_string(), seq: head.seq }])]);
    Ok(())
}

#[tokio::test]
async fn each_tenants_export_is_checked_alone_and_holds_nothing_of_the_other() -> Result<()> {
    let left = some_record("audit_exports").await?;
    let (acme, globex) = (exported(&left.store, "acme").await?, exported(&left.store, "globex").await?);
    let (acme_id, globex_id) = (rows(&left.store, "acme").await?.id(), rows(&left.store, "globex").await?.id());
    for (file, ours, theirs) in [
        (&acme, acme_id, [&globex_id.to_string(), "globex", "bureau"]),
        (&globex, globex_id, [&acme_id.to_string(), "acme", "desk"]),
    ] {
        let found = verified(file)?.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
        assert_eq!((found.events, found.checkpoints, found.unsigned, found.lost), (3, 2, 0, 0));
        assert!(file.contains(&ours.to_string()));
        for word in theirs {
            assert!(!file.contains(word), "{word} is in {file}");
        }
    }
    // Another database's key did not sign it.
    let other = two_tenants("audit_exports_other").await?;
    let stranger = signer(other.app.store()).await?.public().clone();
    let report = verify_file(acme.as_bytes(), Some(&stranger))?;
    let wrong = report.found.unwrap_err();
    assert!(
        matches!(wrong[..], [(3, Wrong::Key { .. }), (6, Wrong::Key { .. }), (7, Wrong::Key { .. }), ..]),
        "{wrong:?}"
    );
    let own = signer(&left.store).await?.public().clone();
    assert!(verify_file(acme.as_bytes(), Some(&own))?.found.is_ok());
    Ok(())
}

#[tokio::test]
async fn no_line_of_an_export_is_changed_moved_or_left_out_unnoticed() -> Result<()> {
    let left = some_record("audit_export_tampered").await?;
    let file = exported(&left.store, "acme").await?;
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 7, "header, an event, its checkpoint, two events, a checkpoint, the end");
    let joined = |lines: &[&str]| lines.join("\n") + "\n";
    for place in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(place);
        assert!(verified(&joined(&without))?.is_err(), "line {place} is left out");
        let mut twice = lines.clone();
        twice.insert(place, lines[place]);
        assert!(verified(&joined(&twice))?.is_err(), "line {place} is there twice");
        if place > 0 {
            let mut swapped = lines.clone();
            swapped.swap(place - 1, place);
            assert!(verified(&joined(&swapped))?.is_err(), "line {place} is moved");
        }
    }
    // Each of its digits and letters counts.
    for (place, byte) in file.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()).step_by(7) {
        let mut changed = file.clone().into_bytes();
        changed[place] = if byte == b'1' { b'2' } else { b'1' };
        assert!(verified(std::str::from_utf8(&changed)?)?.is_err(), "byte {place}");
    }
    assert!(verified(file.trim_end())?.is_err(), "the last line has no end");
    assert!(verified(&format!("{file}\n"))?.is_err());
    // What the documentation says: `sed -n 2p FILE | sha256sum` is what the next line repeats.
    let events: Vec<&str> = lines.iter().copied().filter(|line| line.contains("\"event\"")).collect();
    for pair in events.windows(2) {
        let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        sum.stdin.take().context("it is piped")?.write_all(format!("{}\n", pair[0]).as_bytes())?;
        let said = String::from_utf8(sum.wait_with_output()?.stdout)?;
        let next: Value = serde_json::from_str(pair[1])?;
        assert_eq!(said.split(' ').next(), next["prev"].as_str());
    }
    Ok(())
}

#[tokio::test]
async fn what_the_database_refuses_for_a_while_waits_and_is_not_lost() -> Result<()> {
    let server = two_tenants("audit_refused").await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    server.refuse_audit(true).await?;
    for _ in 0..50 {
        let answer = carol.call("acme__whoami", json!({})).await?;
        assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}", "a call waits for no record");
    }
    server.until_logged("the audit record cannot be written").await?;
    assert!(events(server.app.store(), Some("acme")).await?.is_empty());
    server.refuse_audit(false).await?;
    server.until_logged("the audit record is written again").await?;
    let left = stopped(server).await?;
    assert_eq!(of(&events(&left.store, Some("acme")).await?, "call").len(), 50);
    assert!(wrong(&left.store).await?.is_empty());
    Ok(())
}
