//! `mcp-mux explain`: why somebody may or may not use a tool, and what would have to change for the opposite.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tenant_store::{
    DirectoryUser, GrantId, Group, IssuerName, Store, Subject, Timestamp, UpstreamAuth, UpstreamHealth, UpstreamId,
};

use super::describe::{health_json, health_lines};
use super::replicas::date;
use super::{Output, Settings, administration, print, print_json, spelt_out};
use crate::app;
use crate::caller::{Bounds, Caller, Principal};
use crate::catalog::{Catalog, Explained, Snapshot};
use crate::config::Config;
use crate::policy::{Change, Reason};

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    settings: Settings,
    /// Who: `ISSUER/SUBJECT`, or `ISSUER` alone for anybody of that provider who is in the groups
    #[arg(long = "as", value_name = "ISSUER[/SUBJECT]")]
    whom: Whom,
    /// A group that the provider vouches for; as often as needed. Without any, those of the provider's directory count, where there is one
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<Group>,
    /// The tool, by the name that clients see; without it all tools of the tenants in reach
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What the directory of an issuer says of somebody.
#[derive(Debug)]
struct Told {
    user: Option<DirectoryUser>,
    groups: Vec<Group>,
    as_of: Option<Timestamp>,
}

impl Told {
    /// Nothing, where the issuer has no directory, or nobody in particular is meant.
    async fn of(config: &Config, store: &Store, Whom { issuer, subject }: &Whom) -> Result<Option<Self>> {
        let Some(subject) = subject else { return Ok(None) };
        let directory = store.directory(issuer);
        let as_of = directory.as_of().await?;
        let is_configured = config.has_directory(issuer);
        if as_of.is_none() && !is_configured {
            return Ok(None);
        }
        let mut groups: Vec<Group> = directory.groups_of(subject).await?.into_iter().map(|group| group.name).collect();
        groups.dedup();
        Ok(Some(Self { user: directory.of_subject(subject).await?, groups, as_of }))
    }

    /// What is to be known of it, where its groups count and where they do not.
    fn lines(&self, issuer: &IssuerName, has_groups: bool) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.user {
            None => lines.push(format!("  the directory of {issuer} knows no such user")),
            Some(user) if user.is_away() => lines.push(format!("  {}: they are revoked", user.state.reason(issuer))),
            Some(_) => {}
        }
        if let (true, Some(_), Some(at)) = (has_groups, &self.user, self.as_of) {
            let none = if self.groups.is_empty() { "; there are none" } else { "" };
            lines.push(format!("  groups of the directory of {issuer}, as of {}{none}", date(at)));
        }
        lines
    }

    fn as_json(&self) -> Value {
        let state = self.user.as_ref().map(|user| user.state);
        json!({ "state": state, "groups": self.groups, "asOfMs": self.as_of.map(Timestamp::as_millis) })
    }
}

/// Who is meant.
#[derive(Debug, Clone)]
struct Whom {
    issuer: IssuerName,
    subject: Option<Subject>,
}

impl FromStr for Whom {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (issuer, subject) = text.split_once('/').map_or((text, None), |(issuer, subject)| (issuer, Some(subject)));
        Ok(Self { issuer: issuer.parse()?, subject: subject.map(str::parse).transpose()? })
    }
}

