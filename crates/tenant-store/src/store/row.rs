//! Reading rows, one at a time, so that a row which no longer parses can be named.

use std::error::Error;

use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, FromQueryResult as _, IdenStatic as _, Iterable as _, PrimaryKeyToColumn as _,
    QueryResult, QueryTrait as _, Select,
};
use serde::Serialize;

use super::patience::answered;
use crate::error::StoreError;

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
    let table = E::default().table_name();
    let rows = answered(db.query_all(&select.into_query())).await.map_err(StoreError::read(table))?;
    let parse = |row| parse(row).map_err(|source| StoreError::Corrupt { table, row: name::<E>(row), source });
    Ok(rows.iter().map(parse).collect())
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
