//! The program as scripts and operators meet it: what it prints, what it refuses, how it stops.

#![cfg(feature = "dev")]

#[path = "program/audit.rs"]
mod audit;
#[path = "program/export.rs"]
mod export;
#[path = "program/get.rs"]
mod get;
#[path = "program/import.rs"]
mod import;
#[path = "program/tools.rs"]
mod tools;
#[path = "program/usage.rs"]
mod usage;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

#[path = "program/access.rs"]
mod access;
#[path = "program/directory.rs"]
mod directory;

/// A program that runs, and is killed when the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    /// Presses Ctrl-C and waits for the end.
    fn interrupt(mut self) -> Result<(bool, String)> {
        let sent = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status()?;
        ensure!(sent.success(), "the signal was not sent");
        let ended = self.0.wait()?;
        let mut said = String::new();
        self.0.stderr.take().context("stderr is piped")?.read_to_string(&mut said)?;
        Ok((ended.success(), said))
    }
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-mux"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(program(folder).args(arguments).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration whose database and key lie in `folder`.
fn configure(folder: &Path, key: &str) -> Result<()> {
    fs::write(folder.join("key"), key)?;
    let text = format!(
        "public_url = \"http://127.0.0.1:1\"\n[http]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite://{folder}/mux.db?mode=rwc\"\n\
         [keys]\nprimary_file = \"{folder}/key\"\n[[issuers]]\nname = \"corp\"\nurl = \"http://127.0.0.1:2\"\n",
        folder = folder.display()
    );
    Ok(fs::write(folder.join("mcp-mux.toml"), text)?)
}

#[expect(clippy::disallowed_methods, reason = "a test's client is not bound by our egress rules")]
async fn listed(endpoint: &str, token: &str) -> Result<Vec<String>> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(endpoint)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string())
        .send()
        .await?;
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let tools = answer.pointer("/result/tools").and_then(Value::as_array).context("a list of tools")?;
    Ok(tools.iter().filter_map(|tool| Some(tool.get("name")?.as_str()?.to_owned())).collect())
}

#[tokio::test]
async fn dev_tells_scripts_who_sees_what_once_it_is_ready_and_ends_with_ctrl_c() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut child = program(folder.path());
    let child = child.args(["dev", "--json", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
    let facts: Value = serde_json::from_str(&line)?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let endpoint = text(&facts, "endpoint").context("an endpoint")?;
    ensure!(text(&facts, "issuer").is_some_and(|issuer| issuer.starts_with("http://127.0.0.1:")));

    if cfg!(target_os = "linux") {
        let limits = fs::read_to_string(format!("/proc/{}/limits", running.0.id()))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "no core dumps: {core}");
    }

    let users = facts.get("users").and_then(Value::as_array).context("users")?;
    let names: Vec<_> = users.iter().filter_map(|user| text(user, "name")).collect();
    assert_eq!(names, ["alice", "bob", "carol", "dave"]);
    for user in users {
        let promised: Vec<String> = serde_json::from_value(user.get("tools").cloned().unwrap_or_default())?;
        assert_eq!(listed(&endpoint, &text(user, "token").context("a token")?).await?, promised);
        assert_eq!(promised.is_empty(), text(user, "name").as_deref() == Some("dave"));
        assert_eq!(
            user.get("tenants").and_then(Value::as_array).map(Vec::is_empty),
            Some(promised.is_empty()),
            "{user}"
        );
    }
    explained_is_what_is_enforced(folder.path(), users)?;
    let (success, said) = running.interrupt()?;
    assert!(success, "{said}");
    Ok(())
}

