//! Upstreams: the MCP servers and the APIs that a tenant has connected.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, ExprTrait as _,
    QueryFilter as _, QueryOrder as _, Select,
};
use url::Url;

use crate::choice::{ManagedKind, OnArguments, OnNewTool, OnToolChange, ToolClass};
use crate::entity::{credential, upstream};
use crate::error::StoreError;
use crate::health;
use crate::id::{TenantId, UpstreamId};
use crate::managed;
use crate::name::{LocalName, ToolPrefix, UpstreamSlug};
use crate::protocol::UpstreamProtocol;
use crate::scope::TenantStore;
use crate::store::{Put, row};
use crate::tenants;
use crate::upstream_auth::{UpstreamAuth, destination_of, origin_of};

/// An MCP server, or an API, that a tenant has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Which.
    pub id: UpstreamId,
    /// Whose.
    pub tenant: TenantId,
    /// Its short name.
    pub slug: UpstreamSlug,
    /// What the operator said about it.
    pub spec: UpstreamSpec,
    /// How often it was begun anew with. What is held in memory for an upstream is for one with the same number.
    pub resets: u32,
}

/// What an operator says about an upstream. [`UpstreamSpec::check`] holds for every one that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// The address.
    pub url: Url,
    /// What it speaks there.
    pub protocol: UpstreamProtocol,
    /// What is put before the names of its tools.
    pub prefix: Option<ToolPrefix>,
    /// How we prove ourselves to it.
    pub auth: UpstreamAuth,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How many calls may run at once.
    pub concurrency: u32,
    /// What happens when it changes a tool.
    pub on_tool_change: OnToolChange,
    /// What happens when it lists a tool for the first time.
    pub on_new_tool: OnNewTool,
    /// What is done with arguments before it gets them.
    pub on_arguments: OnArguments,
    /// The classes of its tools, where the operator sets them.
    pub classes: BTreeMap<LocalName, ToolClass>,
    /// Whether it is used.
    pub enabled: bool,
}

impl Upstream {
    /// Scheme, host and port of the address.
    pub fn origin(&self) -> String {
        origin_of(&self.spec.url)
    }

    /// What credentials are stored for: the origin and, where access tokens are asked for, that of the authorization server.
    pub fn destination(&self) -> String {
        destination_of(&self.spec.url, &self.spec.auth)
    }
}

impl TenantStore {
    /// The upstreams, ordered by slug.
    pub async fn upstreams(&self) -> Result<Vec<Upstream>, StoreError> {
        let select = in_order().filter(upstream::Column::TenantId.eq(self.id()));
        row::models(&self.reading().await?.executor(), select, parse).await
    }

    /// One upstream.
    pub async fn upstream(&self, id: UpstreamId) -> Result<Upstream, StoreError> {
        require(&self.reading().await?.executor(), self.id(), id).await
    }

    /// The upstream with that slug.
    pub async fn find_upstream(&self, slug: &UpstreamSlug) -> Result<Option<Upstream>, StoreError> {
        find(&self.reading().await?.executor(), self.id(), slug).await
    }

    /// Makes or changes an upstream. When its origin (scheme, host or port) or that of its authorization server changes, its
    /// credentials are deleted: they were entrusted to the old ones.
    pub async fn put_upstream(&self, slug: &UpstreamSlug, spec: &UpstreamSpec) -> Result<(Upstream, Put), StoreError> {
        spec.check()?;
        let writing = self.writing().await?;
        let db = writing.executor();
        let outcome = match find(db, self.id(), slug).await? {
            Some(upstream) if upstream.spec == *spec => (upstream, Put::Unchanged),
            Some(upstream) => (update(db, upstream, spec).await?, Put::Changed),
            None => {
                let id = UpstreamId::new(self.store().now());
                let upstream = Upstream { id, tenant: self.id(), slug: slug.clone(), spec: spec.clone(), resets: 0 };
                (insert(db, upstream).await?, Put::Created)
            }
        };
        writing.finish(outcome.1 != Put::Unchanged).await?;
        Ok(outcome)
    }

    /// Has everybody begin anew with an upstream, as if it had been changed.
    pub async fn reset_upstream(&self, id: UpstreamId) -> Result<(), StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let Upstream { resets, .. } = require(db, self.id(), id).await?;
        // Another number is what counts.
        let reset = upstream::ActiveModel { resets: Set(resets.wrapping_add(1).into()), ..Default::default() };
        let update = upstream::Entity::update_many()
            .set(reset)
            .filter(upstream::Column::TenantId.eq(self.id()))
            .filter(upstream::Column::Id.eq(id));
        update.exec(db).await.map_err(StoreError::write("upstream"))?;
        writing.finish(true).await?;
        Ok(())
    }

    /// Deletes an upstream with its credentials and tools; `false` if there is none.
    pub async fn remove_upstream(&self, id: UpstreamId) -> Result<bool, StoreError> {
        let writing = self.writing().await?;
        let db = writing.executor();
        let this = of_tenant(self.id()).filter(upstream::Column::Id.eq(id));
        let slug = row::models(db, this, |row| Ok(row.slug)).await?.pop();
        let delete = upstream::Entity::delete_many()
            .filter(upstream::Column::TenantId.eq(self.id()))
            .filter(upstream::Column::Id.eq(id));
        delete.exec(db).await.map_err(StoreError::write("upstream"))?;
        if let Some(slug) = &slug {
            managed::forget(db, self.id(), ManagedKind::Upstream, slug.as_str()).await?;
        }
        writing.finish(slug.is_some()).await?;
        Ok(slug.is_some())
    }
}

