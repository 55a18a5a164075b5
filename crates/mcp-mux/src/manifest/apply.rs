//! From documents to rows: one transaction and one revision, or nothing at all.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tenant_store::{
    Change, EgressHosts, Put, Revision, Store, StoreError, Tenant, TenantId, TenantScope, TenantSlug, TenantStore,
    Upstream, UpstreamSlug, UpstreamSpec,
};
use url::Url;

use super::Manifest;
use super::document::{Document, Kind, Object};
use super::error::{ManifestError, Source};

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of each object, in the order in which they were applied.
    pub applied: Vec<Applied>,
    /// The state of the configuration since then.
    pub revision: Revision,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its kind.
    pub kind: Kind,
    /// Its name, with that of its tenant in front.
    pub name: String,
    /// What became of it.
    pub put: Put,
    /// What is gone because it was for another address, or another authorization server.
    pub dropped: Dropped,
}

/// What an upstream that moved lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Secrets that an operator had set.
    pub secrets: usize,
    /// Accounts that callers had connected.
    pub accounts: usize,
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The documents do not fit together, or not to the database.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The database did not take an object.
    #[error("{kind} `{name}` cannot be stored; nothing was applied")]
    Object {
        /// Its kind.
        kind: Kind,
        /// Its name, with that of its tenant in front.
        name: String,
        /// Why not.
        source: StoreError,
    },
    /// The database failed.
    #[error("the database failed; nothing was applied")]
    Store(#[from] StoreError),
}

/// A document and the file it is from.
#[derive(Debug, Clone, Copy)]
struct Entry<'m> {
    file: &'m Arc<Source>,
    document: &'m Document,
}

/// An open change, and the tenants that documents named so far.
struct Applying<S> {
    change: Change,
    tenants: HashMap<TenantSlug, Tenant>,
    scope: S,
}

/// Makes the database hold what the manifests say; what they do not name stays as it is. Tenants come first, then upstreams,
/// then grants, wherever they stand.
pub async fn apply(
    store: &Store,
    manifests: &[Manifest],
    scope: impl Fn(TenantId) -> TenantScope,
) -> Result<Report, ApplyError> {
    let entries = in_order(manifests)?;
    let mut applying = Applying { change: store.begin().await?, tenants: HashMap::new(), scope };
    let mut applied = Vec::new();
    for entry in &entries {
        let object = entry.document.object();
        let (put, dropped) = applying.put(*entry).await?;
        applied.push(Applied { kind: object.kind(), name: object.name(), put, dropped });
    }
    // An upstream of these documents is shown where it says its address rather than where its tenant lists hosts.
    for kind in [Kind::Upstream, Kind::Tenant] {
        for entry in entries.iter().filter(|entry| entry.document.object().kind() == kind) {
            applying.check_hosts(*entry).await?;
        }
    }
    let revision = applying.change.commit().await?;
    Ok(Report { applied, revision })
}

/// All documents in the order of their kinds, each object once.
fn in_order(manifests: &[Manifest]) -> Result<Vec<Entry<'_>>, ManifestError> {
    let mut entries = Vec::new();
    let mut seen = HashMap::new();
    for manifest in manifests {
        for document in &manifest.documents {
            let object = document.object();
            if let Some(first) = seen.insert((object.kind(), object.name()), (manifest, document)) {
                let place = first.1.name_at.in_file(&first.0.source);
                let message = format!("this {} is defined at {place} already", object.kind());
                return Err(ManifestError::new(&manifest.source, document.name_at.problem("metadata.name", message)));
            }
            entries.push(Entry { file: &manifest.source, document });
        }
    }
    entries.sort_by_key(|entry| entry.document.object().kind());
    Ok(entries)
}

impl<S: Fn(TenantId) -> TenantScope> Applying<S> {
    /// What became of an object, and what it lost.
    async fn put(&mut self, entry: Entry<'_>) -> Result<(Put, Dropped), ApplyError> {
        let object = entry.document.object();
        let mut dropped = Dropped::default();
        let put = match object {
            Object::Tenant { slug, spec } => self.change.put_tenant(slug, spec).await.map(|(tenant, put)| {
                self.tenants.insert(slug.clone(), tenant);
                put
            }),
            Object::Upstream { slug, spec, .. } => {
                let rows = self.rows(entry).await?;
                dropped = drops(&rows, slug, spec).await?;
                rows.put_upstream(slug, spec).await.map(|(_, put)| put)
            }
            Object::Grant { name, spec, .. } => self.rows(entry).await?.put_grant(name, spec).await.map(|(_, put)| put),
        };
        let put = put.map_err(|source| ApplyError::Object { kind: object.kind(), name: object.name(), source })?;
        Ok((put, dropped))
    }

