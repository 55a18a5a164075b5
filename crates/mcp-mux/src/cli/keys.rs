//! `mcp-mux keys`: the key hierarchy. Data keys seal a tenant's secrets; key-encryption keys wrap data keys.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tenant_store::{
    Clock as _, DataKey, DataKeyState, ErasureCertificate, Progress, Store, Stuck, SystemClock, Tenant, TenantSlug,
};

use super::recorded::{Done, record, record_begin, record_end};
use super::{Output, Settings, administration, print, print_json, say, say_lines};
use crate::app::{open_store, open_unproved};
use crate::config;

/// From how many seals on a data key should be turned over: far below what is safe (2^32, NIST SP 800-38D §8.3).
const SEALS_WARN: u64 = 1 << 30;
/// From which age on a data key should be turned over, in days.
const AGE_WARN_DAYS: i64 = 365;
/// How many steps of a turn-over may bring nothing on before it gives up.
const IDLE_STEPS_MAX: u32 = 3;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says which keys are in use, how much lies under each, and what should be turned over
    Status {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Turns a key over while everything serves
    ///
    /// Can be stopped at any moment and started again: it goes on where it was. An old data key is destroyed once nothing is left
    /// under it.
    Rotate(Rotate),
    /// Destroys a tenant's keys, and with them all its secrets, for good
    ///
    /// The tenant is served no more and its name is not given away. Prints an erasure certificate on stdout and keeps it. Backups
    /// still hold the destroyed keys, wrapped: the certificate names the key-encryption keys that must go too.
    Shred {
        /// The tenant
        tenant: TenantSlug,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Prints the erasure certificate of a tenant that was shredded
    Certificate {
        /// The tenant
        tenant: TenantSlug,
    },
    /// Overwrites in the database's files what was deleted. Shredding and rotating do that by themselves unless somebody is reading
    Forget,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Rotate {
    /// Wrap all data keys under the present key-encryption key. First give every replica the new key as a retired one, then make it
    /// the primary one everywhere, then run this, then take the old one away
    #[arg(long)]
    kek: bool,
    /// Give this tenant a new data key, and seal all its secrets with it
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantSlug>,
}

impl Keys {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        match &self.action {
            Action::Rotate(rotate) => rotate.run(&open_store(&config).await?).await,
            // These must work where a key is missing: looking what is wrong, and destroying what is there.
            Action::Status { output } => status(&open_unproved(&config).await?, *output).await,
            Action::Shred { tenant, yes } => shred(&open_unproved(&config).await?, tenant, *yes).await,
            Action::Forget => forget(&open_unproved(&config).await?).await,
            Action::Certificate { tenant } => certificate(&open_unproved(&config).await?, tenant).await,
        }
    }
}

impl Rotate {
    async fn run(&self, store: &Store) -> Result<()> {
        match &self.tenant {
            Some(tenant) => rotate_tenant(store, tenant).await,
            None => rotate_kek(store).await,
        }
    }
}

/// Counts steps that bring nothing on, so that what cannot be read does not make a turn-over go on for ever.
#[derive(Default)]
struct Patience {
    stuck: Stuck,
    idle_steps: u32,
}

impl Patience {
    /// Whether another step is of use.
    fn goes_on(&mut self, progress: Progress, stuck_before: u64) -> bool {
        let moved = progress.done > 0 || self.stuck.count() > stuck_before;
        self.idle_steps = if moved { 0 } else { self.idle_steps + 1 };
        progress.left > self.stuck.count() && self.idle_steps < IDLE_STEPS_MAX
    }

    /// An error that names what is left, if anything is.
    fn finish(&self, left: u64, what: &str) -> Result<()> {
        for (stuck, error) in self.stuck.iter() {
            say(&format!("{stuck}: {error}"));
        }
        ensure!(
            left == 0,
            "{left} {what} could not be turned over and stay as they were; all others are. Mend or remove them, and run this again"
        );
        Ok(())
    }
}

async fn status(store: &Store, output: Output) -> Result<()> {
    let primary = store.key_encryption().primary().await.context("asking for the present key-encryption key")?;
    let uses = store.kek_uses().await?;
    let mut tenants = Vec::new();
    for tenant in store.tenants().await? {
        let keys = store.tenant(administration().scope(tenant.id)).data_keys().await?;
        tenants.push((tenant, keys));
    }
    if output == Output::Json {
        let keks = uses.iter().map(|used| {
            json!({ "id": used.kek, "primary": used.kek == primary, "tenantKeys": used.tenant_keys, "platformKeys": used.platform_keys })
        });
        let tenants = tenants.iter().map(|(tenant, keys)| {
            json!({ "tenant": tenant.slug, "state": tenant.state, "keys": keys.iter().map(as_json).collect::<Vec<_>>() })
        });
        let all = json!({
            "primary": primary, "keyEncryptionKeys": keks.collect::<Vec<_>>(), "tenants": tenants.collect::<Vec<_>>(),
        });
        return print_json(&all);
    }
    print("key-encryption key                          wraps")?;
    for used in &uses {
        let word = if used.kek == primary { "primary" } else { "old: `mcp-mux keys rotate --kek` empties it" };
        print(&format!(
            "{:<42}  {} of tenants, {} of the platform  ({word})",
            used.kek, used.tenant_keys, used.platform_keys
        ))?;
    }
    print("")?;
    print("tenant                data key              state         seals       secrets")?;
    for (tenant, keys) in &tenants {
        for key in keys {
            let row = (key.id.to_string(), key.state.as_str(), key.seals, key.credentials);
            print(&format!(
                "{:<20}  {:<20}  {:<12}  {:<10}  {}{}",
                tenant.slug,
                row.0,
                row.1,
                row.2,
                row.3,
                advice(key)
            ))?;
        }
    }
    Ok(())
}

fn as_json(key: &DataKey) -> serde_json::Value {
    json!({
        "id": key.id.to_string(), "state": key.state, "wrappedUnder": key.kek, "createdAtMs": key.created_at.as_millis(),
        "seals": key.seals, "secrets": key.credentials,
    })
}

fn advice(key: &DataKey) -> &'static str {
    let age_days = (SystemClock.now().as_millis() - key.created_at.as_millis()) / DAY_MS;
    match key.state {
        DataKeyState::DecryptOnly => "   a rotation is not finished: run it again",
        DataKeyState::Active if key.seals >= SEALS_WARN || age_days >= AGE_WARN_DAYS => "   turn it over",
        DataKeyState::Active | DataKeyState::Destroyed => "",
    }
}

