//! Revocations: the kill switches. What is revoked is as good as gone until it is reinstated, whatever grants and manifests say. (API keys
//! and secrets have an end of their own.)

use std::fmt::Write as _;

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::directory;
use crate::entity::revocation::{self, Column};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::{Group, IssuerName, LocalName, Subject};
use crate::revision::{self, Revision};
use crate::store::{Still, Store, row};

/// What can be revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Revoked {
    /// A principal: nobody is let in as this one.
    Principal {
        /// Whose name it is.
        issuer: IssuerName,
        /// The name.
        subject: Subject,
    },
    /// A group: being in it gives nobody anything.
    Group {
        /// Whose name it is.
        issuer: IssuerName,
        /// The name.
        group: Group,
    },
    /// A tenant: nobody reaches it, and nothing of it is called.
    Tenant {
        /// Which.
        tenant: TenantId,
    },
    /// An upstream: it is not called.
    Upstream {
        /// Whose.
        tenant: TenantId,
        /// Which.
        upstream: UpstreamId,
    },
    /// A tool of an upstream, or whatever else has that name there.
    Tool {
        /// Whose.
        tenant: TenantId,
        /// Of which upstream.
        upstream: UpstreamId,
        /// Its name there.
        local: LocalName,
    },
}

/// Something that is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub what: Revoked,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

impl Revoked {
    /// Whose it is, where it is a tenant's.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Principal { .. } | Self::Group { .. } => None,
            Self::Tenant { tenant } | Self::Upstream { tenant, .. } | Self::Tool { tenant, .. } => Some(*tenant),
        }
    }

    /// What it is known by in the database.
    fn key(text: &str) -> String {
        let mut key = String::with_capacity(64);
        for byte in Sha256::digest(text) {
            // Writing to a string does not fail.
            write!(key, "{byte:02x}").ok();
        }
        key
    }
}

impl Store {
    /// Revokes it. Answers the state of the configuration since then; that which is, if it was revoked already.
    pub async fn revoke(&self, what: &Revoked, reason: &str) -> Result<Revision, StoreError> {
        let text = row::json("revocation", what)?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let key = Revoked::key(&text);
        let known = row::models(db, revocation::Entity::find_by_id(key.as_str()), |_| Ok(())).await?;
        let is_new = known.is_empty();
        if is_new {
            let row = revocation::ActiveModel {
                key: Set(key),
                tenant_id: Set(what.tenant()),
                what: Set(text),
                reason: Set(reason.to_owned()),
                at_ms: Set(self.now().as_millis()),
            };
            let insert = revocation::Entity::insert(row).exec_without_returning(db);
            insert.await.map_err(StoreError::write("revocation"))?;
        }
        let Revision(before) = revision::current(db).await?;
        writing.finish(is_new).await?;
        Ok(Revision(before + u64::from(is_new)))
    }

    /// Takes a revocation back; nothing, if it was not revoked. Otherwise the state of the configuration since then.
    pub async fn reinstate(&self, what: &Revoked) -> Result<Option<Revision>, StoreError> {
        let key = Revoked::key(&row::json("revocation", what)?);
        let writing = self.writing().await?;
        let db = writing.executor();
        let delete = revocation::Entity::delete_many().filter(Column::Key.eq(key)).exec(db);
        let is_gone = delete.await.map_err(StoreError::write("revocation"))?.rows_affected > 0;
        let Revision(before) = revision::current(db).await?;
        writing.finish(is_gone).await?;
        Ok(is_gone.then_some(Revision(before + 1)))
    }
}

impl Still {
    /// All that is revoked, what was revoked first in front, those whom a directory takes away among them. Where a tenant's row cannot be
    /// read, it is as if the tenant were revoked; any other might be anybody's, and is an error.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        let select = revocation::Entity::find().order_by_asc(Column::AtMs).order_by_asc(Column::Key);
        let parse = |model: revocation::Model| {
            let read: Result<Revoked, _> = serde_json::from_str(&model.what);
            let what = match (read, model.tenant_id) {
                (Ok(what), tenant) if what.tenant() == tenant => what,
                (_, Some(tenant)) => Revoked::Tenant { tenant },
                (Err(error), None) => return Err(error.into()),
                (Ok(_), None) => return Err("it is not said whose it is".into()),
            };
            Ok(Revocation { what, reason: model.reason, at: Timestamp::from_millis(model.at_ms) })
        };
        let reading = self.reading().await?;
        let mut all = row::models(&reading.executor(), select, parse).await?;
        all.extend(directory::away(&reading.executor()).await?);
        all.sort_by_key(|revocation| revocation.at);
        Ok(all)
    }
}
