//! How many calls were made of those that quotas are about, by all replicas together: each adds its own, and reads in the same step what the
//! sum is then. Writing it raises no revision and, where the database can do with several writers, waits for nobody's turn.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, ConnectionTrait as _, EntityTrait as _};
use sea_orm::{FromQueryResult as _, QueryFilter as _, QueryTrait as _};

use crate::entity::quota_use::{self, Column};
use crate::error::StoreError;
use crate::scope::TenantScope;
use crate::store::Store;
use crate::store::patience::answered;
use crate::store::transaction::{Whose, Writing};

const TABLE: &str = "quota_use";
/// How many rows one statement adds to.
const INSERT_ROWS_MAX: usize = 500;

/// How many calls were made in a period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaUse {
    /// What is counted, in words of whoever counts.
    pub counted: String,
    /// `2026-11-30` or `2026-11`, in UTC.
    pub period: String,
    /// How many calls. Fewer than none are taken back.
    pub calls: i64,
}

impl Store {
    /// Adds to what was counted, all of it or nothing, and says what all replicas together have counted of the same then. Nothing may be
    /// there twice for a tenant and a period. Replicas that add to the same rows at a time must do so in the same order.
    pub async fn add_quota_use(
        &self,
        made: &[(TenantScope, Vec<QuotaUse>)],
    ) -> Result<Vec<(TenantScope, Vec<QuotaUse>)>, StoreError> {
        let writing = Writing::beside(self).await?;
        let mut sums = Vec::with_capacity(made.len());
        for (scope, rows) in made {
            writing.about(Whose::Tenant(scope.tenant())).await?;
            let mut of_tenant = Vec::with_capacity(rows.len());
            for rows in rows.chunks(INSERT_ROWS_MAX) {
                of_tenant.extend(add(&writing, *scope, rows).await?);
            }
            sums.push((*scope, of_tenant));
        }
        writing.finish(false).await?;
        Ok(sums)
    }

    /// Deletes what was counted in periods that began before that day, `2026-09-30`: no decision rests on it any more. Says how many rows.
    pub async fn forget_quota_use(&self, before: &str) -> Result<u64, StoreError> {
        let writing = Writing::beside(self).await?;
        writing.about(Whose::All).await?;
        let delete = quota_use::Entity::delete_many().filter(Column::Period.lt(before)).exec(writing.executor());
        let deleted = answered(delete).await.map_err(StoreError::write(TABLE))?.rows_affected;
        writing.finish(false).await?;
        Ok(deleted)
    }
}

async fn add(writing: &Writing, scope: TenantScope, rows: &[QuotaUse]) -> Result<Vec<QuotaUse>, StoreError> {
    let models = rows.iter().map(|made| quota_use::ActiveModel {
        tenant_id: Set(scope.tenant()),
        period: Set(made.period.clone()),
        counted: Set(made.counted.clone()),
        calls: Set(made.calls),
    });
    let there = Expr::col((quota_use::Entity, Column::Calls));
    let mut adding = OnConflict::columns([Column::TenantId, Column::Period, Column::Counted]);
    adding.value(Column::Calls, there.add(Expr::col(("excluded", Column::Calls))));
    let mut insert = quota_use::Entity::insert_many(models).on_conflict(adding).into_query();
    insert.returning_all();
    let found = answered(writing.executor().query_all(&insert)).await.map_err(StoreError::write(TABLE))?;
    let sums = found.iter().map(|row| quota_use::Model::from_query_result(row, ""));
    let sums =
        sums.map(|sum| sum.map(|quota_use::Model { period, counted, calls, .. }| QuotaUse { counted, period, calls }));
    sums.collect::<Result<_, _>>().map_err(StoreError::read(TABLE))
}
