//! The documents that a manifest may have, from fields to types.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tenant_store::{
    AccessTestName, AccessTestSpec, AuditContent, EgressHosts, FlowPolicy, GrantName, GrantSpec, HostPattern,
    LocalName, ManagedKind, ManagerName, OnArguments, OnNewTool, OnToolChange, SpecError, SpecField, TenantSlug,
    TenantSpec, ToolClass, UpstreamProtocol, UpstreamSlug, UpstreamSpec,
};
use url::Url;

use super::auth::auth;
use super::error::{Place, Problem};
use super::field::{Field, Fields, suggestion};
use super::yaml::Node;

/// The one version of the format there is.
pub(super) const API_VERSION: &str = "mcp-mux/v1";
/// The kinds of documents that are read.
const KINDS: [&str; 4] = ["Tenant", "Upstream", "Grant", "AccessTest"];
pub(super) const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_mins(1);
pub(super) const CONCURRENCY_DEFAULT: u32 = 64;

/// One document: an object as it should be.
#[derive(Debug, Clone)]
pub struct Document {
    object: Object,
    /// By whom the object is managed, where the document says so.
    pub(super) manager: Option<ManagerName>,
    /// Where its tenant is named.
    pub(super) tenant_at: Place,
    /// Where it is named.
    pub(super) name_at: Place,
    /// Where it says what decides which hosts are called: the hosts of a tenant, the address of an upstream.
    pub(super) host_at: Place,
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A tenant.
    Tenant {
        /// Its short name.
        slug: TenantSlug,
        /// What it should be.
        spec: TenantSpec,
    },
    /// An upstream.
    Upstream {
        /// Whose.
        tenant: TenantSlug,
        /// Its short name.
        slug: UpstreamSlug,
        /// What it should be.
        spec: Box<UpstreamSpec>,
    },
    /// A grant.
    Grant {
        /// In which tenant.
        tenant: TenantSlug,
        /// Its name.
        name: GrantName,
        /// What it should be.
        spec: GrantSpec,
    },
    /// An access test.
    AccessTest {
        /// In which tenant.
        tenant: TenantSlug,
        /// Its name.
        name: AccessTestName,
        /// What it should be.
        spec: AccessTestSpec,
    },
}

/// The kinds of objects, in the order in which they are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// An upstream, which needs its tenant.
    Upstream,
    /// A grant, which needs its tenant.
    Grant,
    /// An access test, which needs its tenant.
    AccessTest,
}

impl Document {
    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tenant { .. } => Kind::Tenant,
            Self::Upstream { .. } => Kind::Upstream,
            Self::Grant { .. } => Kind::Grant,
            Self::AccessTest { .. } => Kind::AccessTest,
        }
    }

    /// The tenant that it is, or belongs to.
    pub fn tenant(&self) -> &TenantSlug {
        match self {
            Self::Tenant { slug, .. } => slug,
            Self::Upstream { tenant, .. } | Self::Grant { tenant, .. } | Self::AccessTest { tenant, .. } => tenant,
        }
    }

    /// Its own name.
    pub fn own_name(&self) -> &str {
        match self {
            Self::Tenant { slug, .. } => slug.as_str(),
            Self::Upstream { slug, .. } => slug.as_str(),
            Self::Grant { name, .. } => name.as_str(),
            Self::AccessTest { name, .. } => name.as_str(),
        }
    }

    /// Its name, with that of its tenant in front.
    pub fn name(&self) -> String {
        match self {
            Self::Tenant { slug, .. } => slug.to_string(),
            other => format!("{}/{}", other.tenant(), other.own_name()),
        }
    }
}

impl Kind {
    /// The same, as the database knows it.
    pub(super) fn managed(self) -> ManagedKind {
        match self {
            Self::Tenant => ManagedKind::Tenant,
            Self::Upstream => ManagedKind::Upstream,
            Self::Grant => ManagedKind::Grant,
            Self::AccessTest => ManagedKind::AccessTest,
        }
    }
}

