//! `mcp-mux audit`: looks into the audit record, writes it out, checks it, and shows the key that its signatures are checked with.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tenant_store::{
    AUDIT_PAGE_ROWS, AuditRow, Clock as _, Still, Store, SystemClock, Tenant, TenantScope, TenantSlug, Timestamp,
};

use super::recorded::{Done, record, record_begin, record_end};
use super::{Output, Settings, administration, print, print_json, say, spelt_out};
use crate::app::open_store;
use crate::audit::{self, Checked, FileReport, Found, Pruned, Pruning, PublicKey, Signer, Texts};
use crate::civil;
use crate::config::AUDIT_KEEP_DAYS;

/// How many events a search prints unless it is told otherwise.
const SHOWN_EVENTS: usize = 100;

#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists events, the latest first: the platform's, or a tenant's
    Search(Search),
    /// Writes a whole record to stdout, one JSON object on each line, with what is needed to check it
    Export(Whose),
    /// Checks the record: a file that `audit export` wrote, without any database, or all that the database holds
    ///
    /// Exit status 1 if anything was changed or is missing; it is said where.
    Verify {
        /// The file, or nothing for the database
        file: Option<PathBuf>,
        /// Check by this key alone, as `mcp-mux audit key` prints it, and not by those that the file names
        #[arg(long, value_name = "KEY", requires = "file")]
        key: Option<String>,
    },
    /// Deletes old events, which servers do by themselves where `audit.keep_days` says so
    ///
    /// Only what is signed and sound goes, and nothing of the last 30 days. What remains is checked and exported as before.
    Prune(Prune),
    /// Prints the public key that signatures are checked with
    Key {
        /// First make one, if the one that has signed is gone from the database and there is no backup of it
        #[arg(long)]
        new: bool,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// A tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantSlug>,
    /// The platform's
    #[arg(long)]
    platform: bool,
}

#[derive(Debug, Args)]
struct Search {
    /// A tenant's record; without it, the platform's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantSlug>,
    /// Only of this principal
    #[arg(long, value_name = "ISSUER/SUBJECT")]
    who: Option<String>,
    /// Only about what has this name, at its upstream or as clients see it
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only what happened in this time: `30m`, `12h`, `7d`
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = ago)]
    since: Duration,
    /// Only what was refused
    #[arg(long)]
    denied: bool,
    /// Show what is recorded of arguments and results, too, which is recorded itself
    #[arg(long, requires = "tenant")]
    content: bool,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = SHOWN_EVENTS)]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
struct Prune {
    /// Delete what was signed more than so many days ago; without it, as `audit.keep_days` says
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(AUDIT_KEEP_DAYS))]
    keep_days: Option<u64>,
    /// Only say how much that is
    #[arg(long)]
    dry_run: bool,
}

fn ago(text: &str) -> Result<Duration> {
    let wanted = "write it as 30m, 12h or 7d";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).context(wanted)?;
    let minutes_each = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => bail!(wanted),
    };
    let number: u64 = number.parse().context(wanted)?;
    Ok(Duration::from_secs(number.saturating_mul(minutes_each).saturating_mul(60)))
}

impl AuditCommand {
    pub(super) async fn run(&self) -> Result<()> {
        match &self.action {
            Action::Search(search) => search.run(&self.settings).await,
            Action::Export(whose) => whose.export(&self.settings).await,
            Action::Verify { file: Some(file), key } => verify_file(file, key.as_deref()),
            Action::Verify { file: None, .. } => verify_database(&self.settings).await,
            Action::Prune(prune) => prune.run(&self.settings).await,
            Action::Key { new, output } => show_key(&self.settings, *new, *output).await,
        }
    }
}

async fn tenant(store: &Store, slug: &TenantSlug) -> Result<Tenant> {
    store.find_tenant(slug).await?.with_context(|| format!("there is no tenant `{slug}`"))
}

async fn signer(store: &Store) -> Result<Signer> {
    Ok(Signer::of(store, &store.platform_keys().await?).await?)
}

