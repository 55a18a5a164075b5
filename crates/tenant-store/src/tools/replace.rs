//! From an upstream's old tools to its new ones: first a plan, which is pure, then the statements.

use std::collections::{BTreeMap, HashSet};

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QuerySelect as _,
};

use super::{Digest, NewTool};
use crate::choice::OnToolChange;
use crate::clock::Timestamp;
use crate::entity::tool;
use crate::error::StoreError;
use crate::name::{ExposedName, LocalName};
use crate::store::row;
use crate::upstreams::Upstream;

/// How many tools an upstream may have.
const TOOLS_MAX: usize = 10_000;
/// How many tools are remembered that an upstream no longer lists.
const GONE_MAX: usize = 10_000;
/// How many rows or names go into one statement, because databases bound the number of its values.
const STATEMENT_ROWS_MAX: usize = 500;

/// What is known of a tool, listed or vanished, before the new list comes. Its definition is known by the digest.
#[derive(Debug, Clone, FromQueryResult)]
pub(super) struct Known {
    local: LocalName,
    digest: Digest,
    approved: Option<Digest>,
    position: i64,
    enabled: bool,
    exposed: Option<ExposedName>,
    vanished_ms: Option<i64>,
}

/// What has to be done.
#[derive(Debug)]
pub(super) struct Plan<'t> {
    now: Timestamp,
    insert: Vec<Listed<'t>>,
    update: Vec<Listed<'t>>,
    vanish: Vec<LocalName>,
    forget: Vec<LocalName>,
}

/// A tool as it will stand in the table.
#[derive(Debug)]
struct Listed<'t> {
    tool: &'t NewTool,
    /// Whether it takes the exposed name that the list proposes, because it has none.
    is_named: bool,
    position: i64,
    digest: Digest,
    approved: Option<Digest>,
}

/// Refuses a list that is too long or names a tool twice.
pub(super) fn check_list(tools: &[NewTool]) -> Result<(), StoreError> {
    if tools.len() > TOOLS_MAX {
        return Err(StoreError::TooManyTools { count: tools.len(), count_max: TOOLS_MAX });
    }
    let mut seen = HashSet::new();
    match tools.iter().find(|tool| !seen.insert(&tool.local)) {
        Some(twice) => Err(StoreError::ToolTwice(twice.local.clone())),
        None => Ok(()),
    }
}

/// What is known of an upstream's tools.
pub(super) async fn known<C: ConnectionTrait>(db: &C, upstream: &Upstream) -> Result<Vec<Known>, StoreError> {
    let select = tool::Entity::find()
        .filter(tool::Column::TenantId.eq(upstream.tenant))
        .filter(tool::Column::UpstreamId.eq(upstream.id));
    row::rows(db, select, |row| Ok(Known::from_query_result(row, "")?)).await
}

impl<'t> Plan<'t> {
    pub(super) fn new(known: Vec<Known>, tools: &'t [NewTool], on_change: OnToolChange, now: Timestamp) -> Self {
        let mut known: BTreeMap<_, _> = known.into_iter().map(|known| (known.local.clone(), known)).collect();
        let mut plan = Self { now, insert: Vec::new(), update: Vec::new(), vanish: Vec::new(), forget: Vec::new() };
        let mut moved = Vec::new();
        for (position, tool) in (0..).zip(tools) {
            let digest = Digest::of(&tool.definition);
            let listed = Listed { tool, is_named: true, position, digest, approved: Some(digest) };
            match known.remove(&tool.local) {
                None => plan.insert.push(listed),
                Some(known) => match listed.after(&known, on_change) {
                    (listed, true) => plan.update.push(listed),
                    (listed, false) => moved.extend((known.position != position).then_some(listed)),
                },
            }
        }
        plan.vanish(known.into_values().collect(), on_change);
        // Another order alone is no news. The one that is known stays until there is some.
        if !plan.is_empty() {
            plan.update.extend(moved);
        }
        plan
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        [self.insert.len(), self.update.len(), self.vanish.len(), self.forget.len()] == [0; 4]
    }

    /// What is left is not listed now. When too many are gone, the longest gone of those are forgotten whose memory guards
    /// nothing; if that is not enough, new tools are left out.
    fn vanish(&mut self, mut gone: Vec<Known>, on_change: OnToolChange) {
        gone.sort_by_key(|known| known.vanished_ms.unwrap_or(i64::MAX));
        let mut excess = gone.len().saturating_sub(GONE_MAX);
        for known in gone {
            let guards = !known.enabled || on_change == OnToolChange::Quarantine;
            if excess > 0 && !guards {
                excess -= 1;
                self.forget.push(known.local);
            } else if known.vanished_ms.is_none() {
                self.vanish.push(known.local);
            }
        }
        self.insert.truncate(self.insert.len().saturating_sub(excess));
    }

