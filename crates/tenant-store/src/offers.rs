//! What upstreams offer besides tools: prompts, resources, templates of resources and skills, as they last listed them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, Select, TryFromU64,
};
use serde_json::value::RawValue;

use crate::choice::OfferKind;
use crate::clock::Timestamp;
use crate::entity::{offer, upstream};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::{ExposedName, OfferKey};
use crate::scope::TenantStore;
use crate::store::row;
use crate::tools::Replaced;
use crate::upstreams::{self, Upstream};

/// How many offers of one kind an upstream may have.
const OFFERS_MAX: usize = 10_000;
/// How many rows go into one statement, because databases bound the number of its values.
const STATEMENT_ROWS_MAX: usize = 500;
/// How many prompts' names are remembered that an upstream no longer lists; then the longest gone are forgotten.
const GONE_MAX: usize = 10_000;
/// What a vanished prompt's definition is: one that no prompt has.
const NO_DEFINITION: &str = "{}";

/// A prompt, a resource, a template or a skill, as its upstream last listed it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Whose.
    pub tenant: TenantId,
    /// Which upstream offers it.
    pub upstream: UpstreamId,
    /// What it is.
    pub kind: OfferKind,
    /// What it is known by at the upstream: the name of a prompt, the URI of a resource, the URI template of a template, the URI of the
    /// `SKILL.md` of a skill.
    pub key: OfferKey,
    /// The name of a prompt for clients; nothing else has one.
    pub exposed: Option<ExposedName>,
    /// What the upstream says about it, byte for byte.
    pub definition: Box<RawValue>,
}

/// A name that a prompt was given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptName {
    /// Which upstream's prompt.
    pub upstream: UpstreamId,
    /// What it is known by there.
    pub key: OfferKey,
    /// Its name for clients.
    pub exposed: ExposedName,
}

/// An offer in the list of its upstream.
#[derive(Debug, Clone)]
pub struct NewOffer {
    /// What it is known by there.
    pub key: OfferKey,
    /// The name of a prompt for clients.
    pub exposed: Option<ExposedName>,
    /// What the upstream says about it.
    pub definition: Box<RawValue>,
}

