//! From objects to the text of a manifest: what [`super::parse`] reads as the same objects. Defaults are left out, and the
//! reader's own library writes, so that it quotes whatever it would take for something else than a text.

mod auth;

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use serde_saphyr::{DoubleQuoted, SerializeError, SerializerOptions, ser_options};
use tenant_store::{
    AccessTestSpec, AuditContent, EgressHosts, FlowPolicy, GrantSpec, ManagerName, OnArguments, OnNewTool,
    OnToolChange, TenantSlug, TenantSpec, UpstreamProtocol, UpstreamSpec, is_visible,
};

use super::document::{API_VERSION, CALL_TIMEOUT_DEFAULT, CONCURRENCY_DEFAULT, Object};

/// Objects cannot be written as a manifest.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} `{name}` cannot be written as a manifest", kind = .0.kind(), name = .0.name())]
pub struct WriteError(Box<Object>, #[source] SerializeError);

/// Writes the objects, one document each, in their order, without saying who manages them.
pub fn write<'o>(objects: impl IntoIterator<Item = &'o Object>) -> Result<String, WriteError> {
    write_managed(objects.into_iter().map(|object| (object, None)))
}

/// Writes the objects, and who manages them, one document each, in their order.
pub fn write_managed<'o>(
    objects: impl IntoIterator<Item = (&'o Object, Option<&'o ManagerName>)>,
) -> Result<String, WriteError> {
    let mut text = String::new();
    for (object, manager) in objects {
        let document = document(object, manager, text.is_empty());
        let written = serde_saphyr::to_string_with_options(&Shown(&document), options());
        text.push_str(if text.is_empty() { "" } else { "---\n" });
        text.push_str(&written.map_err(|error| WriteError(Box::new(object.clone()), error))?);
    }
    Ok(shown(&text))
}

/// The objects as the documents of a manifest, for programs.
pub fn documents<'o>(objects: impl IntoIterator<Item = (&'o Object, Option<&'o ManagerName>)>) -> Vec<Value> {
    objects.into_iter().map(|(object, manager)| document(object, manager, true)).collect()
}

/// Everything on lines of its own. Texts are plain or in quotes: a text in a block would have its white space guessed.
fn options() -> SerializerOptions {
    ser_options! { prefer_block_scalars: false }
}

/// A value in which whatever cannot be seen stands between double quotes, where YAML has escapes for it. Keys have nothing of it.
struct Shown<'v>(&'v Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if !text.chars().all(is_visible) => DoubleQuoted(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Shown)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, Shown(value)))),
            other => other.serialize(serializer),
        }
    }
}

/// The text with escapes for what cannot be seen, or turns the direction of what can: a manifest is read before it is applied.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            _ if c == '\n' || is_visible(c) => shown.push(c),
            code @ ..=0xffff => shown.extend(format!("\\u{code:04x}").chars()),
            code => shown.extend(format!("\\U{code:08x}").chars()),
        }
    }
    shown
}

/// A map that is written: fields that hold nothing are left out.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn with(self, name: &str, value: impl Into<Value>) -> Self {
        self.with_any(name, Some(value))
    }

    /// The field, if there is something to say.
    fn with_any(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The text, if there is one.
    fn with_text(self, name: &str, text: Option<&impl AsRef<str>>) -> Self {
        self.with_any(name, text.map(AsRef::as_ref))
    }

    /// The list, if anything is in it.
    fn with_list<T: AsRef<str>>(self, name: &str, items: &[T]) -> Self {
        self.with_any(name, (!items.is_empty()).then(|| texts(items)))
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.0)
    }
}

fn texts<T: AsRef<str>>(items: &[T]) -> Value {
    items.iter().map(|item| Value::from(item.as_ref())).collect()
}

