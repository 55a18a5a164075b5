//! `mcp-mux migrate`: the database's schema.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use tenant_store::{Store, SystemClock};

use super::{Settings, say};
use crate::keys::KeyProviders;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    settings: Settings,
    /// Only say whether the database is up to date: exit status 1 if it is not
    #[arg(long)]
    check: bool,
}

impl Migrate {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let kek = Arc::new(KeyProviders::new(&config)?);
        let store = Store::open(&config.database.resolve()?, kek, Arc::new(SystemClock)).await?;
        if self.check {
            let pending = store.pending_migrations().await?;
            if !pending.is_empty() {
                bail!("the database lacks {}: run `mcp-mux migrate`", pending.join(", "));
            }
            say("the database is up to date");
        } else {
            say(&format!("{} migrations applied; the database is up to date", store.migrate().await?));
        }
        Ok(())
    }
}
