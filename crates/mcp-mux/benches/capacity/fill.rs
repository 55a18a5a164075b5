//! Fills a database as operators and upstreams do, through the store's own methods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crypto::{Key, KeyRing};
use secrecy::SecretString;
use serde_json::json;
use tenant_store::{
    Change, GrantSpec, Level, LocalKeys, NewTool, OnArguments, OnNewTool, OnToolChange, Store, SystemClock,
    TenantScope, TenantSpec, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};

/// How many tenants are made in one change: PostgreSQL remembers every part of a transaction.
const CHANGE_TENANTS: usize = 50;
/// A group that is named by one grant of each of so many tenants.
const SHARING: usize = 100;
const KEY: &str = "upstream-key-0123456789abcdef";
/// What the tools do, in turn.
const VERBS: [&str; 10] =
    ["search", "get", "list", "create", "update", "delete", "comment_on", "assign", "export", "archive"];
/// What the grants let people use, in turn: patterns of tools, and what is taken from those.
const PATTERNS: [(Level, &[&str], &[&str]); 5] = [
    (Level::Read, &["*"], &["*export*"]),
    (Level::Write, &["*create*", "*update*", "*comment*", "*assign*"], &[]),
    (Level::Admin, &["*"], &[]),
    (Level::Read, &["*search*", "*get*", "*list*"], &["*archive*", "*delete*"]),
    (Level::Write, &["*"], &["*delete*"]),
];

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Of all together.
    pub(crate) tenants: usize,
    /// Of each tenant.
    pub(crate) tools: usize,
    /// Of each tenant.
    pub(crate) grants: usize,
}

/// Migrates and fills the database; answers how long that took.
pub(crate) async fn run(url: &SecretString, sizes: Sizes) -> Result<Duration> {
    let store = store(url).await?;
    // A test database on PostgreSQL is migrated already, by its owner.
    if !store.has_roles() {
        store.migrate().await?;
    }
    let began = Instant::now();
    let numbers: Vec<usize> = (0..sizes.tenants).collect();
    for numbers in numbers.chunks(CHANGE_TENANTS) {
        let change = store.begin().await?;
        for number in numbers {
            tenant(&change, *number, sizes).await?;
        }
        change.commit().await?;
    }
    Ok(began.elapsed())
}

/// The store, with a key that nobody needs afterwards: what is measured opens no secret.
pub(crate) async fn store(url: &SecretString) -> Result<Store> {
    let keys = LocalKeys::new(KeyRing::new(Key::generate()?, Vec::new()));
    Ok(Store::open(url, Arc::new(keys), Arc::new(SystemClock)).await?)
}

async fn tenant(change: &Change, number: usize, sizes: Sizes) -> Result<()> {
    let name = slug(number);
    let (tenant, _) = change.put_tenant(&name.parse()?, &TenantSpec::named(format!("Company {number}"))).await?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark prepares the database as an operator would")]
    let rows = change.tenant(TenantScope::of(tenant.id));
    let spec = UpstreamSpec {
        url: format!("https://mcp.{name}.example/mcp").parse()?,
        protocol: UpstreamProtocol::Mcp,
        prefix: None,
        auth: UpstreamAuth::Bearer { secret: "key".parse()? },
        call_timeout: Duration::from_secs(30),
        concurrency: 16,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: true,
    };
    let (upstream, _) = rows.put_upstream(&"desk".parse()?, &spec).await?;
    rows.put_credential(upstream.id, &"key".parse()?, &SecretString::from(KEY)).await?;
    for place in 0..sizes.grants {
        rows.put_grant(&format!("grant-{place}").parse()?, &grant(number, place)?).await?;
    }
    rows.replace_tools(&upstream, &tools(number, sizes.tools, "")?).await?;
    Ok(())
}

/// The short name of a tenant.
pub(crate) fn slug(number: usize) -> String {
    format!("t{number:05}")
}

/// The group of a tenant's grant, which is the tenant's own or, for the last one of each five, one that many tenants share.
pub(crate) fn group(number: usize, place: usize) -> String {
    if place % PATTERNS.len() == PATTERNS.len() - 1 {
        format!("support-{}", number / SHARING)
    } else {
        format!("{}-team-{place}", slug(number))
    }
}

fn grant(number: usize, place: usize) -> Result<GrantSpec> {
    let (level, allow, deny) = PATTERNS.into_iter().cycle().nth(place).context("there are patterns")?;
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    Ok(GrantSpec {
        issuer: "corp".parse()?,
        groups: vec![group(number, place).parse()?],
        subjects: Vec::new(),
        level,
        allow: patterns(allow)?,
        deny: patterns(deny)?,
    })
}

/// What the upstream of a tenant lists; `news` is said in each description.
pub(crate) fn tools(number: usize, count: usize, news: &str) -> Result<Vec<NewTool>> {
    let tool = |place: usize| {
        let verb = VERBS.into_iter().cycle().nth(place).context("there are verbs")?;
        let local = format!("{verb}_{place}");
        Ok(NewTool {
            exposed: format!("{}__{local}", slug(number)).parse()?,
            definition: serde_json::from_str(&definition(&local, news))?,
            local: local.parse()?,
            looks_like_another: false,
        })
    };
    (0..count).map(tool).collect()
}

/// About 600 bytes.
fn definition(local: &str, news: &str) -> String {
    let query = json!({ "type": "string", "description": "What to look for, in the words of the person who asks." });
    let project =
        json!({ "type": "string", "description": "The key of the project, as it is shown before the number." });
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 });
    let is_read_only = ["search", "get", "list"].iter().any(|verb| local.starts_with(verb));
    json!({
        "name": local,
        "title": format!("Tickets: {local}"),
        "description": format!("Works on the tickets of the company's own desk, one project at a time. {news}"),
        "inputSchema": {
            "type": "object",
            "properties": { "query": query, "project": project, "limit": limit },
            "required": ["query"], "additionalProperties": false,
        },
        "annotations": { "readOnlyHint": is_read_only },
    })
    .to_string()
}