/// One document. Only the first of a manifest needs to say the version of the format.
fn document(object: &Object, manager: Option<&ManagerName>, is_first: bool) -> Value {
    let own = |tenant: &TenantSlug, name: &str| Fields::default().with("tenant", tenant.as_str()).with("name", name);
    let (metadata, spec) = match object {
        Object::Tenant { slug, spec } => (Fields::default().with("name", slug.as_str()), tenant(slug, spec)),
        Object::Upstream { tenant, slug, spec } => (own(tenant, slug.as_str()), upstream(spec)),
        Object::Grant { tenant, name, spec } => (own(tenant, name.as_str()), grant(spec)),
        Object::AccessTest { tenant, name, spec } => (own(tenant, name.as_str()), access_test(spec)),
    };
    let metadata = metadata.with_any("managedBy", manager.map(ManagerName::as_str));
    Fields::default()
        .with_any("apiVersion", is_first.then_some(API_VERSION))
        .with("kind", object.kind().to_string())
        .with("metadata", metadata)
        .with("spec", spec)
        .into()
}

fn tenant(slug: &TenantSlug, spec: &TenantSpec) -> Fields {
    let TenantSpec { display_name, egress_hosts, flow_policy, audit_content } = spec;
    let hosts = |hosts: &EgressHosts| Fields::default().with("hosts", texts(hosts.patterns()));
    Fields::default()
        .with_any("displayName", (display_name != slug.as_str()).then_some(display_name.as_str()))
        .with_any("egress", egress_hosts.as_ref().map(hosts))
        .with_any("flowPolicy", (*flow_policy != FlowPolicy::Log).then_some(flow_policy.as_str()))
        .with_any("auditContent", (*audit_content != AuditContent::None).then_some(audit_content.as_str()))
}

fn upstream(spec: &UpstreamSpec) -> Fields {
    let UpstreamSpec { url, protocol, prefix, auth, call_timeout, concurrency, classes, enabled, .. } = spec;
    let UpstreamSpec { on_tool_change, on_new_tool, on_arguments, .. } = spec;
    let mut named = Fields::default();
    for (tool, class) in classes {
        named = named.with(tool.as_str(), class.as_str());
    }
    let at = Fields::default().with("url", url.as_str());
    let fields = match protocol {
        UpstreamProtocol::Mcp => Fields::default().with("http", at),
        UpstreamProtocol::OpenApi { document } => {
            let is_usual = *document == UpstreamProtocol::usual_document(url);
            Fields::default().with("openapi", at.with_any("document", (!is_usual).then_some(document.as_str())))
        }
    };
    fields
        .with_text("prefix", prefix.as_ref())
        .with("auth", auth::auth(auth))
        .with_any("onToolChange", (*on_tool_change != OnToolChange::Accept).then_some(on_tool_change.as_str()))
        .with_any("onNewTool", (*on_new_tool != OnNewTool::Accept).then_some(on_new_tool.as_str()))
        .with_any("onArguments", (*on_arguments != OnArguments::Check).then_some(on_arguments.as_str()))
        .with_any("classes", (!classes.is_empty()).then_some(named))
        .with_any("timeout", (*call_timeout != CALL_TIMEOUT_DEFAULT).then(|| duration(*call_timeout)))
        .with_any("concurrency", (*concurrency != CONCURRENCY_DEFAULT).then_some(*concurrency))
        .with_any("enabled", (!enabled).then_some(false))
}

/// In whole seconds, as manifests say it; a rest counts as one.
fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn grant(spec: &GrantSpec) -> Fields {
    let GrantSpec { issuer, groups, subjects, level, allow, deny } = spec;
    Fields::default()
        .with("issuer", issuer.as_str())
        .with_list("groups", groups)
        .with_list("subjects", subjects)
        .with("level", level.as_str())
        .with("tools", Fields::default().with("allow", texts(allow)).with_list("deny", deny))
}

fn access_test(spec: &AccessTestSpec) -> Fields {
    let AccessTestSpec { issuer, groups, subject, can, cannot } = spec;
    let who = Fields::default()
        .with("issuer", issuer.as_str())
        .with_list("groups", groups)
        .with_any("subject", subject.as_ref().map(AsRef::as_ref).map(Value::from));
    Fields::default().with("as", who).with_list("can", can).with_list("cannot", cannot)
}
