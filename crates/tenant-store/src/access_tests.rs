//! Access tests: what certain people must be able to use, and what they must not, whatever is changed.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, Select};
use serde::{Deserialize, Serialize};

use crate::choice::ManagedKind;
use crate::entity::access_test;
use crate::error::StoreError;
use crate::id::TenantId;
use crate::managed;
use crate::name::{AccessTestName, Group, IssuerName, Subject, ToolPattern};
use crate::scope::TenantStore;
use crate::store::{Put, Still, row};
use crate::tenants;

/// A test that every change of configuration must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTest {
    /// In which tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: AccessTestName,
    /// What the operator said.
    pub spec: AccessTestSpec,
}

/// What an operator says in an access test. [`AccessTestSpec::check`] holds for every one that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTestSpec {
    /// Whose groups and subject are meant.
    pub issuer: IssuerName,
    /// It is about somebody in all of these groups
    pub groups: Vec<Group>,
    /// who is this one, or else anybody.
    pub subject: Option<Subject>,
    /// What they can use: of each of these names at least one, as clients see it.
    pub can: Vec<ToolPattern>,
    /// What they cannot use: nothing that any of these names.
    pub cannot: Vec<ToolPattern>,
}

impl TenantStore {
    /// The access tests, ordered by name.
    pub async fn access_tests(&self) -> Result<Vec<AccessTest>, StoreError> {
        let select = of_tenant(self.id()).order_by_asc(access_test::Column::Name);
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// Makes or changes an access test.
    pub async fn put_access_test(&self, name: &AccessTestName, spec: &AccessTestSpec) -> Result<Put, StoreError> {
        spec.check()?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let this = of_tenant(self.id()).filter(access_test::Column::Name.eq(name.clone()));
        let found = row::models(db, this, parse).await?.pop();
        let put = match found {
            Some(found) if found.spec == *spec => Put::Unchanged,
            Some(_) => Put::Changed,
            None => Put::Created,
        };
        let text = row::json("access_test", spec)?;
        if put == Put::Created {
            tenants::require(db, self.id()).await?;
            let row = access_test::ActiveModel { tenant_id: Set(self.id()), name: Set(name.clone()), spec: Set(text) };
            let insert = access_test::Entity::insert(row);
            insert.exec_without_returning(db).await.map_err(StoreError::write("access_test"))?;
        } else if put == Put::Changed {
            let update = access_test::Entity::update_many()
                .set(access_test::ActiveModel { spec: Set(text), ..Default::default() })
                .filter(access_test::Column::TenantId.eq(self.id()))
                .filter(access_test::Column::Name.eq(name.clone()));
            update.exec(db).await.map_err(StoreError::write("access_test"))?;
        }
        writing.finish(put != Put::Unchanged).await?;
        Ok(put)
    }

    /// Deletes an access test; `false` if there is none.
    pub async fn remove_access_test(&self, name: &AccessTestName) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let delete = access_test::Entity::delete_many()
            .filter(access_test::Column::TenantId.eq(self.id()))
            .filter(access_test::Column::Name.eq(name.clone()));
        let db = writing.executor();
        let deleted = delete.exec(db).await.map_err(StoreError::write("access_test"))?;
        managed::forget(db, self.id(), ManagedKind::AccessTest, name.as_str()).await?;
        writing.finish(deleted.rows_affected > 0).await?;
        Ok(deleted.rows_affected > 0)
    }
}

impl Still {
    /// The access tests of all tenants, ordered by tenant and name.
    pub async fn access_tests(&self) -> Result<Vec<AccessTest>, StoreError> {
        let select = access_test::Entity::find()
            .order_by_asc(access_test::Column::TenantId)
            .order_by_asc(access_test::Column::Name);
        row::models(&self.reading().await?.executor(), select, parse).await
    }
}

fn of_tenant(tenant: TenantId) -> Select<access_test::Entity> {
    access_test::Entity::find().filter(access_test::Column::TenantId.eq(tenant))
}

fn parse(model: access_test::Model) -> Result<AccessTest, row::BoxError> {
    let spec: AccessTestSpec = serde_json::from_str(&model.spec)?;
    spec.check()?;
    Ok(AccessTest { tenant: model.tenant_id, name: model.name, spec })
}
