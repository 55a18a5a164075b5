//! The audit record as it is kept: chains of lines, which are added and never changed, and what writers have signed about them. What a line
//! says, and that it fits the one before, is its writer's business.
//!
//! A chain belongs to one tenant or to the platform. On PostgreSQL a tenant's chain is seen by transactions about that tenant only, and not
//! even by those about all of them, which see the platform's. Writing raises no revision.

mod pruned;

use std::collections::HashSet;
use std::fmt;

use crypto::{Key, KeyRing, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};

pub use self::pruned::AuditPruned;
use crate::clock::Timestamp;
use crate::entity::{audit_checkpoint, audit_event, audit_key};
use crate::error::StoreError;
use crate::id::AuditWriterId;
use crate::scope::{TenantScope, TenantStore};
use crate::store::patience::answered;
use crate::store::transaction::{Reading, Whose, Writing};
use crate::store::{Still, Store, row};

/// How many rows are read at a time: lines may be long.
pub const AUDIT_PAGE_ROWS: u64 = 250;
/// How many rows one statement adds.
const INSERT_ROWS_MAX: usize = 500;
/// What the platform's own chain is called. No tenant's id looks like it.
const PLATFORM: &str = "platform";

/// Whose record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditChain {
    /// The platform's.
    Platform,
    /// A tenant's.
    Tenant(TenantScope),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Who wrote it.
    pub writer: AuditWriterId,
    /// The how-manieth it is of that writer in its chain, from 1.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The line, without its end.
    pub line: String,
}

/// What a writer has signed: that a chain up to here is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// Who.
    pub writer: AuditWriterId,
    /// The last line that it covers.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// SHA-256 of that line with its end, in hexadecimal digits.
    pub hash: String,
    /// Which key signed.
    pub key_id: String,
    /// The signature.
    pub signature: Vec<u8>,
}

/// What is added to one chain.
#[derive(Debug, Clone)]
pub struct AuditPart {
    /// Which.
    pub chain: AuditChain,
    /// Lines.
    pub rows: Vec<AuditRow>,
    /// Signatures.
    pub checkpoints: Vec<AuditCheckpoint>,
}

impl fmt::Display for AuditChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str(PLATFORM),
            Self::Tenant(scope) => scope.tenant().fmt(f),
        }
    }
}

impl AuditChain {
    fn whose(self) -> Whose {
        match self {
            Self::Platform => Whose::All,
            Self::Tenant(scope) => Whose::Tenant(scope.tenant()),
        }
    }
}

impl Store {
    /// Adds all of it or nothing. What is there already stays as it is, so that whoever does not know whether it was added can try again.
    pub async fn append_audit(&self, parts: &[AuditPart]) -> Result<(), StoreError> {
        let writing = Writing::beside(self).await?;
        for part in parts {
            writing.about(part.chain.whose()).await?;
            part.add(&writing).await?;
        }
        writing.finish(false).await
    }

    /// What writers of the platform's chain have signed last, the most recent first: at most so many writers, those of so many of the last
    /// signatures.
    pub async fn platform_audit_heads(
        &self,
        (writers_max, checkpoints_max): (usize, u64),
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        let select = checkpoints(AuditChain::Platform).order_by_desc(audit_checkpoint::Column::AtMs);
        let recent = select.order_by_desc(audit_checkpoint::Column::Seq).limit(checkpoints_max);
        let (mut heads, mut known) = (Vec::new(), HashSet::new());
        for checkpoint in row::models(&self.reading().await?.executor(), recent, checkpoint).await? {
            if heads.len() < writers_max && known.insert(checkpoint.writer) {
                heads.push(checkpoint);
            }
        }
        Ok(heads)
    }

    /// The last line of each of these writers in that chain, if it is behind all that was signed of its part.
    pub async fn audit_rows_left(
        &self,
        chain: AuditChain,
        writers: &[AuditWriterId],
    ) -> Result<Vec<AuditRow>, StoreError> {
        let reading = Reading::of_its_own(self, chain.whose()).await?;
        let mut left = Vec::new();
        for writer in writers {
            let last = events(chain).filter(audit_event::Column::Writer.eq(*writer));
            let last = last.order_by_desc(audit_event::Column::Seq).limit(1);
            let signed = checkpoints(chain).filter(audit_checkpoint::Column::Writer.eq(*writer));
            let signed = signed.order_by_desc(audit_checkpoint::Column::Seq).limit(1);
            let last = row::models(&reading.executor(), last, event).await?.pop();
            let Some(last) = last else { continue };
            let signed = row::models(&reading.executor(), signed, checkpoint).await?.pop();
            if signed.is_none_or(|signed| signed.seq < last.seq) {
                left.push(last);
            }
        }
        Ok(left)
    }

