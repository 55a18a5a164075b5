//! What operators do is in the audit record, which they look at, take along and check with the program.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::{configure, program, run, said};

const MANIFEST: &str = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: { displayName: Acme }\n---\n\
    kind: Upstream\nmetadata: { tenant: acme, name: desk }\nspec:\n  http: { url: https://mcp.acme.example/mcp }\n  \
    auth: { bearer: { secret: key } }\n";

fn told(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(folder, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn events(folder: &Path, whose: &[&str]) -> Result<Vec<Value>> {
    let mut arguments = vec!["audit", "search", "-o", "json"];
    arguments.extend(whose);
    Ok(serde_json::from_str(&told(folder, &arguments)?)?)
}

#[test]
fn what_operators_do_is_recorded_exported_and_checked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(folder.join("acme.yaml"), MANIFEST)?;
    told(folder, &["apply", "-f", "acme.yaml"])?;
    // What changes nothing is nothing that was done.
    told(folder, &["apply", "-f", "acme.yaml"])?;
    let mut set = program(folder).args(["secret", "set", "acme/desk/key"]).stdin(Stdio::piped()).spawn()?;
    set.stdin.take().map(|mut stdin| stdin.write_all(b"CANARY-secret-of-acme")).transpose()?;
    ensure!(set.wait()?.success());
    told(folder, &["revoke", "upstream", "acme/desk", "--reason", "CANARY-reason"])?;
    told(folder, &["reinstate", "upstream", "acme/desk"])?;
    let key = told(folder, &["key", "create", "--name", "k", "--as", "corp/robot", "--expires", "1h"])?;

    let acme = events(folder, &["--tenant", "acme"])?;
    let actions: Vec<_> = acme.iter().rev().filter_map(|event| event["action"].as_str()).collect();
    assert_eq!(actions, ["apply", "apply", "secret set", "revoke", "reinstate"], "{acme:#?}");
    let platform = events(folder, &[])?;
    let actions: Vec<_> = platform.iter().rev().filter_map(|event| event["action"].as_str()).collect();
    assert_eq!(actions, ["apply", "key create"]);
    let all = format!("{acme:?}{platform:?}");
    assert!(!all.contains("CANARY") && !all.contains(key.trim()), "{all}");

    told(folder, &["audit", "verify"])?;
    let public = told(folder, &["audit", "key"])?;
    let file = told(folder, &["audit", "export", "--tenant", "acme"])?;
    fs::write(folder.join("acme.ndjson"), &file)?;
    // It needs neither a database nor a configuration.
    let elsewhere = tempfile::tempdir()?;
    fs::copy(folder.join("acme.ndjson"), elsewhere.path().join("acme.ndjson"))?;
    told(elsewhere.path(), &["audit", "verify", "acme.ndjson", "--key", public.trim()])?;
    fs::write(elsewhere.path().join("acme.ndjson"), file.replacen("secret set", "secret rm", 1))?;
    let output = run(elsewhere.path(), &["audit", "verify", "acme.ndjson"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("acme.ndjson, line "), "{}", said(&output));
    Ok(())
}

#[test]
fn what_was_done_is_recorded_before_it_is_told_and_nobody_who_listens_is_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(folder.join("acme.yaml"), MANIFEST)?;
    let deaf = |arguments: &[&str]| {
        let mut program = program(folder);
        let mut child = program.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        ensure!(output.status.code() == Some(1) && said(&output).contains("writing to stdout"), "{}", said(&output));
        ensure!(said(&output).contains("audit checkpoint: wri_"), "{}", said(&output));
        Ok(())
    };
    deaf(&["apply", "-f", "acme.yaml", "-o", "json"])?;
    deaf(&["key", "create", "--name", "k", "--as", "corp/robot", "--expires", "1h"])?;
    told(folder, &["keys", "rotate", "--tenant", "acme"])?;
    deaf(&["keys", "shred", "acme", "--yes"])?;
    let actions = |whose: &[&str]| -> Result<Vec<String>> {
        let all = events(folder, whose)?;
        let done = all.iter().rev().filter(|event| event["event"] == "administration");
        Ok(done.map(|event| format!("{} {}", event["action"], event["became"]).replace('"', "")).collect())
    };
    assert_eq!(actions(&[])?, ["apply 2 objects changed", "key create null"]);
    let acme = actions(&["--tenant", "acme"])?;
    assert_eq!(acme[2..], ["keys rotate begun", "keys rotate finished", "keys shred null"], "{acme:?}");
    told(folder, &["audit", "verify"])?;
    Ok(())
}

#[test]
fn whoever_looks_at_what_calls_brought_is_recorded_first() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(
        folder.join("acme.yaml"),
        MANIFEST.replace("displayName: Acme }", "displayName: Acme, auditContent: all }"),
    )?;
    told(folder, &["apply", "-f", "acme.yaml"])?;
    assert!(told(folder, &["export"])?.contains("auditContent: all"));
    let looks = ["--tenant", "acme", "--content"];
    assert_eq!(events(folder, &looks)?.len(), 2, "what was applied");
    let acme = events(folder, &["--tenant", "acme"])?;
    assert_eq!((&acme[0]["action"], &acme[0]["became"]), (&"audit search --content".into(), &"begun".into()));
    let output = run(folder, &["audit", "search", "--content"])?;
    assert!(!output.status.success() && said(&output).contains("--tenant"), "{}", said(&output));

    let output = run(folder, &["audit", "prune"])?;
    assert!(said(&output).contains("--keep-days"), "{}", said(&output));
    let output = run(folder, &["audit", "prune", "--keep-days", "30"])?;
    assert!(said(&output).contains("31..=36500"), "{}", said(&output));
    let output = run(folder, &["audit", "prune", "--keep-days", "31", "--dry-run"])?;
    assert!(output.status.success() && said(&output).contains("0 events would be deleted"), "{}", said(&output));
    Ok(())
}
