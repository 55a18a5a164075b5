//! The rows of many tenants at once, for whoever reads the whole database: a few statements for hundreds of tenants, and never more than
//! so many rows.
//!
//! Whose a row is, its own column says and nothing else does: neither its place among the others nor what it is joined with.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter as _, QueryResult, QuerySelect as _,
    Select,
};

use crate::credentials::{self, SealedCredential};
use crate::entity::{credential, offer, recording_key, tenant_grant, tool, upstream};
use crate::error::StoreError;
use crate::grants::{self, Grant};
use crate::id::TenantId;
use crate::offers::{self, Offer};
use crate::recording::{self, SealedRecordingKey};
use crate::scope::TenantScope;
use crate::store::transaction::Whose;
use crate::store::{Still, row};
use crate::tools::{self, Tool};
use crate::upstreams::{self, Upstream};

/// How many tenants are read at once, because databases bound the number of a statement's values.
const PART_TENANTS_MAX: usize = 500;
/// How many tools and offers are read at once. A tenant that has more is read alone.
const PART_ROWS_MAX: u64 = 10_000;
const COUNT: &str = "count";

/// All that requests to one tenant are decided and answered by, each list as the method of that name of
/// [`TenantStore`](crate::TenantStore) has it.
#[derive(Debug, Default)]
pub struct TenantRows {
    /// Ordered by name.
    pub grants: Vec<Grant>,
    /// Ordered by slug.
    pub upstreams: Vec<Upstream>,
    /// Ordered by the slug of their upstream, then as the upstream lists them.
    pub tools: Vec<Tool>,
    /// Ordered by the slug of their upstream, then as the upstream lists them.
    pub offers: Vec<Offer>,
    /// The tenant's own secrets, ordered by upstream and name.
    pub sealed_credentials: Vec<SealedCredential>,
    /// What recorded arguments and results are sealed with, if there is such a key.
    pub recording_key: Option<SealedRecordingKey>,
}

/// What was read so far, or the first row of a tenant that does not parse.
type Gathered = HashMap<TenantId, Result<TenantRows, StoreError>>;

impl Still {
    /// These tenants in parts that are small enough to be read at once.
    pub async fn parts<'t>(&self, tenants: &'t [TenantScope]) -> Result<Vec<&'t [TenantScope]>, StoreError> {
        if tenants.len() < 2 {
            return Ok(vec![tenants]);
        }
        let counts = self.counts(tenants).await?;
        Ok(cut(tenants, |scope| counts.get(&scope.tenant()).copied().unwrap_or_default()))
    }

    /// The rows of each of these tenants at that moment. One with a row that does not parse costs only itself.
    pub async fn rows_of(
        &self,
        tenants: &[TenantScope],
    ) -> Result<Vec<(TenantScope, Result<TenantRows, StoreError>)>, StoreError> {
        // Of a single tenant's rows the database hides all others'.
        let whose = if let [only] = tenants { Whose::Tenant(only.tenant()) } else { Whose::All };
        let reading = self.reading_of(whose).await?;
        let db = &reading.executor();
        let ids = || tenants.iter().map(|scope| scope.tenant());
        let mut gathered: Gathered = ids().map(|id| (id, Ok(TenantRows::default()))).collect();
        let all = &mut gathered;

        let select = grants::in_order().filter(tenant_grant::Column::TenantId.is_in(ids()));
        gather(db, all, select, models(grants::parse), |rows, grant| rows.grants.push(grant)).await?;
        let select = upstreams::in_order().filter(upstream::Column::TenantId.is_in(ids()));
        gather(db, all, select, models(upstreams::parse), |rows, upstream| rows.upstreams.push(upstream)).await?;
        let select = tools::in_order().filter(tool::Column::TenantId.is_in(ids()));
        gather(db, all, select, models(tools::parse), |rows, tool| rows.tools.push(tool)).await?;
        let select = offers::in_order().filter(offer::Column::TenantId.is_in(ids()));
        gather(db, all, select, models(offers::parse), |rows, offer| rows.offers.push(offer)).await?;
        let select = credentials::of_tenants_themselves().filter(credential::Column::TenantId.is_in(ids()));
        gather(db, all, select, credentials::parse, |rows, sealed| rows.sealed_credentials.push(sealed)).await?;
        let select = recording::of_all().filter(recording_key::Column::TenantId.is_in(ids()));
        gather(db, all, select, recording::parse, |rows, key| rows.recording_key = Some(key)).await?;

        Ok(tenants.iter().filter_map(|scope| Some((*scope, gathered.remove(&scope.tenant())?))).collect())
    }

    /// How many tools and offers each tenant has, with those that vanished, whose rows hold little.
    async fn counts(&self, tenants: &[TenantScope]) -> Result<HashMap<TenantId, u64>, StoreError> {
        let few: Option<Vec<_>> =
            (tenants.len() <= PART_TENANTS_MAX).then(|| tenants.iter().map(|scope| scope.tenant()).collect());
        let (mut tools, mut offers) = (tool::Entity::find(), offer::Entity::find());
        if let Some(ids) = few {
            tools = tools.filter(tool::Column::TenantId.is_in(ids.clone()));
            offers = offers.filter(offer::Column::TenantId.is_in(ids));
        }
        let tools = tools.select_only().column(tool::Column::TenantId).group_by(tool::Column::TenantId);
        let tools = tools.column_as(tool::Column::Local.count(), COUNT);
        let offers = offers.select_only().column(offer::Column::TenantId).group_by(offer::Column::TenantId);
        let offers = offers.column_as(offer::Column::Key.count(), COUNT);

        let reading = self.reading().await?;
        let db = &reading.executor();
        let count = |row: &QueryResult| Ok(u64::try_from(row.try_get::<i64>("", COUNT)?)?);
        let mut counts = HashMap::new();
        for (tenant, count) in row::by_tenant(db, tools, count).await?.chain(row::by_tenant(db, offers, count).await?) {
            *counts.entry(tenant).or_default() += count?;
        }
        Ok(counts)
    }
}

