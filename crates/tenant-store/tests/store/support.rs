//! What the tests share: a throw-away store with two tenants, specifications to vary, and a way to alter rows from outside.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement, Value};
use serde_json::value::RawValue;
use tenant_store::testing::ThrowAway;
use tenant_store::{
    GrantSpec, Level, NewTool, OnToolChange, Store, Tenant, TenantScope, TenantSpec, TenantStore, Upstream,
    UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};

/// A store with the tenants `acme` and `globex`.
pub(crate) struct Bed {
    pub(crate) away: ThrowAway,
    pub(crate) acme: Tenant,
    pub(crate) globex: Tenant,
}

impl Deref for Bed {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.away.store
    }
}

impl Bed {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let away = ThrowAway::new().await;
        let change = away.store.begin().await?;
        let (acme, _) = change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme Corp")).await?;
        let (globex, _) = change.put_tenant(&"globex".parse()?, &TenantSpec::named("Globex")).await?;
        change.commit().await?;
        Ok(Self { away, acme, globex })
    }

    pub(crate) fn acme(&self) -> TenantStore {
        self.tenant(scope(&self.acme))
    }

    pub(crate) fn globex(&self) -> TenantStore {
        self.tenant(scope(&self.globex))
    }

    /// Alters rows as somebody with a database tool would; answers how many.
    pub(crate) async fn sql(&self, sql: &str, values: Vec<Value>) -> anyhow::Result<u64> {
        let other = other(&self.away).await?;
        other.execute_unprepared("PRAGMA foreign_keys = OFF").await?;
        let statement = Statement::from_sql_and_values(other.get_database_backend(), sql, values);
        let altered = other.execute_raw(statement).await?.rows_affected();
        other.close().await?;
        Ok(altered)
    }
}

/// A connection of somebody else's to the same file.
pub(crate) async fn other(away: &ThrowAway) -> anyhow::Result<DatabaseConnection> {
    Ok(Database::connect(format!("sqlite://{}", away.path().display())).await?)
}

#[expect(clippy::disallowed_methods, reason = "tests open every door")]
pub(crate) fn scope(tenant: &Tenant) -> TenantScope {
    TenantScope::of(tenant.id)
}

pub(crate) fn upstream_spec() -> anyhow::Result<UpstreamSpec> {
    Ok(UpstreamSpec {
        url: "https://mcp.acme.example/mcp".parse()?,
        protocol: UpstreamProtocol::Mcp,
        prefix: None,
        auth: UpstreamAuth::Bearer { secret: "token".parse()? },
        call_timeout: Duration::from_secs(30),
        concurrency: 64,
        on_tool_change: OnToolChange::Accept,
        classes: BTreeMap::new(),
        enabled: true,
    })
}

pub(crate) fn grant_spec() -> anyhow::Result<GrantSpec> {
    Ok(GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["analysts".parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    })
}

pub(crate) async fn put_upstream(tenant: &TenantStore, slug: &str) -> anyhow::Result<Upstream> {
    Ok(tenant.put_upstream(&slug.parse()?, &upstream_spec()?).await?.0)
}

pub(crate) fn tool(local: &str, exposed: &str, definition: &str) -> anyhow::Result<NewTool> {
    let definition = RawValue::from_string(definition.to_owned())?;
    Ok(NewTool { local: local.parse()?, exposed: exposed.parse()?, definition })
}
