//! The configurations of other programs as objects of ours: text in; objects, the secrets they need and a report of what could not
//! be carried over out. The values of secrets come out nowhere.

mod auth;
mod left_out;
mod mcphub;
mod names;
mod openapi;
mod secret;
mod server;
mod source;

use std::collections::HashMap;
use std::fmt;

use tenant_store::{
    GrantSpec, Group, IssuerName, Level, TenantSlug, TenantSpec, ToolPattern, UpstreamSlug, UpstreamSpec,
};

use crate::manifest::Object;
use names::Names;
use source::{Field, Source};

pub use secret::{NeededSecret, quoted};
pub use source::{IMPORT_BYTES_MAX, ImportError};

/// How many servers a file may have, and how many tools it may switch off: what one grant can name.
const LISTED_MAX: usize = 1_000;
/// Length of the longest pattern of a grant, in bytes.
const PATTERN_BYTES_MAX: usize = 128;
/// The name of the grant that is made.
const GRANT: &str = "imported";

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Open WebUI's mcpo.
    Mcpo,
    /// What MetaMCP exports.
    MetaMcp,
    /// The settings of MCPHub.
    McpHub,
    /// `mcpServers` of Claude Desktop, Cursor and many others, `servers` of VS Code.
    McpServersJson,
}

/// What the file does not say.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tenant whose upstreams the servers become.
    pub tenant: TenantSlug,
    /// Whether the tenant is there already, so that there must be no object for it.
    pub exists: bool,
    /// The group that may use all of them.
    pub group: Option<(IssuerName, Group)>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The objects, as a manifest has them.
    pub objects: Vec<Object>,
    /// The secrets that they need.
    pub secrets: Vec<NeededSecret>,
    /// What could not be carried over, or is to be looked at.
    pub report: Vec<Note>,
}

/// Something that could not be carried over, or is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about: the way to it in the file.
    pub about: String,
    /// What is the matter.
    pub problem: String,
    /// What to do.
    pub instead: String,
}

/// Reads a file of that format. Errors call it `name`.
pub fn import(format: Format, name: &str, text: &str, options: &Options) -> Result<Imported, ImportError> {
    let source = Source::read(name, text)?;
    let mut draft = Draft::new(format, options);
    let mut file = source.root().fields()?;
    let servers = match file.take("mcpServers") {
        Some(servers) => servers,
        None if format == Format::McpServersJson => match file.take_any(&["servers", "mcp"]) {
            Some(servers) if servers.path == ["mcp"] => servers.fields()?.need("servers")?,
            Some(servers) => servers,
            None => return Err(source.root().problem("must have `mcpServers`, or `servers` as VS Code writes it")),
        },
        None => return Err(source.root().problem("must have `mcpServers`: a map of servers by their names")),
    };
    if servers.count() > LISTED_MAX {
        return Err(servers.problem("must have at most 1000 servers: split the file"));
    }
    for (name, server) in servers.entries()? {
        server::server(&mut draft, name, &server)?;
    }
    if draft.deny.len() > LISTED_MAX {
        return Err(servers.problem("must switch off at most 1000 tools: split the file"));
    }
    if format == Format::McpHub {
        mcphub::note(&mut draft, &mut file)?;
    }
    if let Some(inputs) = file.take("inputs") {
        let problem = format!("is what a client asks for ({} of them)", inputs.count());
        draft.note("inputs", problem, "set these secrets by hand");
    }
    for (_, field) in file.rest() {
        draft.note(field.name(), "is unknown to this import", "see whether anything needs it");
    }
    if source.is_lenient {
        draft.note(
            name,
            "has comments or commas that plain JSON has not",
            "take them out before the secrets are set: jq does not read them",
        );
    }
    Ok(draft.finish())
}

/// What was read so far.
struct Draft<'o> {
    format: Format,
    options: &'o Options,
    names: Names,
    /// What each server of the file is called here.
    slugs: HashMap<String, UpstreamSlug>,
    upstreams: Vec<(UpstreamSlug, UpstreamSpec)>,
    deny: Vec<ToolPattern>,
    secrets: Vec<NeededSecret>,
    report: Vec<Note>,
    /// Hosts that are not at public addresses over https, as far as one can see.
    inside: Vec<String>,
    without_auth: Vec<String>,
}

impl<'o> Draft<'o> {
    fn new(format: Format, options: &'o Options) -> Self {
        Self {
            format,
            options,
            names: Names::default(),
            slugs: HashMap::new(),
            upstreams: Vec::new(),
            deny: Vec::new(),
            secrets: Vec::new(),
            report: Vec::new(),
            inside: Vec::new(),
            without_auth: Vec::new(),
        }
    }