/// What `mcp-mux explain` says of the people of `mcp-mux dev` is what they are shown there.
fn explained_is_what_is_enforced(folder: &Path, users: &[Value]) -> Result<()> {
    fs::write(
        folder.join("mcp-mux.toml"),
        "public_url = \"http://127.0.0.1:1\"\n[database]\nurl = \"sqlite://.mcp-mux/dev.db\"\n[keys]\n\
         primary_file = \".mcp-mux/dev.key\"\n[[issuers]]\nname = \"dev\"\nurl = \"http://127.0.0.1:2\"\n",
    )?;
    for user in users {
        let name = user.get("name").and_then(Value::as_str).context("a name")?;
        let groups: Vec<String> = serde_json::from_value(user.get("groups").cloned().unwrap_or_default())?;
        let promised: Vec<String> = serde_json::from_value(user.get("tools").cloned().unwrap_or_default())?;
        let whom = format!("dev/{name}");
        let mut arguments = vec!["explain", "--as", whom.as_str(), "-o", "json"];
        arguments.extend(groups.iter().flat_map(|group| ["--group", group.as_str()]));
        let answer = run(folder, &arguments)?;
        let explained: Value = serde_json::from_slice(&answer.stdout).with_context(|| said(&answer))?;
        let tools = explained.get("tools").and_then(Value::as_array).context("tools")?;
        let allowed = tools.iter().filter(|tool| tool.get("allowed") == Some(&Value::Bool(true)));
        let mut allowed: Vec<_> = allowed.filter_map(|tool| tool.get("tool")?.as_str()).collect();
        let mut promised: Vec<_> = promised.iter().map(String::as_str).collect();
        allowed.sort_unstable();
        promised.sort_unstable();
        assert_eq!(allowed, promised, "{name}");
    }
    // Of somebody who may not it says why, and what would have to change.
    let theirs = users.iter().find_map(|user| user.pointer("/tools/0")?.as_str()).context("a tool")?;
    let answer = run(folder, &["explain", "--as", "dev/dave", "--tool", theirs])?;
    let told = String::from_utf8(answer.stdout)?;
    for words in ["dave of dev", "1. no grant of tenant", "denied", "it would be allowed if they were in", "secret"] {
        assert!(told.contains(words), "{told}");
    }
    let unknown = run(folder, &["explain", "--as", "dev", "--group", "acme", "--tool", "acme__nothing"])?;
    assert!(said(&unknown).contains("no tenant that is served has a tool `acme__nothing`"), "{}", said(&unknown));
    Ok(())
}

