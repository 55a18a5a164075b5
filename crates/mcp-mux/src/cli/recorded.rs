//! What the command line did, for the audit record. It is recorded once it is done: a kill switch waits for no record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenant_store::{AuditChain, Clock as _, Revision, Store, SystemClock, TenantId, TenantSlug};
use tokio::time::timeout;

use super::{administration, say};
use crate::audit::{Administered, Event, Head, What, record_once};
use crate::config;
use crate::manifest::{Became, Report};

/// How long the keys that sign and the database are waited for.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// What whoever did it should know if it is not recorded.
const UNKNOWN: &str = "it is done, but the audit record does not say so: write down that you did it";

/// Something that was done.
pub(super) struct Done {
    /// Whose it is; nobody's alone, if it is the platform's.
    pub(super) tenant: Option<TenantId>,
    /// In the words of the command line.
    pub(super) action: &'static str,
    /// To what, by kind and name.
    pub(super) thing: (&'static str, String),
}

impl Done {
    /// To something of the platform's.
    pub(super) fn to(action: &'static str, kind: &'static str, name: &impl ToString) -> Self {
        Self { tenant: None, action, thing: (kind, name.to_string()) }
    }

    /// To something of a tenant's.
    pub(super) fn of(tenant: TenantId, action: &'static str, kind: &'static str, name: &impl ToString) -> Self {
        Self { tenant: Some(tenant), ..Self::to(action, kind, name) }
    }

    fn event(self, became: Option<String>, revision: Option<Revision>) -> Event {
        let chain = self.tenant.map_or(AuditChain::Platform, |id| AuditChain::Tenant(administration().scope(id)));
        let Self { action, thing: (kind, name), .. } = self;
        let (operator, revision) = (config::operator(), revision.map(|Revision(revision)| revision));
        let what = What::Administration(Administered { operator, action, kind, name, became, revision });
        Event { at: SystemClock.now(), chain, what }
    }
}

/// Records it.
pub(super) async fn record(store: &Store, done: Done) -> Result<()> {
    record_all(store, vec![done.event(None, None)]).await.context(UNKNOWN)
}

/// The same for several.
pub(super) async fn record_each(store: &Store, done: Vec<Done>) -> Result<()> {
    if done.is_empty() {
        return Ok(());
    }
    record_all(store, done.into_iter().map(|done| done.event(None, None)).collect()).await.context(UNKNOWN)
}

/// Records what a directory said, if that was something new.
pub(super) async fn record_pushed(store: &Store, event: Option<Event>) -> Result<()> {
    let Some(event) = event else { return Ok(()) };
    record_all(store, vec![event]).await.context(UNKNOWN)
}

/// Records that something begins that takes long and may be broken off. Without that it does not begin.
pub(super) async fn record_begin(store: &Store, done: Done) -> Result<()> {
    let recorded = record_all(store, vec![done.event(Some("begun".to_owned()), None)]).await;
    recorded.context("nothing was done yet, but the audit record could not be written")
}

/// Records that it is over.
pub(super) async fn record_end(store: &Store, done: Done) -> Result<()> {
    record_all(store, vec![done.event(Some("finished".to_owned()), None)]).await.context(UNKNOWN)
}

/// Records what manifests changed: each object in its tenant's record, and that something was changed in the platform's.
pub(super) async fn record_report(store: &Store, action: &'static str, report: &Report) -> Result<()> {
    if !report.is_made || !report.is_a_change() {
        return Ok(());
    }
    let tenants = store.tenants().await.context(UNKNOWN)?;
    let ids: HashMap<&TenantSlug, TenantId> = tenants.iter().map(|tenant| (&tenant.slug, tenant.id)).collect();
    let changed: Vec<_> = report.applied.iter().filter(|applied| applied.became != Became::Unchanged).collect();
    let became = Some(format!("{} objects changed", changed.len()));
    let mut events = vec![Done::to(action, "manifests", &"").event(became, Some(report.revision))];
    for applied in changed {
        let slug = applied.name.split('/').next().unwrap_or_default();
        let tenant = slug.parse::<TenantSlug>().ok().and_then(|slug| ids.get(&slug).copied());
        let thing = (applied.kind.as_str(), applied.name.clone());
        let done = Done { tenant, action, thing };
        events.push(done.event(Some(applied.became.to_string()), Some(report.revision)));
    }
    record_all(store, events).await.context(UNKNOWN)
}

async fn record_all(store: &Store, events: Vec<Event>) -> Result<()> {
    let head = timeout(RECORD_TIMEOUT, record_once(store, Arc::new(SystemClock), events))
        .await
        .context("it took too long")??;
    if let Some(Head { writer, seq, hash, .. }) = head {
        // Whoever keeps that elsewhere has an anchor, as in the log of servers.
        say(&format!("audit checkpoint: {writer} {seq} {hash}"));
    }
    Ok(())
}
