//! From an upstream's old tools to its new ones: first a plan, which is pure, then the statements.

use std::collections::{BTreeMap, HashMap, HashSet};

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QuerySelect as _,
};

use serde_json::value::RawValue;

use super::pin::say_the_same;
use super::{Digest, NewTool, Pin};
use crate::choice::{OnNewTool, OnToolChange};
use crate::clock::Timestamp;
use crate::entity::tool;
use crate::error::StoreError;
use crate::name::{ExposedName, LocalName};
use crate::store::row;
use crate::upstreams::{Upstream, UpstreamSpec};

/// How many tools an upstream may have.
const TOOLS_MAX: usize = 10_000;
/// How many tools are remembered that an upstream no longer lists.
const GONE_MAX: usize = 10_000;
/// How many rows or names go into one statement, because databases bound the number of its values.
const STATEMENT_ROWS_MAX: usize = 500;
/// The approved definition of a tool that vanishes. Statements read a row as it was before them.
const KEPT_OF_VANISHED: &str = "CASE WHEN approved = digest THEN definition ELSE approved_definition END";
/// The same of one that is listed anew: nothing, where what is listed now is the approved one.
const KEPT_OF_CHANGED: &str = "CASE WHEN excluded.approved = excluded.digest THEN NULL \
     WHEN tool.approved = tool.digest AND tool.vanished_ms IS NULL THEN tool.definition \
     ELSE tool.approved_definition END";

/// What is known of a tool, listed or vanished, before the new list comes. Its definition is known by the digest.
#[derive(Debug, Clone, FromQueryResult)]
pub(super) struct Known {
    local: LocalName,
    digest: Digest,
    approved: Option<Digest>,
    rejected: Option<Pin>,
    position: i64,
    enabled: bool,
    exposed: Option<ExposedName>,
    vanished_ms: Option<i64>,
}

/// The texts that are known of a tool whose new one is another.
#[derive(Debug, FromQueryResult)]
pub(super) struct Kept {
    local: LocalName,
    definition: String,
    approved_definition: Option<String>,
}

/// What has to be done.
#[derive(Debug)]
pub(super) struct Plan<'t> {
    now: Timestamp,
    on_change: OnToolChange,
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

/// The texts that are known of those tools whose new text is another one. Most listings need none.
pub(super) async fn kept<C: ConnectionTrait>(
    db: &C,
    upstream: &Upstream,
    (known, tools): (&[Known], &[(&NewTool, Digest)]),
) -> Result<HashMap<LocalName, Kept>, StoreError> {
    let digests: HashMap<&LocalName, Digest> = known.iter().map(|known| (&known.local, known.digest)).collect();
    let is_other = |(tool, digest): &&(&NewTool, Digest)| digests.get(&tool.local).is_some_and(|known| known != digest);
    let others: Vec<LocalName> = tools.iter().filter(is_other).map(|(tool, _)| tool.local.clone()).collect();
    let mut kept = HashMap::new();
    for locals in others.chunks(STATEMENT_ROWS_MAX) {
        let select = tool::Entity::find().filter(among(upstream, locals));
        let rows: Vec<Kept> = row::rows(db, select, |row| Ok(Kept::from_query_result(row, "")?)).await?;
        kept.extend(rows.into_iter().map(|kept| (kept.local.clone(), kept)));
    }
    Ok(kept)
}

