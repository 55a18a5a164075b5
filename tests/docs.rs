//! What the documentation tells operators to write is what the program takes: each block of settings is read as it stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::Config;
use secrecy::ExposeSecret as _;

const BEGINNING: &str = "public_url = \"https://mcp.example.com\"\n";
const DATABASE: &str = "[database]\nurl = \"sqlite::memory:\"\n";
const KEYS: &str = "[keys]\nprimary_file = \"/run/secrets/key\"\n";
const ISSUER: &str = "\n[[issuers]]\nname = \"corp\"\nurl = \"https://idp.example.com\"\n";

/// A block with what else a configuration must have.
fn completed(block: &str) -> String {
    let database = if block.contains("[database]") { "" } else { DATABASE };
    let keys = if block.contains("[keys") { "" } else { KEYS };
    let issuer = if block.contains("[[issuers]]") || block.contains("[[fronts]]") { "" } else { ISSUER };
    format!("{BEGINNING}{database}{keys}{block}{issuer}")
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The blocks of a kind in a page.
fn blocks<'p>(page: &'p str, kind: &str) -> Vec<&'p str> {
    let opening = format!("```{kind}\n");
    page.split(&opening).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn every_block_of_settings_is_one_that_the_program_reads() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let secrets = tempfile::tempdir()?;
    for name in
        ["key", "mcp-mux-key", "mcp-mux-key-2025", "graph", "introspection", "login", "scim", "webui-jwt", "webui-key"]
    {
        fs::write(secrets.path().join(name), format!("{name}-0123456789abcdef0123456789abcdef0123456789abcdef"))?;
    }
    let mut found = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut found)?;
    let mut read = 0;
    for path in found {
        let page = fs::read_to_string(&path)?;
        for block in blocks(&page, "toml") {
            let whole = if block.contains("public_url") { block.to_owned() } else { completed(block) };
            let whole = whole.replace("/run/secrets/", &format!("{}/", secrets.path().display()));
            let file = secrets.path().join("mcp-mux.toml");
            fs::write(&file, &whole)?;
            Config::load(&file)
                .map_err(anyhow::Error::from)
                .with_context(|| format!("{}:\n{block}", path.display()))?;
            read += 1;
        }
    }
    ensure!(read >= 12, "only {read} blocks were found");
    Ok(())
}

/// A whole manifest, or the `auth` of an upstream.
fn manifest(block: &str) -> Option<String> {
    if block.contains("apiVersion: mcp-mux/v1") {
        return Some(block.to_owned());
    }
    let auth = block.starts_with("auth:").then(|| block.replace('\n', "\n  "))?;
    let head = "apiVersion: mcp-mux/v1\nkind: Upstream\nmetadata: { tenant: acme, name: jira }\nspec:\n";
    Some(format!("{head}  http: {{ url: https://mcp.acme.example/mcp }}\n  {auth}\n"))
}

#[test]
fn every_manifest_is_one_that_the_program_reads() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut found)?;
    let mut read = 0;
    for path in found {
        let page = fs::read_to_string(&path)?;
        for manifest in blocks(&page, "yaml").into_iter().filter_map(manifest) {
            mcp_mux::manifest::parse(&path.display().to_string(), &manifest)?;
            read += 1;
        }
    }
    ensure!(read >= 12, "only {read} manifests were found");
    Ok(())
}

#[test]
fn every_secret_that_a_page_sets_is_one_that_its_manifest_names() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/credentials.md"))?;
    let mut set = 0;
    for section in page.split("\n## ") {
        let manifests = blocks(section, "yaml").join("\n");
        for line in section.lines().filter(|line| line.contains("mcp-mux secret set acme/jira/")) {
            let name = line.split("acme/jira/").nth(1).and_then(|rest| rest.split_whitespace().next());
            let name = name.context("a name")?;
            ensure!(manifests.contains(&format!("secret: {name}")), "{line}");
            set += 1;
        }
    }
    ensure!(set >= 9, "only {set} secrets are set");
    Ok(())
}

#[test]
fn every_link_between_pages_leads_somewhere() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name)).to_vec();
    pages(&root.join("docs"), &mut found)?;
    for path in found {
        let page = fs::read_to_string(&path)?;
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = path.parent().context("a page lies in a folder")?;
            ensure!(folder.join(target).exists(), "{} links to {link}, which is not there", path.display());
        }
    }
    Ok(())
}

/// Without containers: what docker-compose.yml mounts is there once its preparation has run, and the configuration is read with it.
#[test]
fn what_compose_mounts_is_what_its_preparation_makes() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("prepare.sh");
    fs::copy(root.join("deploy/compose/prepare.sh"), &script)?;
    let prepare = || anyhow::Ok(Command::new("bash").arg(&script).output()?.status.success());
    ensure!(prepare()?);
    let secrets = folder.path().join("secrets");
    let key = fs::read(secrets.join("mcp-mux-key"))?;
    ensure!(prepare()? && fs::read(secrets.join("mcp-mux-key"))? == key, "what is there stays as it is");

    let compose = fs::read_to_string(root.join("docker-compose.yml"))?;
    let mut mounted = 0;
    for line in compose.lines().map(str::trim) {
        let path = line.strip_prefix("file: ./").or_else(|| line.strip_prefix("- ./")?.split(':').next());
        let Some(path) = path else { continue };
        let made = path.strip_prefix("deploy/compose/secrets/").map(|name| secrets.join(name));
        let file = made.unwrap_or_else(|| root.join(path));
        ensure!(file.exists(), "{} is mounted and not there", file.display());
        mounted += 1;
    }
    ensure!(mounted >= 8, "only {mounted} files are mounted");

    let settings = fs::read_to_string(root.join("deploy/compose/mcp-mux.toml"))?;
    let file = folder.path().join("mcp-mux.toml");
    fs::write(&file, settings.replace("/run/secrets/", &format!("{}/", secrets.display())))?;
    let config = Config::load(&file)?;
    let url = config.database.resolve()?.expose_secret().to_owned();
    let owner = config.database.resolve_owner()?.context("the owner migrates")?.expose_secret().to_owned();
    ensure!(url.starts_with("postgres://mux:") && owner.starts_with("postgres://mux_owner:") && url != owner);
    Ok(())
}

#[test]
fn each_attack_has_its_row_and_each_row_its_tests() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["tests", "crates"] {
        rust_files(&root.join(folder), &mut sources)?;
    }
    let sources: Vec<String> = sources.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    let page = fs::read_to_string(root.join("docs/security.md"))?;
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let numbers: Vec<String> = (1..=30).map(|number: u32| number.to_string()).collect();
    assert_eq!(rows.iter().filter_map(|row| row.first().copied()).collect::<Vec<_>>(), numbers);
    for row in rows {
        let [number, _, defence, tests] = row[..] else { anyhow::bail!("{row:?} has not four cells") };
        let names: Vec<&str> = tests.split_whitespace().map(|name| name.trim_matches('`')).collect();
        ensure!(!names.is_empty() || defence.starts_with("*not yet*"), "row {number} has no test");
        for name in names {
            let test = format!("fn {name}(");
            ensure!(sources.iter().any(|source| source.contains(&test)), "row {number}: there is no test {name}");
        }
    }
    Ok(())
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
