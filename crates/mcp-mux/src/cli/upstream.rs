//! `mcp-mux upstream`: what is done to an upstream that no document says.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use tenant_store::{TenantSlug, UpstreamSlug};

use super::recorded::{Done, record};
use super::revoke::in_force;
use super::{Settings, administration, say};
use crate::app;

#[derive(Debug, Args)]
pub(super) struct UpstreamCommand {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Has every replica begin anew with an upstream: one that is left alone because it failed is called again at once
    ///
    /// Connections, sessions and access tokens are made anew, too, and the upstream is asked for its lists. Calls that run go on. What is
    /// revoked or switched off stays so.
    Reset(Reset),
}

#[derive(Debug, Args)]
struct Reset {
    /// The tenant
    tenant: TenantSlug,
    /// Its upstream
    upstream: UpstreamSlug,
    /// For how many seconds to wait until every replica has it
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    wait: u64,
    #[command(flatten)]
    settings: Settings,
}

impl UpstreamCommand {
    pub(super) async fn run(&self) -> Result<()> {
        let Act::Reset(reset) = &self.act;
        reset.run().await
    }
}

impl Reset {
    async fn run(&self) -> Result<()> {
        let Self { tenant, upstream, wait, settings } = self;
        // Keys are not needed for it, and must not be waited for.
        let store = app::look_into(&settings.load()?).await?;
        let found = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant `{tenant}`"))?;
        let rows = store.tenant(administration().scope(found.id));
        let missing = || format!("tenant `{tenant}` has no upstream `{upstream}`");
        let id = rows.find_upstream(upstream).await?.with_context(missing)?.id;
        rows.reset_upstream(id).await?;
        say("reset");
        let revision = store.revision().await;
        let waited = async { in_force(&store, revision?, *wait, "reset").await };
        let done = Done::of(found.id, "reset", "upstream", &format!("{tenant}/{upstream}"));
        let (waited, recorded) = tokio::join!(waited, record(&store, done));
        waited.and(recorded)
    }
}
