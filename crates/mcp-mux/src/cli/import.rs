//! `mcp-mux import`: the configurations of other programs as manifests.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tenant_store::{Group, IssuerName, TenantSlug};

use super::{print, say, spelt_out};
use crate::import::{self, Format, IMPORT_BYTES_MAX, Imported, Options, quoted};
use crate::manifest;

const MANIFEST: &str = "manifest.yaml";
const SECRETS: &str = "secrets.sh";
const REPORT: &str = "report.txt";

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Whose configuration it is
    #[arg(value_enum)]
    format: FormatName,
    /// Its file, such as `config.json`, `mcp_settings.json` or `claude_desktop_config.json`
    file: PathBuf,
    /// The tenant whose upstreams the servers become
    #[arg(long, value_name = "SLUG", default_value = "imported")]
    tenant: TenantSlug,
    /// The tenant is there already: leave it as it is
    #[arg(long)]
    existing: bool,
    /// Lets a group of this issuer use what is imported
    #[arg(long, value_name = "NAME", requires = "group")]
    issuer: Option<IssuerName>,
    /// The group
    #[arg(long, value_name = "GROUP", requires = "issuer")]
    group: Option<Group>,
    /// Write `manifest.yaml`, `secrets.sh` and `report.txt` into this folder, and nothing to stdout
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// Open WebUI's mcpo: the file of `mcpo --config`
    Mcpo,
    /// MetaMCP: what *Export JSON* writes
    Metamcp,
    /// MCPHub: `mcp_settings.json`
    Mcphub,
    /// Claude Desktop, Cursor, VS Code and others: `mcpServers`, or `servers`
    McpServersJson,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Mcpo => Self::Mcpo,
            FormatName::Metamcp => Self::MetaMcp,
            FormatName::Mcphub => Self::McpHub,
            FormatName::McpServersJson => Self::McpServersJson,
        }
    }
}

impl Import {
    pub(super) fn run(&self) -> Result<()> {
        let text = read(&self.file)?;
        let source = fs::canonicalize(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        let source = source.to_str().context("the path of the file must be UTF-8: `secrets.sh` names it")?;
        let options = Options {
            tenant: self.tenant.clone(),
            exists: self.existing,
            group: self.issuer.clone().zip(self.group.clone()),
        };
        let imported = import::import(self.format.into(), &self.file.display().to_string(), &text, &options)?;
        let manifest = manifest::write(&imported.objects)?;
        if let Some(folder) = &self.output {
            write(folder, &manifest, &imported, source)?;
        } else {
            for line in report(&imported).iter().chain(&commands(&imported, source)) {
                say(line);
            }
            if !manifest.is_empty() {
                print(manifest.trim_end())?;
            }
        }
        let (objects, secrets, notes) = (imported.objects.len(), imported.secrets.len(), imported.report.len());
        say(&format!("{objects} objects, {secrets} secrets to set, {notes} things to look at"));
        Ok(())
    }
}

/// All three files, or none where one is there already.
fn write(folder: &Path, manifest: &str, imported: &Imported, source: &str) -> Result<()> {
    for name in [MANIFEST, SECRETS, REPORT] {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already, and nothing is written: name another folder", path.display());
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let script = format!("#!/bin/sh\n{}\n", commands(imported, source).join("\n"));
    for (name, text) in [(MANIFEST, manifest), (SECRETS, &script), (REPORT, &(report(imported).join("\n") + "\n"))] {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    say(&format!("read {}, then:", folder.join(REPORT).display()));
    say(&format!("  mcp-mux apply -f {}", quoted(&folder.join(MANIFEST).display().to_string())));
    say(&format!("  sh {}", quoted(&folder.join(SECRETS).display().to_string())));
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let limit = IMPORT_BYTES_MAX as u64 + 1;
    let length = File::open(file).and_then(|opened| opened.take(limit).read_to_string(&mut text));
    let length = length.with_context(|| format!("reading {}", file.display()))?;
    ensure!(length <= IMPORT_BYTES_MAX, "{} is larger than {IMPORT_BYTES_MAX} bytes", file.display());
    Ok(text)
}

/// What could not be carried over. Names of the file are in it, so whatever a terminal would obey is spelt out.
fn report(imported: &Imported) -> Vec<String> {
    imported.report.iter().flat_map(|note| note.to_string().lines().map(spelt_out).collect::<Vec<_>>()).collect()
}

/// A script that sets the secrets. It says where each is found, and holds none.
fn commands(imported: &Imported, source: &str) -> Vec<String> {
    let mut lines = vec![
        "# Sets the secrets once the manifest is applied. It holds none: each is taken from where the configuration has it.".to_owned(),
        "set -eu".to_owned(),
        format!("SOURCE={}", quoted(source)),
    ];
    lines.extend(imported.secrets.iter().map(import::NeededSecret::command));
    if imported.secrets.is_empty() { Vec::new() } else { lines }
}