impl From<ManagedKind> for Kind {
    fn from(kind: ManagedKind) -> Self {
        match kind {
            ManagedKind::Tenant => Self::Tenant,
            ManagedKind::Upstream => Self::Upstream,
            ManagedKind::Grant => Self::Grant,
            ManagedKind::AccessTest => Self::AccessTest,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Kind {
    /// As documents name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Upstream => "Upstream",
            Self::Grant => "Grant",
            Self::AccessTest => "AccessTest",
        }
    }
}

/// All documents of a manifest. The first says the version of the format, the others may.
pub(super) fn read_all(nodes: &[Node]) -> Result<Vec<Document>, Problem> {
    let mut documents = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        documents.push(read(&Field::document(node), index == 0)?);
    }
    Ok(documents)
}

fn read(document: &Field<'_>, is_first: bool) -> Result<Document, Problem> {
    let fields = document.fields(&["apiVersion", "kind", "metadata", "spec"])?;
    match fields.find("apiVersion") {
        Some(version) if version.text()? != API_VERSION => {
            return Err(version.problem(format!("must be `{API_VERSION}`, the one version that is read")));
        }
        None if is_first => {
            return Err(
                fields.missing("apiVersion", "is missing: begin the first document with `apiVersion: mcp-mux/v1`")
            );
        }
        _ => {}
    }
    let kind = fields.get("kind")?;
    let metadata = fields.get("metadata")?;
    let spec = fields.get("spec")?;
    match kind.text()? {
        "Tenant" => tenant(&metadata, &spec),
        "Upstream" => upstream(&metadata, &spec),
        "Grant" => grant(&metadata, &spec),
        "AccessTest" => access_test(&metadata, &spec),
        other => Err(kind.problem(format!("`{}` is unknown; {}", other.escape_debug(), suggestion(other, &KINDS)))),
    }
}

fn tenant(metadata: &Field<'_>, spec: &Field<'_>) -> Result<Document, Problem> {
    let metadata = metadata.fields(&["name", "managedBy"])?;
    let name = metadata.get("name")?;
    let slug: TenantSlug = name.parse()?;
    let object = Object::Tenant { spec: tenant_spec(spec, &slug)?, slug };
    let host_at = spec.place_of(&["egress", "hosts"]);
    let manager = manager(&metadata)?;
    Ok(Document { object, manager, tenant_at: name.place(), name_at: name.place(), host_at })
}

fn upstream(metadata: &Field<'_>, spec: &Field<'_>) -> Result<Document, Problem> {
    let document = of_tenant(metadata, |tenant, name| {
        Ok(Object::Upstream { tenant, slug: name.parse()?, spec: Box::new(upstream_spec(spec)?) })
    })?;
    Ok(Document { host_at: spec.place_of(&[kind_of(spec), "url"]), ..document })
}

fn grant(metadata: &Field<'_>, spec: &Field<'_>) -> Result<Document, Problem> {
    of_tenant(metadata, |tenant, name| Ok(Object::Grant { tenant, name: name.parse()?, spec: grant_spec(spec)? }))
}

fn access_test(metadata: &Field<'_>, spec: &Field<'_>) -> Result<Document, Problem> {
    of_tenant(metadata, |tenant, name| {
        Ok(Object::AccessTest { tenant, name: name.parse()?, spec: access_test_spec(spec)? })
    })
}

