//! Tools, as their upstreams last listed them: what a restart knows without asking anybody.

mod pin;
mod replace;
mod review;

use std::fmt;
use std::str::FromStr;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DeriveValueType, EntityTrait as _, QueryFilter as _, QueryOrder as _, Select,
};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

pub use self::pin::Pin;
pub use self::review::Waiting;
use crate::entity::{tool, upstream};
use crate::error::StoreError;
use crate::id::{TenantId, UpstreamId};
use crate::name::{ExposedName, LocalName};
use crate::scope::TenantStore;
use crate::store::row;
use crate::upstreams::{self, Upstream};

/// A tool, as its upstream last listed it.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Whose.
    pub tenant: TenantId,
    /// Which upstream offers it.
    pub upstream: UpstreamId,
    /// Its name there.
    pub local: LocalName,
    /// Its name for clients.
    pub exposed: ExposedName,
    /// What the upstream says about it, byte for byte.
    pub definition: Box<RawValue>,
    /// The digest of the definition.
    pub digest: Digest,
    /// The digest of the definition that was approved.
    pub approved: Option<Digest>,
    /// Its place in the upstream's list.
    pub position: u32,
    /// Whether it is used.
    pub enabled: bool,
}

/// A tool in the list of its upstream.
#[derive(Debug, Clone)]
pub struct NewTool {
    /// Its name there.
    pub local: LocalName,
    /// The name that clients see, unless an earlier listing gave it one.
    pub exposed: ExposedName,
    /// What the upstream says about it.
    pub definition: Box<RawValue>,
    /// Whether its name could be taken for another tool's: then it waits for approval when it is new, whatever the rule is.
    pub looks_like_another: bool,
}

/// A name that a tool was given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameGiven {
    /// Which upstream's tool.
    pub upstream: UpstreamId,
    /// Its name there.
    pub local: LocalName,
    /// Its name for clients.
    pub exposed: ExposedName,
}

/// What became of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It says what was known.
    Unchanged,
    /// It says something new.
    Changed,
    /// It does not count: the upstream is not configured any more as it was when it was asked. Ask again.
    Stale,
}

/// The SHA-256 of a definition's bytes, printed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
#[sea_orm(value_type = "String")]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl Digest {
    /// The digest of a definition.
    pub fn of(definition: &RawValue) -> Self {
        Self(Sha256::digest(definition.get()).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(DigestError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = hex_value(*high)? << 4 | hex_value(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl TenantStore {
    /// The tools, ordered by the slug of their upstream, then as the upstream lists them.
    pub async fn tools(&self) -> Result<Vec<Tool>, StoreError> {
        let select = in_order().filter(tool::Column::TenantId.eq(self.id()));
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// The exposed names that were given in this tenant, also to tools that are not listed now.
    pub async fn names_given(&self) -> Result<Vec<NameGiven>, StoreError> {
        let select = tool::Entity::find().filter(tool::Column::TenantId.eq(self.id()));
        let parse = |row: tool::Model| {
            Ok(row.exposed.map(|exposed| NameGiven { upstream: row.upstream_id, local: row.local, exposed }))
        };
        let given = row::models(&self.reading().await?.executor(), select, parse).await?;
        Ok(given.into_iter().flatten().collect())
    }

    /// Replaces an upstream's tools by what it listed, in its order, when it was configured as `listed` says. Another order alone
    /// changes nothing.
    ///
    /// A tool keeps the exposed name that it first got, even while it is not listed: no other tool can take its place. What is
    /// seen for the first time is approved only under [`OnNewTool::Accept`](crate::OnNewTool::Accept), a changed definition only under
    /// [`OnToolChange::Accept`](crate::OnToolChange::Accept), and one that was rejected under neither. What differs in no pinned part is no change.
    /// Of a tool that is gone it is remembered what was approved and whether it was switched off, so that going and coming back is no
    /// way around either. That memory has an end: then new tools are left out, before anything is forgotten that matters.
    pub async fn replace_tools(&self, listed: &Upstream, tools: &[NewTool]) -> Result<Replaced, StoreError> {
        replace::check_list(tools)?;
        // Most listings bring nothing new, and take no writer's turn.
        match self.plan(&self.reading().await?.executor(), listed, tools).await? {
            None => return Ok(Replaced::Stale),
            Some(plan) if plan.is_empty() => return Ok(Replaced::Unchanged),
            Some(_) => {}
        }
        let writing = self.writing().await?;
        let db = writing.executor();
        let Some(plan) = self.plan(db, listed, tools).await? else { return Ok(Replaced::Stale) };
        let changes = !plan.is_empty();
        plan.apply(db, listed).await?;
        writing.finish(changes).await?;
        Ok(if changes { Replaced::Changed } else { Replaced::Unchanged })
    }

    /// What has to be done; nothing, if the upstream is not configured any more as `listed` says.
    async fn plan<'t, C: ConnectionTrait>(
        &self,
        db: &C,
        listed: &Upstream,
        tools: &'t [NewTool],
    ) -> Result<Option<replace::Plan<'t>>, StoreError> {
        if upstreams::require(db, self.id(), listed.id).await? != *listed {
            return Ok(None);
        }
        let tools: Vec<_> = tools.iter().map(|tool| (tool, Digest::of(&tool.definition))).collect();
        let known = replace::known(db, listed).await?;
        let kept = replace::kept(db, listed, (&known, &tools)).await?;
        Ok(Some(replace::Plan::new((known, kept), &tools, &listed.spec, self.store().now())))
    }
}

/// Those of all tenants that are listed now; within one, ordered by the slug of their upstream, then as the upstream lists them.
pub(crate) fn in_order() -> Select<tool::Entity> {
    tool::Entity::find()
        .filter(tool::Column::VanishedMs.is_null())
        .inner_join(upstream::Entity)
        .order_by_asc(upstream::Column::Slug)
        .order_by_asc(tool::Column::Position)
        .order_by_asc(tool::Column::Local)
}

fn hex_value(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

pub(crate) fn parse(model: tool::Model) -> Result<Tool, row::BoxError> {
    let definition = RawValue::from_string(model.definition)?;
    if Digest::of(&definition) != model.digest {
        return Err("the definition was altered: it does not have the digest that is noted beside it".into());
    }
    Ok(Tool {
        tenant: model.tenant_id,
        upstream: model.upstream_id,
        local: model.local,
        exposed: model.exposed.ok_or("a listed tool has no exposed name")?,
        definition,
        digest: model.digest,
        approved: model.approved,
        position: model.position.try_into()?,
        enabled: model.enabled,
    })
}
