//! `mcp-mux get`: what there is, one line for each, or as documents.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tenant_store::{ManagerName, TenantSlug, UpstreamAuth, UpstreamProtocol};

use super::{Settings, administration, print, print_json, say, spelt_out};
use crate::app;
use crate::manifest::{self, Exported, Kind, Object};

#[derive(Debug, Args)]
pub(super) struct Get {
    /// Of which kind
    #[arg(value_enum)]
    kind: KindWord,
    /// Which: TENANT for a tenant, TENANT/NAME for anything else; without it all
    name: Option<Name>,
    /// Only what this tenant has
    #[arg(long, value_name = "SLUG", conflicts_with = "name")]
    tenant: Option<TenantSlug>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    #[command(flatten)]
    settings: Settings,
}

/// A kind of objects, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KindWord {
    /// Tenants
    #[value(alias = "tenants")]
    Tenant,
    /// Upstreams
    #[value(alias = "upstreams")]
    Upstream,
    /// Grants
    #[value(alias = "grants")]
    Grant,
    /// Access tests
    #[value(aliases = ["access-tests", "accesstest", "accesstests", "test", "tests"])]
    AccessTest,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One line for each
    Table,
    /// For programs: a list of documents
    Json,
    /// As a manifest
    Yaml,
}

/// The name of an object: its tenant, and what it is called there unless it is the tenant.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) tenant: TenantSlug,
    own: Option<String>,
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Tenant => Self::Tenant,
            KindWord::Upstream => Self::Upstream,
            KindWord::Grant => Self::Grant,
            KindWord::AccessTest => Self::AccessTest,
        }
    }
}

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tenant, own) = text.split_once('/').map_or((text, None), |(tenant, own)| (tenant, Some(own)));
        Ok(Self { tenant: tenant.parse()?, own: own.map(ToOwned::to_owned) })
    }
}

impl Name {
    /// Picks the object of that kind and name.
    pub(super) fn find(&self, kind: Kind, exported: Exported) -> Result<(Object, Option<ManagerName>)> {
        ensure!(self.own.is_none() || kind != Kind::Tenant, "a tenant's name is written without `/`");
        let Some(own) = self.own.as_deref().or((kind == Kind::Tenant).then_some(self.tenant.as_str())) else {
            bail!("write it as TENANT/NAME: `{}` alone is a tenant", self.tenant);
        };
        let is_meant = |(object, _): &(Object, _)| object.kind() == kind && object.own_name() == own;
        let found = exported.objects.into_iter().find(is_meant);
        found.with_context(|| format!("there is no {kind} `{own}` in tenant `{}`", self.tenant))
    }
}

impl Get {
    pub(super) async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let administration = administration();
        let only = self.name.as_ref().map(|name| &name.tenant).or(self.tenant.as_ref());
        let exported = manifest::export(&store, only, |tenant| administration.scope(tenant)).await?;
        let exported = exported.with_context(|| match only {
            Some(slug) => format!("there is no tenant `{slug}`"),
            None => "there is no tenant".to_owned(),
        })?;
        let kind = Kind::from(self.kind);
        let objects = match &self.name {
            Some(name) => vec![name.find(kind, exported)?],
            None => exported.objects.into_iter().filter(|(object, _)| object.kind() == kind).collect(),
        };
        let managed = || objects.iter().map(|(object, manager)| (object, manager.as_ref()));
        match self.output {
            Form::Json => return print_json(&manifest::documents(managed())),
            Form::Yaml => print(manifest::write_managed(managed())?.trim_end())?,
            Form::Table => {
                let rows: Vec<_> = managed().map(|(object, manager)| row(object, manager)).collect();
                for line in lines(&rows) {
                    print(&spelt_out(&line))?;
                }
            }
        }
        if objects.is_empty() {
            say(&format!("there is no {kind}{}", only.map(|slug| format!(" in tenant `{slug}`")).unwrap_or_default()));
        }
        Ok(())
    }
}

/// What one line says about an object. Every row of a kind has as many cells.
fn row(object: &Object, manager: Option<&ManagerName>) -> Vec<String> {
    let mut cells = vec![object.name()];
    cells.extend(match object {
        Object::Tenant { spec, .. } => vec![spec.display_name.clone()],
        Object::Upstream { spec, .. } => {
            let speaks = if matches!(spec.protocol, UpstreamProtocol::Mcp) { "MCP" } else { "OpenAPI" };
            let is_used = if spec.enabled { "" } else { "switched off" };
            vec![speaks.to_owned(), spec.url.to_string(), way(&spec.auth).to_owned(), is_used.to_owned()]
        }
        Object::Grant { spec, .. } => {
            let whom = spec.groups.iter().map(AsRef::as_ref).chain(spec.subjects.iter().map(AsRef::<str>::as_ref));
            let whom = format!("{}: {}", spec.issuer, shortened(whom));
            let denied = if spec.deny.is_empty() { String::new() } else { format!("not {}", shortened(&spec.deny)) };
            vec![whom, spec.level.to_string(), shortened(&spec.allow), denied]
        }
        Object::AccessTest { spec, .. } => {
            let whom = spec.subject.iter().map(AsRef::<str>::as_ref).chain(spec.groups.iter().map(AsRef::as_ref));
            let whom = format!("{}: {}", spec.issuer, shortened(whom));
            vec![whom, format!("can {}", shortened(&spec.can)), format!("cannot {}", shortened(&spec.cannot))]
        }
    });
    cells.push(manager.map(|manager| format!("managed by {manager}")).unwrap_or_default());
    cells
}

/// How we prove ourselves, in a word.
pub(super) fn way(auth: &UpstreamAuth) -> &'static str {
    match auth {
        UpstreamAuth::None => "no proof",
        UpstreamAuth::Bearer { .. } => "bearer",
        UpstreamAuth::Headers { .. } => "headers",
        UpstreamAuth::Basic { .. } => "basic",
        UpstreamAuth::Query { .. } => "query",
        UpstreamAuth::ClientCredentials(_) => "clientCredentials",
        UpstreamAuth::TokenExchange(_) => "tokenExchange",
        UpstreamAuth::Account(_) => "account",
        UpstreamAuth::Mtls { .. } => "mtls",
        UpstreamAuth::AwsSigV4 { .. } => "awsSigV4",
    }
}

/// The first few, and how many more.
fn shortened<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN_MAX: usize = 3;
    let items: Vec<T> = items.into_iter().collect();
    let shown: Vec<&str> = items.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(SHOWN_MAX) {
        0 if items.is_empty() => "nothing".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Rows with their columns below each other.
pub(super) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for (column, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        let width = cell.chars().count();
        match widths.get_mut(column) {
            Some(widest) => *widest = width.max(*widest),
            None => widths.push(width),
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let cells: Vec<_> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_empty_ones_are_left_out() {
        let row = |cells: [&str; 3]| cells.map(ToOwned::to_owned).to_vec();
        assert_eq!(lines(&[row(["a", "", "x"]), row(["Zoë", "", ""])]), ["a    x", "Zoë"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn long_lists_are_shortened_and_say_so() {
        assert_eq!(shortened(["a", "b", "c"]), "a, b, c");
        assert_eq!(shortened(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!(shortened::<&str>([]), "nothing");
    }
}
