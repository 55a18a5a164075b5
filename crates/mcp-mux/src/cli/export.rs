//! `mcp-mux export`: what the database holds, as manifests.

use anyhow::{Context as _, Result};
use clap::Args;
use tenant_store::{TenantSlug, TenantState};

use super::{Settings, administration, print, say};
use crate::app;
use crate::manifest::{self, Unsaid};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Only this tenant and what it has
    #[arg(long, value_name = "SLUG")]
    tenant: Option<TenantSlug>,
    #[command(flatten)]
    settings: Settings,
}

impl Export {
    pub(super) async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let administration = administration();
        let only = self.tenant.as_ref();
        let exported = manifest::export(&store, only, |tenant| administration.scope(tenant)).await?;
        let exported = exported.with_context(|| match only {
            Some(slug) => format!("there is no tenant `{slug}`"),
            None => "there is no tenant".to_owned(),
        })?;
        let text =
            manifest::write_managed(exported.objects.iter().map(|(object, manager)| (object, manager.as_ref())))?;
        for unsaid in &exported.unsaid {
            say(&told(unsaid));
        }
        if !text.is_empty() {
            print(text.trim_end())?;
        }
        Ok(())
    }
}

/// What has to be known besides the manifests.
fn told(Unsaid { tenant, state }: &Unsaid) -> String {
    match state {
        TenantState::Shredded => {
            format!("tenant `{tenant}` is left out: it is shredded, and its name is not given again")
        }
        state => {
            format!("tenant `{tenant}` is {state}, which manifests do not say: where it is new, it will be active")
        }
    }
}