impl Search {
    async fn run(&self, settings: &Settings) -> Result<()> {
        let config = settings.load()?;
        let store = if self.content { open_store(&config).await? } else { crate::app::look_into(&config).await? };
        let scope = match &self.tenant {
            Some(slug) => Some(administration().scope(tenant(&store, slug).await?.id)),
            None => None,
        };
        let now = SystemClock.now().as_millis();
        let since_ms = i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX);
        let since = Timestamp::from_millis(now.saturating_sub(since_ms));
        let mut found = self.found(&store.still().await?, scope, since).await?;
        if let Some(scope) = scope.filter(|_| self.content) {
            open_contents(&store, scope, &mut found).await?;
        }
        if self.output == Output::Json {
            return print_json(&found);
        }
        for event in &found {
            print(&spelt_out(&told(event)))?;
            for (name, text) in event["content"].as_object().into_iter().flatten() {
                print(&spelt_out(&format!(
                    "    {name}: {}",
                    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
                )))?;
            }
        }
        if found.is_empty() {
            say("nothing of that is recorded");
        }
        Ok(())
    }

    async fn found(&self, still: &Still, scope: Option<TenantScope>, since: Timestamp) -> Result<Vec<Value>> {
        let (mut found, mut skipped) = (Vec::new(), 0);
        loop {
            let rows: Vec<AuditRow> = match scope {
                Some(scope) => still.tenant(scope).audit_rows_since(since, skipped).await?,
                None => still.platform_audit_rows_since(since, skipped).await?,
            };
            skipped += rows.len() as u64;
            let is_end = (rows.len() as u64) < AUDIT_PAGE_ROWS;
            for row in rows {
                let event: Value = serde_json::from_str(&row.line).with_context(|| {
                    format!("event {} of {} is damaged: see `mcp-mux audit verify`", row.seq, row.writer)
                })?;
                if self.takes(&event) {
                    found.push(event);
                }
                if found.len() == self.limit {
                    return Ok(found);
                }
            }
            if is_end {
                return Ok(found);
            }
        }
    }

    fn takes(&self, event: &Value) -> bool {
        let who = || format!("{}/{}", text(event, "/who/issuer"), text(event, "/who/subject"));
        let is_named = |name: &String| ["/name", "/exposed"].iter().any(|place| text(event, place) == name);
        self.who.as_ref().is_none_or(|wanted| who() == *wanted)
            && self.tool.as_ref().is_none_or(is_named)
            && (!self.denied || text(event, "/decision") == "deny" || text(event, "/outcome") == "refused")
    }
}

/// Puts what was sealed of these calls in the place of what it is sealed as. That somebody looks is recorded first.
async fn open_contents(store: &Store, scope: TenantScope, found: &mut [Value]) -> Result<()> {
    let rows = store.tenant(scope);
    let Some(key) = rows.recording_key().await? else { return Ok(()) };
    let keys = rows.open_recording_key(&key).await?;
    record_begin(store, Done::of(scope.tenant(), "audit search --content", "record", &scope.tenant())).await?;
    for event in found {
        let request = event["requestId"].as_str().unwrap_or_default();
        let Some(sealed) = event["content"].as_str() else { continue };
        event["content"] = match Texts::open(&keys, (scope.tenant(), request), sealed) {
            Some(texts) => serde_json::to_value(texts)?,
            None => json!({ "unreadable": "it was sealed with another key, or changed" }),
        };
    }
    Ok(())
}

fn text<'e>(event: &'e Value, place: &str) -> &'e str {
    event.pointer(place).and_then(Value::as_str).unwrap_or_default()
}

