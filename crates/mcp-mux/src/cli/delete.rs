//! `mcp-mux delete`: takes an upstream or a grant away. `apply` only makes and changes.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use tenant_store::{GrantName, TenantSlug, TenantStore, UpstreamSlug};

use super::{Settings, administration, say};
use crate::app::open_store;

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(subcommand)]
    thing: Thing,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Thing {
    /// Takes a grant away: whom it covered loses what no other grant allows, within seconds
    Grant {
        /// TENANT/NAME
        name: Named<GrantName>,
    },
    /// Takes an upstream away, with its tools and its stored secrets
    Upstream {
        /// TENANT/NAME
        name: Named<UpstreamSlug>,
    },
}

/// A thing of a tenant.
#[derive(Debug, Clone)]
struct Named<N> {
    tenant: TenantSlug,
    name: N,
}

impl<N: FromStr<Err = tenant_store::NameError>> FromStr for Named<N> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tenant, name) = text.split_once('/').context("write it as TENANT/NAME, such as acme/analysts")?;
        Ok(Self { tenant: tenant.parse()?, name: name.parse()? })
    }
}

impl Delete {
    pub(super) async fn run(&self) -> Result<()> {
        let (Thing::Grant { name: Named { tenant, .. } } | Thing::Upstream { name: Named { tenant, .. } }) =
            &self.thing;
        let store = open_store(&self.settings.load()?).await?;
        let found = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant `{tenant}`"))?;
        let rows = store.tenant(administration().scope(found.id));
        match &self.thing {
            Thing::Grant { name } => grant(&rows, name).await,
            Thing::Upstream { name } => upstream(&rows, name).await,
        }
    }
}

async fn grant(rows: &TenantStore, Named { tenant, name }: &Named<GrantName>) -> Result<()> {
    let grants = rows.grants().await?;
    let Some(grant) = grants.into_iter().find(|grant| grant.name == *name) else {
        bail!("tenant `{tenant}` has no grant `{name}`");
    };
    rows.remove_grant(grant.id).await?;
    say(&format!("grant `{tenant}/{name}` is taken away"));
    Ok(())
}

async fn upstream(rows: &TenantStore, Named { tenant, name }: &Named<UpstreamSlug>) -> Result<()> {
    let Some(upstream) = rows.find_upstream(name).await? else {
        bail!("tenant `{tenant}` has no upstream `{name}`");
    };
    rows.remove_upstream(upstream.id).await?;
    say(&format!("upstream `{tenant}/{name}` is taken away, with its tools and secrets"));
    Ok(())
}