impl TenantStore {
    /// The offers, ordered by the slug of their upstream, then as the upstream lists them.
    pub async fn offers(&self) -> Result<Vec<Offer>, StoreError> {
        let select = in_order().filter(offer::Column::TenantId.eq(self.id()));
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// The exposed names that were given in this tenant, also to prompts that are not listed now.
    pub async fn prompt_names(&self) -> Result<Vec<PromptName>, StoreError> {
        let select = offer::Entity::find()
            .filter(offer::Column::TenantId.eq(self.id()))
            .filter(offer::Column::Kind.eq(OfferKind::Prompt));
        let parse = |row: offer::Model| {
            Ok(row.exposed.map(|exposed| PromptName { upstream: row.upstream_id, key: row.key, exposed }))
        };
        let given = row::models(&self.reading().await?.executor(), select, parse).await?;
        Ok(given.into_iter().flatten().collect())
    }

    /// Replaces an upstream's offers of one kind by what it listed, in its order, when it was configured as `listed` says. Another order
    /// alone changes nothing. A prompt's exposed name stays its own while it is not listed.
    pub async fn replace_offers(
        &self,
        listed: &Upstream,
        kind: OfferKind,
        offers: &[NewOffer],
    ) -> Result<Replaced, StoreError> {
        check(kind, offers)?;
        // Most listings bring nothing new, and take no writer's turn.
        if are_known(&self.reading().await?.executor(), listed, kind, offers).await? {
            return Ok(Replaced::Unchanged);
        }
        let writing = self.writing().await?;
        let db = writing.executor();
        if upstreams::require(db, self.id(), listed.id).await? != *listed {
            return Ok(Replaced::Stale);
        }
        write(db, (listed, kind), offers, self.store().now()).await?;
        writing.finish(true).await?;
        Ok(Replaced::Changed)
    }
}

/// Those of all tenants that are listed now; within one, ordered by the slug of their upstream, then as the upstream lists them.
pub(crate) fn in_order() -> Select<offer::Entity> {
    offer::Entity::find()
        .filter(offer::Column::VanishedMs.is_null())
        .inner_join(upstream::Entity)
        .order_by_asc(upstream::Column::Slug)
        .order_by_asc(offer::Column::Kind)
        .order_by_asc(offer::Column::Position)
}

fn check(kind: OfferKind, offers: &[NewOffer]) -> Result<(), StoreError> {
    if offers.len() > OFFERS_MAX {
        return Err(StoreError::TooManyOffers { kind, count: offers.len(), count_max: OFFERS_MAX });
    }
    let mut seen = HashSet::new();
    match offers.iter().find(|offer| !seen.insert(&offer.key)) {
        Some(twice) => Err(StoreError::OfferTwice { kind, key: twice.key.clone() }),
        None => Ok(()),
    }
}

/// All that is known of an upstream's offers of one kind, vanished ones too.
fn known(upstream: &Upstream, kind: OfferKind) -> Select<offer::Entity> {
    offer::Entity::find().filter(among(upstream, kind))
}

/// Whether the table holds just these, in whatever order.
async fn are_known<C: ConnectionTrait>(
    db: &C,
    upstream: &Upstream,
    kind: OfferKind,
    offers: &[NewOffer],
) -> Result<bool, StoreError> {
    let known = row::models(db, known(upstream, kind).filter(offer::Column::VanishedMs.is_null()), Ok).await?;
    let known: HashMap<_, _> = known.iter().map(|known| (&known.key, known)).collect();
    let is_same = |new: &NewOffer| {
        let same = |known: &&offer::Model| known.exposed == new.exposed && known.definition == new.definition.get();
        known.get(&new.key).is_some_and(same)
    };
    Ok(known.len() == offers.len() && offers.iter().all(is_same))
}

async fn write(
    db: &DatabaseTransaction,
    (upstream, kind): (&Upstream, OfferKind),
    offers: &[NewOffer],
    now: Timestamp,
) -> Result<(), StoreError> {
    let keys: HashSet<&OfferKey> = offers.iter().map(|new| &new.key).collect();
    // What has no name for clients leaves nothing behind.
    let is_gone = |old: &offer::Model| old.exposed.is_some() && !keys.contains(&old.key);
    let (mut gone, back): (Vec<_>, Vec<_>) =
        row::models(db, known(upstream, kind), Ok).await?.into_iter().partition(is_gone);
    gone.sort_by_key(|old| Reverse(old.vanished_ms.unwrap_or(i64::MAX)));
    let forgotten = gone.split_off(gone.len().min(GONE_MAX));
    let vanished = gone.into_iter().filter(|old| old.vanished_ms.is_none());
    let vanished: Vec<_> = vanished.map(|old| row_of_vanished(old, now)).collect();

    let delete = offer::Entity::delete_many().filter(among(upstream, kind)).filter(offer::Column::VanishedMs.is_null());
    delete.exec(db).await.map_err(StoreError::write("offer"))?;
    let stale: Vec<OfferKey> = back.into_iter().chain(forgotten).map(|old| old.key).collect();
    for keys in stale.chunks(STATEMENT_ROWS_MAX) {
        let these = offer::Column::Key.is_in(keys.iter().cloned());
        let delete = offer::Entity::delete_many().filter(among(upstream, kind)).filter(these);
        delete.exec(db).await.map_err(StoreError::write("offer"))?;
    }
    let rows: Vec<_> = (0..).zip(offers).map(|(position, new)| row_of(upstream, kind, position, new)).collect();
    for rows in [rows, vanished].concat().chunks(STATEMENT_ROWS_MAX) {
        let insert = offer::Entity::insert_many(rows.to_vec()).exec_without_returning(db);
        insert.await.map_err(StoreError::write("offer"))?;
    }
    Ok(())
}

/// The rows of an upstream's offers of one kind.
fn among(upstream: &Upstream, kind: OfferKind) -> Condition {
    Condition::all()
        .add(offer::Column::TenantId.eq(upstream.tenant))
        .add(offer::Column::UpstreamId.eq(upstream.id))
        .add(offer::Column::Kind.eq(kind))
}

fn row_of(upstream: &Upstream, kind: OfferKind, position: i64, new: &NewOffer) -> offer::ActiveModel {
    offer::ActiveModel {
        tenant_id: Set(upstream.tenant),
        upstream_id: Set(upstream.id),
        kind: Set(kind),
        key: Set(new.key.clone()),
        exposed: Set(new.exposed.clone()),
        definition: Set(new.definition.get().to_owned()),
        position: Set(position),
        vanished_ms: Set(None),
    }
}

fn row_of_vanished(old: offer::Model, now: Timestamp) -> offer::ActiveModel {
    offer::ActiveModel {
        tenant_id: Set(old.tenant_id),
        upstream_id: Set(old.upstream_id),
        kind: Set(old.kind),
        key: Set(old.key),
        exposed: Set(old.exposed),
        definition: Set(NO_DEFINITION.to_owned()),
        position: Set(old.position),
        vanished_ms: Set(Some(now.as_millis())),
    }
}

pub(crate) fn parse(model: offer::Model) -> Result<Offer, row::BoxError> {
    Ok(Offer {
        tenant: model.tenant_id,
        upstream: model.upstream_id,
        kind: model.kind,
        key: model.key,
        exposed: model.exposed,
        definition: RawValue::from_string(model.definition)?,
    })
}

// Part of a primary key; no database makes kinds for us.
impl TryFromU64 for OfferKind {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("OfferKind"))
    }
}
