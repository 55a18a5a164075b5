//! What tenants use: how often each of their tools was called on a day, added up. No request is decided by it, so writing it raises no
//! revision and, where the database can do with several writers, waits for nobody's turn.

use std::fmt;
use std::str::FromStr;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use crate::entity::usage_day::{self, Column};
use crate::error::StoreError;
use crate::name::{LocalName, UpstreamSlug};
use crate::scope::{TenantScope, TenantStore};
use crate::store::patience::answered;
use crate::store::transaction::{Whose, Writing};
use crate::store::{Store, row};

/// How many rows one statement adds to.
const INSERT_ROWS_MAX: usize = 500;

/// How often a tool was called on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// `2026-11-30`, in UTC.
    pub day: String,
    /// The tool's upstream, as it was called then.
    pub upstream: UpstreamSlug,
    /// The tool's name at its upstream.
    pub tool: LocalName,
    /// How often it was called.
    pub calls: u64,
    /// How many of the calls failed.
    pub errors: u64,
    /// How long they took together, in milliseconds.
    pub duration_ms: u64,
}

/// A month of the calendar, in UTC: `2026-11`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month(String);

/// A text that is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a month is written as `2026-11`: four digits of the year, `-`, and the month from `01` to `12`")]
pub struct MonthError;

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let (year, month) = text.split_once('-').ok_or(MonthError)?;
        let is_number = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_month = is_number(month, 2) && ("01"..="12").contains(&month);
        if is_number(year, 4) && is_month { Ok(Self(text.to_owned())) } else { Err(MonthError) }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Adds to what tenants have used: all of it or nothing. No day, upstream and tool may be there twice for a tenant. Replicas that add to
    /// the same rows at a time must do so in the same order.
    pub async fn add_usage(&self, used: &[(TenantScope, Vec<Used>)]) -> Result<(), StoreError> {
        let writing = Writing::beside(self).await?;
        for (scope, rows) in used {
            writing.about(Whose::Tenant(scope.tenant())).await?;
            for rows in rows.chunks(INSERT_ROWS_MAX) {
                let models = rows.iter().map(|used| row_of(*scope, used));
                let insert = usage_day::Entity::insert_many(models).on_conflict(adding());
                let added = answered(insert.exec_without_returning(writing.executor())).await;
                added.map_err(StoreError::write("usage_day"))?;
            }
        }
        writing.finish(false).await
    }
}

impl TenantStore {
    /// What was used in a month, by day, upstream and tool.
    pub async fn usage(&self, month: &Month) -> Result<Vec<Used>, StoreError> {
        let select = usage_day::Entity::find()
            .filter(Column::TenantId.eq(self.id()))
            .filter(Column::Day.between(format!("{month}-01"), format!("{month}-31")))
            .order_by_asc(Column::Day)
            .order_by_asc(Column::Upstream)
            .order_by_asc(Column::Tool);
        row::models(&self.reading().await?.executor(), select, used).await
    }
}

/// What is there already is added to.
fn adding() -> OnConflict {
    let mut conflict = OnConflict::columns([Column::TenantId, Column::Day, Column::Upstream, Column::Tool]);
    for column in [Column::Calls, Column::Errors, Column::DurationMs] {
        let there = Expr::col((usage_day::Entity, column));
        conflict.value(column, there.add(Expr::col(("excluded", column))));
    }
    conflict
}

fn row_of(scope: TenantScope, used: &Used) -> usage_day::ActiveModel {
    let number = |count: u64| Set(i64::try_from(count).unwrap_or(i64::MAX));
    usage_day::ActiveModel {
        tenant_id: Set(scope.tenant()),
        day: Set(used.day.clone()),
        upstream: Set(used.upstream.clone()),
        tool: Set(used.tool.clone()),
        calls: number(used.calls),
        errors: number(used.errors),
        duration_ms: number(used.duration_ms),
    }
}

fn used(model: usage_day::Model) -> Result<Used, row::BoxError> {
    let usage_day::Model { tenant_id: _, day, upstream, tool, calls, errors, duration_ms } = model;
    let (calls, errors, duration_ms) = (calls.try_into()?, errors.try_into()?, duration_ms.try_into()?);
    Ok(Used { day, upstream, tool, calls, errors, duration_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_a_year_and_a_number_up_to_twelve() {
        assert_eq!("2026-11".parse::<Month>().unwrap().to_string(), "2026-11");
        for text in ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-+1", "2026-11-01", "%-11", "２026-11"]
        {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text}");
        }
    }
}
