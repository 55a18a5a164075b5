//! The replicas: the processes that serve, and which revision each of them has come to. A row is its replica's own, and none is configuration:
//! writing it raises no revision, tells nobody and waits for nobody's turn.
//!
//! How long a replica was silent is judged by one clock, the database's, because those of machines differ.

use std::time::Duration;

use sea_orm::sea_query::{Expr, OnConflict, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, DbErr, EntityTrait as _, ExprTrait as _, FromQueryResult as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use crate::clock::Timestamp;
use crate::entity::replica::{self, Column};
use crate::error::StoreError;
use crate::id::ReplicaId;
use crate::revision::Revision;
use crate::store::patience::answered;
use crate::store::{Store, row};

/// After how long a silence a replica is forgotten: it has ended without a word.
pub const REPLICA_SILENCE_MAX: Duration = Duration::from_mins(1);

const TABLE: &str = "replica";
const SILENT_MS: &str = "silent_ms";

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Which it is.
    pub id: ReplicaId,
    /// The version of the program.
    pub version: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// What it serves: nothing that was changed up to this revision is unknown to it.
    pub revision: Revision,
}

/// A replica as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// What it said last.
    pub beat: Beat,
    /// How long ago it said so.
    pub silence: Duration,
}

impl Store {
    /// Says that a replica is there, and forgets those that were silent for [`REPLICA_SILENCE_MAX`].
    pub async fn beat(&self, beat: &Beat) -> Result<(), StoreError> {
        let (db, now) = (self.database(), || now(self.database().get_database_backend()));
        let number = |revision: Revision| i64::try_from(revision.0).unwrap_or(i64::MAX);
        let values = [
            Expr::val(beat.id.to_string()),
            Expr::val(beat.version.as_str()),
            Expr::val(beat.started_at.as_millis()),
            now(),
            Expr::val(number(beat.revision)),
        ];
        let mut insert = Query::insert();
        insert
            .into_table(replica::Entity)
            .columns([Column::Id, Column::Version, Column::StartedMs, Column::SeenMs, Column::Revision])
            .on_conflict(OnConflict::column(Column::Id).update_columns([Column::SeenMs, Column::Revision]).to_owned());
        let failed =
            |error: sea_orm::sea_query::error::Error| StoreError::write(TABLE)(DbErr::Custom(error.to_string()));
        let insert = insert.values(values).map_err(failed)?;
        answered(db.execute(&*insert)).await.map_err(StoreError::write(TABLE))?;
        let silence_max = i64::try_from(REPLICA_SILENCE_MAX.as_millis()).unwrap_or(i64::MAX);
        let silent = Expr::col(Column::SeenMs).lt(now().sub(silence_max));
        let forget = replica::Entity::delete_many().filter(silent).exec(db);
        answered(forget).await.map_err(StoreError::write(TABLE))?;
        Ok(())
    }

    /// A replica has stopped, and nobody waits for it any more.
    pub async fn forget_replica(&self, id: ReplicaId) -> Result<(), StoreError> {
        let forget = replica::Entity::delete_many().filter(Column::Id.eq(id)).exec(self.database());
        answered(forget).await.map_err(StoreError::write(TABLE))?;
        Ok(())
    }

    /// The replicas, older ones first. One that is silent may have ended without a word, or still serve without its database.
    pub async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let db = self.database();
        let silence = now(db.get_database_backend()).sub(Expr::col(Column::SeenMs));
        let select = replica::Entity::find()
            .expr_as(silence, SILENT_MS)
            .order_by_asc(Column::StartedMs)
            .order_by_asc(Column::Id);
        row::rows(db, select, |row| {
            let replica::Model { id, version, started_ms, revision, .. } = replica::Model::from_query_result(row, "")?;
            let (started_at, revision) = (Timestamp::from_millis(started_ms), Revision(u64::try_from(revision)?));
            let silent_ms: i64 = row.try_get("", SILENT_MS)?;
            let silence = Duration::from_millis(u64::try_from(silent_ms).unwrap_or(0));
            Ok(Replica { beat: Beat { id, version, started_at, revision }, silence })
        })
        .await
    }
}

/// The present moment by the database's clock, in milliseconds since the beginning of 1970.
fn now(backend: DbBackend) -> SimpleExpr {
    Expr::cust(match backend {
        DbBackend::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS bigint)",
        _ => "CAST((julianday('now') - 2440587.5) * 86400000 AS integer)",
    })
}
