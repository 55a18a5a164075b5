//! `mcp-mux apply`, `diff` and `validate`: makes the database hold what manifests say, or says what that would change.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tenant_store::Revision;

use super::recorded::record_report;
use super::{Output, Settings, administration, print_json, say, say_lines};
use crate::app::{self, open_store};
use crate::manifest::{self, ApplyError, MANIFEST_BYTES_MAX, Manifest, Options, Report};

#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    how: How,
    /// Only say what would change; nothing is applied
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    how: How,
    /// End with exit status 2 if anything would change
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
struct Files {
    /// Manifests: files, folders of `.yaml` files, or `-` for stdin
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct How {
    /// Take away what the managers of these documents (`metadata.managedBy`) managed before, and what is in none of them any more
    ///
    /// Tenants stay: with one would go everything that is sealed for it.
    #[arg(long)]
    prune: bool,
    /// Take over objects that another manager manages
    #[arg(long)]
    take_over: bool,
    /// Fail if the configuration is not at this revision, which `mcp-mux diff` says
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// How to print it: for people on stderr, or for programs on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Files {
    fn read(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for file in &self.files {
            read(file, &mut manifests)?;
        }
        Ok(manifests)
    }
}

impl How {
    fn options(&self, dry_run: bool) -> Options {
        let Self { prune, take_over, if_revision, .. } = *self;
        Options { dry_run, prune, take_over, if_revision: if_revision.map(Revision) }
    }

    fn tell(&self, report: &Report) -> Result<()> {
        match self.output {
            Output::Table => say_lines(&report.to_string()),
            Output::Json => print_json(report)?,
        }
        Ok(())
    }
}

impl Apply {
    pub(super) async fn run(&self) -> Result<()> {
        let manifests = self.files.read()?;
        let config = self.settings.load()?;
        let store = if self.dry_run { app::look_into(&config).await? } else { open_store(&config).await? };
        let report = manifest::apply(&store, &manifests, administration(), self.how.options(self.dry_run)).await;
        let report = report.map_err(not_applied)?;
        let recorded = record_report(&store, "apply", &report).await;
        self.how.tell(&report).and(recorded)?;
        if report.is_made {
            let made = manifest::make_recording_keys(&store, administration()).await;
            made.context(
                "everything is applied, but a tenant that wants arguments in its audit record has no key to seal them with, and they are \
                 not recorded: apply again",
            )?;
        }
        Ok(())
    }
}

impl Diff {
    /// `false` if the exit status has to say that something would change.
    pub(super) async fn run(&self) -> Result<bool> {
        let manifests = self.files.read()?;
        let store = app::look_into(&self.settings.load()?).await?;
        let report = manifest::apply(&store, &manifests, administration(), self.how.options(true)).await;
        let report = report.map_err(not_applied)?;
        self.how.tell(&report)?;
        Ok(!self.exit_code || !report.is_a_change())
    }
}

impl Validate {
    pub(super) fn run(&self) -> Result<()> {
        let manifests = self.files.read()?;
        let documents = manifest::validate(&manifests).map_err(show)?;
        say(&format!("{documents} documents are well formed; whether they fit the database, `mcp-mux diff` tells"));
        Ok(())
    }
}

fn not_applied(error: ApplyError) -> anyhow::Error {
    match error {
        ApplyError::Manifest(error) => show(error),
        error => anyhow::Error::from(error).context("nothing was applied"),
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