/// One line for people.
fn told(event: &Value) -> String {
    let text = |place| text(event, place);
    let number = |place| event.pointer(place).and_then(Value::as_u64).unwrap_or(0);
    let who = || format!("{}/{}", text("/who/issuer"), text("/who/subject"));
    let said = match text("/event") {
        "call" => {
            let name = ["/exposed", "/name", "/nameSha256"].into_iter().map(text).find(|name| !name.is_empty());
            format!(
                "{} {} {} {}: {} ({}), {} after {} ms",
                who(),
                text("/method"),
                text("/kind"),
                name.unwrap_or_default(),
                text("/decision"),
                text("/reason"),
                text("/outcome"),
                number("/durationMs")
            )
        }
        "list" => {
            format!("{} was shown {} of {} tenants: {}", who(), text("/list"), number("/tenantCount"), text("/sha256"))
        }
        "account" => {
            format!("{} {} an account at {}: {}", who(), text("/action"), text("/upstream"), text("/outcome"))
        }
        "secret" => format!(
            "the {}'s credential at {}, to {}: {} times, {} in vain",
            text("/credential/owner"),
            text("/upstream"),
            text("/purpose"),
            number("/count"),
            number("/failed")
        ),
        "directory" => of_directory(event),
        "administration" => format!(
            "{}: {} {} {} {}",
            text("/operator"),
            text("/action"),
            text("/kind"),
            text("/name"),
            text("/became")
        ),
        "pruned" => format!("{} events from before {} were deleted", number("/events"), text("/before")),
        "lost" => format!("{} EVENTS ARE LOST", number("/count")),
        other => format!("{} {other}", text("/writer")),
    };
    format!("{}  {}", text("/at"), said.trim_end())
}

fn of_directory(event: &Value) -> String {
    let changes = event.pointer("/changes").and_then(Value::as_array).into_iter().flatten();
    let named = changes
        .map(|change| format!("{} {} {}", text(change, "/kind"), text(change, "/name"), text(change, "/became")));
    let count = event.pointer("/changeCount").and_then(Value::as_u64).unwrap_or(0);
    let by = [text(event, "/through"), text(event, "/operator")].join(" ");
    let named = named.collect::<Vec<_>>().join(", ");
    format!("the directory of {} by {}: {count} changes: {named}", text(event, "/issuer"), by.trim_end())
}

impl Whose {
    async fn export(&self, settings: &Settings) -> Result<()> {
        let store = open_store(&settings.load()?).await?;
        let signer = signer(&store).await?;
        let (scope, name) = match &self.tenant {
            Some(slug) => (Some(administration().scope(tenant(&store, slug).await?.id)), slug.to_string()),
            None => (None, "platform".to_owned()),
        };
        let still = store.still().await?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let left_out = audit::export(&still, (scope, &name), (&signer, SystemClock.now()), &mut out).await?;
        if left_out > 0 {
            say(&format!(
                "{left_out} events are not signed yet and left out: export again when the next checkpoint is over"
            ));
        }
        Ok(out.flush()?)
    }
}

impl Prune {
    async fn run(&self, settings: &Settings) -> Result<()> {
        let mut config = settings.load()?;
        config.audit.keep_days = self.keep_days.or(config.audit.keep_days);
        let kept = config.audit.kept().context("pass --keep-days, or set audit.keep_days: events are kept for ever")?;
        let store = open_store(&config).await?;
        let signer = signer(&store).await?;
        let before = audit::before(SystemClock.now(), kept);
        say(&format!("looking for what was signed before {}", civil::rfc3339(before)));
        let done = || Done::to("audit prune", "record", &format!("before {}", civil::rfc3339(before)));
        if !self.dry_run {
            record_begin(&store, done()).await?;
        }
        let mut pruned = Pruned::default();
        Pruning::new((&store, &signer), administration(), before, &mut pruned).dry(self.dry_run).run().await;
        let Pruned { events, tenants, wrong, failed, ended_by } = pruned;
        let said = if self.dry_run { "would be" } else { "were" };
        say(&format!("{events} events {said} deleted, of the platform's record and those of {tenants} tenants"));
        if let Some(error) = ended_by {
            return Err(error).context("there may be more: once this is mended, run it again");
        }
        if !self.dry_run {
            record_end(&store, done()).await?;
        }
        for (chain, wrong) in &wrong {
            say(&format!("{chain}: {wrong}"));
        }
        for (chain, error) in &failed {
            say(&format!("{chain}: {}", spelt_out(&error.to_string())));
        }
        ensure!(wrong.is_empty(), "something is wrong with what is old, and stays: see `mcp-mux audit verify`");
        ensure!(failed.is_empty(), "the records of {} could not be worked on", failed.len());
        Ok(())
    }
}

