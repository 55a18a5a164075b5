//! Tenants: the client companies, each of which sees nothing of the others.

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _,
};

use crate::choice::TenantState;
use crate::entity::tenant;
use crate::error::StoreError;
use crate::id::TenantId;
use crate::name::TenantSlug;
use crate::spec::check_display_name;
use crate::store::{Change, Put, Still, Store, row};

/// A client company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// Its short name.
    pub slug: TenantSlug,
    /// What people call it.
    pub display_name: String,
    /// Whether it is served.
    pub state: TenantState,
}

impl Store {
    /// All tenants, ordered by slug.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        row::models(self.database(), tenant::Entity::find().order_by_asc(tenant::Column::Slug), parse).await
    }

    /// The tenant with that slug.
    pub async fn find_tenant(&self, slug: &TenantSlug) -> Result<Option<Tenant>, StoreError> {
        find(self.database(), slug).await
    }
}

impl Still {
    /// All tenants, ordered by slug. One whose row does not parse costs only itself.
    pub async fn tenants(&self) -> Result<Vec<Result<Tenant, StoreError>>, StoreError> {
        let select = tenant::Entity::find().order_by_asc(tenant::Column::Slug);
        row::each(&self.reading().await?.executor(), select, |row| parse(tenant::Model::from_query_result(row, "")?))
            .await
    }
}

impl Change {
    /// The tenant with that slug, as this change has it so far.
    pub async fn find_tenant(&self, slug: &TenantSlug) -> Result<Option<Tenant>, StoreError> {
        find(&self.reading().await?.executor(), slug).await
    }

    /// Makes or renames a tenant. A new one is active.
    pub async fn put_tenant(&self, slug: &TenantSlug, display_name: &str) -> Result<(Tenant, Put), StoreError> {
        check_display_name(display_name)?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let outcome = match find(db, slug).await? {
            None => (insert(db, self.new_tenant(slug, display_name)).await?, Put::Created),
            Some(tenant) if tenant.state == TenantState::Shredded => {
                return Err(StoreError::Shredded { tenant: tenant.slug });
            }
            Some(tenant) if tenant.display_name == display_name => (tenant, Put::Unchanged),
            Some(tenant) => (rename(db, tenant, display_name).await?, Put::Changed),
        };
        writing.finish(outcome.1 != Put::Unchanged).await?;
        Ok(outcome)
    }

    fn new_tenant(&self, slug: &TenantSlug, display_name: &str) -> Tenant {
        Tenant {
            id: TenantId::new(self.store().now()),
            slug: slug.clone(),
            display_name: display_name.to_owned(),
            state: TenantState::Active,
        }
    }
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
        display_name: Set(tenant.display_name.clone()),
        state: Set(tenant.state),
    };
    tenant::Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write("tenant"))?;
    Ok(tenant)
}

async fn rename<C: ConnectionTrait>(db: &C, tenant: Tenant, display_name: &str) -> Result<Tenant, StoreError> {
    let renamed = Tenant { display_name: display_name.to_owned(), ..tenant };
    let update = tenant::Entity::update_many()
        .set(tenant::ActiveModel { display_name: Set(renamed.display_name.clone()), ..Default::default() })
        .filter(tenant::Column::Id.eq(renamed.id));
    update.exec(db).await.map_err(StoreError::write("tenant"))?;
    Ok(renamed)
}

fn parse(model: tenant::Model) -> Result<Tenant, row::BoxError> {
    check_display_name(&model.display_name)?;
    Ok(Tenant { id: model.id, slug: model.slug, display_name: model.display_name, state: model.state })
}
