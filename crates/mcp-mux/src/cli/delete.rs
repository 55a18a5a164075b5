//! `mcp-mux delete`: takes an upstream, a grant or an access test away. `apply` does so only where it prunes.

use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use tenant_store::{AccessTestName, GrantName, TenantSlug, UpstreamSlug};

use super::recorded::record_report;
use super::{Settings, administration, say_lines};
use crate::app::open_store;
use crate::manifest::{self, Kind};

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
    /// Takes an access test away: nothing looks at it any more
    AccessTest {
        /// TENANT/NAME
        name: Named<AccessTestName>,
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
        let (kind, tenant, name) = match &self.thing {
            Thing::Grant { name } => (Kind::Grant, &name.tenant, name.name.as_str()),
            Thing::Upstream { name } => (Kind::Upstream, &name.tenant, name.name.as_str()),
            Thing::AccessTest { name } => (Kind::AccessTest, &name.tenant, name.name.as_str()),
        };
        let store = open_store(&self.settings.load()?).await?;
        let deleted = manifest::delete(&store, (kind, tenant, name), administration()).await;
        let report = deleted.context("nothing was taken away")?;
        let report = report.with_context(|| format!("there is no {kind} `{tenant}/{name}`"))?;
        say_lines(&report.to_string());
        record_report(&store, "delete", &report).await
    }
}
