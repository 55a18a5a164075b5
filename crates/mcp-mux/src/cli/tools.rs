//! `mcp-mux tools`: what waits for somebody's word, and the word.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tenant_store::{LocalName, Pin, Store, Tenant, TenantSlug, Upstream, UpstreamId, UpstreamSlug};

use super::recorded::{Done, record};
use super::{Output, Settings, administration, print, print_json, say, spelt_out};
use crate::app;
use crate::review::{Difference, Known, Review, value};

/// Longest value in a difference that is printed for people, in characters; `-o json` prints all of it.
const SHOWN_CHARS_MAX: usize = 2000;

#[derive(Debug, Args)]
pub(super) struct Tools {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Lists what waits: how each tool differs from what was approved, and what is suspicious about it
    ///
    /// Reads the database, not an upstream: what was listed last. Nothing is changed.
    Review(ReviewCommand),
    /// Approves a tool as it was reviewed: everybody whom grants allow it can use it
    Approve(Word),
    /// Keeps a tool hidden as it was reviewed, whatever the upstream's rules become. What it is changed to waits again
    Reject(Word),
}

#[derive(Debug, Args)]
struct ReviewCommand {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<TenantSlug>,
    /// Only this upstream's
    #[arg(long)]
    upstream: Option<UpstreamSlug>,
    /// Only the tool of this name, as its upstream calls it
    #[arg(long, value_name = "NAME")]
    tool: Option<LocalName>,
    /// Rejected ones too
    #[arg(long)]
    rejected: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Word {
    /// The tenant
    tenant: TenantSlug,
    /// Its upstream
    upstream: UpstreamSlug,
    /// The tool, as its upstream calls it
    tool: LocalName,
    /// What was reviewed, as `mcp-mux tools review` names it: if the tool is something else by now, nothing happens
    #[arg(long)]
    digest: Pin,
    #[command(flatten)]
    settings: Settings,
}

/// A review, and whose it is.
struct Reviewed<'r> {
    tenant: &'r Tenant,
    upstream: &'r Upstream,
    review: Review,
}

impl Tools {
    pub(super) async fn run(&self) -> Result<()> {
        match &self.act {
            Act::Review(review) => review.run().await,
            Act::Approve(word) => word.run(true).await,
            Act::Reject(word) => word.run(false).await,
        }
    }
}

impl ReviewCommand {
    async fn run(&self) -> Result<()> {
        let store = app::look_into(&self.settings.load()?).await?;
        let tenants = store.tenants().await?;
        if let Some(slug) = &self.tenant {
            tenants
                .iter()
                .find(|tenant| tenant.slug == *slug)
                .with_context(|| format!("there is no tenant `{slug}`"))?;
        }
        let mut all = Vec::new();
        let mut count = 0;
        for tenant in tenants.iter().filter(|tenant| self.tenant.as_ref().is_none_or(|slug| *slug == tenant.slug)) {
            count += self.review(&store, (tenant, &tenants), &mut all).await?;
        }
        if self.output == Output::Json {
            return print_json(&all);
        }
        if count == 0 {
            say("no tool waits");
        }
        Ok(())
    }

    /// Prints what waits in a tenant, or adds it to `all` for programs; answers how many those are.
    async fn review(
        &self,
        store: &Store,
        (tenant, tenants): (&Tenant, &[Tenant]),
        all: &mut Vec<Value>,
    ) -> Result<usize> {
        let rows = store.tenant(administration().scope(tenant.id));
        let (upstreams, tools) = (rows.upstreams().await?, rows.tools().await?);
        let others: Vec<&TenantSlug> =
            tenants.iter().map(|other| &other.slug).filter(|slug| **slug != tenant.slug).collect();
        let known = Known::of(&tools, &others);
        let mut count = 0;
        for waiting in rows.waiting_tools().await? {
            let is_meant = self.tool.as_ref().is_none_or(|tool| *tool == waiting.tool.local);
            let upstream = upstreams.iter().find(|upstream| upstream.id == waiting.tool.upstream);
            let upstream = upstream.filter(|upstream| self.upstream.as_ref().is_none_or(|slug| *slug == upstream.slug));
            let Some(upstream) = upstream.filter(|_| is_meant && (self.rejected || !waiting.is_rejected)) else {
                continue;
            };
            let review = Review::of(waiting, &known);
            let reviewed = Reviewed { tenant, upstream, review };
            count += 1;
            match self.output {
                Output::Json => all.push(reviewed.as_json()),
                Output::Table => reviewed.lines().iter().try_for_each(|line| print(&spelt_out(line)))?,
            }
        }
        Ok(count)
    }
}

impl Reviewed<'_> {
    fn lines(&self) -> Vec<String> {
        let Self { tenant, upstream, review } = self;
        let waiting = &review.waiting;
        let place = format!("{}/{}/{}", tenant.slug, upstream.slug, waiting.tool.local);
        let mut lines = vec![format!("{place}  ({})", review.reason(upstream)), format!("  digest {}", waiting.pin)];
        if waiting.tool.approved.is_some() && waiting.approved_definition.is_none() {
            lines.push("  what was approved was not kept: all that is listed now counts as new".to_owned());
        } else if review.differences.is_empty() {
            lines.push("  differs only in how numbers are spelt, or in members that are there twice".to_owned());
        }
        for Difference { at, old, new } in &review.differences {
            lines.extend(old.iter().map(|old| format!("  - {at}: {}", shown(old))));
            lines.extend(new.iter().map(|new| format!("  + {at}: {}", shown(new))));
        }
        for finding in &review.findings {
            lines.push(format!("  ! {} at {}: {}", finding.rule, finding.at, finding.what));
        }
        lines
    }

    fn as_json(&self) -> Value {
        let Self { tenant, upstream, review } = self;
        let tool = &review.waiting.tool;
        let approved = review.waiting.approved_definition.as_deref().map(value);
        json!({
            "tenant": tenant.slug, "upstream": upstream.slug, "tool": tool.local, "exposed": tool.exposed,
            "reason": review.reason(upstream), "rejected": review.waiting.is_rejected,
            "digest": review.waiting.pin.to_string(),
            "definition": value(&tool.definition), "approved": approved,
            "differences": review.differences, "findings": review.findings,
        })
    }
}

/// A value on one line, not too long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    let rest = chars.count();
    if rest == 0 { shown } else { format!("{shown}… ({rest} characters more: see `-o json`)") }
}

impl Word {
    async fn run(&self, is_approval: bool) -> Result<()> {
        let Self { tenant, upstream, tool, digest, settings } = self;
        let store = app::look_into(&settings.load()?).await?;
        let found = store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant `{tenant}`"))?;
        let rows = store.tenant(administration().scope(found.id));
        let id = self.upstream_id(rows.find_upstream(upstream).await?)?;
        let (action, done, already) = if is_approval {
            ("approve", "approved", "it was approved already")
        } else {
            ("reject", "rejected", "it was rejected already")
        };
        let changed = if is_approval {
            rows.approve_tool(id, tool, *digest).await?
        } else {
            rows.reject_tool(id, tool, *digest).await?
        };
        if !changed {
            say(already);
            return Ok(());
        }
        say(done);
        let name = format!("{tenant}/{upstream}/{tool}@{digest}");
        record(&store, Done::of(found.id, action, "tool", &name)).await
    }

    fn upstream_id(&self, found: Option<Upstream>) -> Result<UpstreamId> {
        let Self { tenant, upstream, .. } = self;
        Ok(found.with_context(|| format!("tenant `{tenant}` has no upstream `{upstream}`"))?.id)
    }
}
