//! Tenants as operators make them: an upstream with a sealed key, a grant for a group, and tools that are known already.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use secrecy::SecretString;
use serde_json::json;
use tenant_store::{
    Change, GrantSpec, Level, NewTool, OnArguments, OnNewTool, OnToolChange, TenantScope, TenantSpec, UpstreamAuth,
    UpstreamProtocol, UpstreamSpec,
};
use url::Url;

/// The key of every upstream.
pub(crate) const BEARER: &str = "upstream-key-0123456789abcdef";

/// Adds a tenant with an upstream at `url`, and that many tools that are known. Who is in the group of its name has them.
pub(crate) async fn add(change: &Change, name: &str, url: &str, tools: usize) -> Result<()> {
    let (tenant, _) = change.put_tenant(&name.parse()?, &TenantSpec::named(name)).await?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark prepares the database as an operator would")]
    let rows = change.tenant(TenantScope::of(tenant.id));
    let spec = UpstreamSpec {
        url: Url::parse(url)?,
        protocol: UpstreamProtocol::Mcp,
        prefix: None,
        auth: UpstreamAuth::Bearer { secret: "key".parse()? },
        call_timeout: Duration::from_secs(30),
        concurrency: 128,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: true,
    };
    let (upstream, _) = rows.put_upstream(&"desk".parse()?, &spec).await?;
    rows.put_credential(upstream.id, &"key".parse()?, &SecretString::from(BEARER)).await?;
    let grant = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec![name.parse()?],
        subjects: Vec::new(),
        level: Level::Write,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    };
    rows.put_grant(&"team".parse()?, &grant).await?;
    if tools > 0 {
        let tools = (0..tools).map(|number| new_tool(name, number)).collect::<Result<Vec<_>>>()?;
        rows.replace_tools(&upstream, &tools).await?;
    }
    Ok(())
}

fn new_tool(tenant: &str, number: usize) -> Result<NewTool> {
    Ok(NewTool {
        local: format!("tool_{number}").parse()?,
        exposed: format!("{tenant}__tool_{number}").parse()?,
        definition: serde_json::from_str(&tool(number))?,
        looks_like_another: false,
    })
}

/// The definition of one tool.
pub(crate) fn tool(number: usize) -> String {
    let text = json!({ "type": "string", "description": "What is to be said, in the words of the person who asks." });
    let schema = json!({ "type": "object", "properties": { "text": text }, "required": ["text"] });
    let description = format!("Says what it is told. It is number {number} of many, described as tools usually are.");
    json!({
        "name": format!("tool_{number}"), "description": description, "inputSchema": schema,
        "annotations": { "readOnlyHint": true },
    })
    .to_string()
}