impl Explain {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let name = &self.whom.issuer;
        let is_configured = config.issuers.iter().any(|issuer| issuer.name == *name)
            || config.fronts.iter().any(|front| front.name == *name);
        let store = app::look_into(&config).await?;
        let told = Told::of(&config, &store, &self.whom).await?;
        let groups = self.groups(told.as_ref());
        let catalog = Catalog::open(store.clone(), administration()).await?;
        let snapshot = catalog.snapshot();
        let caller = self.caller(groups);
        let explained = self.explained(&snapshot, &caller)?;
        let healths = healths(&store, &explained).await?;
        if matches!(self.output, Output::Json) {
            let tools = explained.iter().map(|one| as_json(&snapshot, one, healths.get(&one.entry.upstream.id)));
            let tools: Vec<_> = tools.collect();
            return print_json(&json!({
                "issuer": self.whom.issuer, "subject": self.whom.subject, "groups": groups,
                "configured": is_configured, "directory": told.as_ref().map(Told::as_json), "tools": tools,
            }));
        }
        for line in self.who(&snapshot, (is_configured, told.as_ref(), groups)) {
            print(&spelt_out(&line))?;
        }
        let is_short = self.tool.is_none();
        for one in &explained {
            let mut lines = if is_short { vec![short(&snapshot, one)] } else { long(&snapshot, one) };
            if !is_short {
                let health = health_lines(&one.entry.upstream, healths.get(&one.entry.upstream.id));
                lines.extend(health.into_iter().map(|line| format!("  upstream {}: {line}", one.entry.upstream.slug)));
            }
            for line in lines {
                print(&spelt_out(&line))?;
            }
        }
        Ok(())
    }

    /// The groups that count: those that were named or, where none was, those of the directory.
    fn groups<'g>(&'g self, told: Option<&'g Told>) -> &'g [Group] {
        if self.groups.is_empty() { told.map_or(&[], |told| &told.groups) } else { &self.groups }
    }

    fn caller(&self, groups: &[Group]) -> Caller {
        let issuer = self.whom.issuer.clone();
        let principal = match self.whom.subject.clone() {
            Some(subject) => Principal { issuer, subject },
            None => Principal::anybody_of(issuer),
        };
        Caller::supposed(principal, Arc::from(groups), Bounds::Everything)
    }

    fn explained(&self, snapshot: &Snapshot, caller: &Caller) -> Result<Vec<Explained>> {
        let explained = snapshot.explain(caller, self.tool.as_deref());
        if let Some(tool) = &self.tool {
            ensure!(!explained.is_empty(), "no tenant that is served has a tool `{tool}`");
        }
        Ok(explained)
    }

    /// Who it is, and what that reaches.
    fn who(&self, snapshot: &Snapshot, (is_configured, told, groups): (bool, Option<&Told>, &[Group])) -> Vec<String> {
        let issuer = &self.whom.issuer;
        let whom = self.whom.subject.as_ref().map_or_else(|| "anybody".to_owned(), ToString::to_string);
        let mut lines = vec![format!("{whom} of {issuer}")];
        if !is_configured {
            lines.push(format!("  {issuer} is no issuer or front of the configuration: nobody is let in by that name"));
        }
        lines.extend(told.into_iter().flat_map(|told| told.lines(issuer, self.groups.is_empty())));
        for group in groups {
            let grants = snapshot.grants();
            let is_named = grants.names(issuer, group);
            let is_revoked = grants.revoked().has_group(issuer, group);
            let named = if is_named { "grants name it" } else { "no grant names it" };
            lines.push(format!("  group {group}: {}", if is_revoked { "revoked, so it gives nothing" } else { named }));
        }
        lines
    }
}

/// One line about a tool.
fn short(snapshot: &Snapshot, one: &Explained) -> String {
    let because = one.explanation.decision.reasons.iter().map(|reason| because(snapshot, one, reason));
    format!("{:<8} {:<48} {}", verdict(one), one.entry.exposed(), because.collect::<Vec<_>>().join("; "))
}

/// All about a tool, step by step.
fn long(snapshot: &Snapshot, one: &Explained) -> Vec<String> {
    let Explained { entry, explanation, secrets, is_aggregate } = one;
    let mut lines = vec![format!(
        "{}: `{}` at upstream {} of tenant {}, which asks for {}",
        entry.exposed(),
        entry.local(),
        entry.upstream.slug,
        entry.tenant_slug,
        entry.class()
    )];
    if !is_aggregate {
        lines.push("  it is for apps, and so shown at its tenant's own endpoint only".to_owned());
    }
    let reasons = explanation.decision.reasons.iter().map(|reason| because(snapshot, one, reason));
    lines.extend(reasons.zip(1..).map(|(reason, number)| format!("  {number}. {reason}")));
    lines.push(format!("  {}", verdict(one)));
    let opposite = if explanation.decision.is_allowed() { "denied" } else { "allowed" };
    let changes = explanation.flip.iter().map(|change| would(snapshot, one, change));
    lines.push(format!("  it would be {opposite} if {}", changes.collect::<Vec<_>>().join(", and ")));
    if matches!(entry.upstream.spec.auth, UpstreamAuth::Account(_)) {
        lines.push("  each caller connects an account of their own first; calls without one say where".to_owned());
    }
    for (name, version) in secrets {
        lines.push(match version {
            Some(version) => format!("  secret {name}: version {version} is stored"),
            None => format!(
                "  secret {name}: missing, so calls fail; `mcp-mux secret set {}/{}/{name}`",
                entry.tenant_slug, entry.upstream.slug
            ),
        });
    }
    lines
}