impl<'t> Plan<'t> {
    pub(super) fn new(
        (known, kept): (Vec<Known>, HashMap<LocalName, Kept>),
        tools: &[(&'t NewTool, Digest)],
        rules: &UpstreamSpec,
        now: Timestamp,
    ) -> Self {
        let (on_change, on_new) = (rules.on_tool_change, rules.on_new_tool);
        let mut known: BTreeMap<_, _> = known.into_iter().map(|known| (known.local.clone(), known)).collect();
        let (insert, update, vanish, forget) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut plan = Self { now, on_change, insert, update, vanish, forget };
        let mut moved = Vec::new();
        for (position, (tool, digest)) in (0..).zip(tools.iter().copied()) {
            let is_accepted = on_new == OnNewTool::Accept && !tool.looks_like_another;
            let listed = Listed { tool, is_named: true, position, digest, approved: is_accepted.then_some(digest) };
            match known.remove(&tool.local) {
                None => plan.insert.push(listed),
                Some(known) => match listed.after(&known, kept.get(&tool.local), on_change) {
                    (listed, true) => plan.update.push(listed),
                    (listed, false) => moved.extend((known.position != position).then_some(listed)),
                },
            }
        }
        plan.vanish(known.into_values().collect());
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
    fn vanish(&mut self, mut gone: Vec<Known>) {
        gone.sort_by_key(|known| known.vanished_ms.unwrap_or(i64::MAX));
        let mut excess = gone.len().saturating_sub(GONE_MAX);
        for known in gone {
            let is_judged = !known.enabled || known.rejected.is_some();
            let guards = is_judged || self.on_change == OnToolChange::Quarantine;
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
            let mut update = tool::Entity::update_many().set(vanished).filter(among(upstream, locals));
            if self.on_change == OnToolChange::Quarantine {
                update = update.col_expr(tool::Column::ApprovedDefinition, Expr::cust(KEPT_OF_VANISHED));
            }
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
    fn after(self, known: &Known, kept: Option<&Kept>, on_change: OnToolChange) -> (Self, bool) {
        let is_back = known.vanished_ms.is_some();
        let text = self.tool.definition.get();
        let is_same = known.digest == self.digest || kept.is_some_and(|kept| say_the_same(&kept.definition, text));
        let was_approved = known.approved == Some(known.digest);
        let approved = if self.is_approved_after((known, kept), on_change) || (is_same && was_approved) {
            Some(self.digest)
        } else {
            known.approved
        };
        let stays = is_same && was_approved == (approved == Some(self.digest));
        (Self { is_named: known.exposed.is_none(), approved, ..self }, is_back || !stays)
    }

    /// Whether the rule approves it, or it differs from what was approved in no pinned part. What was never approved is not approved by
    /// changing, and what was rejected by nothing.
    fn is_approved_after(&self, (known, kept): (&Known, Option<&Kept>), on_change: OnToolChange) -> bool {
        let Some(approved) = known.approved else { return false };
        if known.rejected.is_some_and(|rejected| rejected == Pin::of(&self.tool.definition)) {
            return false;
        }
        let is_pinned = || {
            let pinned = kept.and_then(|kept| kept.approved(approved));
            pinned.is_some_and(|pinned| Pin::of(pinned) == Pin::of(&self.tool.definition))
        };
        on_change == OnToolChange::Accept || approved == self.digest || is_pinned()
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

impl Kept {
    /// The text that was approved.
    fn approved(&self, approved: Digest) -> Option<&RawValue> {
        let texts = [Some(&self.definition), self.approved_definition.as_ref()].into_iter().flatten();
        let mut raw = texts.filter_map(|text| serde_json::from_str::<&RawValue>(text).ok());
        raw.find(|raw| Digest::of(raw) == approved)
    }
}

/// What a known row takes over from one that a listing makes: the columns of [`Listed::columns`]. What was approved is kept when
/// something else takes its place.
fn takes_over(is_named: bool) -> OnConflict {
    use tool::Column::{
        Approved, ApprovedDefinition, Definition, Digest, Exposed, Local, Position, TenantId, UpstreamId, VanishedMs,
    };

    let columns = [Definition, Digest, Approved, Position, VanishedMs].into_iter().chain(is_named.then_some(Exposed));
    OnConflict::columns([TenantId, UpstreamId, Local])
        .update_columns(columns)
        .value(ApprovedDefinition, Expr::cust(KEPT_OF_CHANGED))
        .to_owned()
}

/// The rows of an upstream's tools with these names.
fn among(upstream: &Upstream, locals: &[LocalName]) -> Condition {
    Condition::all()
        .add(tool::Column::TenantId.eq(upstream.tenant))
        .add(tool::Column::UpstreamId.eq(upstream.id))
        .add(tool::Column::Local.is_in(locals.iter().cloned()))
}
