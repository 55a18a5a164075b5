//! `mcp-mux account`: the accounts that callers connected at upstreams. An operator sees whose they are and takes them back, and
//! never what lies in them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tenant_store::{
    Account, CredentialOwner, SystemClock, Tenant, TenantSlug, TenantStore, Timestamp, Upstream, UpstreamSlug,
};

use super::key::Speaker;
use super::recorded::{Done, record_each};
use super::{Settings, administration, print, print_json, say};
use crate::app::open_store;
use crate::caller::Principal;
use crate::config::Config;
use crate::egress::Egress;
use crate::lifecycle::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{AccountPlace, Accounts, Pool};

#[derive(Debug, Args)]
pub(super) struct AccountCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists who has connected an account at which upstream
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Takes accounts back: they are deleted here, and revoked at their authorization servers
    ///
    /// Calls with them fail within a minute and tell their callers how to connect again. Without `--upstream` and `--principal`,
    /// `--all` must say that all of the tenant's are meant.
    Revoke {
        #[command(flatten)]
        chosen: Chosen,
        /// All accounts of the tenant
        #[arg(long, conflicts_with_all = ["upstream", "principal"])]
        all: bool,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

/// Which accounts.
#[derive(Debug, Args)]
struct Chosen {
    /// The tenant
    tenant: TenantSlug,
    /// At this upstream only
    #[arg(long)]
    upstream: Option<UpstreamSlug>,
    /// Of this principal only
    #[arg(long, value_name = "ISSUER/SUBJECT")]
    principal: Option<Speaker>,
}

/// An account, and where it is.
struct Found {
    upstream: Arc<Upstream>,
    principal: Principal,
    account: Account,
}

impl AccountCommand {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let (Action::List { chosen, .. } | Action::Revoke { chosen, .. }) = &self.action;
        let store = open_store(&config).await?;
        let tenant = store.find_tenant(&chosen.tenant).await?;
        let tenant = tenant.with_context(|| format!("there is no tenant `{}`", chosen.tenant))?;
        let rows = store.tenant(administration().scope(tenant.id));
        let found = chosen.find(&rows).await?;
        match &self.action {
            Action::List { json, .. } => list(&found, *json),
            Action::Revoke { all, json, .. } => {
                if !all && chosen.upstream.is_none() && chosen.principal.is_none() {
                    bail!("say which accounts: --upstream, --principal, or --all for all of the tenant's");
                }
                let accounts = accounts(&config, store.clone())?;
                let mut done = Vec::new();
                let revoked = revoke((&accounts, &tenant, &rows), &found, &mut done).await;
                let recorded = record_each(&store, done).await;
                revoked.and_then(|()| told(&found, *json)).and(recorded)
            }
        }
    }
}

/// The same accounts as a server has them, without a server.
fn accounts(config: &Config, store: tenant_store::Store) -> Result<Accounts> {
    let opens = (Egress::new(&config.egress)?, config.exchangers());
    let pool = Pool::new(opens, Metrics::unread().operations(None), (Tasks::default(), Arc::new(SystemClock)));
    Ok(Accounts::new(store, pool, config.public_url.clone()))
}

impl Chosen {
    async fn find(&self, rows: &TenantStore) -> Result<Vec<Found>> {
        let upstreams: Vec<_> = rows.upstreams().await?.into_iter().map(Arc::new).collect();
        if let Some(slug) = &self.upstream
            && !upstreams.iter().any(|upstream| upstream.slug == *slug)
        {
            bail!("tenant `{}` has no upstream `{slug}`", self.tenant);
        }
        let found = rows.accounts().await?.into_iter().filter_map(|account| {
            let upstream = upstreams.iter().find(|upstream| upstream.id == account.upstream)?;
            let CredentialOwner::Principal { issuer, subject } = &account.owner else { return None };
            let principal = Principal { issuer: issuer.clone(), subject: subject.clone() };
            let is_meant = self.upstream.as_ref().is_none_or(|slug| *slug == upstream.slug)
                && self.principal.as_ref().is_none_or(|wanted| wanted.is(&principal));
            is_meant.then(|| Found { upstream: Arc::clone(upstream), principal, account })
        });
        Ok(found.collect())
    }
}

fn list(found: &[Found], as_json: bool) -> Result<()> {
    if as_json {
        return print_found(found);
    }
    for Found { upstream, principal, account } in found {
        let connected_at = date(account.connected_at);
        // A subject is whatever its issuer says.
        let principal = super::spelt_out(&format!("{}/{}", principal.issuer, principal.subject));
        print(&format!("{:<20} {connected_at}  {principal}", upstream.slug))?;
    }
    if found.is_empty() {
        say("there are no such accounts");
    }
    Ok(())
}

/// As people read it, in UTC.
fn date(at: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

fn print_found(found: &[Found]) -> Result<()> {
    let found = found.iter().map(|Found { upstream, principal, account }| {
        json!({
            "upstream": upstream.slug.as_str(), "issuer": principal.issuer, "subject": principal.subject,
            "connectedAtMs": account.connected_at.as_millis(),
        })
    });
    print_json(&found.collect::<Vec<_>>())
}

/// Revokes one account after the other, and says which are.
async fn revoke(
    (accounts, tenant, rows): (&Accounts, &Tenant, &TenantStore),
    found: &[Found],
    done: &mut Vec<Done>,
) -> Result<()> {
    let stored = rows.sealed_credentials().await?;
    for Found { upstream, principal, .. } in found {
        let place = AccountPlace {
            scope: administration().scope(tenant.id),
            tenant: tenant.slug.clone(),
            upstream: Arc::clone(upstream),
            stored: stored.iter().filter(|sealed| sealed.upstream() == upstream.id).cloned().collect(),
            hosts: tenant.spec.egress_hosts.clone(),
        };
        let revoked = accounts.revoke(principal, &place).await;
        revoked.with_context(|| {
            format!("the account of {}/{} at upstream `{}`", principal.issuer, principal.subject, upstream.slug)
        })?;
        let name = format!("{}/{} at {}", principal.issuer, principal.subject, upstream.slug);
        done.push(Done::of(tenant.id, "account revoke", "account", &name));
    }
    Ok(())
}

fn told(found: &[Found], as_json: bool) -> Result<()> {
    if as_json {
        return print_found(found);
    }
    say(&format!("{} accounts are revoked; running servers stop using them within a minute", found.len()));
    Ok(())
}