    /// Whether the hosts that a tenant is narrowed to cover its upstreams: an upstream of these documents, or, where a document is
    /// the tenant, all that it has.
    async fn check_hosts(&mut self, entry: Entry<'_>) -> Result<(), ApplyError> {
        let object = entry.document.object();
        let tenant = self.tenant(entry).await?;
        let Some(hosts) = tenant.spec.egress_hosts else { return Ok(()) };
        let outside = if let Object::Upstream { spec, .. } = object {
            let field = outside_field(&hosts, spec);
            field.map(|field| outside(entry, field, None))
        } else {
            let upstreams = self.change.tenant((self.scope)(tenant.id)).upstreams().await?;
            let other = upstreams.iter().find(|upstream| outside_field(&hosts, &upstream.spec).is_some());
            other.map(|upstream| outside(entry, "spec.egress.hosts", Some(&upstream.slug)))
        };
        outside.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The rows of a document's tenant.
    async fn rows(&mut self, entry: Entry<'_>) -> Result<TenantStore, ApplyError> {
        let tenant = self.tenant(entry).await?.id;
        Ok(self.change.tenant((self.scope)(tenant)))
    }

    /// A document's tenant, which is in the database or in an earlier document.
    async fn tenant(&mut self, entry: Entry<'_>) -> Result<Tenant, ApplyError> {
        let slug = entry.document.object().tenant();
        if let Some(tenant) = self.tenants.get(slug) {
            return Ok(tenant.clone());
        }
        let found = self.change.find_tenant(slug).await?.ok_or_else(|| unknown_tenant(entry, slug))?;
        self.tenants.insert(slug.clone(), found.clone());
        Ok(found)
    }
}

/// Which address of an upstream is at none of `hosts`.
fn outside_field(hosts: &EgressHosts, spec: &UpstreamSpec) -> Option<&'static str> {
    let server = spec.auth.authorization_server().and_then(|server| Url::parse(server).ok());
    let document = spec.protocol.document();
    if !hosts.cover(&spec.url) {
        Some(if document.is_some() { "spec.openapi.url" } else { "spec.http.url" })
    } else if document.is_some_and(|document| !hosts.cover(document)) {
        Some("spec.openapi.document")
    } else if server.is_some_and(|server| !hosts.cover(&server)) {
        Some("spec.auth")
    } else {
        None
    }
}

/// An upstream is at a host that its tenant is not narrowed to.
fn outside(entry: Entry<'_>, field: &str, upstream: Option<&UpstreamSlug>) -> ManifestError {
    let message = match upstream {
        None => "is at a host that the tenant's `spec.egress.hosts` does not list: add the host there".to_owned(),
        Some(slug) => format!("leaves out the host of the tenant's upstream `{slug}`: add it, or delete the upstream"),
    };
    ManifestError::new(entry.file, entry.document.host_at.problem(field, message))
}

/// What the upstream of that name has that does not go along to where `spec` says it is.
async fn drops(rows: &TenantStore, slug: &UpstreamSlug, spec: &UpstreamSpec) -> Result<Dropped, StoreError> {
    let Some(before) = rows.find_upstream(slug).await? else { return Ok(Dropped::default()) };
    if before.destination() == (Upstream { spec: spec.clone(), ..before.clone() }).destination() {
        return Ok(Dropped::default());
    }
    let secrets = rows.sealed_credentials().await?.iter().filter(|sealed| sealed.upstream() == before.id).count();
    let accounts = rows.accounts().await?.iter().filter(|account| account.upstream == before.id).count();
    Ok(Dropped { secrets, accounts })
}

fn unknown_tenant(entry: Entry<'_>, slug: &TenantSlug) -> ManifestError {
    let message =
        format!("there is no tenant `{slug}`, neither here nor in the database: add a document of kind `Tenant`");
    ManifestError::new(entry.file, entry.document.tenant_at.problem("metadata.tenant", message))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Applied { kind, name, put, dropped } in &self.applied {
            writeln!(f, "{:9}  {kind:8}  {name}", word(*put))?;
            if dropped.secrets > 0 {
                writeln!(
                    f,
                    "           its secrets were for another address and are gone: set them again with `mcp-mux secret set`"
                )?;
            }
            match dropped.accounts {
                0 => {}
                1 => writeln!(f, "           1 account of a caller was for another address and is gone")?,
                count => writeln!(f, "           {count} accounts of callers were for another address and are gone")?,
            }
        }
        let count = |wanted| self.applied.iter().filter(|applied| applied.put == wanted).count();
        let (created, changed, unchanged) = (count(Put::Created), count(Put::Changed), count(Put::Unchanged));
        write!(f, "{created} created, {changed} changed, {unchanged} unchanged; revision {}", self.revision)
    }
}

fn word(put: Put) -> &'static str {
    match put {
        Put::Created => "created",
        Put::Changed => "changed",
        Put::Unchanged => "unchanged",
    }
}
