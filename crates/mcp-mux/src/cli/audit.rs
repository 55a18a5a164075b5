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

use super::recorded::{Done, record};
use super::{Output, Settings, administration, print, print_json, say, spelt_out};
use crate::app::open_store;
use crate::audit::{self, Checked, FileReport, Found, PublicKey, Signer};

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
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = SHOWN_EVENTS)]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
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
        let store = crate::app::look_into(&settings.load()?).await?;
        let scope = match &self.tenant {
            Some(slug) => Some(administration().scope(tenant(&store, slug).await?.id)),
            None => None,
        };
        let now = SystemClock.now().as_millis();
        let since_ms = i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX);
        let since = Timestamp::from_millis(now.saturating_sub(since_ms));
        let found = self.found(&store.still().await?, scope, since).await?;
        if self.output == Output::Json {
            return print_json(&found);
        }
        for event in &found {
            print(&spelt_out(&told(event)))?;
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
    let Found { events, checkpoints, unsigned, vouched, lost, .. } = found;
    let all =
        format!("{events} events and {checkpoints} checkpoints, nothing changed and nothing missing between them");
    let mut said = vec![all];
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