async fn rotate_kek(store: &Store) -> Result<()> {
    let primary = store.key_encryption().primary().await.context("asking for the present key-encryption key")?;
    let rotated = || Done::to("keys rotate", "key-encryption key", &primary);
    record_begin(store, rotated()).await?;
    let (mut done, mut patience) = (0, Patience::default());
    let left = loop {
        let before = patience.stuck.count();
        let progress = store.rewrap_some(&mut patience.stuck).await?;
        done += progress.done;
        say(&format!("{done} keys wrapped under {primary}, {} left", progress.left));
        if !patience.goes_on(progress, before) {
            break progress.left;
        }
    };
    forget(store).await?;
    patience.finish(left, "data keys")?;
    let old: Vec<_> = store.kek_uses().await?.into_iter().filter(|used| used.kek != primary).collect();
    ensure!(
        old.is_empty(),
        "something was wrapped under another key meanwhile: is a replica still configured with the old one?"
    );
    say("nothing is left under any other key: the old ones can be taken out of the configuration");
    record_end(store, rotated()).await
}

async fn rotate_tenant(store: &Store, slug: &TenantSlug) -> Result<()> {
    let tenant = find(store, slug).await?;
    let rows = store.tenant(administration().scope(tenant.id));
    let rotated = || Done::of(tenant.id, "keys rotate", "tenant", slug);
    record_begin(store, rotated()).await?;
    if rows.is_rotating().await? {
        say("going on with a rotation that was not finished");
    } else {
        say(&format!("tenant `{slug}` has the new data key {}", rows.begin_rotation().await?));
    }
    let (mut done, mut patience) = (0, Patience::default());
    let left = loop {
        let before = patience.stuck.count();
        let progress = rows.reseal_some(&mut patience.stuck).await?;
        done += progress.done;
        say(&format!("{done} secrets sealed anew, {} left", progress.left));
        if !patience.goes_on(progress, before) {
            break progress.left;
        }
    };
    patience.finish(left, "secrets")?;
    forget(store).await?;
    say("nothing is left under the old key: it is destroyed");
    record_end(store, rotated()).await
}

