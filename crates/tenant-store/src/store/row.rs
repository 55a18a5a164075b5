//! Reading rows, one at a time, so that a row which no longer parses can be named.

use std::error::Error;

use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, FromQueryResult as _, IdenStatic as _, Iterable as _, PrimaryKeyToColumn as _,
    QueryResult, QueryTrait as _, Select,
};
use serde::Serialize;

use super::patience::answered;
use crate::error::StoreError;
use crate::id::TenantId;

/// Why a row does not parse.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The rows of `select`, each through `parse`.
pub(crate) async fn models<C, E, R>(
    db: &C,
    select: Select<E>,
    parse: impl Fn(E::Model) -> Result<R, BoxError>,
) -> Result<Vec<R>, StoreError>
where
    C: ConnectionTrait,
    E: EntityTrait,
{
    rows(db, select, |row| parse(E::Model::from_query_result(row, "")?)).await
}

/// The rows of `select`, which may have more or fewer columns than the entity but has its primary key, each through `parse`.
pub(crate) async fn rows<C, E, R>(
    db: &C,
    select: Select<E>,
    parse: impl Fn(&QueryResult) -> Result<R, BoxError>,
) -> Result<Vec<R>, StoreError>
where
    C: ConnectionTrait,
    E: EntityTrait,
{
    each(db, select, parse).await?.into_iter().collect()
}

/// The rows of `select`, each through `parse`, where one that does not parse must not cost the others.
pub(crate) async fn each<C, E, R>(
    db: &C,
    select: Select<E>,
    parse: impl Fn(&QueryResult) -> Result<R, BoxError>,
) -> Result<Vec<Result<R, StoreError>>, StoreError>
where
    C: ConnectionTrait,
    E: EntityTrait,
{
    Ok(all(db, select).await?.iter().map(|row| parsed::<E, R>(row, &parse)).collect())
}

/// The rows of `select`, each with the tenant in its column `tenant_id` and through `parse`. One whose tenant cannot be read is nobody's.
pub(crate) async fn by_tenant<C, E, R>(
    db: &C,
    select: Select<E>,
    parse: impl Fn(&QueryResult) -> Result<R, BoxError>,
) -> Result<impl Iterator<Item = (TenantId, Result<R, StoreError>)>, StoreError>
where
    C: ConnectionTrait,
    E: EntityTrait,
{
    let rows = all(db, select).await?.into_iter();
    Ok(rows.filter_map(move |row| Some((row.try_get("", "tenant_id").ok()?, parsed::<E, R>(&row, &parse)))))
}

async fn all<C: ConnectionTrait, E: EntityTrait>(db: &C, select: Select<E>) -> Result<Vec<QueryResult>, StoreError> {
    let failed = StoreError::read(E::default().table_name());
    answered(db.query_all(&select.into_query())).await.map_err(failed)
}

fn parsed<E: EntityTrait, R>(
    row: &QueryResult,
    parse: impl Fn(&QueryResult) -> Result<R, BoxError>,
) -> Result<R, StoreError> {
    let table = E::default().table_name();
    parse(row).map_err(|source| StoreError::Corrupt { table, row: name::<E>(row), source })
}

/// A row's primary key, as far as it can be read.
fn name<E: EntityTrait>(row: &QueryResult) -> String {
    let columns = E::PrimaryKey::iter().map(|key| {
        let column = key.into_column();
        let column = column.as_str();
        let text = row.try_get::<String>("", column);
        let text = text.or_else(|_| row.try_get::<i64>("", column).map(|number| number.to_string()));
        format!("{column} = {}", text.unwrap_or_else(|_| "unreadable".to_owned()))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// A value as a JSON column of `table` keeps it.
pub(crate) fn json<T: Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::write(table)(DbErr::Json(error.to_string())))
}
