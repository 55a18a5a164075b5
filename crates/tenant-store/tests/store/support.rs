//! What the tests share: a throw-away store with two tenants, specifications to vary, and a way to alter rows from outside.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement, Value};
use serde_json::value::RawValue;
use tenant_store::testing::{ThrowAway, is_on_postgres};
use tenant_store::{
    GrantSpec, Level, LocalKeys, NewTool, OnArguments, OnNewTool, OnToolChange, Store, Tenant, TenantScope, TenantSpec,
    TenantStore, Upstream, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
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

    /// Alters rows as somebody with a database tool would, who does not care whether they still fit each other; answers how many.
    /// Parameters are written `?`.
    pub(crate) async fn sql(&self, sql: &str, values: Vec<Value>) -> anyhow::Result<u64> {
        let other = self.other().await?;
        let looking =
            if is_on_postgres() { "SET session_replication_role = replica" } else { "PRAGMA foreign_keys = OFF" };
        other.execute_unprepared(looking).await?;
        let statement = Statement::from_sql_and_values(other.get_database_backend(), numbered(&other, sql), values);
        let altered = other.execute_raw(statement).await?.rows_affected();
        other.close().await?;
        Ok(altered)
    }

    /// The store as whoever migrates has it.
    pub(crate) async fn owner(&self) -> anyhow::Result<Store> {
        let database = self.away.database();
        let url = database.owner_url.as_ref().unwrap_or(&database.url);
        let keys = Arc::new(LocalKeys::new(self.away.keys.clone()));
        Ok(Store::open(url, keys, Arc::clone(&self.away.clock) as _).await?)
    }

    /// A connection of somebody else's to the same database.
    pub(crate) async fn other(&self) -> anyhow::Result<DatabaseConnection> {
        Ok(self.away.database().other().await?)
    }
}

/// The statement with its parameters as the database wants them.
fn numbered(database: &DatabaseConnection, sql: &str) -> String {
    if database.get_database_backend() == DbBackend::Sqlite {
        return sql.to_owned();
    }
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |sql, (index, part)| format!("{sql}${}{part}", index + 1))
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
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
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
    Ok(NewTool { local: local.parse()?, exposed: exposed.parse()?, definition, looks_like_another: false })
}
