//! `mcp-mux key`: what scripts and services prove themselves with.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tenant_store::{
    ApiKey, ApiKeyId, ApiKeyName, Clock as _, IssuerName, NewApiKey, Store, Subject, SystemClock, TenantId, TenantSlug,
    Timestamp,
};

use super::recorded::{Done, record};
use super::{Output, Settings, print, print_json, say};
use crate::api_key::ApiKeySecret;
use crate::app::open_store;
use crate::caller::Principal;
use crate::config::Config;

/// Longest life that a key is given without saying `never`, in days.
const LIFE_DAYS_MAX: u64 = 366;

#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and prints it on stdout, once: it is not stored and cannot be shown again
    ///
    /// The key speaks for one principal and is in no group: it may do what grants allow that very subject. A service can have a
    /// namespace of its own, such as `--as scripts/nightly-report`, with a grant for `issuer: scripts`.
    Create(Create),
    /// Lists all keys, without what would let anybody in
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Takes a key back: servers refuse it within seconds
    Revoke {
        /// The id that `key list` prints
        id: ApiKeyId,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What you call it
    #[arg(long)]
    name: ApiKeyName,
    /// For whom it speaks
    #[arg(long = "as", value_name = "ISSUER/SUBJECT")]
    principal: Speaker,
    /// A tenant that it is good in; may be given more than once. Without it, all that grants allow
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<TenantSlug>,
    /// How long it is good: `90d`, `12h` or `never`
    #[arg(long, value_name = "TIME", default_value = "90d")]
    expires: Life,
}

/// For whom a key speaks.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    issuer: IssuerName,
    subject: Subject,
}

impl Speaker {
    pub(super) fn is(&self, principal: &Principal) -> bool {
        (&self.issuer, &self.subject) == (&principal.issuer, &principal.subject)
    }
}

impl FromStr for Speaker {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (issuer, subject) = text.split_once('/').context("write it as ISSUER/SUBJECT, such as corp/alice")?;
        Ok(Self { issuer: issuer.parse()?, subject: subject.parse()? })
    }
}

/// How long a key is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life(Option<Duration>);

impl FromStr for Life {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "never" {
            return Ok(Self(None));
        }
        let (hours_each, number) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
            (Some(days), _) => (24, days),
            (None, Some(hours)) => (1, hours),
            (None, None) => bail!("write it as 90d, 12h or never"),
        };
        let number: u64 = number.parse().context("write it as 90d, 12h or never")?;
        let hours = number.saturating_mul(hours_each);
        if hours == 0 || hours > LIFE_DAYS_MAX * 24 {
            bail!("a key is good for 1h to {LIFE_DAYS_MAX}d, or `never` ends");
        }
        Ok(Self(Some(Duration::from_hours(hours))))
    }
}

impl Key {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let store = open_store(&config).await?;
        match &self.action {
            Action::Create(create) => create.run(&config, &store).await,
            Action::List { output } => list(&store, *output).await,
            Action::Revoke { id } => revoke(&store, *id).await,
        }
    }
}

impl Create {
    async fn run(&self, config: &Config, store: &Store) -> Result<()> {
        let Speaker { issuer, subject } = &self.principal;
        let known =
            config.issuers.iter().map(|issuer| &issuer.name).chain(config.fronts.iter().map(|front| &front.name));
        if !known.into_iter().any(|name| name == issuer) {
            say(&format!("note: `{issuer}` is no configured issuer or front; grants can name it all the same"));
        }
        let secret = ApiKeySecret::generate().context("the system has no randomness to give")?;
        let new = NewApiKey {
            name: self.name.clone(),
            issuer: issuer.clone(),
            subject: subject.clone(),
            digest: secret.digest(),
            tenants: self.tenant_ids(store).await?,
            expires_at: self.expires.0.map(|life| SystemClock.now().plus(life)),
        };
        let key = store.add_api_key(&new).await?;
        let recorded =
            record(store, Done::to("key create", "key", &format!("{} for {issuer}/{subject}", key.id))).await;
        say(&format!("key {} speaks for {issuer}/{subject}; this is the only time it is shown:", key.id));
        print(secret.reveal()).and(recorded)
    }

    async fn tenant_ids(&self, store: &Store) -> Result<Option<Vec<TenantId>>> {
        if self.tenants.is_empty() {
            return Ok(None);
        }
        let mut ids = Vec::new();
        for slug in &self.tenants {
            let tenant = store.find_tenant(slug).await?;
            ids.push(tenant.with_context(|| format!("there is no tenant `{slug}`: apply its manifest first"))?.id);
        }
        Ok(Some(ids))
    }
}

async fn revoke(store: &Store, id: ApiKeyId) -> Result<()> {
    if !store.revoke_api_key(id).await? {
        bail!("there is no key {id} that is still good: `mcp-mux key list` shows all");
    }
    say(&format!("key {id} is taken back"));
    record(store, Done::to("key revoke", "key", &id)).await
}

async fn list(store: &Store, output: Output) -> Result<()> {
    let mut keys = Vec::new();
    for key in store.api_keys().await? {
        match key {
            Ok(key) => keys.push(key),
            Err(error) => super::report(&anyhow::Error::from(error)),
        }
    }
    let tenants = store.tenants().await?;
    let slug = |id: &TenantId| {
        let tenant = tenants.iter().find(|tenant| tenant.id == *id);
        tenant.map_or_else(|| "gone".to_owned(), |tenant| tenant.slug.to_string())
    };
    let slugs = |key: &ApiKey| key.tenants.as_ref().map(|ids| ids.iter().map(slug).collect::<Vec<_>>());
    let now = SystemClock.now();
    if output == Output::Json {
        let keys = keys.iter().map(|key| {
            json!({
                "id": key.id, "name": key.name, "issuer": key.issuer, "subject": key.subject, "tenants": slugs(key),
                "state": state(key, now), "createdAtMs": key.created_at.as_millis(),
                "expiresAtMs": key.expires_at.map(Timestamp::as_millis), "revokedAtMs": key.revoked_at.map(Timestamp::as_millis),
            })
        });
        return print_json(&keys.collect::<Vec<_>>());
    }
    for key in &keys {
        let tenants = slugs(key).map_or_else(|| "all tenants".to_owned(), |slugs| slugs.join(","));
        print(&format!(
            "{}  {:<8} {:<24} {}/{}  {tenants}",
            key.id,
            state(key, now),
            key.name,
            key.issuer,
            key.subject
        ))?;
    }
    if keys.is_empty() {
        say("there are no keys: `mcp-mux key create --help` tells how to make one");
    }
    Ok(())
}

fn state(key: &ApiKey, now: Timestamp) -> &'static str {
    match (key.revoked_at, key.is_good(now)) {
        (Some(_), _) => "revoked",
        (None, true) => "good",
        (None, false) => "expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_hours_days_or_endless() {
        let life = |text: &str| text.parse::<Life>().ok().map(|life| life.0);
        assert_eq!(life("12h"), Some(Some(Duration::from_hours(12))));
        assert_eq!(life("366d"), Some(Some(Duration::from_hours(366 * 24))));
        assert_eq!(life("never"), Some(None));
        for text in ["", "d", "0d", "-1d", "367d", "1w", "1.5h", "99999999999999999999d", "90"] {
            assert_eq!(life(text), None, "{text}");
        }
    }
}
