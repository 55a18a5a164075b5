//! What upstreams offer besides tools: prompts, resources and templates of resources, as they last listed them.

use std::collections::HashSet;

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    TryFromU64,
};
use serde_json::value::RawValue;

use crate::choice::OfferKind;
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

/// A prompt, a resource or a template, as its upstream last listed it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Whose.
    pub tenant: TenantId,
    /// Which upstream offers it.
    pub upstream: UpstreamId,
    /// What it is.
    pub kind: OfferKind,
    /// What it is known by at the upstream: the name of a prompt, the URI of a resource, the URI template of a template.
    pub key: OfferKey,
    /// The name of a prompt for clients; nothing else has one.
    pub exposed: Option<ExposedName>,
    /// What the upstream says about it, byte for byte.
    pub definition: Box<RawValue>,
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
        let select = offer::Entity::find()
            .filter(offer::Column::TenantId.eq(self.id()))
            .inner_join(upstream::Entity)
            .order_by_asc(upstream::Column::Slug)
            .order_by_asc(offer::Column::Kind)
            .order_by_asc(offer::Column::Position);
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// Replaces an upstream's offers of one kind by what it listed, in its order, when it was configured as `listed` says.
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
        write(db, listed, kind, offers).await?;
        writing.finish(true).await?;
        Ok(Replaced::Changed)
    }
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

/// Whether the table holds just these, in this order.
async fn are_known<C: ConnectionTrait>(
    db: &C,
    upstream: &Upstream,
    kind: OfferKind,
    offers: &[NewOffer],
) -> Result<bool, StoreError> {
    let select = offer::Entity::find()
        .filter(offer::Column::TenantId.eq(upstream.tenant))
        .filter(offer::Column::UpstreamId.eq(upstream.id))
        .filter(offer::Column::Kind.eq(kind))
        .order_by_asc(offer::Column::Position);
    let known = row::models(db, select, Ok).await?;
    let is_same = |(known, new): (&offer::Model, &NewOffer)| {
        (&known.key, &known.exposed, known.definition.as_str()) == (&new.key, &new.exposed, new.definition.get())
    };
    Ok(known.len() == offers.len() && known.iter().zip(offers).all(is_same))
}

async fn write(
    db: &DatabaseTransaction,
    upstream: &Upstream,
    kind: OfferKind,
    offers: &[NewOffer],
) -> Result<(), StoreError> {
    let delete = offer::Entity::delete_many()
        .filter(offer::Column::TenantId.eq(upstream.tenant))
        .filter(offer::Column::UpstreamId.eq(upstream.id))
        .filter(offer::Column::Kind.eq(kind));
    delete.exec(db).await.map_err(StoreError::write("offer"))?;
    let rows: Vec<_> = (0..)
        .zip(offers)
        .map(|(position, new)| offer::ActiveModel {
            tenant_id: Set(upstream.tenant),
            upstream_id: Set(upstream.id),
            kind: Set(kind),
            key: Set(new.key.clone()),
            exposed: Set(new.exposed.clone()),
            definition: Set(new.definition.get().to_owned()),
            position: Set(position),
        })
        .collect();
    for rows in rows.chunks(STATEMENT_ROWS_MAX) {
        let insert = offer::Entity::insert_many(rows.to_vec()).exec_without_returning(db);
        insert.await.map_err(StoreError::write("offer"))?;
    }
    Ok(())
}

fn parse(model: offer::Model) -> Result<Offer, row::BoxError> {
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
