//! From documents to rows: one transaction and one revision, or nothing at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tenant_store::{
    AccessTest, AuditContent, Change, EgressHosts, Managed, ManagedKind, ManagerName, Revision, Revoked, Store,
    StoreError, Tenant, TenantSlug, TenantState, TenantStore, Upstream, UpstreamSlug, UpstreamSpec,
};
use url::Url;

use super::Manifest;
use super::document::{Document, Kind, Object};
use super::effect::Effect;
use super::error::{ManifestError, Source};
use super::report::{Applied, Became, Dropped, Report};
use super::verify::{self, Finding, verify};
use crate::catalog::Snapshot;
use crate::policy::Administration;

/// How manifests are applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only say what would become of it.
    pub dry_run: bool,
    /// Take away what those who manage these documents managed before, and what is not in them any more.
    pub prune: bool,
    /// Take over what somebody else manages.
    pub take_over: bool,
    /// Fail if the configuration is not in this state any more.
    pub if_revision: Option<Revision>,
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
    /// The configuration is not what it was when somebody looked.
    #[error(
        "the configuration is at revision {found}, and not at {expected}: somebody changed it meanwhile; look at `mcp-mux diff` again"
    )]
    Moved {
        /// Where it should be.
        expected: Revision,
        /// Where it is.
        found: Revision,
    },
    /// There is nothing whose former part could be taken away.
    #[error(
        "`--prune` takes away what the same manager managed before: say `managedBy` under `metadata` of each document"
    )]
    NobodyManages,
    /// What is to be taken away is revoked.
    #[error(
        "upstream `{name}`, or a tool of it, is revoked: if it were taken away, another one of that name would not be; see `mcp-mux revocations`, \
         and reinstate it first"
    )]
    Revoked {
        /// Its name, with that of its tenant in front.
        name: String,
    },
    /// An access test fails.
    #[error("what these manifests say breaks access tests:{}", lines(.0))]
    Tests(Vec<Finding>),
    /// The database failed.
    #[error("the database failed; nothing was applied")]
    Store(#[from] StoreError),
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |lines, finding| lines + "\n  " + &finding.to_string())
}

/// A document and the file it is from.
#[derive(Debug, Clone, Copy)]
struct Entry<'m> {
    file: &'m Arc<Source>,
    document: &'m Document,
}

/// An open change, and what it is compared with.
struct Applying {
    change: Change,
    before: Snapshot,
    tests_before: Vec<AccessTest>,
    /// Those that documents named so far.
    tenants: HashMap<TenantSlug, Tenant>,
    /// Who managed what before, in the tenants that were asked about so far.
    managed: HashMap<TenantSlug, Vec<Managed>>,
    administration: Administration,
    options: Options,
    applied: Vec<Applied>,
    kept: Vec<String>,
}

/// Makes the database hold what the manifests say; what they do not name stays as it is, or is taken away where that is asked for.
/// Tenants come first, then upstreams, grants and access tests, wherever they stand.
pub async fn apply(
    store: &Store,
    manifests: &[Manifest],
    administration: Administration,
    options: Options,
) -> Result<Report, ApplyError> {
    let entries = in_order(manifests)?;
    let mut applying = Applying::begin(store, administration, options).await?;
    for entry in &entries {
        applying.put(*entry).await?;
    }
    // An upstream of these documents is shown where it says its address rather than where its tenant lists hosts.
    for kind in [Kind::Upstream, Kind::Tenant] {
        for entry in entries.iter().filter(|entry| entry.document.object().kind() == kind) {
            applying.check_hosts(*entry).await?;
        }
    }
    if options.prune {
        applying.prune(&entries).await?;
    }
    applying.finish().await
}

/// Makes the key of each tenant that wants arguments or results in its record and has no key to seal them with. Without it, what such a tenant's
/// calls bring is not recorded.
pub async fn make_recording_keys(store: &Store, administration: Administration) -> Result<(), StoreError> {
    let wants =
        |tenant: &Tenant| tenant.spec.audit_content != AuditContent::None && tenant.state != TenantState::Shredded;
    let mut failed = Ok(());
    for tenant in store.tenants().await?.into_iter().filter(wants) {
        let rows = store.tenant(administration.scope(tenant.id));
        // Another tenant's is made all the same.
        failed = failed.and(rows.make_recording_key().await.map(drop));
    }
    failed
}

/// Takes one object of a tenant away; none if there is no such object. A tenant is not taken away so.
pub async fn delete(
    store: &Store,
    (kind, tenant, name): (Kind, &TenantSlug, &str),
    administration: Administration,
) -> Result<Option<Report>, ApplyError> {
    let mut applying = Applying::begin(store, administration, Options::default()).await?;
    let Some(found) = applying.change.find_tenant(tenant).await? else { return Ok(None) };
    let rows = applying.change.tenant(administration.scope(found.id));
    applying.check_revoked((&found, kind.managed(), name)).await?;
    if !remove(&rows, kind.managed(), name).await? {
        return Ok(None);
    }
    applying.applied.push(Applied::removed(kind, tenant, name));
    applying.finish().await.map(Some)
}

