//! By whom objects are managed: whoever applies manifests can say a name, and takes away under that name only.

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, TryFromU64,
};

use crate::choice::ManagedKind;
use crate::entity::managed;
use crate::error::StoreError;
use crate::id::TenantId;
use crate::name::ManagerName;
use crate::scope::TenantStore;
use crate::store::row;

/// An object that somebody manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// What it is.
    pub kind: ManagedKind,
    /// Its own name.
    pub name: String,
    /// By whom.
    pub manager: ManagerName,
}

impl TenantStore {
    /// What of this tenant is managed, and by whom, ordered by kind and name.
    pub async fn managed(&self) -> Result<Vec<Managed>, StoreError> {
        let select = managed::Entity::find()
            .filter(managed::Column::TenantId.eq(self.id()))
            .order_by_asc(managed::Column::Kind)
            .order_by_asc(managed::Column::Name);
        let parse = |row: managed::Model| Ok(Managed { kind: row.kind, name: row.name, manager: row.manager });
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// Says by whom an object is managed from now on.
    pub async fn set_manager(&self, kind: ManagedKind, name: &str, manager: &ManagerName) -> Result<(), StoreError> {
        let writing = self.writing().await?;
        let row = managed::ActiveModel {
            tenant_id: Set(self.id()),
            kind: Set(kind),
            name: Set(name.to_owned()),
            manager: Set(manager.clone()),
        };
        let known = OnConflict::columns([managed::Column::TenantId, managed::Column::Kind, managed::Column::Name])
            .update_column(managed::Column::Manager)
            .to_owned();
        let insert = managed::Entity::insert(row).on_conflict(known);
        insert.exec_without_returning(writing.executor()).await.map_err(StoreError::write("managed"))?;
        // Nothing is served otherwise for it, and whoever looked at the configuration before has to look again.
        writing.finish(true).await
    }
}

/// Nobody manages that object any more, because it is gone.
pub(crate) async fn forget<C: ConnectionTrait>(
    db: &C,
    tenant: TenantId,
    kind: ManagedKind,
    name: &str,
) -> Result<(), StoreError> {
    let delete = managed::Entity::delete_many()
        .filter(managed::Column::TenantId.eq(tenant))
        .filter(managed::Column::Kind.eq(kind))
        .filter(managed::Column::Name.eq(name));
    delete.exec(db).await.map_err(StoreError::write("managed"))?;
    Ok(())
}

// It is part of a primary key; no database makes one for us.
impl TryFromU64 for ManagedKind {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("ManagedKind"))
    }
}