/// Overwrites what was deleted, which a reader can hold up.
async fn forget(store: &Store) -> Result<()> {
    ensure!(
        store.forget_deleted().await?,
        "what was deleted is still in the write-ahead log beside the database file, because somebody is reading it (a backup?): run \
         `mcp-mux keys forget` once that has ended"
    );
    if store.has_roles() {
        say(
            "what was deleted stays in PostgreSQL's files until they are vacuumed, and in its log and backups while they are kept",
        );
    }
    Ok(())
}

async fn shred(store: &Store, slug: &TenantSlug, yes: bool) -> Result<()> {
    let tenant = find(store, slug).await?;
    if !yes {
        confirm(&tenant)?;
    }
    let certificate = store.shred(slug, &config::operator()).await?;
    // What signs may be behind the very key that is missing.
    let recorded = record(store, Done::of(tenant.id, "keys shred", "tenant", slug)).await;
    say_lines(&words(&certificate));
    let told = print_json(&certificate);
    forget(store).await.and(told).and(recorded)
}

async fn certificate(store: &Store, slug: &TenantSlug) -> Result<()> {
    let tenant = find(store, slug).await?;
    let certificate = store.erasure(tenant.id).await?;
    print_json(&certificate.with_context(|| format!("tenant `{slug}` was not shredded: there is no certificate"))?)
}

fn confirm(tenant: &Tenant) -> Result<()> {
    let stdin = std::io::stdin();
    ensure!(stdin.is_terminal(), "destroying keys asks for the tenant's name at a terminal; in a script say --yes");
    say(&format!(
        "This destroys the keys of `{}` ({}) and with them every secret stored for it. It cannot be undone.",
        tenant.slug, tenant.spec.display_name
    ));
    say("Type the tenant's short name to go on:");
    std::io::stderr().flush()?;
    let mut typed = String::new();
    stdin.read_line(&mut typed)?;
    if typed.trim() == tenant.slug.as_str() { Ok(()) } else { bail!("that is not its name: nothing was destroyed") }
}

/// What the certificate does and does not mean.
fn words(certificate: &ErasureCertificate) -> String {
    let keks = certificate.wrapped_under.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let done = format!(
        "tenant `{}` is shredded: {} data keys destroyed, {} ciphertexts deleted; the certificate is kept in the database.\n",
        certificate.tenant,
        certificate.key_ids.len(),
        certificate.ciphertexts
    );
    let backups = match keks.as_str() {
        "" => String::new(),
        keks => format!(
            "Backups from before still hold its keys, wrapped under {keks}. They open there until these are destroyed too: make a \
             new key-encryption key the primary one, run `mcp-mux keys rotate --kek`, and destroy the old ones; or wait until \
             the backups have expired. Restoring one brings the tenant back as it was: shred it again then.\n"
        ),
    };
    done + &backups
        + "Other replicas drop what they hold in memory within seconds; one that cannot reach the database, as soon as it can."
}

async fn find(store: &Store, slug: &TenantSlug) -> Result<Tenant> {
    store.find_tenant(slug).await?.with_context(|| format!("there is no tenant `{slug}`"))
}
