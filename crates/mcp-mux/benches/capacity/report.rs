//! The table that is printed.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tenant_store::testing::is_on_postgres;

use super::fill::Sizes;

/// How many lines the table has.
pub(crate) const LINES: usize = 14;

/// What was measured, as Markdown.
pub(crate) fn table(sizes: Sizes, filled: Duration, measured: &Value) -> Result<String> {
    let database = if is_on_postgres() { "PostgreSQL" } else { "SQLite" };
    let Sizes { tenants, tools, grants } = sizes;
    let number =
        |path: &str| measured.pointer(path).and_then(Value::as_f64).with_context(|| format!("{path}: nothing"));
    let times = |path: &str| -> Result<String> {
        Ok(format!("{:.2} / {:.2} ms", number(&format!("{path}/median"))?, number(&format!("{path}/worst"))?))
    };
    let per_tool = (number("/full")? - number("/empty")?) * 1024.0 / f64::from(u32::try_from(tenants * tools)?.max(1));
    let rows = [
        ("tenants, upstreams and keys", format!("{tenants} each")),
        ("tools / grants", format!("{} / {}", tenants * tools, tenants * grants)),
        ("to fill the database", format!("{:.0} s", filled.as_secs_f64())),
        ("start to an open store", format!("{:.2} s", number("/opened")?)),
        ("start to ready", format!("{:.2} s", number("/ready")?)),
        ("memory before / after reading", format!("{:.0} / {:.0} MiB", number("/empty")?, number("/full")?)),
        ("memory at most while reading", format!("{:.0} MiB", number("/highest")?)),
        ("memory per tool", format!("{per_tool:.1} KiB")),
        ("memory after 40 changes", format!("{:.0} MiB", number("/after")?)),
        ("a grant changed: median / worst", times("/grant/reload")?),
        ("a list of tools changed: median / worst", times("/tools/reload")?),
    ];
    let list = ("the first list after a change: median / worst", times("/grant/list")?);
    let mut table = format!("| what | {database} |\n| --- | ---: |\n");
    for (what, value) in rows.into_iter().chain([list]) {
        writeln!(table, "| {what} | {value} |")?;
    }
    Ok(table)
}