/// How the upstreams of these tools fared when they were asked last.
async fn healths(store: &Store, explained: &[Explained]) -> Result<HashMap<UpstreamId, UpstreamHealth>> {
    let tenants: HashSet<_> = explained.iter().map(|one| one.entry.tenant).collect();
    let mut healths = HashMap::new();
    for tenant in tenants {
        let known = store.tenant(administration().scope(tenant)).health().await?;
        healths.extend(known.into_iter().map(|health| (health.upstream, health)));
    }
    Ok(healths)
}

fn verdict(one: &Explained) -> &'static str {
    if one.explanation.decision.is_allowed() { "allowed" } else { "denied" }
}

/// A grant by its name.
fn named(snapshot: &Snapshot, one: &Explained, id: GrantId) -> String {
    let grant = snapshot.grants().find(one.entry.tenant, id);
    grant.map_or_else(|| id.to_string(), |grant| format!("{} ({id})", grant.name))
}

fn because(snapshot: &Snapshot, one: &Explained, reason: &Reason) -> String {
    let named = |id: &GrantId| named(snapshot, one, *id);
    match reason {
        Reason::NoGrant { .. } => format!("no grant of tenant {} covers them", one.entry.tenant_slug),
        Reason::LevelTooLow { grant, level, class } => {
            format!("grant {} gives {level}, and the tool asks for {class}", named(grant))
        }
        Reason::NoPatternMatches { grant } => format!("no pattern that grant {} allows matches", named(grant)),
        Reason::Allowed { grant, pattern } => format!("grant {} allows `{pattern}`", named(grant)),
        Reason::Denied { grant, pattern } => format!("grant {} denies `{pattern}`", named(grant)),
        Reason::Disabled { .. } => "the tool or its upstream is switched off".to_owned(),
        Reason::NotApproved { .. } => "its definition changed and is not approved".to_owned(),
        Reason::Revoked { .. } => "the tool or its upstream is revoked".to_owned(),
        Reason::CallerRevoked => "they are revoked".to_owned(),
    }
}

fn would(snapshot: &Snapshot, one: &Explained, change: &Change) -> String {
    let named = |id: &GrantId| named(snapshot, one, *id);
    let tool = format!("{}/{}", one.entry.upstream.slug, one.entry.local());
    match change {
        Change::Unbind => "their key were good for the tenant".to_owned(),
        Change::MakeGrant { level } => {
            format!("tenant {} had a grant for them that gives {level} and allows `{tool}`", one.entry.tenant_slug)
        }
        Change::Cover { grant, group: Some(group) } => {
            format!("they were in `{group}`, as grant {} says", named(grant))
        }
        Change::Cover { grant, group: None } => format!("grant {} named them", named(grant)),
        Change::Raise { grant, to } => format!("grant {} gave {to}", named(grant)),
        Change::Allow { grant } => format!("grant {} allowed `{tool}`", named(grant)),
        Change::Deny { grant } => format!("grant {} denied `{tool}`", named(grant)),
        Change::Undeny { grant, pattern } => format!("grant {} did not deny `{pattern}`", named(grant)),
        Change::Enable => "the tool and its upstream were switched on".to_owned(),
        Change::Approve => "its definition were approved".to_owned(),
        Change::Reinstate => "the tool and its upstream were reinstated".to_owned(),
        Change::ReinstateCaller => "they were reinstated".to_owned(),
    }
}

fn as_json(snapshot: &Snapshot, one: &Explained, health: Option<&UpstreamHealth>) -> Value {
    let Explained { entry, explanation, secrets, is_aggregate } = one;
    let reasons = explanation.decision.reasons.iter().map(|reason| because(snapshot, one, reason));
    let changes = explanation.flip.iter().map(|change| would(snapshot, one, change));
    let secrets = secrets.iter().map(|(name, version)| json!({ "name": name, "version": version }));
    json!({
        "tool": entry.exposed(), "tenant": entry.tenant_slug, "upstream": entry.upstream.slug, "local": entry.local(),
        "class": entry.class(), "atAllTenants": is_aggregate, "allowed": explanation.decision.is_allowed(),
        "reasons": reasons.collect::<Vec<_>>(), "flip": changes.collect::<Vec<_>>(),
        "secrets": secrets.collect::<Vec<_>>(), "health": health_json(health),
    })
}