/// An object of a tenant.
fn of_tenant(
    metadata: &Field<'_>,
    object: impl FnOnce(TenantSlug, &Field<'_>) -> Result<Object, Problem>,
) -> Result<Document, Problem> {
    let metadata = metadata.fields(&["tenant", "name", "managedBy"])?;
    let (tenant, name) = (metadata.get("tenant")?, metadata.get("name")?);
    let (object, manager) = (object(tenant.parse()?, &name)?, manager(&metadata)?);
    Ok(Document { object, manager, tenant_at: tenant.place(), name_at: name.place(), host_at: name.place() })
}

fn manager(metadata: &Fields<'_>) -> Result<Option<ManagerName>, Problem> {
    metadata.find("managedBy").map(|field| field.parse()).transpose()
}

fn tenant_spec(field: &Field<'_>, slug: &TenantSlug) -> Result<TenantSpec, Problem> {
    let fields = field.fields(&["displayName", "egress", "flowPolicy", "auditContent"])?;
    let display_name = fields.find("displayName").map(|field| field.text()).transpose()?;
    let egress_hosts = fields.find("egress").map(|egress| {
        let hosts: Vec<HostPattern> = egress.fields(&["hosts"])?.get("hosts")?.parse_items()?;
        EgressHosts::try_from(hosts).map_err(|error| broken_rule(field, error))
    });
    let spec = TenantSpec {
        egress_hosts: egress_hosts.transpose()?,
        flow_policy: fields.find("flowPolicy").map_or(Ok(FlowPolicy::Log), |field| field.parse())?,
        audit_content: fields.find("auditContent").map_or(Ok(AuditContent::None), |field| field.parse())?,
        ..TenantSpec::named(display_name.unwrap_or(slug.as_str()))
    };
    spec.check().map_err(|error| broken_rule(field, error))?;
    Ok(spec)
}

const UPSTREAM_FIELDS: [&str; 11] = [
    "http",
    "openapi",
    "prefix",
    "auth",
    "onToolChange",
    "onNewTool",
    "onArguments",
    "classes",
    "timeout",
    "concurrency",
    "enabled",
];

fn upstream_spec(field: &Field<'_>) -> Result<UpstreamSpec, Problem> {
    let fields = field.fields(&UPSTREAM_FIELDS)?;
    let (url, protocol) = address(&fields)?;
    let spec = UpstreamSpec {
        url,
        protocol,
        prefix: fields.find("prefix").map(|field| field.parse()).transpose()?,
        auth: auth(&fields)?,
        call_timeout: fields.find("timeout").map_or(Ok(CALL_TIMEOUT_DEFAULT), |field| duration(&field))?,
        concurrency: fields.find("concurrency").map_or(Ok(CONCURRENCY_DEFAULT), |field| field.number())?,
        on_tool_change: fields.find("onToolChange").map_or(Ok(OnToolChange::Accept), |field| field.parse())?,
        on_new_tool: fields.find("onNewTool").map_or(Ok(OnNewTool::Accept), |field| field.parse())?,
        on_arguments: fields.find("onArguments").map_or(Ok(OnArguments::Check), |field| field.parse())?,
        classes: fields.find("classes").map_or(Ok(BTreeMap::new()), |field| classes(&field))?,
        enabled: fields.find("enabled").map_or(Ok(true), |field| field.boolean())?,
    };
    spec.check().map_err(|error| broken_rule(field, error))?;
    Ok(spec)
}

/// The field that says what an upstream is, and where.
fn kind_of(spec: &Field<'_>) -> &'static str {
    if spec.has("openapi") { "openapi" } else { "http" }
}

/// Where an upstream is, and what it speaks there.
fn address(fields: &Fields<'_>) -> Result<(Url, UpstreamProtocol), Problem> {
    let Some(openapi) = fields.find("openapi") else {
        let missing = "is missing: say `http: { url: … }` for an MCP server, or `openapi: { url: … }` for an API";
        let http = fields.find("http").ok_or_else(|| fields.missing("http", missing))?;
        return Ok((url(&http.fields(&["url"])?.get("url")?)?, UpstreamProtocol::Mcp));
    };
    if fields.find("http").is_some() {
        return Err(openapi.problem("must not stand beside `http`: an upstream is an MCP server or an API"));
    }
    let openapi = openapi.fields(&["url", "document"])?;
    let base = url(&openapi.get("url")?)?;
    let document = openapi.find("document").map(|field| url(&field)).transpose()?;
    let document = document.unwrap_or_else(|| UpstreamProtocol::usual_document(&base));
    Ok((base, UpstreamProtocol::OpenApi { document }))
}

fn url(field: &Field<'_>) -> Result<Url, Problem> {
    field
        .text()?
        .parse()
        .map_err(|_| field.problem("must be a whole web address, such as `https://mcp.acme.example/mcp`"))
}

fn classes(field: &Field<'_>) -> Result<BTreeMap<LocalName, ToolClass>, Problem> {
    field.entries()?.into_iter().map(|(tool, class)| Ok((tool.parse()?, class.parse()?))).collect()
}

/// A number with its unit: `30s`.
fn duration(field: &Field<'_>) -> Result<Duration, Problem> {
    let wanted = || field.problem("must be a number with its unit `s` or `m`, such as `30s`");
    let Ok(text) = field.text() else { return Err(wanted()) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| wanted())?;
    match text.strip_prefix(digits) {
        Some("s") => Ok(Duration::from_secs(number.into())),
        Some("m") => Ok(Duration::from_mins(number.into())),
        _ => Err(wanted()),
    }
}

fn grant_spec(field: &Field<'_>) -> Result<GrantSpec, Problem> {
    let fields = field.fields(&["issuer", "groups", "subjects", "level", "tools"])?;
    let tools = fields.get("tools")?.fields(&["allow", "deny"])?;
    let spec = GrantSpec {
        issuer: fields.get("issuer")?.parse()?,
        groups: fields.find("groups").map_or(Ok(Vec::new()), |field| field.parse_items())?,
        subjects: fields.find("subjects").map_or(Ok(Vec::new()), |field| field.parse_items())?,
        level: fields.get("level")?.parse()?,
        allow: tools.get("allow")?.parse_items()?,
        deny: tools.find("deny").map_or(Ok(Vec::new()), |field| field.parse_items())?,
    };
    spec.check().map_err(|error| broken_rule(field, error))?;
    Ok(spec)
}

fn access_test_spec(field: &Field<'_>) -> Result<AccessTestSpec, Problem> {
    let fields = field.fields(&["as", "can", "cannot"])?;
    let who = fields.get("as")?.fields(&["issuer", "groups", "subject"])?;
    let names = |name| fields.find(name).map_or(Ok(Vec::new()), |field: Field<'_>| field.parse_items());
    let spec = AccessTestSpec {
        issuer: who.get("issuer")?.parse()?,
        groups: who.find("groups").map_or(Ok(Vec::new()), |field| field.parse_items())?,
        subject: who.find("subject").map(|field| field.parse()).transpose()?,
        can: names("can")?,
        cannot: names("cannot")?,
    };
    spec.check().map_err(|error| broken_rule(field, error))?;
    Ok(spec)
}

/// Puts a broken rule where its field is or, if that is missing, should be.
fn broken_rule(spec: &Field<'_>, error: SpecError) -> Problem {
    let path: &[&str] = match error.field() {
        SpecField::DisplayName => &["displayName"],
        SpecField::EgressHosts => &["egress", "hosts"],
        SpecField::Url => &[kind_of(spec), "url"],
        SpecField::Document => &["openapi", "document"],
        SpecField::Headers => &["auth", "headers"],
        SpecField::Parameter => &["auth", "query", "parameter"],
        SpecField::Ca => &["auth", "mtls", "ca"],
        SpecField::AlongWithMtls => &["auth"],
        SpecField::Client => &["auth", "account", "client"],
        SpecField::Listing => &["auth", "account", "listing"],
        SpecField::CallTimeout => &["timeout"],
        SpecField::Concurrency => &["concurrency"],
        SpecField::Classes => &["classes"],
        SpecField::Groups => &["groups"],
        SpecField::Subjects => &["subjects"],
        SpecField::Allow => &["tools", "allow"],
        SpecField::Deny => &["tools", "deny"],
        SpecField::TestedGroups => &["as", "groups"],
        SpecField::Can => &["can"],
        SpecField::Cannot => &["cannot"],
    };
    spec.place_of(path).problem(&format!("spec.{}", path.join(".")), error.rule())
}
