//! One server of a file, as all formats have it: a program, or something at an address.

use std::collections::BTreeMap;
use std::time::Duration;

use tenant_store::{OnArguments, OnNewTool, OnToolChange, UpstreamAuth, UpstreamProtocol, UpstreamSlug, UpstreamSpec};
use url::Url;

use super::auth::{Wanted, is_opaque};
use super::secret::{Form, NeededSecret};
use super::source::{Field, Fields, ImportError};
use super::{Draft, Format, left_out, openapi};

/// Length of the longest name of an upstream, in bytes.
const SLUG_BYTES_MAX: usize = 20;
/// How much of a `type` or a program's name is repeated.
const TYPE_CHARS_MAX: usize = 30;

/// What a server is.
enum Kind {
    Program,
    Remote,
    OpenApi,
}

/// Reads one server into the draft.
pub(super) fn server(draft: &mut Draft<'_>, name: &str, at: &Field<'_>) -> Result<(), ImportError> {
    let mut fields = at.fields()?;
    let slug: UpstreamSlug = draft.names.give(name, "server", SLUG_BYTES_MAX);
    if slug.as_str() != name {
        let problem =
            format!("is called `{slug}` here: names of upstreams are of `a-z`, `0-9` and single hyphens, up to 20");
        draft.note(at.name(), problem, "use that name in grants and for secrets");
    }
    draft.slugs.insert(name.to_owned(), slug.clone());
    let is_disabled = fields.take("disabled").map(|field| field.boolean()).transpose()?.unwrap_or(false);
    let is_enabled = fields.take("enabled").map(|field| field.boolean()).transpose()?.unwrap_or(true);
    draft.deny(&slug, &switched_off(draft.format, name, &mut fields)?, at);
    match kind(draft, &mut fields)? {
        None => {}
        Some(Kind::Program) => program(draft, &slug, &mut fields)?,
        Some(Kind::Remote) => remote(draft, &slug, &mut fields, is_enabled && !is_disabled)?,
        Some(Kind::OpenApi) => openapi::api(draft, &slug, &mut fields, is_enabled && !is_disabled)?,
    }
    left_out::note(draft, fields);
    Ok(())
}

fn kind(draft: &mut Draft<'_>, fields: &mut Fields<'_>) -> Result<Option<Kind>, ImportError> {
    let stated = fields.take_any(&["type", "transport", "transportType"]);
    let word = stated.as_ref().map(Field::text).transpose()?.map(|word| word.to_lowercase().replace(['-', '_'], ""));
    let about = fields.map().name();
    Ok(match word.as_deref() {
        Some("stdio" | "std") => Some(Kind::Program),
        Some("sse" | "http" | "streamablehttp") => Some(Kind::Remote),
        Some("openapi") if draft.format == Format::McpHub => Some(Kind::OpenApi),
        Some(other) => {
            let shown: String = other.chars().take(TYPE_CHARS_MAX).flat_map(char::escape_debug).collect();
            draft.note(about, format!("is of the type `{shown}`, which mcp-mux does not call"), "left out");
            None
        }
        None if draft.format == Format::McpHub && fields.has("openapi") => Some(Kind::OpenApi),
        None if fields.has("command") => Some(Kind::Program),
        None if ADDRESS.iter().any(|name| fields.has(name)) => Some(Kind::Remote),
        None => {
            draft.note(about, "has neither a `command` nor a `url`", "left out");
            None
        }
    })
}

/// What an address is called.
const ADDRESS: [&str; 3] = ["url", "serverUrl", "httpUrl"];

/// The tools that the file switches off.
fn switched_off(format: Format, server: &str, fields: &mut Fields<'_>) -> Result<Vec<String>, ImportError> {
    let mut tools = Vec::new();
    for list in ["disabledTools", "disabled_tools"].iter().filter_map(|name| fields.take(name)) {
        tools.extend(list.texts()?.into_iter().map(ToOwned::to_owned));
    }
    if format != Format::McpHub {
        return Ok(tools);
    }
    let Some(states) = fields.take("tools") else { return Ok(tools) };
    for (tool, state) in states.entries()? {
        let mut state = state.fields()?;
        if state.take("enabled").map(|field| field.boolean()).transpose()? != Some(false) {
            continue;
        }
        tools.push(tool.to_owned());
        // There a tool may be written with its server before it.
        let bare = tool.strip_prefix(server).and_then(|rest| rest.strip_prefix(|c: char| !c.is_alphanumeric()));
        tools.extend(bare.filter(|bare| !bare.is_empty()).map(ToOwned::to_owned));
    }
    Ok(tools)
}