#[test]
fn a_key_that_is_not_the_databases_is_refused_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    configure(folder.path(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let first = run(folder.path(), &["secret", "rm", "acme/jira/token"])?;
    assert!(said(&first).contains("there is no tenant `acme`"), "the database opens with its key: {}", said(&first));

    configure(folder.path(), "HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let second = run(folder.path(), &["serve"])?;
    assert!(!second.status.success());
    assert!(said(&second).contains("the database cannot be used"), "{}", said(&second));
    Ok(())
}

#[test]
fn a_mistake_on_the_command_line_or_in_a_file_is_told_in_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = run(folder.path(), &["serve"])?;
    assert!(!missing.status.success());
    assert!(said(&missing).contains("mcp-mux.toml"), "{}", said(&missing));

    configure(folder.path(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(
        folder.path().join("acme.yaml"),
        "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { title: acme }\nspec: {}\n",
    )?;
    let manifest = run(folder.path(), &["apply", "-f", "acme.yaml"])?;
    assert!(!manifest.status.success());
    assert!(said(&manifest).contains("acme.yaml") && said(&manifest).contains("title"), "{}", said(&manifest));
    Ok(())
}

/// Runs the program with something on its stdin.
fn run_with(folder: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let mut program = program(folder);
    program.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

#[test]
fn a_key_is_shown_once_listed_without_its_secret_and_taken_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    configure(folder.path(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let created =
        run(folder.path(), &["key", "create", "--name", "nightly", "--as", "scripts/report", "--expires", "1d"])?;
    let secret = String::from_utf8(created.stdout.clone())?.trim().to_owned();
    assert!(created.status.success() && secret.starts_with("mcpmux_"), "{}", said(&created));
    assert!(!said(&created).contains(&secret), "stdout alone holds it");

    let list = |state: &str| -> Result<String> {
        let listed = run(folder.path(), &["key", "list", "-o", "json"])?;
        let text = String::from_utf8(listed.stdout)?;
        assert!(!text.contains(&secret));
        let keys: Value = serde_json::from_str(&text)?;
        let key = keys.get(0).context("one key")?;
        assert_eq!(key.get("state").and_then(Value::as_str), Some(state), "{text}");
        Ok(key.get("id").and_then(Value::as_str).context("an id")?.to_owned())
    };
    let id = list("good")?;
    let explained = run_with(folder.path(), &["explain-token"], &secret)?;
    assert!(explained.status.success() && said(&explained).contains("scripts"), "{}", said(&explained));
    assert!(run(folder.path(), &["key", "revoke", &id])?.status.success());
    assert_eq!(list("revoked")?, id);
    assert!(!run(folder.path(), &["key", "revoke", &id])?.status.success(), "once is enough");
    let explained = run_with(folder.path(), &["explain-token"], &secret)?;
    assert!(!explained.status.success() && said(&explained).contains("mcp-mux key create"), "{}", said(&explained));
    Ok(())
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_mend_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    configure(folder.path(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let examined = run(folder.path(), &["doctor"])?;
    assert!(!examined.status.success());
    for words in ["NOT WELL  corp: discovery: it cannot be reached", "to mend it:", "NOT WELL  mcp-mux: metadata"] {
        assert!(said(&examined).contains(words), "{}", said(&examined));
    }
    Ok(())
}

/// A manifest of the upstream `acme/jira` at `url` with that `auth`.
fn upstream(folder: &Path, url: &str, auth: &str) -> Result<()> {
    let text = format!(
        "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: {{ name: acme }}\nspec: {{}}\n---\nkind: Upstream\n\
         metadata: {{ tenant: acme, name: jira }}\nspec: {{ http: {{ url: '{url}' }}, auth: {auth} }}\n"
    );
    fs::write(folder.join("acme.yaml"), text)?;
    let applied = run(folder, &["apply", "-f", "acme.yaml"])?;
    ensure!(applied.status.success(), "{}", said(&applied));
    Ok(())
}

#[test]
fn a_secret_is_stored_only_under_a_name_and_in_the_form_that_its_upstream_uses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let auth = "{ clientCredentials: { issuer: 'https://as.example/acme', clientId: mux, secret: client } }";
    upstream(folder, "https://mcp.acme.example/mcp", auth)?;

    let good = run_with(folder, &["secret", "set", "acme/jira/client"], "CANARY-client\n")?;
    let told = "secret `client` is stored for https://as.example/acme (the authorization server of https://mcp.acme.example), version 1";
    assert!(good.status.success() && said(&good).contains(told), "{}", said(&good));

    let unused = run_with(folder, &["secret", "set", "acme/jira/clients"], "CANARY-client\n")?;
    assert!(!unused.status.success());
    for words in ["does not use a secret `clients`: it uses `client`", "--force"] {
        assert!(said(&unused).contains(words), "{}", said(&unused));
    }
    assert!(run_with(folder, &["secret", "set", "--force", "acme/jira/clients"], "CANARY-client\n")?.status.success());

    let bad = run_with(folder, &["secret", "set", "acme/jira/client"], "CANARY-a\r\nX-Evil: 1")?;
    assert!(!bad.status.success());
    assert!(said(&bad).contains("the secret `client` must be 1 to 8192 visible ASCII characters"), "{}", said(&bad));
    assert!(!said(&bad).contains("CANARY") && !said(&bad).contains("Evil"), "{}", said(&bad));

    for (auth, name, value, words) in [
        ("{ bearer: { secret: key } }", "key", "CANARY a b", "without spaces"),
        ("{ basic: { username: svc, secret: pw } }", "pw", "CANARY-a\nb", "without control characters"),
        ("{ mtls: { secret: pair } }", "pair", "CANARY-no-pem", "one private key as PEM"),
        (
            "{ clientCredentials: { issuer: 'https://as.example', clientId: mux, privateKey: { secret: pem } } }",
            "pem",
            "CANARY-no-pem",
            "one private key as PEM, not encrypted",
        ),
    ] {
        upstream(folder, "https://mcp.acme.example/mcp", auth)?;
        let bad = run_with(folder, &["secret", "set", &format!("acme/jira/{name}")], value)?;
        assert!(!bad.status.success() && said(&bad).contains(words), "{}", said(&bad));
        assert!(!said(&bad).contains("CANARY"), "{}", said(&bad));
    }
    Ok(())
}

#[test]
fn applying_another_address_says_that_the_secrets_are_gone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    upstream(folder, "https://mcp.acme.example/mcp", "{ bearer: { secret: key } }")?;
    let stored = run_with(folder, &["secret", "set", "acme/jira/key"], "CANARY-key\n")?;
    assert!(
        said(&stored).contains("secret `key` is stored for https://mcp.acme.example, version 1"),
        "{}",
        said(&stored)
    );
    let text = fs::read_to_string(folder.join("acme.yaml"))?;
    for (from, to, gone) in [("/mcp'", "/other'", false), ("mcp.acme", "new.acme", true)] {
        fs::write(folder.join("acme.yaml"), text.replace(from, to))?;
        let applied = run(folder, &["apply", "-f", "acme.yaml"])?;
        assert!(applied.status.success());
        assert_eq!(
            said(&applied).contains("its secrets were for another address and are gone"),
            gone,
            "{}",
            said(&applied)
        );
    }
    Ok(())
}

/// Stores accounts at `acme/jira` as a server would.
#[expect(clippy::disallowed_methods, reason = "a test prepares the database as a server would")]
async fn connect(folder: &Path, people: &[&str]) -> Result<()> {
    let store = mcp_mux::open_store(&mcp_mux::config::Config::load(&folder.join("mcp-mux.toml"))?).await?;
    let tenant = store.find_tenant(&"acme".parse()?).await?.context("the tenant")?;
    let rows = store.tenant(tenant_store::TenantScope::of(tenant.id));
    let upstream = rows.find_upstream(&"jira".parse()?).await?.context("the upstream")?.id;
    for who in people {
        let owner = tenant_store::CredentialOwner::Principal { issuer: "corp".parse()?, subject: who.parse()? };
        let name = "account".parse()?;
        let kind = tenant_store::CredentialKind::Tokens;
        let slot = tenant_store::CredentialSlot { upstream, owner: &owner, name: &name, kind };
        rows.put_credential_in(slot, &"CANARY-tokens".into()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn accounts_are_listed_without_what_lies_in_them_and_taken_back_as_chosen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    upstream(folder, "https://mcp.acme.example/mcp", "{ account: {} }")?;
    connect(folder, &["alice", "bob", "a\u{9b}31m"]).await.expect_err("control characters are in no subject");
    connect(folder, &["alice", "bob", "carol"]).await?;

    let listed = |arguments: &[&str]| -> Result<Vec<String>> {
        let output = run(folder, &[&["account", "list", "acme", "--json"], arguments].concat())?;
        ensure!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout)?;
        ensure!(!text.contains("CANARY"), "{text}");
        let accounts: Vec<Value> = serde_json::from_str(&text)?;
        Ok(accounts.iter().filter_map(|account| Some(account.get("subject")?.as_str()?.to_owned())).collect())
    };
    assert_eq!(listed(&[])?, ["alice", "bob", "carol"]);
    assert_eq!(listed(&["--principal", "corp/bob", "--upstream", "jira"])?, ["bob"]);
    assert!(listed(&["--principal", "other/bob"])?.is_empty());
    let table = String::from_utf8(run(folder, &["account", "list", "acme"])?.stdout)?;
    assert!(table.contains("jira") && table.contains("corp/alice") && table.contains("GMT"), "{table}");

    let nothing = run(folder, &["account", "revoke", "acme"])?;
    assert!(!nothing.status.success() && said(&nothing).contains("--all"), "{}", said(&nothing));
    for (arguments, left) in [(&["--principal", "corp/bob"][..], 2), (&["--upstream", "jira"], 0)] {
        let revoked = run(folder, &[&["account", "revoke", "acme"], arguments].concat())?;
        assert!(revoked.status.success(), "{}", said(&revoked));
        assert_eq!(listed(&[])?.len(), left);
    }
    let unknown = run(folder, &["account", "list", "acme", "--upstream", "jra"])?;
    assert!(said(&unknown).contains("tenant `acme` has no upstream `jra`"), "{}", said(&unknown));
    Ok(())
}

#[test]
fn a_server_is_asked_whether_it_is_ready_and_listed_until_it_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let nowhere = run(folder, &["healthcheck"])?;
    assert!(!nowhere.status.success() && said(&nowhere).contains("set `admin.listen`"), "{}", said(&nowhere));

    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let told = |arguments: &[&str]| {
        let mut command = program(folder);
        command.env("MCP_MUX__ADMIN__LISTEN", format!("0.0.0.0:{port}")).env("MCP_MUX__HTTP__DRAIN_DELAY_SECONDS", "0");
        command.args(arguments);
        command
    };
    let listed =
        || -> Result<Vec<Value>> { Ok(serde_json::from_slice(&run(folder, &["replicas", "-o", "json"])?.stdout)?) };
    assert!(!told(&["healthcheck"]).output()?.status.success(), "nobody serves");
    ensure!(run(folder, &["migrate"])?.status.success());
    assert!(listed()?.is_empty());

    let mut running = Running(told(&["serve"]).stderr(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(running.0.stderr.take().context("stderr is piped")?).lines();
    ensure!(lines.any(|line| line.is_ok_and(|line| line.contains("mcp-mux serves"))), "it does not serve");
    let healthy = told(&["healthcheck"]).output()?;
    assert!(healthy.status.success() && said(&healthy).contains(r#""status":"ready""#), "{}", said(&healthy));
    while listed()?.is_empty() {}
    let replicas = listed()?;
    assert_eq!(replicas.iter().map(|replica| replica.get("behind")).collect::<Vec<_>>(), [Some(&json!(0))]);
    let table = String::from_utf8(run(folder, &["replicas"])?.stdout)?;
    assert!(table.starts_with("rep_") && table.contains("up to date"), "{table}");

    ensure!(Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status()?.success());
    // What it says until its end is read, so that it does not wait for a reader.
    lines.for_each(drop);
    assert!(running.0.wait()?.success());
    assert!(listed()?.is_empty(), "who has ended is not listed");
    Ok(())
}

#[test]
fn a_second_signal_ends_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    fs::write(
        folder.join("mcp-mux.toml"),
        fs::read_to_string(folder.join("mcp-mux.toml"))?
            .replace("[http]\n", "[http]\ndrain_delay_seconds = 600\n")
            .replace("[keys]\n", &format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n[keys]\n")),
    )?;
    let mut running = Running(program(folder).arg("serve").stderr(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(running.0.stderr.take().context("stderr is piped")?).lines();
    ensure!(lines.any(|line| line.is_ok_and(|line| line.contains("mcp-mux serves"))), "it does not serve");
    let id = running.0.id().to_string();
    let interrupt = || -> Result<()> {
        ensure!(Command::new("kill").args(["-INT", &id]).status()?.success(), "the signal was not sent");
        Ok(())
    };
    interrupt()?;
    let mut health = run(folder, &["healthcheck"])?;
    while health.status.success() {
        health = run(folder, &["healthcheck"])?;
    }
    assert!(said(&health).contains(r#"the server is not ready: {"status":"draining""#), "{}", said(&health));
    interrupt()?;
    assert!(running.0.wait()?.success());
    Ok(())
}
