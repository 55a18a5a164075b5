//! `mcp-mux describe`: all that is known about one tenant, upstream, grant or access test: what documents say, and what they do not.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Map, Value, json};
use tenant_store::{
    AccessTest, Group, IssuerName, OnArguments, Revoked, SecretName, Store, Subject, Tenant, TenantStore, Timestamp,
    Tool, Upstream, UpstreamHealth,
};

use super::get::{KindWord, Name};
use super::replicas::date;
use super::{Output, Settings, administration, print, print_json, spelt_out};
use crate::app;
use crate::catalog::{Definition, Snapshot, Unchecked, unchecked};
use crate::manifest::{self, Kind, Object};

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// Of which kind
    #[arg(value_enum)]
    kind: KindWord,
    /// Which: TENANT for a tenant, TENANT/NAME for anything else
    name: Name,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

/// What there is to know besides the document: for people a label and what to say, for programs a field and its value.
#[derive(Debug, Default)]
struct Known {
    lines: Vec<(&'static str, String)>,
    fields: Map<String, Value>,
}

/// The database, looked at for one object.
struct Looked<'l> {
    store: &'l Store,
    rows: TenantStore,
    tenant: &'l Tenant,
}

impl Describe {
    pub(super) async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let administration = administration();
        let slug = &self.name.tenant;
        let is_missing = || format!("there is no tenant `{slug}`");
        let tenant = store.find_tenant(slug).await?.with_context(is_missing)?;
        let exported = manifest::export(&store, Some(slug), |tenant| administration.scope(tenant)).await?;
        let exported = exported.with_context(is_missing)?;
        let counts = counted(exported.objects.iter().map(|(object, _)| object.kind()));
        let (object, manager) = self.name.find(Kind::from(self.kind), exported)?;
        let looked = Looked { store: &store, rows: store.tenant(administration.scope(tenant.id)), tenant: &tenant };
        let known = match &object {
            Object::Tenant { .. } => looked.tenant(&counts).await?,
            Object::Upstream { slug, .. } => looked.upstream(slug.as_str()).await?,
            Object::Grant { spec, .. } => looked.grant(&spec.issuer, &spec.groups, &spec.subjects).await?,
            Object::AccessTest { name, spec, .. } => {
                let test = AccessTest { tenant: tenant.id, name: name.clone(), spec: spec.clone() };
                looked.access_test(test).await?
            }
        };
        let managed = [(&object, manager.as_ref())];
        if self.output == Output::Json {
            let document = manifest::documents(managed).pop();
            return print_json(&json!({ "document": document, "known": known.fields }));
        }
        print(manifest::write_managed(managed)?.trim_end())?;
        print("---")?;
        let width = known.lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, text) in &known.lines {
            print(&spelt_out(&format!("# {label:<width$}  {text}")))?;
        }
        Ok(())
    }
}

impl Known {
    fn say(&mut self, label: &'static str, text: impl Into<String>) {
        self.lines.push((label, text.into()));
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Something that is revoked, since when and why.
    async fn add_revocation(&mut self, store: &Store, is_meant: impl Fn(&Revoked) -> bool) -> Result<()> {
        let revocations = store.still().await?.revocations().await?;
        let found: Vec<_> = revocations.into_iter().filter(|revocation| is_meant(&revocation.what)).collect();
        for revocation in &found {
            let reason = if revocation.reason.is_empty() { String::new() } else { format!(": {}", revocation.reason) };
            self.say("revoked", format!("{}, since {}{reason}", thing(&revocation.what), date(revocation.at)));
        }
        let fields = found.iter().map(|revocation| {
            json!({ "what": revocation.what, "atMs": revocation.at.as_millis(), "reason": revocation.reason })
        });
        self.set("revocations", fields.collect::<Vec<_>>());
        Ok(())
    }
}

impl Looked<'_> {
    async fn tenant(&self, counts: &BTreeMap<Kind, usize>) -> Result<Known> {
        let mut known = Known::default();
        known.say("id", self.tenant.id.to_string());
        known.say("state", self.tenant.state.to_string());
        known.set("id", self.tenant.id.to_string());
        known.set("state", self.tenant.state.as_str());
        let count = |kind| counts.get(&kind).copied().unwrap_or_default();
        for (label, name, kind) in [
            ("upstreams", "upstreams", Kind::Upstream),
            ("grants", "grants", Kind::Grant),
            ("access tests", "accessTests", Kind::AccessTest),
        ] {
            known.say(label, count(kind).to_string());
            known.set(name, count(kind));
        }
        let id = self.tenant.id;
        known.add_revocation(self.store, |what| what.tenant() == Some(id)).await?;
        Ok(known)
    }

