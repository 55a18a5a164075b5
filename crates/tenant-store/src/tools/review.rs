//! What waits for somebody's word: tools whose present definition is not the approved one. A word is about the definition that was
//! looked at, and about no other.

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, Condition, DatabaseTransaction, EntityTrait as _, ExprTrait as _, QueryFilter as _};
use serde_json::value::RawValue;

use super::{Digest, Pin, Tool, in_order, parse};
use crate::entity::tool;
use crate::error::StoreError;
use crate::id::UpstreamId;
use crate::name::LocalName;
use crate::scope::TenantStore;
use crate::store::row;

/// A tool that nobody can use until its present definition is approved, or the approved one is back.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The tool, with what its upstream lists now.
    pub tool: Tool,
    /// The pin of that.
    pub pin: Pin,
    /// The definition that was approved, if there is one and it was kept.
    pub approved_definition: Option<Box<RawValue>>,
    /// Whether what its upstream lists now was rejected.
    pub is_rejected: bool,
}

impl TenantStore {
    /// The tools that wait, rejected ones too; ordered as [`TenantStore::tools`].
    pub async fn waiting_tools(&self) -> Result<Vec<Waiting>, StoreError> {
        let differs = tool::Column::Approved.into_expr().ne(tool::Column::Digest.into_expr());
        let waits = Condition::any().add(tool::Column::Approved.is_null()).add(differs);
        let select = in_order().filter(tool::Column::TenantId.eq(self.id())).filter(waits);
        row::models(&self.reading().await?.executor(), select, waiting).await
    }

    /// Approves what an upstream lists of a tool now, if that has the pin `reviewed`; `false` if it was approved already.
    pub async fn approve_tool(
        &self,
        upstream: UpstreamId,
        local: &LocalName,
        reviewed: Pin,
    ) -> Result<bool, StoreError> {
        self.decide((upstream, local), reviewed, |tool| {
            let approved = tool::ActiveModel {
                approved: Set(Some(tool.digest)),
                approved_definition: Set(None),
                rejected: Set(None),
                ..Default::default()
            };
            Ok((tool.approved != Some(tool.digest)).then_some(approved))
        })
        .await
    }

    /// Keeps what an upstream lists of a tool now hidden, if that has the pin `reviewed`, whatever the upstream's rules become; `false`
    /// if it was rejected already.
    pub async fn reject_tool(
        &self,
        upstream: UpstreamId,
        local: &LocalName,
        reviewed: Pin,
    ) -> Result<bool, StoreError> {
        self.decide((upstream, local), reviewed, |tool| {
            if tool.approved == Some(tool.digest) {
                return Err(StoreError::NotWaiting(local.clone()));
            }
            let rejected = tool::ActiveModel { rejected: Set(Some(reviewed)), ..Default::default() };
            Ok((tool.rejected != Some(reviewed)).then_some(rejected))
        })
        .await
    }

    /// Sets what `word` says of the tool as it is listed now, if that is what was reviewed; `false` if it says nothing new.
    async fn decide(
        &self,
        (upstream, local): (UpstreamId, &LocalName),
        reviewed: Pin,
        word: impl FnOnce(tool::Model) -> Result<Option<tool::ActiveModel>, StoreError>,
    ) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let columns = word(self.reviewed(db, (upstream, local), reviewed).await?)?;
        let changes = columns.is_some();
        if let Some(columns) = columns {
            let update = tool::Entity::update_many().set(columns).filter(self.this(upstream, local));
            update.exec(db).await.map_err(StoreError::write("tool"))?;
        }
        writing.finish(changes).await?;
        Ok(changes)
    }

    /// The tool as it is listed now, if that is what was reviewed.
    async fn reviewed(
        &self,
        db: &DatabaseTransaction,
        (upstream, local): (UpstreamId, &LocalName),
        reviewed: Pin,
    ) -> Result<tool::Model, StoreError> {
        let listed = tool::Entity::find().filter(self.this(upstream, local)).filter(tool::Column::VanishedMs.is_null());
        let found = row::models(db, listed, |model| {
            let pin = Pin::of(&parse(model.clone())?.definition);
            Ok((model, pin))
        });
        let missing = || StoreError::NotFound { what: "tool", name: local.to_string() };
        match found.await?.pop().ok_or_else(missing)? {
            (model, pin) if pin == reviewed => Ok(model),
            (_, pin) => Err(StoreError::OtherDefinition { tool: local.clone(), pin }),
        }
    }

    fn this(&self, upstream: UpstreamId, local: &LocalName) -> Condition {
        Condition::all()
            .add(tool::Column::TenantId.eq(self.id()))
            .add(tool::Column::UpstreamId.eq(upstream))
            .add(tool::Column::Local.eq(local.clone()))
    }
}

fn waiting(mut model: tool::Model) -> Result<Waiting, row::BoxError> {
    let (rejected, kept) = (model.rejected, model.approved_definition.take());
    let tool = parse(model)?;
    let pin = Pin::of(&tool.definition);
    let kept = kept.map(RawValue::from_string).transpose()?.filter(|kept| Some(Digest::of(kept)) == tool.approved);
    Ok(Waiting { tool, pin, approved_definition: kept, is_rejected: rejected == Some(pin) })
}
