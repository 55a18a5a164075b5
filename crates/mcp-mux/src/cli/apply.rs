//! `mcp-mux apply`: makes the database hold what manifests say.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{Settings, administration, say_lines};
use crate::app::open_store;
use crate::manifest::{self, ApplyError, MANIFEST_BYTES_MAX, Manifest};

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Manifests: files, folders of `.yaml` files, or `-` for stdin
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Apply {
    pub(super) async fn run(&self) -> Result<()> {
        let mut manifests = Vec::new();
        for file in &self.files {
            read(file, &mut manifests)?;
        }
        let store = open_store(&self.settings.load()?).await?;
        let administration = administration();
        let report = manifest::apply(&store, &manifests, |tenant| administration.scope(tenant)).await;
        let report = report.map_err(|error| match error {
            ApplyError::Manifest(error) => show(error),
            error => anyhow::Error::from(error).context("nothing was applied"),
        })?;
        say_lines(&report.to_string());
        Ok(())
    }
}

fn read(file: &Path, manifests: &mut Vec<Manifest>) -> Result<()> {
    if file.is_dir() {
        let entries = fs::read_dir(file).with_context(|| format!("reading the folder {}", file.display()))?;
        let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
        paths.sort();
        ensure!(!paths.is_empty(), "the folder {} holds no .yaml file", file.display());
        return paths.iter().try_for_each(|path| read(path, manifests));
    }
    let mut text = String::new();
    let limit = MANIFEST_BYTES_MAX as u64 + 1;
    let length = if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(limit).read_to_string(&mut text))
    };
    let length = length.with_context(|| format!("reading {}", file.display()))?;
    ensure!(length <= MANIFEST_BYTES_MAX, "{} is larger than {MANIFEST_BYTES_MAX} bytes", file.display());
    manifests.push(manifest::parse(&file.display().to_string(), &text).map_err(show)?);
    Ok(())
}

/// An error with the line it is about, as miette draws it.
fn show(error: impl miette::Diagnostic + Send + Sync + 'static) -> anyhow::Error {
    anyhow::anyhow!("nothing was applied\n{:?}", miette::Report::new(error))
}
