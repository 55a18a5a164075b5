//! The key hierarchy under a running server: keys are turned over while calls run, and Vault wraps them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crypto::Key;
use mcp_mux::config::{AppRoleConfig, Config, KeysConfig, KubernetesConfig, VaultConfig};
use mcp_mux::open_store;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tenant_store::testing::is_on_postgres;
use tenant_store::{DataKeyState, Level, Store, Stuck};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer, install};
use crate::support::upstreams::{ByteUpstream, RealUpstream};
use crate::support::vault::Vault;

/// How many calls a second run while keys are turned over, and how many at a time on a machine that does not keep up.
const CALLS_PER_SECOND: u32 = 200;
const CALLS_AT_ONCE: usize = 20;

fn keys(primary: &SecretString, retired: &[&SecretString]) -> KeysConfig {
    let retired = retired.iter().map(|key| key.expose_secret()).collect::<Vec<_>>().join(",");
    KeysConfig {
        primary: Some(primary.clone()),
        retired: (!retired.is_empty()).then(|| retired.into()),
        ..KeysConfig::default()
    }
}

/// A store on the server's database, as the command line opens one.
async fn store_with(server: &TestServer, keys: KeysConfig) -> Result<Store> {
    Ok(open_store(&Config { keys, ..server.config.clone() }).await?)
}

/// Calls the tool, and counts it.
async fn call_once(client: Arc<Http>, count: watch::Sender<usize>) -> Result<()> {
    let answer = client.call("acme__whoami", json!({})).await?;
    ensure!(answer["result"]["content"][0]["text"] == "whoami at acme with {}", "{answer}");
    count.send_modify(|count| *count += 1);
    Ok(())
}

/// Calls the tool at a steady rate until it is told to stop. Any call that fails ends it.
async fn call_steadily(client: Http, stop: Arc<AtomicBool>, count: watch::Sender<usize>) -> Result<()> {
    let client = Arc::new(client);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = JoinSet::new();
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        if running.len() == CALLS_AT_ONCE {
            running.join_next().await.context("they run")???;
        }
        running.spawn(call_once(Arc::clone(&client), count.clone()));
        while let Some(called) = running.try_join_next() {
            called??;
        }
    }
    while let Some(called) = running.join_next().await {
        called??;
    }
    Ok(())
}

/// Turns over both kinds of key of `acme`, from `old` to `new`, in steps, some of them by a process that is then gone.
async fn turn_over(
    server: &TestServer,
    old: &SecretString,
    new: &SecretString,
    count: &watch::Sender<usize>,
) -> Result<()> {
    let writer = store_with(server, keys(new, &[old])).await?;
    writer.rewrap_some(&mut Stuck::default()).await?;
    // Another process goes on, and so until nothing is left.
    let writer = store_with(server, keys(new, &[old])).await?;
    while writer.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    let uses = writer.kek_uses().await?;
    ensure!(uses.len() == 1, "something is left under the old key: {uses:?}");

    let tenant = writer.find_tenant(&"acme".parse()?).await?.context("acme exists")?;
    let rows = writer.tenant(crate::support::server::scope(tenant.id));
    rows.begin_rotation().await?;
    let first = rows.reseal_some(&mut Stuck::default()).await?;
    ensure!(first.left > 0, "it was stopped half way: {first:?}");
    let again = store_with(server, keys(new, &[old])).await?.tenant(crate::support::server::scope(tenant.id));
    ensure!(again.is_rotating().await?, "the second process finds it unfinished");
    while again.reseal_some(&mut Stuck::default()).await?.left > 0 {}
    let states: Vec<_> = again.data_keys().await?.into_iter().map(|key| (key.state, key.credentials)).collect();
    ensure!(matches!(states.as_slice(), [(DataKeyState::Destroyed, 0), (DataKeyState::Active, 301)]), "{states:?}");
    // Calls go on for a while after it, on what the server has taken over since.
    let reached = *count.borrow() + 100;
    server.app.follow().await?;
    count.subscribe().wait_for(|count| *count >= reached).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_keys_are_turned_over_while_calls_run_and_none_fails() -> Result<()> {
    let upstream_key = canary("turned-over");
    let (url, _) = RealUpstream::named("acme").serve(&upstream_key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&upstream_key), level: Level::Write };
    let (old, new) = (Key::generate()?.encode(), Key::generate()?.encode());
    // Readers first: the server knows the new key, and still wraps with the old one.
    let server = TestServer::start_with("turned_over", &[setup], |config| {
        config.keys = keys(&old, &[&new]);
        Ok(())
    })
    .await?;
    let rows = server.rows("acme").await?;
    let desk = rows.find_upstream(&"desk".parse()?).await?.context("acme has it")?;
    for n in 0..300 {
        rows.put_credential(desk.id, &format!("spare-{n}").parse()?, &SecretString::from(canary("spare"))).await?;
    }

    let (stop, count) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0));
    let calling = call_steadily(server.client("alice", &["acme"])?, Arc::clone(&stop), count.clone());
    let turning = async {
        let turned = turn_over(&server, &old, &new, &count).await;
        stop.store(true, Ordering::SeqCst);
        turned
    };
    // A call that fails ends it at once: what turns the keys over waits for calls.
    tokio::try_join!(calling, turning)?;
    assert!(*count.borrow() > 100, "{count:?}");

    // A process with only the new key serves everything.
    let mut config = server.config.clone();
    config.keys = keys(&new, &[]);
    let server = TestServer { config, ..server }.restart().await?;
    let answer = server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}");
    Ok(())
}

