//! `mcp-mux migrate`: the database's schema.

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Settings, say};
use crate::app;

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
        let store = app::connect(&config).await?;
        if self.check {
            store.require_migrations().await?;
            say("the database is up to date");
        } else {
            let owner = app::owner(&config, &store).await?.context(
                "tables of PostgreSQL belong to a role that does not serve: set `database.owner_url` to the URL of that role",
            )?;
            let applied = app::migrate(&config, &owner).await?;
            store.check_role().await?;
            say(&format!("{applied} migrations applied; the database is up to date"));
        }
        Ok(())
    }
}
