//! `mcp-mux export` through the program, on the database that the tests run on.

use std::fmt::Write as _;

use secrecy::ExposeSecret as _;
use tenant_store::testing::TestDatabase;

use super::*;

/// Every way to prove ourselves to an upstream. `{ca}` is where a certificate goes.
const WAYS: &[&str] = &[
    "none",
    "{ bearer: { secret: key } }",
    "{ headers: { X-A: { secret: a }, Authorization: { secret: b } } }",
    "{ basic: { username: 'no', secret: pw } }",
    "{ query: { parameter: api_key, secret: key } }",
    "{ clientCredentials: { issuer: 'https://as.acme.example/a', clientId: '0', secret: client, clientAuth: post, scope: a b } }",
    "{ clientCredentials: { tokenUrl: 'https://as.acme.example/t', clientId: mux, privateKey: { secret: key }, keyId: '2026-11' } }",
    "{ tokenExchange: { issuer: 'https://as.acme.example', clientId: mux, secret: c, requestedTokenType: jwt, listing: none } }",
    "{ account: {} }",
    "{ account: { issuer: 'https://as.acme.example', client: { clientId: mux, secret: c }, listing: clientCredentials } }",
    "{ account: { listing: { account: { issuer: corp, subject: 'yes' } }, resource: 'https://r.acme.example' } }",
    "{ mtls: { secret: pair, ca: {ca} }, bearer: { secret: key } }",
    "{ awsSigV4: { accessKeyId: AKID, secretAccessKey: { secret: s }, sessionToken: { secret: t }, region: eu-1, service: x } }",
];

/// A configuration for that database, whose key lies in `folder`.
fn configure_for(database: &TestDatabase, folder: &Path) -> Result<()> {
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let text = fs::read_to_string(folder.join("mcp-mux.toml"))?;
    let (before, rest) = text.split_once("url = \"sqlite:").context("a database")?;
    let (_, after) = rest.split_once('\n').context("a line")?;
    let mut urls = format!("url = \"{}\"\n", database.url.expose_secret());
    if let Some(owner) = &database.owner_url {
        writeln!(urls, "owner_url = \"{}\"", owner.expose_secret())?;
    }
    Ok(fs::write(folder.join("mcp-mux.toml"), format!("{before}{urls}{after}"))?)
}

/// Two tenants with all that a manifest can say. The later one comes first.
fn everything() -> Result<String> {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = serde_json::to_string(&authority.self_signed(&rcgen::KeyPair::generate()?)?.pem())?;
    let mut text = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: globex }\nspec: { displayName: 'On: off' }\n---\n\
         kind: Tenant\nmetadata: { name: acme }\nspec: { egress: { hosts: ['*.acme.example'] } }\n---\n\
         kind: Grant\nmetadata: { tenant: acme, name: 'null' }\nspec: { issuer: corp, groups: ['*', '- a', \"\\u202e\", '数据'], \
         subjects: ['2026-11-26', '#1'], level: admin, tools: { allow: ['*'], deny: ['a: b', '!x', 'yes'] } }\n"
        .to_owned();
    for (number, auth) in WAYS.iter().enumerate() {
        let auth = auth.replace("{ca}", &ca);
        writeln!(
            text,
            "---\nkind: Upstream\nmetadata: {{ tenant: acme, name: '{number}' }}\nspec: {{ http: {{ url: \
             'https://mcp.acme.example/{number}?a=b' }}, auth: {auth}, prefix: 'no', onToolChange: quarantine, classes: {{ '@a': \
             admin, 'on': read }}, timeout: 2m, concurrency: 1, enabled: false }}"
        )?;
    }
    text.push_str(
        "---\nkind: AccessTest\nmetadata: { tenant: globex, name: '1', managedBy: 'on' }\nspec: { as: { issuer: corp, groups: [a], subject: \
         '2' }, cannot: ['*'] }\n---\nkind: Upstream\nmetadata: { tenant: globex, name: shop, managedBy: 'off' }\nspec: { openapi: { url: 'https://api.example/v2' }, auth: none \
         }\n---\nkind: Upstream\nmetadata: { tenant: globex, name: book }\nspec: { openapi: { url: 'https://api.example/v2', document: \
         'https://api.example/x.yaml' }, auth: none }\n",
    );
    Ok(text)
}

fn succeeds(output: Output) -> Result<Output> {
    ensure!(output.status.success(), "{}", said(&output));
    Ok(output)
}

#[tokio::test]
async fn what_is_exported_changes_nothing_when_it_is_applied_and_makes_the_same_elsewhere() -> Result<()> {
    let folders = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (folder, elsewhere) = (folders.0.path(), folders.1.path());
    let databases =
        (TestDatabase::new(&folder.join("here.db")).await, TestDatabase::new(&elsewhere.join("there.db")).await);
    configure_for(&databases.0, folder)?;
    configure_for(&databases.1, elsewhere)?;
    fs::write(folder.join("all.yaml"), everything()?)?;
    succeeds(run(folder, &["apply", "-f", "all.yaml"])?)?;
    succeeds(run_with(folder, &["secret", "set", "acme/1/key"], "CANARY-key")?)?;
    let before = said(&succeeds(run(folder, &["apply", "-f", "all.yaml"])?)?);
    let revision = before.rsplit("; ").next().context("a revision")?;

    let text = String::from_utf8(succeeds(run(folder, &["export"])?)?.stdout)?;
    ensure!(!text.contains("CANARY"), "{text}");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    let wanted =
        [vec!["Tenant"], vec!["Upstream"; WAYS.len()], vec!["Grant", "Tenant", "Upstream", "Upstream", "AccessTest"]]
            .concat();
    assert_eq!(names, wanted, "by tenant, then kind");

    let again = said(&succeeds(run_with(folder, &["apply", "-f", "-"], &text)?)?);
    let count = wanted.len();
    ensure!(again.contains(&format!("0 created, 0 changed, {count} unchanged; ")), "{again}");
    ensure!(again.trim_end().ends_with(revision.trim_end()), "{before}\n{again}");

    succeeds(run_with(elsewhere, &["apply", "-f", "-"], &text)?)?;
    let there = String::from_utf8(succeeds(run(elsewhere, &["export"])?)?.stdout)?;
    assert_eq!(there, text);

    let globex = String::from_utf8(succeeds(run(folder, &["export", "--tenant", "globex"])?)?.stdout)?;
    assert!(globex.contains("name: globex") && !globex.contains("acme"), "{globex}");
    let unknown = run(folder, &["export", "--tenant", "globe"])?;
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
    assert!(said(&unknown).contains("there is no tenant `globe`"), "{}", said(&unknown));
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_is_shredded_is_left_out_and_that_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let database = TestDatabase::new(&folder.join("here.db")).await;
    configure_for(&database, folder)?;
    upstream(folder, "https://mcp.acme.example/mcp", "none")?;
    succeeds(run(folder, &["keys", "shred", "acme", "--yes"])?)?;
    for arguments in [&["export"][..], &["export", "--tenant", "acme"]] {
        let exported = succeeds(run(folder, arguments)?)?;
        assert!(exported.stdout.is_empty());
        assert!(said(&exported).contains("tenant `acme` is left out: it is shredded"), "{}", said(&exported));
    }
    Ok(())
}

#[test]
fn exporting_migrates_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let refused = run(folder, &["export"])?;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(said(&refused).contains("mcp-mux migrate"), "{}", said(&refused));
    Ok(())
}