    async fn upstream(&self, slug: &str) -> Result<Known> {
        let upstreams = self.rows.upstreams().await?;
        let upstream = upstreams.into_iter().find(|upstream| upstream.slug.as_str() == slug);
        let upstream = upstream.context("it was deleted just now")?;
        let mut known = Known::default();
        known.say("id", upstream.id.to_string());
        known.set("id", upstream.id.to_string());
        self.add_health(&mut known, &upstream).await?;
        self.add_lists(&mut known, &upstream).await?;
        self.add_secrets(&mut known, &upstream).await?;
        let (tenant, id) = (self.tenant.id, upstream.id);
        known
            .add_revocation(self.store, |what| match what {
                Revoked::Upstream { upstream, .. } | Revoked::Tool { upstream, .. } => *upstream == id,
                Revoked::Tenant { tenant: revoked } => *revoked == tenant,
                _ => false,
            })
            .await?;
        Ok(known)
    }

    async fn add_health(&self, known: &mut Known, upstream: &Upstream) -> Result<()> {
        let health = self.rows.health().await?.into_iter().find(|health| health.upstream == upstream.id);
        for line in health_lines(upstream, health.as_ref()) {
            known.say("health", line);
        }
        known.set("health", health_json(health.as_ref()));
        Ok(())
    }

    /// What it listed last, and what of that is not approved.
    async fn add_lists(&self, known: &mut Known, upstream: &Upstream) -> Result<()> {
        let tools = self.rows.tools().await?;
        let own: Vec<_> = tools.iter().filter(|tool| tool.upstream == upstream.id).collect();
        let held = own.iter().filter(|tool| tool.approved.as_ref() != Some(&tool.digest)).count();
        let more = format!(", {held} of them not approved: see `mcp-mux tools review`");
        let more = if held > 0 { more } else { String::new() };
        known.say("tools", format!("{}{more}", own.len()));
        known.set("tools", json!({ "listed": own.len(), "notApproved": held }));
        if upstream.spec.on_arguments == OnArguments::Check {
            add_unchecked(known, &own);
        }
        let offers = self.rows.offers().await?;
        let kinds = offers.iter().filter(|offer| offer.upstream == upstream.id).map(|offer| offer.kind);
        for (kind, count) in counted(kinds) {
            known.say("also", format!("{count} of kind {kind}"));
            known.set(&format!("{kind}s"), count);
        }
        Ok(())
    }

    /// Which secrets it is called with, and whether they are there. One for another address is none.
    async fn add_secrets(&self, known: &mut Known, upstream: &Upstream) -> Result<()> {
        let sealed = self.rows.sealed_credentials().await?;
        let stored: HashMap<&SecretName, u32> = sealed
            .iter()
            .filter(|sealed| sealed.upstream() == upstream.id && sealed.is_for(upstream))
            .map(|sealed| (sealed.name(), sealed.version()))
            .collect();
        let mut fields = Vec::new();
        for (name, _) in upstream.spec.auth.secrets() {
            let version = stored.get(name).copied();
            let place = format!("{}/{}/{name}", self.tenant.slug, upstream.slug);
            known.say(
                "secret",
                match version {
                    Some(version) => format!("{name}: version {version} is stored"),
                    None => format!("{name}: missing, so calls fail; `mcp-mux secret set {place}`"),
                },
            );
            fields.push(json!({ "name": name, "version": version }));
        }
        known.set("secrets", fields);
        Ok(())
    }