fn verify_file(path: &Path, key: Option<&str>) -> Result<()> {
    let key = match key {
        Some(key) => Some(PublicKey::parse(key).context("`--key` is no key: it is what `mcp-mux audit key` prints")?),
        None => None,
    };
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let report = audit::verify_file(BufReader::new(file), key.as_ref());
    let FileReport { chain, name, at, keys, found } = report.with_context(|| format!("reading {}", path.display()))?;
    let found = match found {
        Ok(found) => found,
        Err(wrong) => {
            let told: Vec<String> = wrong.iter().map(|(line, wrong)| format!("line {line}: {wrong}")).collect();
            bail!("{}, {}", path.display(), told.join("\n"));
        }
    };
    say(&format!("{name} ({chain}), as of {at}, last event {}: {}", found.last_at, summed_up(&found)));
    if key.is_none() {
        let keys: Vec<&str> = keys.iter().map(|key| key.public.as_str()).collect();
        say(&format!(
            "by the key that the file names: compare it with `mcp-mux audit key`, or pass --key. {}",
            keys.join(" ")
        ));
    }
    Ok(())
}

async fn verify_database(settings: &Settings) -> Result<()> {
    let store = open_store(&settings.load()?).await?;
    let report = audit::verify_store(&store, &signer(&store).await?, administration()).await?;
    let is_platform_sound = report.first().is_some_and(|platform| platform.wrong.is_empty());
    for (number, Checked { name, found, wrong }) in report.iter().enumerate() {
        let half = "; NOT CHECKED AGAINST ALL OF THE PLATFORM'S RECORD, in which something is wrong";
        let half = if number == 0 || is_platform_sound { "" } else { half };
        if wrong.is_empty() {
            say(&format!("{name}: {}{half}", summed_up(found)));
        }
        for wrong in wrong {
            say(&format!("{name}: {wrong}"));
        }
    }
    let wrong = report.iter().filter(|checked| !checked.wrong.is_empty()).count();
    ensure!(wrong == 0, "{wrong} of {} records are not as they were written", report.len());
    Ok(())
}

fn summed_up(found: &Found) -> String {
    let Found { events, checkpoints, unsigned, vouched, pruned, lost, .. } = found;
    let all =
        format!("{events} events and {checkpoints} checkpoints, nothing changed and nothing missing between them");
    let mut said = vec![all];
    if *pruned > 0 {
        said.push(format!("{pruned} older ones were deleted because their time was over, which is signed"));
    }
    if *unsigned > 0 {
        said.push(format!("the last {unsigned} events of their writers are not signed yet"));
    }
    if *vouched > 0 {
        said.push(format!("{vouched} events were not signed by their writers, which were killed, but later by others"));
    }
    if *lost > 0 {
        said.push(format!("{lost} EVENTS WERE LOST and never written"));
    }
    said.join("; ")
}

async fn show_key(settings: &Settings, new: bool, output: Output) -> Result<()> {
    let store = open_store(&settings.load()?).await?;
    if new {
        ensure!(
            store.renew_audit_key(&store.platform_keys().await?).await?,
            "there is a key that signs: nothing was made"
        );
    }
    let signer = signer(&store).await?;
    if new {
        record(&store, Done::to("audit key --new", "key", &signer.public().id)).await?;
    }
    let PublicKey { id, public } = signer.public();
    if output == Output::Json {
        return print_json(&json!({ "id": id, "public": public, "algorithm": "Ed25519" }));
    }
    say(&format!("{id} (Ed25519)"));
    print(public)?;
    Ok(())
}