/// Finds what is wrong with the manifests by themselves, whatever the database holds.
pub fn validate(manifests: &[Manifest]) -> Result<usize, ManifestError> {
    Ok(in_order(manifests)?.len())
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

impl Applying {
    async fn begin(store: &Store, administration: Administration, options: Options) -> Result<Self, ApplyError> {
        // Read before the turn to write is taken, so that others wait only for what changed since.
        let before = Snapshot::load_unrevoked(store, administration).await?;
        let change = store.begin().await?;
        let before = before.next_of(&change.so_far(), administration).await?;
        let tests_before = change.so_far().access_tests().await?;
        match options.if_revision {
            Some(expected) if expected != before.revision => {
                Err(ApplyError::Moved { expected, found: before.revision })
            }
            _ => Ok(Self {
                change,
                before,
                tests_before,
                tenants: HashMap::new(),
                managed: HashMap::new(),
                administration,
                options,
                applied: Vec::new(),
                kept: Vec::new(),
            }),
        }
    }

    /// Makes it last, unless it breaks an access test or was only to be looked at.
    async fn finish(self) -> Result<Report, ApplyError> {
        let Self { change, before, tests_before, applied, kept, options, administration, .. } = self;
        let still = change.so_far();
        let after = before.next_of(&still, administration).await?;
        let tests = still.access_tests().await?;
        // Others wait for their turn: whoever only looks needs it no more.
        let change = (!options.dry_run).then_some(change);
        drop(still);
        let tests = verify((&before, &tests_before), (&after, &tests));
        if !tests.failures.is_empty() {
            return Err(ApplyError::Tests(tests.failures));
        }
        let (is_made, revision) = match change {
            Some(change) => (true, change.commit().await?),
            None => (false, before.revision),
        };
        let (effects, unlisted) = (Effect::between(&before, &after), unlisted(&after, &before));
        Ok(Report { is_made, applied, kept, effects, unlisted, tests, revision })
    }

    async fn put(&mut self, entry: Entry<'_>) -> Result<(), ApplyError> {
        let object = entry.document.object();
        let is_taken_over = self.check_manager(entry).await?;
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
            Object::AccessTest { name, spec, .. } => self.rows(entry).await?.put_access_test(name, spec).await,
        };
        let put = put.map_err(|source| ApplyError::Object { kind: object.kind(), name: object.name(), source })?;
        let mut became = Became::from(put);
        if let Some(manager) = entry.document.manager.as_ref().filter(|_| is_taken_over) {
            let (kind, name) = (object.kind().managed(), object.own_name());
            self.rows(entry).await?.set_manager(kind, name, manager).await?;
            became = if became == Became::Unchanged { Became::Changed } else { became };
        }
        self.applied.push(Applied { kind: object.kind(), name: object.name(), became, dropped });
        Ok(())
    }

    /// Whether the document's manager becomes that of the object. What somebody else manages is not written over, unless that is meant; nor
    /// by a document that names nobody.
    async fn check_manager(&mut self, entry: Entry<'_>) -> Result<bool, ApplyError> {
        let object = entry.document.object();
        let take_over = self.options.take_over;
        let managed = self.managed_in(object.tenant()).await?;
        let (kind, name) = (object.kind().managed(), object.own_name());
        let present = managed.iter().find(|managed| managed.kind == kind && managed.name == name);
        match (present.map(|present| &present.manager), &entry.document.manager) {
            (Some(present), Some(manager)) if present == manager => Ok(false),
            (Some(present), _) if !take_over => Err(others(entry, present).into()),
            _ => Ok(true),
        }
    }

    /// Who managed what in a tenant before anything was applied: each object is applied once. Nothing, where there is no such tenant yet.
    async fn managed_in(&mut self, slug: &TenantSlug) -> Result<&[Managed], ApplyError> {
        if !self.managed.contains_key(slug) {
            let tenant = self.change.find_tenant(slug).await?;
            let managed = match tenant {
                Some(tenant) => self.change.tenant(self.administration.scope(tenant.id)).managed().await?,
                None => Vec::new(),
            };
            self.managed.insert(slug.clone(), managed);
        }
        Ok(self.managed.get(slug).map(Vec::as_slice).unwrap_or_default())
    }

    /// A revoked upstream stays: one that were made under its name later would not be revoked.
    async fn check_revoked(&self, (tenant, kind, name): (&Tenant, ManagedKind, &str)) -> Result<(), ApplyError> {
        if kind != ManagedKind::Upstream {
            return Ok(());
        }
        let rows = self.change.tenant(self.administration.scope(tenant.id));
        let upstreams = rows.upstreams().await?;
        let Some(found) = upstreams.iter().find(|upstream| upstream.slug.as_str() == name) else { return Ok(()) };
        let revocations = self.change.so_far().revocations().await?;
        let is_revoked = revocations.iter().any(|revocation| match &revocation.what {
            Revoked::Upstream { upstream, .. } | Revoked::Tool { upstream, .. } => *upstream == found.id,
            _ => false,
        });
        if is_revoked { Err(ApplyError::Revoked { name: format!("{}/{name}", tenant.slug) }) } else { Ok(()) }
    }

    /// Takes away what the managers of these documents managed and these documents do not have. A tenant is not taken away so: with
    /// it would go what is sealed for it.
    async fn prune(&mut self, entries: &[Entry<'_>]) -> Result<(), ApplyError> {
        let managers: HashSet<_> = entries.iter().filter_map(|entry| entry.document.manager.as_ref()).collect();
        if managers.is_empty() {
            return Err(ApplyError::NobodyManages);
        }
        let objects = entries.iter().map(|entry| entry.document.object());
        let named: HashSet<_> =
            objects.map(|object| (object.tenant(), object.kind().managed(), object.own_name())).collect();
        for tenant in self.change.so_far().tenants(None).await? {
            let tenant = tenant?;
            let rows = self.change.tenant(self.administration.scope(tenant.id));
            for Managed { kind, name, manager } in rows.managed().await? {
                if !managers.contains(&manager) || named.contains(&(&tenant.slug, kind, name.as_str())) {
                    continue;
                }
                self.check_revoked((&tenant, kind, &name)).await?;
                if remove(&rows, kind, &name).await? {
                    self.applied.push(Applied::removed(kind.into(), &tenant.slug, &name));
                } else if tenant.state != TenantState::Shredded {
                    self.kept.push(tenant.slug.to_string());
                }
            }
        }
        Ok(())
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
            let upstreams = self.change.tenant(self.administration.scope(tenant.id)).upstreams().await?;
            let other = upstreams.iter().find(|upstream| outside_field(&hosts, &upstream.spec).is_some());
            other.map(|upstream| outside(entry, "spec.egress.hosts", Some(&upstream.slug)))
        };
        outside.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The rows of a document's tenant.
    async fn rows(&mut self, entry: Entry<'_>) -> Result<TenantStore, ApplyError> {
        let tenant = self.tenant(entry).await?.id;
        Ok(self.change.tenant(self.administration.scope(tenant)))
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

/// Somebody else manages the object.
fn others(entry: Entry<'_>, manager: &ManagerName) -> ManifestError {
    let message = format!("`{manager}` manages this already: leave it to them, or take it over with `--take-over`");
    ManifestError::new(entry.file, entry.document.name_at.problem("metadata.managedBy", message))
}

/// Takes an object away; `false` if there is none, or if it is one that stays.
async fn remove(rows: &TenantStore, kind: ManagedKind, name: &str) -> Result<bool, StoreError> {
    match kind {
        ManagedKind::Tenant => Ok(false),
        ManagedKind::Upstream => {
            let upstreams = rows.upstreams().await?;
            match upstreams.iter().find(|upstream| upstream.slug.as_str() == name) {
                Some(upstream) => rows.remove_upstream(upstream.id).await,
                None => Ok(false),
            }
        }
        ManagedKind::Grant => {
            let grants = rows.grants().await?;
            match grants.iter().find(|grant| grant.name.as_str() == name) {
                Some(grant) => rows.remove_grant(grant.id).await,
                None => Ok(false),
            }
        }
        ManagedKind::AccessTest => {
            let tests = rows.access_tests().await?;
            match tests.iter().find(|test| test.name.as_str() == name) {
                Some(test) => rows.remove_access_test(&test.name).await,
                None => Ok(false),
            }
        }
    }
}

/// The upstreams that were not there before and of which nothing is known.
fn unlisted(after: &Snapshot, before: &Snapshot) -> Vec<String> {
    let (mut unlisted, known) = (verify::unlisted(after), verify::unlisted(before));
    unlisted.retain(|tenant, upstreams| {
        upstreams.retain(|upstream| known.get(tenant).is_none_or(|known| !known.contains(upstream)));
        !upstreams.is_empty()
    });
    let name = |(tenant, upstreams): (TenantSlug, Vec<String>)| {
        upstreams.into_iter().map(move |upstream| format!("{tenant}/{upstream}"))
    };
    unlisted.into_iter().flat_map(name).collect()
}