/// The upstream, if it is that tenant's.
pub(crate) async fn require<C: ConnectionTrait>(
    db: &C,
    tenant: TenantId,
    id: UpstreamId,
) -> Result<Upstream, StoreError> {
    let select = of_tenant(tenant).filter(upstream::Column::Id.eq(id));
    let missing = || StoreError::NotFound { what: "upstream", name: id.to_string() };
    row::models(db, select, parse).await?.pop().ok_or_else(missing)
}

/// Raises the version that the upstream's last credential got, and answers the new one.
pub(crate) async fn next_credential_version(db: &DatabaseTransaction, of: &Upstream) -> Result<u32, StoreError> {
    let version = Expr::col(upstream::Column::CredentialVersion);
    let this = Condition::all().add(upstream::Column::TenantId.eq(of.tenant)).add(upstream::Column::Id.eq(of.id));
    let raise = upstream::Entity::update_many()
        .col_expr(upstream::Column::CredentialVersion, version.add(1))
        .filter(this.clone());
    raise.exec(db).await.map_err(StoreError::write("upstream"))?;

    let raised = row::models(db, upstream::Entity::find().filter(this), |row| Ok(row.credential_version.try_into()?));
    let missing = || StoreError::NotFound { what: "upstream", name: of.id.to_string() };
    raised.await?.pop().ok_or_else(missing)
}

/// Those of all tenants; within one, ordered by slug.
pub(crate) fn in_order() -> Select<upstream::Entity> {
    upstream::Entity::find().order_by_asc(upstream::Column::Slug)
}

fn of_tenant(tenant: TenantId) -> Select<upstream::Entity> {
    upstream::Entity::find().filter(upstream::Column::TenantId.eq(tenant))
}

async fn find<C: ConnectionTrait>(
    db: &C,
    tenant: TenantId,
    slug: &UpstreamSlug,
) -> Result<Option<Upstream>, StoreError> {
    Ok(row::models(db, of_tenant(tenant).filter(upstream::Column::Slug.eq(slug.clone())), parse).await?.pop())
}

async fn insert<C: ConnectionTrait>(db: &C, upstream: Upstream) -> Result<Upstream, StoreError> {
    tenants::require(db, upstream.tenant).await?;
    let model = upstream::ActiveModel {
        tenant_id: Set(upstream.tenant),
        id: Set(upstream.id),
        slug: Set(upstream.slug.clone()),
        credential_version: Set(0),
        resets: Set(0),
        ..columns(&upstream.spec)?
    };
    upstream::Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write("upstream"))?;
    Ok(upstream)
}

async fn update<C: ConnectionTrait>(db: &C, old: Upstream, spec: &UpstreamSpec) -> Result<Upstream, StoreError> {
    let update = upstream::Entity::update_many()
        .set(columns(spec)?)
        .filter(upstream::Column::TenantId.eq(old.tenant))
        .filter(upstream::Column::Id.eq(old.id));
    update.exec(db).await.map_err(StoreError::write("upstream"))?;

    let new = Upstream { spec: spec.clone(), ..old.clone() };
    if (&new.spec.url, &new.spec.protocol) != (&old.spec.url, &old.spec.protocol) {
        health::forget(db, old.tenant, old.id).await?;
    }
    if new.destination() != old.destination() {
        let delete = credential::Entity::delete_many()
            .filter(credential::Column::TenantId.eq(old.tenant))
            .filter(credential::Column::UpstreamId.eq(old.id));
        delete.exec(db).await.map_err(StoreError::write("credential"))?;
    }
    Ok(new)
}

/// The columns that hold a specification.
fn columns(spec: &UpstreamSpec) -> Result<upstream::ActiveModel, StoreError> {
    Ok(upstream::ActiveModel {
        url: Set(spec.url.as_str().to_owned()),
        protocol: Set(row::json("upstream", &spec.protocol)?),
        prefix: Set(spec.prefix.clone()),
        auth: Set(row::json("upstream", &spec.auth)?),
        call_timeout_ms: Set(i64::try_from(spec.call_timeout.as_millis()).unwrap_or(i64::MAX)),
        concurrency: Set(spec.concurrency.into()),
        on_tool_change: Set(spec.on_tool_change),
        on_new_tool: Set(spec.on_new_tool),
        on_arguments: Set(spec.on_arguments),
        classes: Set(row::json("upstream", &spec.classes)?),
        enabled: Set(spec.enabled),
        ..Default::default()
    })
}

pub(crate) fn parse(model: upstream::Model) -> Result<Upstream, row::BoxError> {
    let spec = UpstreamSpec {
        url: model.url.parse()?,
        protocol: serde_json::from_str(&model.protocol)?,
        prefix: model.prefix,
        auth: serde_json::from_str(&model.auth)?,
        call_timeout: Duration::from_millis(model.call_timeout_ms.try_into()?),
        concurrency: model.concurrency.try_into()?,
        on_tool_change: model.on_tool_change,
        on_new_tool: model.on_new_tool,
        on_arguments: model.on_arguments,
        classes: serde_json::from_str(&model.classes)?,
        enabled: model.enabled,
    };
    spec.check()?;
    let resets = model.resets.try_into()?;
    Ok(Upstream { id: model.id, tenant: model.tenant_id, slug: model.slug, spec, resets })
}