    fn note(&mut self, about: impl Into<String>, problem: impl Into<String>, instead: impl Into<String>) {
        self.report.push(Note { about: about.into(), problem: problem.into(), instead: instead.into() });
    }

    /// Denies tools of an upstream. A name that no pattern holds is denied with whatever begins like it: rather too much than
    /// too little.
    fn deny(&mut self, upstream: &UpstreamSlug, tools: &[String], at: &Field<'_>) {
        for tool in tools {
            let mut pattern = format!("{upstream}/{}", tool.replace(char::is_control, "*"));
            if pattern.len() > PATTERN_BYTES_MAX {
                let end = (0..PATTERN_BYTES_MAX).rev().find(|end| pattern.is_char_boundary(*end)).unwrap_or_default();
                pattern.truncate(end);
                pattern.push('*');
            }
            match pattern.parse() {
                Ok(pattern) => self.deny.push(pattern),
                Err(_) => self.note(at.name(), "switches off a tool that no pattern names", "deny it by hand"),
            }
        }
    }

    /// Remembers addresses that are called only where the configuration says so.
    fn check_egress(&mut self, spec: &UpstreamSpec) {
        let url = &spec.url;
        let is_public = url.scheme() == "https"
            && url.port_or_known_default() == Some(443)
            && url.domain().is_some_and(|domain| domain.contains('.'));
        if !is_public {
            self.inside.push(url.origin().ascii_serialization());
        }
    }

    fn finish(mut self) -> Imported {
        let Options { tenant, exists, group } = self.options;
        self.note_whole();
        let mut objects = Vec::new();
        if !exists {
            objects.push(Object::Tenant { slug: tenant.clone(), spec: TenantSpec::named(tenant.as_str()) });
        }
        let mut slugs: Vec<_> = self.slugs.into_values().collect();
        slugs.sort();
        let upstreams = self.upstreams.into_iter();
        objects.extend(upstreams.map(|(slug, spec)| Object::Upstream {
            tenant: tenant.clone(),
            slug,
            spec: Box::new(spec),
        }));
        if let Some((issuer, group)) = group.clone().filter(|_| !slugs.is_empty()) {
            let all = slugs.iter().map(|slug| format!("{slug}/*").parse().expect("a slug and a star are a pattern"));
            let spec = GrantSpec {
                issuer,
                groups: vec![group],
                subjects: Vec::new(),
                level: Level::Write,
                allow: all.collect(),
                deny: self.deny,
            };
            let name = GRANT.parse().expect("it is a slug");
            objects.push(Object::Grant { tenant: tenant.clone(), name, spec });
        }
        Imported { objects, secrets: self.secrets, report: self.report }
    }

    /// Says what is true of the whole.
    fn note_whole(&mut self) {
        let Options { tenant, exists, group } = self.options;
        if !exists {
            let instead =
                "where it is there already, say --existing: its display name and its `egress.hosts` would be reset";
            self.note(format!("tenant {tenant}"), "is made with nothing but its name", instead);
        }
        if let Some((_, group)) = group {
            let problem =
                format!("gives `{}` the level `write` at every server of the file", group.as_str().escape_debug());
            self.note(
                format!("grant {tenant}/{GRANT}"),
                problem,
                "look at it before you apply it; `read` and `classes` give less",
            );
        } else {
            let denied: Vec<String> =
                self.deny.iter().map(|pattern| format!("\"{}\"", pattern.as_str().escape_debug())).collect();
            let deny =
                if denied.is_empty() { String::new() } else { format!(", with `deny: [{}]`", denied.join(", ")) };
            let instead = format!("name them with --issuer and --group, or write a grant{deny}");
            self.note(format!("tenant {tenant}"), "has no grant: nobody may use it", instead);
        }
        if !self.inside.is_empty() {
            self.inside.sort();
            self.inside.dedup();
            let problem = format!("called only where `[egress]` of mcp-mux.toml allows it: {}", self.inside.join(", "));
            self.note("addresses", problem, "list the networks and ports there (docs/egress.md)");
        }
        if !self.without_auth.is_empty() {
            let problem =
                format!("have `auth: none`, since the file names no header or key: {}", self.without_auth.join(", "));
            self.note("upstreams", problem, "`auth: account` where people signed in in a browser (docs/accounts.md)");
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  → {}", self.about, self.problem, self.instead)
    }
}

#[cfg(test)]
mod tests;
