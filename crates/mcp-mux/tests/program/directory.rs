//! What operators are told of a directory: who is in it, what groups somebody has, and whom it takes away.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use tenant_store::{
    Directory, DirectoryUser, NewDirectoryGroup, NewDirectoryUser, Revoked, Store, TenantSpec, UserChange,
};

use super::{configure, run, said};

const SETTINGS: &str = "[[directories]]\nissuer = \"corp\"\ntoken = \"CANARY-0123456789abcdef0123456789abcdef\"\n\
                        user = \"userName\"\ngroup = \"displayName\"\n";

/// A configuration with a directory in which alice, who is in acme's group, is known, and bob, who is not active; and the store.
async fn filled(folder: &Path) -> Result<(Store, Directory, DirectoryUser)> {
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let file = folder.join("mcp-mux.toml");
    fs::write(&file, format!("{}{SETTINGS}", fs::read_to_string(&file)?))?;
    let store = mcp_mux::open_store(&mcp_mux::config::Config::load(&file)?).await?;
    let change = store.begin().await?;
    change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme")).await?;
    change.commit().await?;
    let directory = store.directory(&"corp".parse()?);
    let new = |name: &str, is_active| {
        anyhow::Ok(NewDirectoryUser {
            subject: name.parse()?,
            external_id: None,
            user_name: name.parse()?,
            display_name: Some(format!("{name} of Corp").parse()?),
            is_active,
        })
    };
    let alice = directory.add_user(new("alice", true)?).await?;
    directory.add_user(new("bob", false)?).await?;
    let group = NewDirectoryGroup {
        name: "acme-staff".parse()?,
        external_id: None,
        display_name: "acme-staff".parse()?,
        members: vec![alice.id],
    };
    directory.add_group(group).await?;
    Ok((store, directory, alice))
}

fn told(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(folder, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn explain_takes_the_groups_from_the_directory_and_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    filled(folder).await?;
    let alice = told(folder, &["explain", "--as", "corp/alice"])?;
    for words in ["alice of corp", "groups of the directory of corp, as of ", "group acme-staff: no grant names it"] {
        assert!(alice.contains(words), "{alice}");
    }
    let json: Value = serde_json::from_str(&told(folder, &["explain", "--as", "corp/alice", "-o", "json"])?)?;
    assert_eq!(json.pointer("/groups/0").and_then(Value::as_str), Some("acme-staff"), "{json}");
    assert_eq!(json.pointer("/directory/state").and_then(Value::as_str), Some("active"), "{json}");
    // What is said on the command line is all that counts.
    let alice = told(folder, &["explain", "--as", "corp/alice", "--group", "other"])?;
    assert!(alice.contains("group other") && !alice.contains("acme-staff"), "{alice}");
    let bob = told(folder, &["explain", "--as", "corp/bob"])?;
    assert!(bob.contains("the directory of corp says that this user is not active: they are revoked"), "{bob}");
    assert!(bob.contains("; there are none"), "{bob}");
    let carol = told(folder, &["explain", "--as", "corp/carol"])?;
    assert!(carol.contains("the directory of corp knows no such user"), "{carol}");
    let anybody = told(folder, &["explain", "--as", "corp"])?;
    assert!(!anybody.contains("directory"), "{anybody}");
    Ok(())
}

#[tokio::test]
async fn who_is_in_a_directory_is_listed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    filled(folder).await?;
    let people = told(folder, &["directory", "people", "corp"])?;
    assert!(people.contains("active    alice") && people.contains("inactive  bob"), "{people}");
    let people: Value =
        serde_json::from_str(&told(folder, &["directory", "people", "corp", "--group", "acme-staff", "-o", "json"])?)?;
    assert_eq!(people.as_array().map(Vec::len), Some(1), "{people}");
    assert!(told(folder, &["directory", "groups", "corp/alice"])?.starts_with("acme-staff"));
    let bob: Value = serde_json::from_str(&told(folder, &["directory", "groups", "corp/bob", "-o", "json"])?)?;
    assert_eq!(bob.pointer("/user/state").and_then(Value::as_str), Some("inactive"), "{bob}");
    let carol = run(folder, &["directory", "groups", "corp/carol"])?;
    assert!(said(&carol).contains("knows no user carol") && !carol.status.success(), "{}", said(&carol));
    let empty = run(folder, &["directory", "people", "partner"])?;
    assert!(said(&empty).contains("the directory of partner is empty"), "{}", said(&empty));
    assert!(told(folder, &["directory", "--help"])?.contains("forget"));
    Ok(())
}

#[tokio::test]
async fn whom_the_directory_took_away_the_directory_lets_in_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (store, directory, alice) = filled(folder).await?;
    assert!(told(folder, &["revocations"])?.contains("corp/bob  since"));
    let refused = run(folder, &["reinstate", "user", "corp/bob"])?;
    let why = "the directory of corp says that this user is not active: let them in again there";
    assert!(said(&refused).contains(why) && !refused.status.success(), "{}", said(&refused));
    // An operator's own word is taken back, and the directory's stays.
    let what = Revoked::Principal { issuer: "corp".parse()?, subject: "alice".parse()? };
    store.revoke(&what, "by hand").await?;
    directory.change_user(alice.id, UserChange { is_active: Some(false), ..UserChange::default() }).await?;
    let half = run(folder, &["reinstate", "user", "corp/alice"])?;
    assert!(said(&half).contains("your revocation is taken back, but the directory"), "{}", said(&half));
    assert_eq!(store.still().await?.revocations().await?.len(), 2);
    // Without the settings it stays so, until it is forgotten.
    let configured = run(folder, &["directory", "forget", "corp"])?;
    assert!(said(&configured).contains("take it out of them first"), "{}", said(&configured));
    let file = folder.join("mcp-mux.toml");
    fs::write(&file, fs::read_to_string(&file)?.replace(SETTINGS, ""))?;
    assert!(told(folder, &["revocations"])?.contains("corp/bob"));
    ensure!(run(folder, &["directory", "forget", "corp"])?.status.success());
    let platform: Vec<Value> = serde_json::from_str(&told(folder, &["audit", "search", "-o", "json"])?)?;
    let forgotten = platform.iter().filter(|event| event["action"] == "directory forget");
    assert_eq!(forgotten.map(|event| event["name"].as_str()).collect::<Vec<_>>(), [Some("corp")], "{platform:#?}");
    assert!(run(folder, &["revocations"])?.stdout.is_empty());
    ensure!(!run(folder, &["directory", "forget", "corp"])?.status.success(), "there is nothing left");
    Ok(())
}
