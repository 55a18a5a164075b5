//! `mcp-mux replicas`: which processes serve from this database, and what each of them has come to.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tenant_store::{Replica, Revision, Timestamp};

use super::{Output, Settings, print, print_json, say};
use crate::app::look_into;

/// From how long a silence on something is wrong: a replica speaks several times in that time.
const SILENT_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct Replicas {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

impl Replicas {
    pub(super) async fn run(&self) -> Result<()> {
        let store = look_into(&self.settings.load()?).await?;
        // Whoever comes to a revision says so later, so that nobody is ahead of it.
        let replicas = store.replicas().await?;
        let revision = store.revision().await?;
        if self.output == Output::Json {
            return print_json(&replicas.iter().map(|replica| described(replica, revision)).collect::<Vec<_>>());
        }
        for replica in &replicas {
            print(&line(replica, revision))?;
        }
        if replicas.is_empty() {
            say("no replica serves from this database");
        }
        Ok(())
    }
}

/// What is wrong with it, if anything is.
fn state(replica: &Replica, revision: Revision) -> String {
    let behind = revision.0.saturating_sub(replica.beat.revision.0);
    match (replica.silence >= SILENT_AFTER, behind) {
        (true, _) => "silent: it has ended, or is cut off from the database".to_owned(),
        (false, 0) => "up to date".to_owned(),
        (false, behind) => format!("behind by {behind}"),
    }
}

fn line(replica: &Replica, revision: Revision) -> String {
    format!(
        "{}  {:<8} since {}  seen {:>2} s ago  revision {}  {}",
        replica.beat.id,
        super::spelt_out(&replica.beat.version),
        date(replica.beat.started_at),
        replica.silence.as_secs(),
        replica.beat.revision,
        state(replica, revision),
    )
}

fn described(replica: &Replica, revision: Revision) -> Value {
    json!({
        "id": replica.beat.id, "version": replica.beat.version, "startedAtMs": replica.beat.started_at.as_millis(),
        "silentSeconds": replica.silence.as_secs(), "revision": replica.beat.revision.0,
        "behind": revision.0.saturating_sub(replica.beat.revision.0),
    })
}

/// As people read it, in UTC.
pub(super) fn date(at: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}
