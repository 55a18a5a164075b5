//! `mcp-mux revoke`, `reinstate` and `revocations`: the kill switches.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tenant_store::{
    ApiKeyId, DirectoryUser, Group, IssuerName, LocalName, Revision, Revocation, Revoked, SecretName, Store, Subject,
    TenantId, TenantSlug, UpstreamId, UpstreamSlug,
};

use super::recorded::{Done, record};
use super::{Output, Settings, administration, print, print_json, say, spelt_out};
use crate::app;
use crate::replicas::wait_for_replicas;

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(subcommand)]
    thing: Thing,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "", global = true)]
    reason: String,
    /// For how many seconds to wait until every replica has it
    #[arg(long, value_name = "SECONDS", default_value_t = 15, global = true)]
    wait: u64,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Reinstate {
    #[command(subcommand)]
    thing: Switch,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Revocations {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Thing {
    #[command(flatten)]
    Switch(Switch),
    /// An API key, for good
    Key {
        /// Its id
        id: ApiKeyId,
    },
    /// A secret that an upstream is called with, for good: calls that need it fail until another one is set
    Secret {
        /// TENANT/UPSTREAM/NAME
        secret: At<SecretName>,
    },
}

#[derive(Debug, Subcommand)]
enum Switch {
    /// Somebody: nobody is let in as them, whatever proves it, and their open streams end
    User {
        /// ISSUER/SUBJECT
        who: Of<Subject>,
    },
    /// A group: being in it gives nobody anything
    Group {
        /// ISSUER/GROUP
        group: Of<Group>,
    },
    /// A tenant: nobody reaches it, and nothing of it is called
    Tenant {
        /// Its short name
        tenant: TenantSlug,
    },
    /// An upstream: it is not called
    Upstream {
        /// TENANT/UPSTREAM
        upstream: Place,
    },
    /// A tool, prompt or resource, by the name that it has at its upstream
    Tool {
        /// TENANT/UPSTREAM/NAME
        tool: At<LocalName>,
    },
}

/// Somebody's name at an issuer.
#[derive(Debug, Clone)]
pub(super) struct Of<N> {
    pub(super) issuer: IssuerName,
    pub(super) name: N,
}

#[derive(Debug, Clone)]
struct Place {
    tenant: TenantSlug,
    upstream: UpstreamSlug,
}

/// Something at an upstream.
#[derive(Debug, Clone)]
struct At<N> {
    place: Place,
    name: N,
}

impl<N: FromStr<Err = tenant_store::NameError>> FromStr for Of<N> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (issuer, name) = text.split_once('/').context("write it as ISSUER/NAME, such as corp/alice")?;
        Ok(Self { issuer: issuer.parse()?, name: name.parse()? })
    }
}

impl<N: fmt::Display> fmt::Display for At<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.place.tenant, self.place.upstream, self.name)
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tenant, upstream) = text.split_once('/').context("write it as TENANT/UPSTREAM, such as acme/jira")?;
        Ok(Self { tenant: tenant.parse()?, upstream: upstream.parse()? })
    }
}

impl<N: FromStr<Err = tenant_store::NameError>> FromStr for At<N> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // A name at an upstream may have slashes in it.
        let wanted = "write it as TENANT/UPSTREAM/NAME, such as acme/jira/search";
        let (tenant, rest) = text.split_once('/').context(wanted)?;
        let (upstream, name) = rest.split_once('/').context(wanted)?;
        Ok(Self { place: Place { tenant: tenant.parse()?, upstream: upstream.parse()? }, name: name.parse()? })
    }
}

impl Switch {
    /// What is meant, which must be there.
    async fn found(&self, store: &Store) -> Result<Revoked> {
        Ok(match self {
            Self::User { who } => Revoked::Principal { issuer: who.issuer.clone(), subject: who.name.clone() },
            Self::Group { group } => Revoked::Group { issuer: group.issuer.clone(), group: group.name.clone() },
            Self::Tenant { tenant } => Revoked::Tenant { tenant: tenant_id(store, tenant).await? },
            Self::Upstream { upstream } => {
                let (tenant, upstream) = upstream.ids(store).await?;
                Revoked::Upstream { tenant, upstream }
            }
            Self::Tool { tool } => {
                let (tenant, upstream) = tool.place.ids(store).await?;
                Revoked::Tool { tenant, upstream, local: tool.name.clone() }
            }
        })
    }
}

impl Place {
    async fn ids(&self, store: &Store) -> Result<(TenantId, UpstreamId)> {
        let Self { tenant, upstream } = self;
        let id = tenant_id(store, tenant).await?;
        let found = store.tenant(administration().scope(id)).find_upstream(upstream).await?;
        let found = found.with_context(|| format!("tenant `{tenant}` has no upstream `{upstream}`"))?;
        Ok((id, found.id))
    }
}

async fn tenant_id(store: &Store, tenant: &TenantSlug) -> Result<TenantId> {
    let found = store.find_tenant(tenant).await?;
    Ok(found.with_context(|| format!("there is no tenant `{tenant}`"))?.id)
}

