//! `mcp-mux usage`: how often tools were called in a month.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tenant_store::{LocalName, Month, Store, Tenant, TenantSlug, UpstreamSlug, Used};

use super::get::lines;
use super::{Settings, administration, print, print_json, say, spelt_out};
use crate::app::look_into;

#[derive(Debug, Args)]
pub(super) struct UsageCommand {
    /// Only this tenant; without it all, one after the other
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantSlug>,
    /// The month, in UTC: `2026-11`
    #[arg(long, value_name = "YYYY-MM")]
    month: Month,
    /// A row for each day on which a tool was called, and not one for the whole month
    #[arg(long)]
    daily: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Shape::Table)]
    output: Shape,
    #[command(flatten)]
    settings: Settings,
}

/// How usage is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people
    Table,
    /// For programs
    Json,
    /// For spreadsheets: RFC 4180, with a line of headings. A `'` stands before a name that a spreadsheet would take for a formula
    Csv,
}

/// How often a tool was called: in a month, or on a day of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'t> {
    tenant: &'t TenantSlug,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    upstream: UpstreamSlug,
    tool: LocalName,
    calls: u64,
    errors: u64,
    duration_ms: u64,
}

impl UsageCommand {
    pub(super) async fn run(&self) -> Result<()> {
        let store = look_into(&self.settings.load()?).await?;
        let tenants = self.tenants(&store).await?;
        let mut rows = Vec::new();
        for tenant in &tenants {
            let used = store.tenant(administration().scope(tenant.id)).usage(&self.month).await?;
            rows.extend(self.rows(&tenant.slug, used));
        }
        match self.output {
            Shape::Json => return print_json(&rows),
            Shape::Csv => records(&rows, self.daily).iter().try_for_each(|record| print(record))?,
            Shape::Table => {
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                lines(&cells).iter().try_for_each(|line| print(&spelt_out(line)))?;
            }
        }
        if rows.is_empty() {
            say(&format!("no tool was called in {}", self.month));
        }
        Ok(())
    }

    async fn tenants(&self, store: &Store) -> Result<Vec<Tenant>> {
        let Some(slug) = &self.tenant else { return Ok(store.tenants().await?) };
        let tenant = store.find_tenant(slug).await?;
        let missing = || format!("there is no tenant `{slug}`: `mcp-mux get tenants` lists those that there are");
        Ok(vec![tenant.with_context(missing)?])
    }

    /// What a tenant used, as it is wanted.
    fn rows<'t>(&self, tenant: &'t TenantSlug, used: Vec<Used>) -> impl Iterator<Item = Row<'t>> + use<'t> {
        let mut sums: BTreeMap<(Option<String>, UpstreamSlug, LocalName), [u64; 3]> = BTreeMap::new();
        for Used { day, upstream, tool, calls, errors, duration_ms } in used {
            let sum = sums.entry((self.daily.then_some(day), upstream, tool)).or_default();
            for (sum, more) in sum.iter_mut().zip([calls, errors, duration_ms]) {
                *sum = sum.saturating_add(more);
            }
        }
        sums.into_iter().map(move |((day, upstream, tool), [calls, errors, duration_ms])| Row {
            tenant,
            day,
            upstream,
            tool,
            calls,
            errors,
            duration_ms,
        })
    }
}

impl Row<'_> {
    /// What one line says for people.
    fn cells(&self) -> Vec<String> {
        let Self { tenant, day, upstream, tool, calls, errors, duration_ms } = self;
        let (calls, errors, took) = (format!("{calls} calls"), format!("{errors} failed"), format!("{duration_ms} ms"));
        let day = day.clone().unwrap_or_default();
        vec![tenant.to_string(), day, upstream.to_string(), tool.to_string(), calls, errors, took]
    }

    fn record(&self) -> String {
        let Self { tenant, day, upstream, tool, calls, errors, duration_ms } = self;
        let names = [Some(tenant.as_str()), day.as_deref(), Some(upstream.as_str()), Some(tool.as_str())];
        let names: Vec<String> = names.into_iter().flatten().map(cell).collect();
        format!("{},{calls},{errors},{duration_ms}\r", names.join(","))
    }
}

/// Headings and rows as RFC 4180 has them, but for the line feed at the end of each.
fn records(rows: &[Row<'_>], daily: bool) -> Vec<String> {
    let day = if daily { "day," } else { "" };
    let mut records = vec![format!("tenant,{day}upstream,tool,calls,errors,durationMs\r")];
    records.extend(rows.iter().map(Row::record));
    records
}

/// A name as one cell. One that a spreadsheet would take for a formula is made a text, in the wide letters of East Asia, too.
fn cell(name: &str) -> String {
    // Some spreadsheets take a semicolon for the end of a cell, whatever stands around it.
    let is_formula =
        name.split(';').any(|part| part.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']));
    let guard = if is_formula { "'" } else { "" };
    let name = if is_formula { spelt_out(name).replace(';', ",") } else { spelt_out(name) };
    if guard.is_empty() && !name.contains(['"', ',', '\r', '\n']) {
        return name;
    }
    format!("\"{guard}{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_cell_and_no_formula() {
        for (name, written) in [
            ("find", "find"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("a\r\nb", r"a\r\nb"),
            ("a-b=c", "a-b=c"),
            ("=1+1", "\"'=1+1\""),
            ("x; =1+1", "\"'x, =1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("＝1", "\"'＝1\""),
            ("=cmd|'/C calc'!\"A0\"", "\"'=cmd|'/C calc'!\"\"A0\"\"\""),
        ] {
            assert_eq!(cell(name), written);
        }
    }
}