    /// The seeds of the keys that sign, the one that does so now last. The first call on a new database makes one.
    pub async fn audit_seeds(&self, platform: &KeyRing) -> Result<Vec<Key>, StoreError> {
        // Before the keys: what has signed was there then.
        let first = checkpoints(AuditChain::Platform).limit(1);
        let reading = self.reading().await?;
        let has_signed = !row::models(&reading.executor(), first, checkpoint).await?.is_empty();
        let has_signed = has_signed || pruned::has_any(&reading).await?;
        drop(reading);
        let mut rows = self.audit_keys().await?;
        if rows.is_empty() {
            // Whoever took the key away would have a record of their own by a new one.
            if has_signed {
                return Err(StoreError::AuditKeyGone);
            }
            self.renew_audit_key(platform).await?;
            rows = self.audit_keys().await?;
        }
        rows.iter().map(|row| opened(platform, row)).collect()
    }

    /// Makes a key that signs if there is none, also where one has signed that is gone. `false` if there is one.
    pub async fn renew_audit_key(&self, platform: &KeyRing) -> Result<bool, StoreError> {
        let key = Key::generate().map_err(StoreError::KeyMade)?;
        let id = key.id().to_string();
        let sealed = crypto::seal(platform, &place(&id), key.bytes()).map_err(StoreError::AuditKeySeal)?;
        let writing = self.writing().await?;
        let db = writing.executor();
        // Another process may have been faster.
        let is_missing = row::models(db, audit_key::Entity::find(), Ok).await?.is_empty();
        if is_missing {
            let created_ms = Set(self.now().as_millis());
            let model = audit_key::ActiveModel { id: Set(id), sealed: Set(sealed), created_ms };
            let insert = audit_key::Entity::insert(model).exec_without_returning(db);
            insert.await.map_err(StoreError::write("audit_key"))?;
        }
        writing.finish(false).await?;
        Ok(is_missing)
    }

    async fn audit_keys(&self) -> Result<Vec<audit_key::Model>, StoreError> {
        let select = audit_key::Entity::find().order_by_asc(audit_key::Column::CreatedMs);
        row::models(&self.reading().await?.executor(), select, Ok).await
    }
}

impl AuditPart {
    async fn add(&self, writing: &Writing) -> Result<(), StoreError> {
        let (db, chain) = (writing.executor(), self.chain.to_string());
        for rows in self.rows.chunks(INSERT_ROWS_MAX) {
            let models = rows.iter().map(|row| audit_event::ActiveModel {
                chain: Set(chain.clone()),
                writer: Set(row.writer),
                seq: Set(number(row.seq)),
                at_ms: Set(row.at.as_millis()),
                line: Set(row.line.clone()),
            });
            let insert =
                audit_event::Entity::insert_many(models).on_conflict(OnConflict::new().do_nothing().to_owned());
            answered(insert.exec_without_returning(db)).await.map_err(StoreError::write("audit_event"))?;
        }
        for rows in self.checkpoints.chunks(INSERT_ROWS_MAX) {
            let models = rows.iter().map(|row| audit_checkpoint::ActiveModel {
                chain: Set(chain.clone()),
                writer: Set(row.writer),
                seq: Set(number(row.seq)),
                at_ms: Set(row.at.as_millis()),
                hash: Set(row.hash.clone()),
                key_id: Set(row.key_id.clone()),
                signature: Set(row.signature.clone()),
            });
            let insert = audit_checkpoint::Entity::insert_many(models);
            let insert = insert.on_conflict(OnConflict::new().do_nothing().to_owned());
            answered(insert.exec_without_returning(db)).await.map_err(StoreError::write("audit_checkpoint"))?;
        }
        Ok(())
    }
}

impl TenantStore {
    /// The tenant's lines, by writer and number, behind that one.
    pub async fn audit_rows(&self, after: Option<(AuditWriterId, u64)>) -> Result<Vec<AuditRow>, StoreError> {
        rows(&self.reading().await?, self.audit_chain(), after).await
    }

    /// The tenant's lines since then, the newest first, without the first `skipped`.
    pub async fn audit_rows_since(&self, since: Timestamp, skipped: u64) -> Result<Vec<AuditRow>, StoreError> {
        newest(&self.reading().await?, self.audit_chain(), (since, skipped)).await
    }

    /// What was signed about the tenant's lines, by writer and number, behind that one.
    pub async fn audit_checkpoints(
        &self,
        after: Option<(AuditWriterId, u64)>,
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        signed(&self.reading().await?, self.audit_chain(), after).await
    }