impl Revoke {
    pub(super) async fn run(&self) -> Result<()> {
        // Keys are not needed for it, and must not be waited for.
        let store = app::look_into(&self.settings.load()?).await?;
        let (revision, done) = match &self.thing {
            Thing::Switch(switch) => {
                let what = switch.found(&store).await?;
                let done = done(&store, "revoke", &what).await?;
                (Ok(store.revoke(&what, &self.reason).await?), done)
            }
            Thing::Key { id } => {
                ensure!(store.revoke_api_key(*id).await?, "there is no key {id} that is still good");
                (store.revision().await, Done::to("revoke", "key", id))
            }
            Thing::Secret { secret } => {
                let tenant = tenant_id(&store, &secret.place.tenant).await?;
                self.secret(&store, secret).await?;
                (store.revision().await, Done::of(tenant, "revoke", "secret", secret))
            }
        };
        say("revoked");
        let wait = async { in_force(&store, revision?, self.wait, "revoked").await };
        let (waited, recorded) = tokio::join!(wait, record(&store, done));
        waited.and(recorded)
    }

    async fn secret(&self, store: &Store, secret: &At<SecretName>) -> Result<()> {
        let (tenant, upstream) = secret.place.ids(store).await?;
        let rows = store.tenant(administration().scope(tenant));
        ensure!(rows.remove_credential(upstream, &secret.name).await?, "there is no secret `{}`", secret.name);
        Ok(())
    }
}

/// Waits until every replica has what was `done`, for as many seconds as that.
pub(super) async fn in_force(store: &Store, revision: Revision, seconds: u64, done: &str) -> Result<()> {
    let began = Instant::now();
    let behind = wait_for_replicas(store, revision, Duration::from_secs(seconds)).await?;
    if behind.is_empty() {
        let count = store.replicas().await?.len();
        let elapsed = began.elapsed().as_secs_f64();
        say(&format!("in force on all {count} replicas that were heard of in the last minute, after {elapsed:.1} s"));
        return Ok(());
    }
    let ids: Vec<_> = behind.iter().map(|replica| replica.beat.id.to_string()).collect();
    bail!(
        "it is {done}, but these replicas have not said that they know: {}. They have ended without a word, or are cut off from the \
         database and serve what they knew: see `mcp-mux replicas`",
        ids.join(", ")
    )
}

impl Reinstate {
    pub(super) async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let what = self.thing.found(&store).await?;
        let done = done(&store, "reinstate", &what).await?;
        let is_reinstated = store.reinstate(&what).await?.is_some();
        if is_reinstated {
            record(&store, done).await?;
        }
        if let Revoked::Principal { issuer, subject } = &what {
            let user = store.directory(issuer).of_subject(subject).await?;
            if let Some(user) = user.filter(DirectoryUser::is_away) {
                let done = if is_reinstated { "your revocation is taken back, but " } else { "" };
                let reason = user.state.reason(issuer);
                bail!("{done}{reason}: let them in again there, which reinstates them here, too");
            }
        }
        ensure!(is_reinstated, "it is not revoked: see `mcp-mux revocations`");
        say("reinstated");
        Ok(())
    }
}

impl Revocations {
    pub(super) async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let revocations = store.still().await?.revocations().await?;
        let mut names = Vec::new();
        for Revocation { what, .. } in &revocations {
            names.push(name(&store, what).await?);
        }
        if self.output == Output::Json {
            let all = revocations.iter().zip(&names).map(|(one, (kind, name))| {
                json!({ "kind": kind, "name": name, "reason": one.reason, "atMs": one.at.as_millis() })
            });
            return print_json(&all.collect::<Vec<_>>());
        }
        for (one, (kind, name)) in revocations.iter().zip(&names) {
            let since = super::replicas::date(one.at);
            print(&spelt_out(&format!("{kind:<8}  {name}  since {since}  {}", one.reason)))?;
        }
        if revocations.is_empty() {
            say("nothing is revoked");
        }
        Ok(())
    }
}

/// That it was done, for the record of whose thing it is.
async fn done(store: &Store, action: &'static str, what: &Revoked) -> Result<Done> {
    let thing = name(store, what).await?;
    Ok(Done { tenant: what.tenant(), action, thing })
}

/// As `reinstate` takes it.
async fn name(store: &Store, what: &Revoked) -> Result<(&'static str, String)> {
    Ok(match what {
        Revoked::Principal { issuer, subject } => ("user", format!("{issuer}/{subject}")),
        Revoked::Group { issuer, group } => ("group", format!("{issuer}/{group}")),
        Revoked::Tenant { tenant } => ("tenant", slug(store, *tenant).await?),
        Revoked::Upstream { tenant, upstream } => ("upstream", place(store, *tenant, *upstream).await?),
        Revoked::Tool { tenant, upstream, local } => {
            ("tool", format!("{}/{local}", place(store, *tenant, *upstream).await?))
        }
    })
}

async fn slug(store: &Store, id: TenantId) -> Result<String> {
    let tenants = store.tenants().await?;
    let found = tenants.iter().find(|tenant| tenant.id == id);
    Ok(found.map_or_else(|| id.to_string(), |tenant| tenant.slug.to_string()))
}

async fn place(store: &Store, tenant: TenantId, upstream: UpstreamId) -> Result<String> {
    let upstreams = store.tenant(administration().scope(tenant)).upstreams().await?;
    let found = upstreams.iter().find(|known| known.id == upstream);
    let name = found.map_or_else(|| format!("{upstream} (gone)"), |upstream| upstream.slug.to_string());
    Ok(format!("{}/{name}", slug(store, tenant).await?))
}
