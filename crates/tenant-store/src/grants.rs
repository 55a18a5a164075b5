//! Grants: our rules that certain groups or principals have a level in a tenant, narrowed by tool patterns.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, Select};

use crate::choice::{Level, ManagedKind};
use crate::entity::tenant_grant;
use crate::error::StoreError;
use crate::id::{GrantId, TenantId};
use crate::managed;
use crate::name::{GrantName, Group, IssuerName, Subject, ToolPattern};
use crate::scope::TenantStore;
use crate::store::{Put, row};
use crate::tenants;

/// A rule that certain groups or principals have a level in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub id: GrantId,
    /// In which tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: GrantName,
    /// What the operator said.
    pub spec: GrantSpec,
}

/// What an operator says in a grant. [`GrantSpec::check`] holds for every one that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSpec {
    /// Whose groups and subjects are meant.
    pub issuer: IssuerName,
    /// It covers the members of these groups,
    pub groups: Vec<Group>,
    /// and these principals.
    pub subjects: Vec<Subject>,
    /// What it allows.
    pub level: Level,
    /// The tools that it allows.
    pub allow: Vec<ToolPattern>,
    /// The tools that it denies, whatever else allows them.
    pub deny: Vec<ToolPattern>,
}

impl TenantStore {
    /// The grants, ordered by name.
    pub async fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let select = in_order().filter(tenant_grant::Column::TenantId.eq(self.id()));
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// Makes or changes a grant.
    pub async fn put_grant(&self, name: &GrantName, spec: &GrantSpec) -> Result<(Grant, Put), StoreError> {
        spec.check()?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let outcome = match find(db, self.id(), name).await? {
            Some(grant) if grant.spec == *spec => (grant, Put::Unchanged),
            Some(grant) => (update(db, Grant { spec: spec.clone(), ..grant }).await?, Put::Changed),
            None => {
                let id = GrantId::new(self.store().now());
                let grant = Grant { id, tenant: self.id(), name: name.clone(), spec: spec.clone() };
                (insert(db, grant).await?, Put::Created)
            }
        };
        writing.finish(outcome.1 != Put::Unchanged).await?;
        Ok(outcome)
    }

    /// Deletes a grant; `false` if there is none.
    pub async fn remove_grant(&self, id: GrantId) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let this = of_tenant(self.id()).filter(tenant_grant::Column::Id.eq(id));
        let name = row::models(db, this, |row| Ok(row.name)).await?.pop();
        let delete = tenant_grant::Entity::delete_many()
            .filter(tenant_grant::Column::TenantId.eq(self.id()))
            .filter(tenant_grant::Column::Id.eq(id));
        delete.exec(db).await.map_err(StoreError::write("tenant_grant"))?;
        if let Some(name) = &name {
            managed::forget(db, self.id(), ManagedKind::Grant, name.as_str()).await?;
        }
        writing.finish(name.is_some()).await?;
        Ok(name.is_some())
    }
}

/// Those of all tenants; within one, ordered by name.
pub(crate) fn in_order() -> Select<tenant_grant::Entity> {
    tenant_grant::Entity::find().order_by_asc(tenant_grant::Column::Name)
}

fn of_tenant(tenant: TenantId) -> Select<tenant_grant::Entity> {
    tenant_grant::Entity::find().filter(tenant_grant::Column::TenantId.eq(tenant))
}

async fn find<C: ConnectionTrait>(db: &C, tenant: TenantId, name: &GrantName) -> Result<Option<Grant>, StoreError> {
    Ok(row::models(db, of_tenant(tenant).filter(tenant_grant::Column::Name.eq(name.clone())), parse).await?.pop())
}

async fn insert<C: ConnectionTrait>(db: &C, grant: Grant) -> Result<Grant, StoreError> {
    tenants::require(db, grant.tenant).await?;
    let model = tenant_grant::ActiveModel {
        tenant_id: Set(grant.tenant),
        id: Set(grant.id),
        name: Set(grant.name.clone()),
        ..columns(&grant.spec)?
    };
    tenant_grant::Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write("tenant_grant"))?;
    Ok(grant)
}

async fn update<C: ConnectionTrait>(db: &C, grant: Grant) -> Result<Grant, StoreError> {
    let update = tenant_grant::Entity::update_many()
        .set(columns(&grant.spec)?)
        .filter(tenant_grant::Column::TenantId.eq(grant.tenant))
        .filter(tenant_grant::Column::Id.eq(grant.id));
    update.exec(db).await.map_err(StoreError::write("tenant_grant"))?;
    Ok(grant)
}

/// The columns that hold a specification.
fn columns(spec: &GrantSpec) -> Result<tenant_grant::ActiveModel, StoreError> {
    let table = "tenant_grant";
    Ok(tenant_grant::ActiveModel {
        issuer: Set(spec.issuer.clone()),
        groups: Set(row::json(table, &spec.groups)?),
        subjects: Set(row::json(table, &spec.subjects)?),
        level: Set(spec.level),
        allow: Set(row::json(table, &spec.allow)?),
        deny: Set(row::json(table, &spec.deny)?),
        ..Default::default()
    })
}

pub(crate) fn parse(model: tenant_grant::Model) -> Result<Grant, row::BoxError> {
    let spec = GrantSpec {
        issuer: model.issuer,
        groups: serde_json::from_str(&model.groups)?,
        subjects: serde_json::from_str(&model.subjects)?,
        level: model.level,
        allow: serde_json::from_str(&model.allow)?,
        deny: serde_json::from_str(&model.deny)?,
    };
    spec.check()?;
    Ok(Grant { id: model.id, tenant: model.tenant_id, name: model.name, spec })
}
