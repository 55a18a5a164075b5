//! What MCPHub's `mcp_settings.json` has besides servers: groups, people, keys and settings of its own.

use super::Draft;
use super::source::{Field, Fields, ImportError};

/// A part of the file, and what there is instead.
const PARTS: &[(&str, &str)] = &[
    ("users", "people sign in at your identity provider, and grants name its groups (docs/identity)"),
    ("bearerKeys", "scripts and services get keys of their own: `mcp-mux key create`"),
    ("systemConfig", "what mcp-mux does is in mcp-mux.toml"),
    ("userConfigs", "nothing is configured for one person"),
    ("oauthClients", "clients register at your identity provider"),
    ("oauthTokens", "nobody's tokens are carried over: people sign in again"),
    ("prompts", "prompts come from upstreams"),
    ("resources", "resources come from upstreams"),
];

/// Says what becomes of everything beside the servers.
pub(super) fn note(draft: &mut Draft<'_>, file: &mut Fields<'_>) -> Result<(), ImportError> {
    if let Some(groups) = file.take("groups") {
        for group in groups.items()? {
            note_group(draft, &group)?;
        }
    }
    for (name, instead) in PARTS {
        if let Some(part) = file.take(name) {
            draft.note(*name, format!("is not carried over ({} of them)", part.count()), *instead);
        }
    }
    Ok(())
}

/// A group is a choice of servers and tools; what it becomes is a grant for those who used it.
fn note_group(draft: &mut Draft<'_>, group: &Field<'_>) -> Result<(), ImportError> {
    let mut fields = group.fields()?;
    let name =
        fields.take("name").map(|field| field.text()).transpose()?.unwrap_or_default().escape_debug().to_string();
    let mut patterns = Vec::new();
    for server in fields.take("servers").map(|field| field.items()).transpose()?.unwrap_or_default() {
        patterns.extend(allowed(draft, &server)?);
    }
    let instead = format!("make a grant for the people who used it, with `allow: [{}]`", patterns.join(", "));
    draft.note(group.name(), format!("`{name}` is a choice of servers and tools, at an address of its own"), instead);
    Ok(())
}

/// The patterns of what a group takes of a server.
fn allowed(draft: &Draft<'_>, server: &Field<'_>) -> Result<Vec<String>, ImportError> {
    let of = |name: &str| draft.slugs.get(name).map_or_else(|| "?".to_owned(), ToString::to_string);
    if let Ok(name) = server.text() {
        return Ok(vec![format!("\"{}/*\"", of(name))]);
    }
    let mut fields = server.fields()?;
    let slug = of(fields.need("name")?.text()?);
    let tools = fields.take("tools").map(|tools| tools.texts()).and_then(Result::ok);
    Ok(match tools {
        None => vec![format!("\"{slug}/*\"")],
        Some(tools) => tools.iter().map(|tool| format!("\"{slug}/{}\"", tool.escape_debug())).collect(),
    })
}