#[tokio::test]
async fn a_shredded_tenant_has_no_tools_within_a_moment_and_is_called_no_more() -> Result<()> {
    let key = canary("shredded");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let (open, seen) = ByteUpstream::with_tools("[]").serve().await?;
    let open = Setup { upstream: "open", url: &open, key: None, ..setup };
    let server = TestServer::start("shredded", &[setup, open]).await?;
    let alice = server.client("alice", &["acme"])?;
    assert!(!alice.tools().await?.is_empty());
    let certificate = server.app.store().shred(&"acme".parse()?, "test").await?;
    assert_eq!(certificate.ciphertexts, 1);
    server.app.follow().await?;
    assert!(alice.tools().await?.is_empty());
    assert_eq!(alice.call("acme__whoami", json!({})).await?["error"]["code"], -32602);
    let before = seen.text().len();
    server.app.refresher().refresh_all().await;
    assert_eq!(seen.text().len(), before, "nobody asks its upstream for tools");
    Ok(())
}

/// Vault, and what proves us to it in each way.
async fn vault() -> Result<(Vault, [(&'static str, VaultConfig); 3])> {
    let (root, secret_id, account) = (canary("root"), canary("secret-id"), canary("service-account"));
    let vault = Vault::start(&root, &secret_id, &account).await?;
    let config = VaultConfig {
        address: vault.url.parse()?,
        key: "mcp-mux".to_owned(),
        mount: "transit".to_owned(),
        namespace: None,
        retired: false,
        token: None,
        token_file: None,
        approle: None,
        kubernetes: None,
    };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("account-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, &account)?;
    let approle = AppRoleConfig {
        mount: "approle".to_owned(),
        role_id: "mux".to_owned(),
        secret_id: Some(secret_id.into()),
        secret_id_file: None,
    };
    let kubernetes = KubernetesConfig { mount: "kubernetes".to_owned(), role: "mux".to_owned(), token_file: file };
    let ways = [
        ("token", VaultConfig { token: Some(root.into()), ..config.clone() }),
        ("approle", VaultConfig { approle: Some(approle), ..config.clone() }),
        ("kubernetes", VaultConfig { kubernetes: Some(kubernetes), ..config }),
    ];
    Ok((vault, ways))
}

#[tokio::test]
async fn vault_wraps_keys_however_we_sign_in_and_a_revoked_token_is_replaced() -> Result<()> {
    let (vault, ways) = vault().await?;
    for (way, settings) in ways {
        let key = canary("through-vault");
        let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
        let server = TestServer::start_with(&format!("vault_{way}"), &[setup], |config| {
            config.keys = KeysConfig { vault: Some(settings.clone()), ..KeysConfig::default() };
            Ok(())
        })
        .await?;
        let alice = server.client("alice", &["acme"])?;
        let answer = alice.call("acme__whoami", json!({})).await?;
        assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}", "{way}");
        if way == "token" {
            continue;
        }
        let before = vault.sign_ins(way);
        vault.revoke_all();
        // A tenant whose key is not in memory needs one, and gets it with a new token.
        install(server.app.store(), &Setup { tenant: "globex", ..setup }).await?;
        assert_eq!(vault.sign_ins(way), before + 1, "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_of_vault_is_renewed_before_it_ends() -> Result<()> {
    let (vault, [_, (_, settings), _]) = vault().await?;
    vault.lend_for(Duration::from_secs(1));
    let key = canary("renewed");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with("vault_renewed", &[setup], |config| {
        config.keys = KeysConfig { vault: Some(settings), ..KeysConfig::default() };
        Ok(())
    })
    .await?;
    let before = vault.sign_ins("approle");
    vault.renewed(3).await?;
    // The token that was lent at first has ended by now, and nobody had to sign in again.
    install(server.app.store(), &Setup { tenant: "globex", ..setup }).await?;
    assert_eq!(vault.sign_ins("approle"), before);
    Ok(())
}

#[tokio::test]
async fn what_vault_refuses_once_it_is_not_asked_for_with_ever_new_tokens() -> Result<()> {
    let (vault, [_, (_, settings), _]) = vault().await?;
    let key = canary("damaged");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with("vault_damaged", &[setup], |config| {
        config.keys = KeysConfig { vault: Some(settings), ..KeysConfig::default() };
        config.catalog.refresh_seconds = 3600;
        Ok(())
    })
    .await?;
    let bytes = if is_on_postgres() { "bytea" } else { "BLOB" };
    server.alter(&format!("UPDATE tenant_key SET wrapped = CAST('vault:v1:AAAA' AS {bytes})")).await?;
    let server = server.restart().await?;
    let before = vault.sign_ins("approle");
    let answer = server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("its secrets cannot be opened now"), "{answer}");
    assert_eq!(vault.sign_ins("approle"), before);
    Ok(())
}

#[tokio::test]
async fn an_outage_of_vault_is_survived_by_who_has_a_key_and_said_to_who_needs_one() -> Result<()> {
    let (vault, [_, (_, settings), _]) = vault().await?;
    let (acme_key, globex_key) = (canary("acme"), canary("globex"));
    let (acme, _) = RealUpstream::named("acme").serve(&acme_key, false).await?;
    let (globex, _) = RealUpstream::named("globex").serve(&globex_key, false).await?;
    let setups = [
        Setup { tenant: "acme", upstream: "desk", url: &acme, key: Some(&acme_key), level: Level::Write },
        Setup { tenant: "globex", upstream: "desk", url: &globex, key: Some(&globex_key), level: Level::Write },
    ];
    let server = TestServer::start_with("vault_outage", &setups, |config| {
        config.keys = KeysConfig { vault: Some(settings), ..KeysConfig::default() };
        // Only a call needs a tenant's key, so that the test says when.
        config.catalog.refresh_seconds = 3600;
        Ok(())
    })
    .await?;
    let server = server.restart().await?;
    let carol = server.client("carol", &["acme", "globex"])?;
    vault.seal(true);
    let answer = carol.call("globex__whoami", json!({})).await?;
    let refused =
        "upstream `desk` of tenant `globex` cannot be called: its secrets cannot be opened now; try again later";
    let known = "whoami at globex with {}";
    let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    // The first listing may have needed the key before Vault was gone.
    assert!(said == refused || said == known, "{answer}");
    vault.seal(false);
    let works = async |tenant: &str| {
        let answer = carol.call(&format!("{tenant}__whoami"), json!({})).await?;
        anyhow::Ok(answer["result"]["content"][0]["text"] == format!("whoami at {tenant} with {{}}"))
    };
    for tenant in ["acme", "globex"] {
        // A refusal is remembered for a moment, so that a provider in trouble is not asked by everybody.
        while !works(tenant).await? {}
    }
    vault.seal(true);
    for tenant in ["acme", "globex"] {
        assert!(works(tenant).await?, "{tenant}");
    }
    let error = open_store(&server.config).await.expect_err("a replica cannot start without Vault");
    let chain = anyhow::Error::from(error).chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(chain.contains("the key provider cannot be reached"), "{chain}");
    assert!(!server.logged()?.contains("CANARY-vault-says"), "Vault's own words are not repeated");
    Ok(())
}

#[tokio::test]
async fn a_deployment_moves_from_a_file_to_vault_and_to_vaults_next_version() -> Result<()> {
    let (vault, [(_, settings), ..]) = vault().await?;
    let key = canary("moving");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let file = Key::generate()?.encode();
    let server = TestServer::start_with("to_vault", &[setup], |config| {
        config.keys = keys(&file, &[]);
        Ok(())
    })
    .await?;
    let in_vault = KeysConfig { vault: Some(settings), ..KeysConfig::default() };
    let both = KeysConfig { retired: Some(file), ..in_vault.clone() };
    let store = store_with(&server, both).await?;
    while store.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    let keks = async |store: &Store| {
        let uses = store.kek_uses().await?;
        anyhow::Ok(uses.into_iter().map(|used| used.kek.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(keks(&store).await?, ["vault:transit/mcp-mux:v1"]);
    vault.rotate()?;
    let store = store_with(&server, in_vault.clone()).await?;
    while store.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    assert_eq!(keks(&store).await?, ["vault:transit/mcp-mux:v2"]);

    let mut config = server.config.clone();
    config.keys = in_vault;
    let server = TestServer { config, ..server }.restart().await?;
    let answer = server.client("alice", &["acme"])?.call("acme__whoami", json!({})).await?;
    assert_eq!(answer["result"]["content"][0]["text"], "whoami at acme with {}");
    Ok(())
}