    async fn grant(&self, issuer: &IssuerName, groups: &[Group], subjects: &[Subject]) -> Result<Known> {
        let mut known = Known::default();
        for group in groups {
            known.say("opens", format!("`mcp-mux explain --as {issuer} --group {}`", quoted(group.as_str())));
        }
        for subject in subjects {
            let whom = quoted(&format!("{issuer}/{subject}"));
            known.say("opens", format!("`mcp-mux explain --as {whom}`"));
        }
        let tenant = self.tenant.id;
        known
            .add_revocation(self.store, |what| match what {
                Revoked::Tenant { tenant: revoked } => *revoked == tenant,
                Revoked::Group { issuer: whose, group } => whose == issuer && groups.contains(group),
                Revoked::Principal { issuer: whose, subject } => whose == issuer && subjects.contains(subject),
                _ => false,
            })
            .await?;
        Ok(known)
    }

    async fn access_test(&self, test: AccessTest) -> Result<Known> {
        let snapshot = Snapshot::load_unrevoked(self.store, administration()).await?;
        let judged = manifest::judge((&snapshot, &[test]));
        let mut known = Known::default();
        let verdict = if judged.failures.is_empty() { "holds" } else { "fails" };
        known.say("test", format!("{verdict}, as if nothing were revoked"));
        known.set("holds", judged.failures.is_empty());
        for finding in &judged.failures {
            known.say("because", finding.message.clone());
        }
        for finding in &judged.unknown {
            known.say("unknown", finding.message.clone());
        }
        known.set("failures", judged.failures.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>());
        Ok(known)
    }
}

/// The tools whose arguments are not held against their schemas though they should be, and why. A schema that asks for nothing is kept.
fn add_unchecked(known: &mut Known, tools: &[&Tool]) {
    let mut fields = Vec::new();
    for tool in tools {
        let why = Definition::parse(&tool.definition).ok().and_then(|definition| unchecked(&definition));
        if let Some(why) = why.filter(|why| *why != Unchecked::Empty) {
            known.say("arguments", format!("those of `{}` are not checked: {why}", tool.local));
            fields.push(json!({ "tool": tool.local, "reason": why.to_string() }));
        }
    }
    known.set("argumentsNotChecked", fields);
}

/// How an upstream fared when it was asked last, for people.
pub(super) fn health_lines(upstream: &Upstream, health: Option<&UpstreamHealth>) -> Vec<String> {
    let mut lines = Vec::new();
    if !upstream.spec.enabled {
        lines.push("it is switched off, and not asked".to_owned());
    }
    let Some(health) = health else {
        lines.push("it was not asked for its lists yet, at this address".to_owned());
        return lines;
    };
    if let Some(failure) = &health.failure {
        let (since, asked) = (date(failure.since), date(health.asked_at));
        lines.push(format!("it failed from {since} to {asked} at the least: {}", failure.error));
    }
    lines.push(match health.listed_at {
        Some(at) => format!("it last answered with its lists at {}, or a few minutes later", date(at)),
        None => "it never answered with its lists".to_owned(),
    });
    lines
}

/// The same for programs.
pub(super) fn health_json(health: Option<&UpstreamHealth>) -> Value {
    let Some(health) = health else { return Value::Null };
    json!({
        "askedAtMs": health.asked_at.as_millis(),
        "listedAtMs": health.listed_at.map(Timestamp::as_millis),
        "failure": health.failure.as_ref().map(|failure| json!({
            "sinceMs": failure.since.as_millis(), "error": failure.error,
        })),
    })
}

/// What is revoked, without its tenant.
fn thing(what: &Revoked) -> String {
    match what {
        Revoked::Principal { issuer, subject } => format!("{subject} of {issuer}"),
        Revoked::Group { issuer, group } => format!("group {group} of {issuer}"),
        Revoked::Tenant { .. } => "the tenant".to_owned(),
        Revoked::Upstream { .. } => "the upstream".to_owned(),
        Revoked::Tool { local, .. } => format!("`{local}`"),
    }
}

/// A word as a shell takes it, whatever is in it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How often each is there.
fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_into_a_shell_is_one_word() {
        assert_eq!(quoted("acme-analysts"), "acme-analysts");
        assert_eq!(quoted("x; rm -rf ~"), "'x; rm -rf ~'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