/// A program has no address. What it is given may hold secrets, so it is counted and not repeated.
fn program(draft: &mut Draft<'_>, slug: &UpstreamSlug, fields: &mut Fields<'_>) -> Result<(), ImportError> {
    let about = fields.map().name();
    let command = fields.need("command")?.text()?.to_owned();
    let arguments = fields.take("args").map(|field| field.texts()).transpose()?.unwrap_or_default().len();
    let variables = fields.take_any(&["env", "environment"]).map(|field| field.entries()).transpose()?;
    let names: Vec<String> =
        variables.unwrap_or_default().iter().map(|(name, _)| format!("--env {}", name.escape_debug())).collect();
    let folder = fields.take("cwd").map(|_| "; start it in the folder that `cwd` says").unwrap_or_default();
    let environment = if names.is_empty() { String::new() } else { format!(" {}", names.join(" ")) };
    let instead = format!(
        "run `mcp-mux bridge stdio --key-file {slug}.key{environment} -- …` with the command of the file behind it, and add an upstream \
         `{slug}` with the address of the bridge (docs/bridge.md){folder}"
    );
    let instead = match draft.format {
        Format::Mcpo => instead + ", or go on running mcpo and add its API (docs/openapi.md)",
        _ => instead,
    };
    let words = command.split('/').next_back().unwrap_or_default().chars().take(TYPE_CHARS_MAX);
    let shown: String = words.flat_map(char::escape_debug).collect();
    draft.note(about, format!("is a program (`{shown}` with {arguments} arguments), and mcp-mux starts none"), instead);
    Ok(())
}

fn remote(
    draft: &mut Draft<'_>,
    slug: &UpstreamSlug,
    fields: &mut Fields<'_>,
    enabled: bool,
) -> Result<(), ImportError> {
    let Some(at) = fields.take_any(&ADDRESS) else { return Err(fields.map().problem("must have `url`")) };
    let mut wanted = Wanted::default();
    if draft.format == Format::MetaMcp
        && let Some(token) = fields.take("bearerToken")
    {
        wanted.headers.push(("authorization".to_owned(), token, Form::Behind("Bearer")));
    }
    wanted.add_headers(fields)?;
    let Some(url) = address(draft, &at)? else { return Ok(()) };
    let upstream = Upstream { slug, protocol: UpstreamProtocol::Mcp, enabled };
    add(draft, upstream, (url, &at), wanted)
}

/// The address, if it is one that can be called.
pub(super) fn address(draft: &mut Draft<'_>, at: &Field<'_>) -> Result<Option<Url>, ImportError> {
    let text = at.text()?;
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let has_variable = |url: &Url| {
        let before_query = text.split('?').next().unwrap_or_default();
        before_query.contains("${") || url.host_str().is_some_and(|host| host.contains('$'))
    };
    let Some(mut url) = url.filter(|url| !has_variable(url)) else {
        let problem = "is no whole web address (`https://…`), or has a variable in it";
        draft.note(at.name(), problem, "left out: write the upstream by hand");
        return Ok(None);
    };
    url.set_fragment(None);
    Ok(Some(url))
}

/// What is known of an upstream before its address.
pub(super) struct Upstream<'u> {
    pub(super) slug: &'u UpstreamSlug,
    pub(super) protocol: UpstreamProtocol,
    pub(super) enabled: bool,
}

/// Adds an upstream with its secrets, and says what of it was lost.
pub(super) fn add(
    draft: &mut Draft<'_>,
    upstream: Upstream<'_>,
    (mut url, at): (Url, &Field<'_>),
    wanted: Wanted<'_>,
) -> Result<(), ImportError> {
    let shown = wanted.show(&mut url, at)?;
    for (about, why) in shown.lost {
        draft.note(about, "is not carried over", why);
    }
    if url.path_segments().into_iter().flatten().any(is_opaque) {
        let instead = "an address is no secret: whoever reads manifests or logs reads it";
        draft.note(at.name(), "has a part that looks like a secret, and it is in the manifest", instead);
    }
    let spec = UpstreamSpec {
        url,
        protocol: upstream.protocol,
        prefix: None,
        auth: shown.auth,
        call_timeout: Duration::from_mins(1),
        concurrency: 64,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: upstream.enabled,
    };
    if let Err(error) = spec.check() {
        draft.note(at.name(), format!("cannot be used: {error}"), "left out: write the upstream by hand");
        return Ok(());
    }
    if spec.auth == UpstreamAuth::None && spec.enabled {
        draft.without_auth.push(upstream.slug.to_string());
    }
    draft.check_egress(&spec);
    for (name, found) in shown.secrets {
        let (tenant, upstream) = (draft.options.tenant.clone(), upstream.slug.clone());
        draft.secrets.push(NeededSecret { tenant, upstream, name, found });
    }
    draft.upstreams.push((upstream.slug.clone(), spec));
    Ok(())
}