/// The tenants in parts within the limits, if `count` says how many rows each has.
fn cut<T>(tenants: &[T], count: impl Fn(&T) -> u64) -> Vec<&[T]> {
    let (mut tenants_in, mut rows_in) = (1, tenants.first().map_or(0, &count));
    let fits = |_: &T, next: &T| {
        (tenants_in, rows_in) = (tenants_in + 1, rows_in + count(next));
        let fits = tenants_in <= PART_TENANTS_MAX && rows_in <= PART_ROWS_MAX;
        if !fits {
            (tenants_in, rows_in) = (1, count(next));
        }
        fits
    };
    tenants.chunk_by(fits).collect()
}

/// Gives each row of `select` to the tenant whose it is. The first that does not parse takes the place of all that the tenant has.
async fn gather<C, E, R>(
    db: &C,
    all: &mut Gathered,
    select: Select<E>,
    parse: impl Fn(&QueryResult) -> Result<R, row::BoxError>,
    put: impl Fn(&mut TenantRows, R),
) -> Result<(), StoreError>
where
    C: ConnectionTrait,
    E: EntityTrait,
{
    for (tenant, row) in row::by_tenant(db, select, parse).await? {
        // What belongs to nobody who was asked for is not given to anybody.
        let Some(found) = all.get_mut(&tenant) else { continue };
        match (row, found.is_ok()) {
            (Ok(row), true) => _ = found.as_mut().map(|rows| put(rows, row)),
            (Err(error), true) => *found = Err(error),
            (_, false) => {}
        }
    }
    Ok(())
}

fn models<M: FromQueryResult, R>(
    parse: impl Fn(M) -> Result<R, row::BoxError>,
) -> impl Fn(&QueryResult) -> Result<R, row::BoxError> {
    move |row| parse(M::from_query_result(row, "")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the parts, if the tenants have so many rows.
    fn lengths(rows: &[u64]) -> Vec<usize> {
        cut(rows, |rows| *rows).into_iter().map(<[_]>::len).collect()
    }

    #[test]
    fn a_part_ends_where_a_limit_would_be_passed() {
        let most = PART_ROWS_MAX;
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[0; 1_200]), [500, 500, 200]);
        assert_eq!(lengths(&[most]), [1]);
        assert_eq!(lengths(&[most / 2, most / 2, 1]), [2, 1]);
        assert_eq!(lengths(&[1, most, 1, 1, most * 9, 0, 0]), [1, 1, 2, 1, 2]);
    }
}
