//! Tenants: the client companies, each of which sees nothing of the others.

use std::collections::HashSet;

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, Select,
};

use crate::choice::{AuditContent, FlowPolicy, TenantState};
use crate::egress_hosts::EgressHosts;
use crate::entity::tenant;
use crate::error::StoreError;
use crate::id::TenantId;
use crate::name::TenantSlug;
use crate::revision::Revision;
use crate::store::{Change, Put, Still, Store, row};

/// A client company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// Its short name.
    pub slug: TenantSlug,
    /// What the operator said about it.
    pub spec: TenantSpec,
    /// Whether it is served.
    pub state: TenantState,
}

/// What an operator says about a tenant. [`TenantSpec::check`] holds for every one that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSpec {
    /// What people call it.
    pub display_name: String,
    /// Where its upstreams may be; anywhere, as far as the process may connect, when absent.
    pub egress_hosts: Option<EgressHosts>,
    /// What becomes of a call that brings text of this tenant's to another tenant.
    pub flow_policy: FlowPolicy,
    /// What of its calls the tenant's audit record holds besides that they were made.
    pub audit_content: AuditContent,
}

impl TenantSpec {
    /// A tenant of which nothing is said but what people call it.
    pub fn named(display_name: impl Into<String>) -> Self {
        let (flow_policy, audit_content) = (FlowPolicy::Log, AuditContent::None);
        Self { display_name: display_name.into(), egress_hosts: None, flow_policy, audit_content }
    }
}

impl Store {
    /// All tenants, ordered by slug.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        row::models(&self.reading().await?.executor(), tenant::Entity::find().order_by_asc(tenant::Column::Slug), parse)
            .await
    }

    /// The tenant with that slug.
    pub async fn find_tenant(&self, slug: &TenantSlug) -> Result<Option<Tenant>, StoreError> {
        find(&self.reading().await?.executor(), slug).await
    }
}

impl Still {
    /// All tenants, or those of which anything changed after that revision, ordered by slug. One whose row does not parse costs only
    /// itself.
    pub async fn tenants(&self, after: Option<Revision>) -> Result<Vec<Result<Tenant, StoreError>>, StoreError> {
        let select = after.map_or_else(tenant::Entity::find, since).order_by_asc(tenant::Column::Slug);
        row::each(&self.reading().await?.executor(), select, |row| parse(tenant::Model::from_query_result(row, "")?))
            .await
    }

    /// The ids of all tenants. One that does not parse is nobody's.
    pub async fn tenant_ids(&self) -> Result<HashSet<TenantId>, StoreError> {
        let id = |row: &QueryResult| Ok(row.try_get("", "id")?);
        let select = tenant::Entity::find().select_only().column(tenant::Column::Id);
        let ids = row::each(&self.reading().await?.executor(), select, id).await?;
        Ok(ids.into_iter().flatten().collect())
    }
}

impl Change {
    /// The tenant with that slug, as this change has it so far.
    pub async fn find_tenant(&self, slug: &TenantSlug) -> Result<Option<Tenant>, StoreError> {
        find(&self.reading().await?.executor(), slug).await
    }

    /// Makes or changes a tenant. A new one is active.
    pub async fn put_tenant(&self, slug: &TenantSlug, spec: &TenantSpec) -> Result<(Tenant, Put), StoreError> {
        spec.check()?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let outcome = match find(db, slug).await? {
            None => (insert(db, self.new_tenant(slug, spec)).await?, Put::Created),
            Some(tenant) if tenant.state == TenantState::Shredded => {
                return Err(StoreError::Shredded { tenant: tenant.slug });
            }
            Some(tenant) if tenant.spec == *spec => (tenant, Put::Unchanged),
            Some(tenant) => (update(db, tenant, spec).await?, Put::Changed),
        };
        writing.finish(outcome.1 != Put::Unchanged).await?;
        Ok(outcome)
    }

    fn new_tenant(&self, slug: &TenantSlug, spec: &TenantSpec) -> Tenant {
        Tenant {
            id: TenantId::new(self.store().now()),
            slug: slug.clone(),
            spec: spec.clone(),
            state: TenantState::Active,
        }
    }
}

/// Those that were changed after that revision.
pub(crate) fn since(Revision(revision): Revision) -> Select<tenant::Entity> {
    tenant::Entity::find().filter(tenant::Column::Revision.gt(i64::try_from(revision).unwrap_or(i64::MAX)))
}

/// Fails unless the tenant exists. Called before a row of it is made.
pub(crate) async fn require<C: ConnectionTrait>(db: &C, id: TenantId) -> Result<(), StoreError> {
    let rows = row::models(db, tenant::Entity::find_by_id(id), parse).await?;
    if rows.is_empty() { Err(StoreError::NotFound { what: "tenant", name: id.to_string() }) } else { Ok(()) }
}

/// Fails unless the tenant exists and its keys were not destroyed.
pub(crate) async fn require_unshredded<C: ConnectionTrait>(db: &C, id: TenantId) -> Result<(), StoreError> {
    let missing = || StoreError::NotFound { what: "tenant", name: id.to_string() };
    let tenant = row::models(db, tenant::Entity::find_by_id(id), parse).await?.pop().ok_or_else(missing)?;
    match tenant.state {
        TenantState::Shredded => Err(StoreError::Shredded { tenant: tenant.slug }),
        TenantState::Active | TenantState::Suspended => Ok(()),
    }
}

pub(crate) async fn find<C: ConnectionTrait>(db: &C, slug: &TenantSlug) -> Result<Option<Tenant>, StoreError> {
    let select = tenant::Entity::find().filter(tenant::Column::Slug.eq(slug.clone()));
    Ok(row::models(db, select, parse).await?.pop())
}

async fn insert<C: ConnectionTrait>(db: &C, tenant: Tenant) -> Result<Tenant, StoreError> {
    let model = tenant::ActiveModel {
        id: Set(tenant.id),
        slug: Set(tenant.slug.clone()),
        state: Set(tenant.state),
        ..columns(&tenant.spec)?
    };
    tenant::Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write("tenant"))?;
    Ok(tenant)
}

async fn update<C: ConnectionTrait>(db: &C, tenant: Tenant, spec: &TenantSpec) -> Result<Tenant, StoreError> {
    let update = tenant::Entity::update_many().set(columns(spec)?).filter(tenant::Column::Id.eq(tenant.id));
    update.exec(db).await.map_err(StoreError::write("tenant"))?;
    Ok(Tenant { spec: spec.clone(), ..tenant })
}

/// The columns that hold a specification.
fn columns(spec: &TenantSpec) -> Result<tenant::ActiveModel, StoreError> {
    let hosts = spec.egress_hosts.as_ref();
    Ok(tenant::ActiveModel {
        display_name: Set(spec.display_name.clone()),
        egress_hosts: Set(hosts.map(|hosts| row::json("tenant", hosts)).transpose()?),
        flow_policy: Set(spec.flow_policy),
        audit_content: Set(spec.audit_content),
        ..Default::default()
    })
}

fn parse(model: tenant::Model) -> Result<Tenant, row::BoxError> {
    let egress_hosts = model.egress_hosts.as_deref().map(serde_json::from_str).transpose()?;
    let tenant::Model { display_name, flow_policy, audit_content, .. } = model;
    let spec = TenantSpec { display_name, egress_hosts, flow_policy, audit_content };
    spec.check()?;
    Ok(Tenant { id: model.id, slug: model.slug, spec, state: model.state })
}
