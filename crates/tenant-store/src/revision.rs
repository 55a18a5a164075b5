//! The revision: one counter, raised by every change of configuration. It is what replicas follow.

use std::fmt;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, ExprTrait as _, QueryFilter as _};
use serde::Serialize;

use crate::entity::revision;
use crate::error::StoreError;
use crate::store::row;

/// The state of the configuration: another number, another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The present revision.
pub(crate) async fn current<C: ConnectionTrait>(db: &C) -> Result<Revision, StoreError> {
    let rows = row::models(db, revision::Entity::find_by_id(revision::ONLY_ID), |model| {
        Ok(Revision(u64::try_from(model.value)?))
    });
    let missing = || StoreError::NotFound { what: "row in table", name: "revision".to_owned() };
    rows.await?.first().copied().ok_or_else(missing)
}

/// Raises the revision by one.
pub(crate) async fn raise<C: ConnectionTrait>(db: &C) -> Result<(), StoreError> {
    let raised = revision::Entity::update_many()
        .col_expr(revision::Column::Value, Expr::col(revision::Column::Value).add(1))
        .filter(revision::Column::Id.eq(revision::ONLY_ID))
        .exec(db);
    raised.await.map_err(StoreError::write("revision"))?;
    Ok(())
}