    fn audit_chain(&self) -> AuditChain {
        AuditChain::Tenant(self.scope())
    }
}

impl Still {
    /// The platform's lines, by writer and number, behind that one.
    pub async fn platform_audit_rows(&self, after: Option<(AuditWriterId, u64)>) -> Result<Vec<AuditRow>, StoreError> {
        rows(&self.reading().await?, AuditChain::Platform, after).await
    }

    /// The platform's lines since then, the newest first, without the first `skipped`.
    pub async fn platform_audit_rows_since(&self, since: Timestamp, skipped: u64) -> Result<Vec<AuditRow>, StoreError> {
        newest(&self.reading().await?, AuditChain::Platform, (since, skipped)).await
    }

    /// What was signed about the platform's lines, by writer and number, behind that one.
    pub async fn platform_audit_checkpoints(
        &self,
        after: Option<(AuditWriterId, u64)>,
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        signed(&self.reading().await?, AuditChain::Platform, after).await
    }
}

async fn rows(
    reading: &Reading,
    chain: AuditChain,
    after: Option<(AuditWriterId, u64)>,
) -> Result<Vec<AuditRow>, StoreError> {
    use audit_event::Column::{Seq, Writer};
    let behind = after.map(|(writer, seq)| {
        let later = Condition::all().add(Writer.eq(writer)).add(Seq.gt(number(seq)));
        Condition::any().add(Writer.gt(writer)).add(later)
    });
    let mut select = events(chain).order_by_asc(Writer).order_by_asc(Seq);
    if let Some(behind) = behind {
        select = select.filter(behind);
    }
    row::models(&reading.executor(), select.limit(AUDIT_PAGE_ROWS), event).await
}

async fn newest(
    reading: &Reading,
    chain: AuditChain,
    (since, skipped): (Timestamp, u64),
) -> Result<Vec<AuditRow>, StoreError> {
    use audit_event::Column::{AtMs, Seq, Writer};
    let select = events(chain).filter(AtMs.gte(since.as_millis()));
    let select = select.order_by_desc(AtMs).order_by_desc(Writer).order_by_desc(Seq);
    row::models(&reading.executor(), select.offset(skipped).limit(AUDIT_PAGE_ROWS), event).await
}

async fn signed(
    reading: &Reading,
    chain: AuditChain,
    after: Option<(AuditWriterId, u64)>,
) -> Result<Vec<AuditCheckpoint>, StoreError> {
    use audit_checkpoint::Column::{Seq, Writer};
    let behind = after.map(|(writer, seq)| {
        let later = Condition::all().add(Writer.eq(writer)).add(Seq.gt(number(seq)));
        Condition::any().add(Writer.gt(writer)).add(later)
    });
    let mut select = checkpoints(chain).order_by_asc(Writer).order_by_asc(Seq);
    if let Some(behind) = behind {
        select = select.filter(behind);
    }
    row::models(&reading.executor(), select.limit(AUDIT_PAGE_ROWS), checkpoint).await
}

fn events(chain: AuditChain) -> Select<audit_event::Entity> {
    audit_event::Entity::find().filter(audit_event::Column::Chain.eq(chain.to_string()))
}

fn checkpoints(chain: AuditChain) -> Select<audit_checkpoint::Entity> {
    audit_checkpoint::Entity::find().filter(audit_checkpoint::Column::Chain.eq(chain.to_string()))
}

fn event(model: audit_event::Model) -> Result<AuditRow, row::BoxError> {
    let audit_event::Model { writer, seq, at_ms, line, .. } = model;
    Ok(AuditRow { writer, seq: u64::try_from(seq)?, at: Timestamp::from_millis(at_ms), line })
}

fn checkpoint(model: audit_checkpoint::Model) -> Result<AuditCheckpoint, row::BoxError> {
    let audit_checkpoint::Model { writer, seq, at_ms, hash, key_id, signature, .. } = model;
    Ok(AuditCheckpoint { writer, seq: u64::try_from(seq)?, at: Timestamp::from_millis(at_ms), hash, key_id, signature })
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Where the seed of that key lies.
fn place(id: &str) -> Place<'_> {
    Place { tenant: "", table: "audit_key", column: "sealed", row: id, kind: "audit seed", version: 1 }
}

fn opened(platform: &KeyRing, row: &audit_key::Model) -> Result<Key, StoreError> {
    let seed = crypto::open(platform, &place(&row.id), &row.sealed).map_err(StoreError::AuditKey)?;
    let bytes = seed.as_slice().try_into().map_err(|_| StoreError::AuditKey(crypto::OpenError::Malformed))?;
    Ok(Key::from_bytes(bytes))
}