    /// Does it.
    pub(super) async fn apply(self, db: &DatabaseTransaction, upstream: &Upstream) -> Result<(), StoreError> {
        for locals in self.vanish.chunks(STATEMENT_ROWS_MAX) {
            let vanished = tool::ActiveModel {
                definition: Set(String::new()),
                vanished_ms: Set(Some(self.now.as_millis())),
                ..Default::default()
            };
            let update = tool::Entity::update_many().set(vanished).filter(among(upstream, locals));
            update.exec(db).await.map_err(StoreError::write("tool"))?;
        }
        for locals in self.forget.chunks(STATEMENT_ROWS_MAX) {
            let delete = tool::Entity::delete_many().filter(among(upstream, locals));
            delete.exec(db).await.map_err(StoreError::write("tool"))?;
        }
        self.check_names(db, upstream).await?;
        // Many in one statement: each is a round trip, during which nobody else writes.
        for is_named in [true, false] {
            let alike: Vec<_> = self.update.iter().filter(|listed| listed.is_named == is_named).collect();
            for listed in alike.chunks(STATEMENT_ROWS_MAX) {
                let rows = listed.iter().map(|listed| listed.row(upstream));
                let update = tool::Entity::insert_many(rows).on_conflict(takes_over(is_named));
                update.exec_without_returning(db).await.map_err(StoreError::write("tool"))?;
            }
        }
        for listed in self.insert.chunks(STATEMENT_ROWS_MAX) {
            let rows = listed.iter().map(|listed| listed.row(upstream));
            let insert = tool::Entity::insert_many(rows).exec_without_returning(db);
            insert.await.map_err(StoreError::write("tool"))?;
        }
        Ok(())
    }

    /// Refuses names that another tool of the tenant has, or that the list gives twice.
    async fn check_names(&self, db: &DatabaseTransaction, upstream: &Upstream) -> Result<(), StoreError> {
        let named = self.insert.iter().chain(&self.update).filter(|listed| listed.is_named);
        let named: Vec<&ExposedName> = named.map(|listed| &listed.tool.exposed).collect();
        let mut seen = HashSet::new();
        if let Some(twice) = named.iter().find(|name| !seen.insert(**name)) {
            return Err(StoreError::NameTaken((*twice).clone()));
        }
        for names in named.chunks(STATEMENT_ROWS_MAX) {
            let select = tool::Entity::find()
                .filter(tool::Column::TenantId.eq(upstream.tenant))
                .filter(tool::Column::Exposed.is_in(names.iter().copied().cloned()))
                .limit(1);
            let taken = row::models(db, select, |model| Ok(model.exposed)).await?;
            if let Some(taken) = taken.into_iter().flatten().next() {
                return Err(StoreError::NameTaken(taken));
            }
        }
        Ok(())
    }
}

impl Listed<'_> {
    /// What becomes of a known tool, and whether that is more than another place.
    fn after(self, known: &Known, on_change: OnToolChange) -> (Self, bool) {
        let is_back = known.vanished_ms.is_some();
        let approved = match on_change {
            OnToolChange::Accept => Some(self.digest),
            OnToolChange::Quarantine => known.approved,
        };
        let stays = (known.digest, known.approved) == (self.digest, approved);
        (Self { is_named: known.exposed.is_none(), approved, ..self }, is_back || !stays)
    }

    /// The columns that a listing may change: not a name that was given, nor what an operator switched off.
    fn columns(&self) -> tool::ActiveModel {
        tool::ActiveModel {
            exposed: if self.is_named { Set(Some(self.tool.exposed.clone())) } else { NotSet },
            definition: Set(self.tool.definition.get().to_owned()),
            digest: Set(self.digest),
            approved: Set(self.approved),
            position: Set(self.position),
            vanished_ms: Set(None),
            ..Default::default()
        }
    }

    fn row(&self, upstream: &Upstream) -> tool::ActiveModel {
        tool::ActiveModel {
            tenant_id: Set(upstream.tenant),
            upstream_id: Set(upstream.id),
            local: Set(self.tool.local.clone()),
            enabled: Set(true),
            ..self.columns()
        }
    }
}

/// What a known row takes over from one that a listing makes: the columns of [`Listed::columns`].
fn takes_over(is_named: bool) -> OnConflict {
    use tool::Column::{Approved, Definition, Digest, Exposed, Local, Position, TenantId, UpstreamId, VanishedMs};

    let columns = [Definition, Digest, Approved, Position, VanishedMs].into_iter().chain(is_named.then_some(Exposed));
    OnConflict::columns([TenantId, UpstreamId, Local]).update_columns(columns).to_owned()
}

/// The rows of an upstream's tools with these names.
fn among(upstream: &Upstream, locals: &[LocalName]) -> Condition {
    Condition::all()
        .add(tool::Column::TenantId.eq(upstream.tenant))
        .add(tool::Column::UpstreamId.eq(upstream.id))
        .add(tool::Column::Local.is_in(locals.iter().cloned()))
}
