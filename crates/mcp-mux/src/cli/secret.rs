//! `mcp-mux secret`: what upstreams are called with. Write-only.

use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{
    SECRET_BYTES_MAX, SecretForm, SecretName, TenantSlug, TenantStore, Upstream, UpstreamId, UpstreamSlug,
};

use super::recorded::{Done, record};
use super::{Settings, administration, say};
use crate::app::open_store;
use crate::upstream::{SECRET_BYTES_MIN, check_secret};

/// How much is read: the longest secret, a line end, and one byte more, which shows that it is too long.
const READ_BYTES_MAX: u64 = SECRET_BYTES_MAX as u64 + 3;

#[derive(Debug, Args)]
pub(super) struct Secret {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Stores a secret, which is read from stdin: `mcp-mux secret set acme/jira/token < token.txt`
    Set {
        /// TENANT/UPSTREAM/NAME, where NAME is the one in the upstream's `auth`
        place: SecretPlace,
        /// Also under a name that the upstream's `auth` does not use (yet); the form of the value is not checked then
        #[arg(long)]
        force: bool,
    },
    /// Removes a secret
    Rm {
        /// TENANT/UPSTREAM/NAME
        place: SecretPlace,
    },
}

/// Where a secret belongs.
#[derive(Debug, Clone)]
struct SecretPlace {
    tenant: TenantSlug,
    upstream: UpstreamSlug,
    name: SecretName,
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.upstream, self.name)
    }
}

impl FromStr for SecretPlace {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let (Some(tenant), Some(upstream), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("write it as TENANT/UPSTREAM/NAME, such as acme/jira/token");
        };
        Ok(Self { tenant: tenant.parse()?, upstream: upstream.parse()?, name: name.parse()? })
    }
}

impl Secret {
    pub(super) async fn run(&self) -> Result<()> {
        let store = open_store(&self.settings.load()?).await?;
        let (Action::Set { place, .. } | Action::Rm { place }) = &self.action;
        let SecretPlace { tenant, upstream, name } = place;
        let found = store.find_tenant(tenant).await?;
        let found = found.with_context(|| format!("there is no tenant `{tenant}`: apply its manifest first"))?;
        let rows = store.tenant(administration().scope(found.id));
        let found = rows.find_upstream(upstream).await?;
        let found = found.with_context(|| format!("tenant `{tenant}` has no upstream `{upstream}`: apply it first"))?;
        match &self.action {
            Action::Set { force, .. } => {
                set(&rows, &found, name, *force).await?;
                record(&store, Done::of(rows.id(), "secret set", "secret", place)).await
            }
            Action::Rm { .. } => {
                remove(&rows, found.id, name).await?;
                record(&store, Done::of(rows.id(), "secret rm", "secret", place)).await
            }
        }
    }
}

async fn set(rows: &TenantStore, upstream: &Upstream, name: &SecretName, force: bool) -> Result<()> {
    let forms = forms(upstream, name);
    if forms.is_empty() && !force {
        bail!("{}", unused(upstream, name));
    }
    say(&format!("the secret `{name}` will be stored for {}", recipients(upstream, &forms)));
    let value = read_secret()?;
    if value.expose_secret().len() < SECRET_BYTES_MIN {
        say(&format!(
            "it has fewer than {SECRET_BYTES_MIN} bytes: where the upstream repeats it in an answer, callers will read it"
        ));
    }
    for form in &forms {
        check_secret(*form, &value).map_err(|rule| anyhow!("the secret `{name}` {rule}; nothing is stored"))?;
    }
    let version = rows.put_credential_for(upstream, name, &value).await?;
    say(&format!("secret `{name}` is stored for {}, version {version}", recipients(upstream, &forms)));
    Ok(())
}

/// What the upstream's `auth` uses the secret of that name for.
fn forms(upstream: &Upstream, name: &SecretName) -> Vec<SecretForm> {
    let used = upstream.spec.auth.secrets().into_iter().filter(|(used, _)| *used == name);
    used.map(|(_, form)| form).collect()
}

/// Where the secret will be shown: the one thing to look at twice before it is stored.
fn recipients(upstream: &Upstream, forms: &[SecretForm]) -> String {
    let issuer = upstream.spec.auth.authorization_server();
    let at_issuer = forms.iter().any(|form| form.is_for_authorization_server());
    let at_upstream = forms.iter().any(|form| !form.is_for_authorization_server());
    match issuer.filter(|_| at_issuer) {
        Some(issuer) if at_upstream => format!("{issuer} (the authorization server) and {}", upstream.origin()),
        Some(issuer) => format!("{issuer} (the authorization server of {})", upstream.origin()),
        None => upstream.origin(),
    }
}

fn unused(upstream: &Upstream, name: &SecretName) -> String {
    let used: Vec<String> = upstream.spec.auth.secrets().iter().map(|(name, _)| format!("`{name}`")).collect();
    let known = if used.is_empty() { "it uses none".to_owned() } else { format!("it uses {}", used.join(", ")) };
    format!(
        "the `auth` of upstream `{}` does not use a secret `{name}`: {known}. Apply a manifest that names it first, or store it \
         anyhow with --force",
        upstream.slug
    )
}

async fn remove(rows: &TenantStore, upstream: UpstreamId, name: &SecretName) -> Result<()> {
    if !rows.remove_credential(upstream, name).await? {
        bail!("there is no secret `{name}` to remove");
    }
    say(&format!("secret `{name}` is removed"));
    Ok(())
}

/// From stdin only: arguments are seen by everybody who lists processes. One line end after the secret is not a part of it.
fn read_secret() -> Result<SecretString> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("the secret is read from stdin: `mcp-mux secret set … < file`");
    }
    let mut text = String::new();
    stdin.by_ref().take(READ_BYTES_MAX).read_to_string(&mut text).context("reading the secret from stdin")?;
    let text = SecretString::from(text);
    let value = text.expose_secret();
    let value = value.strip_suffix('\n').unwrap_or(value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        bail!("a secret has from 1 to {SECRET_BYTES_MAX} bytes");
    }
    Ok(SecretString::from(value))
}
