//! What is measured: a start, then twenty changes of each kind.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcp_mux::caller::{Bounds, Caller, Principal};
use mcp_mux::catalog::{Catalog, Face};
use mcp_mux::policy::Administration;
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{Group, Level, Store, Tenant, TenantStore};

use super::fill;

const ROUNDS: usize = 20;

/// What one change came to.
struct Change {
    reload: Duration,
    list: Duration,
}

/// Reads the database as a server does that starts, and prints what that and everything else came to.
pub(crate) async fn run(url: &str) -> Result<()> {
    let began = Instant::now();
    let url = SecretString::from(url);
    let store = fill::store(&url).await?;
    store.require_migrations().await?;
    let (opened, empty) = (began.elapsed(), memory("VmRSS")?);
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the database as the server does")]
    let administration = Administration::for_the_platform();
    let catalog = Catalog::open(store, administration).await?;
    let (ready, full, highest) = (began.elapsed(), memory("VmRSS")?, memory("VmHWM")?);
    ensure!(catalog.snapshot().shelves().count() > 0, "nobody is served");

    // Somebody else writes.
    let other = fill::store(&url).await?;
    let tenants = other.tenants().await?;
    let (mut grants, mut lists) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let number = round * tenants.len() / ROUNDS;
        let tenant = tenants.get(number).context("it was made")?;
        let rows = other.tenant(administration.scope(tenant.id));
        change_grant(&rows).await?;
        grants.push(change(&catalog, tenant, number).await?);
        change_tools(&other, &rows, number, round).await?;
        lists.push(change(&catalog, tenant, number).await?);
    }
    let figures = json!({
        "opened": opened.as_secs_f64(), "ready": ready.as_secs_f64(),
        "empty": empty, "full": full, "highest": highest, "after": memory("VmRSS")?,
        "grant": figures(&grants), "tools": figures(&lists),
    });
    writeln!(std::io::stdout(), "{figures}")?;
    Ok(())
}

/// Takes up what was changed, and then makes the list of somebody whom that concerns.
async fn change(catalog: &Catalog, tenant: &Tenant, number: usize) -> Result<Change> {
    let began = Instant::now();
    ensure!(catalog.reload().await?, "nothing was changed");
    let reload = began.elapsed();
    let caller = caller(number)?;
    let began = Instant::now();
    let snapshot = catalog.snapshot();
    let reach = snapshot.grants().reach(&caller);
    let page = snapshot.view(Face::Aggregate, &reach).tools.page(None, 1_000).context("a first page")?;
    let list = began.elapsed();
    let prefix = format!("{}__", tenant.slug);
    ensure!(page.bytes.windows(prefix.len()).any(|bytes| bytes == prefix.as_bytes()), "{prefix} is not listed");
    Ok(Change { reload, list })
}

async fn change_grant(rows: &TenantStore) -> Result<()> {
    let mut grant = rows.grants().await?.into_iter().next().context("it has grants")?;
    grant.spec.level = if grant.spec.level == Level::Read { Level::Write } else { Level::Read };
    rows.put_grant(&grant.name, &grant.spec).await?;
    Ok(())
}

async fn change_tools(store: &Store, rows: &TenantStore, number: usize, round: usize) -> Result<()> {
    let upstream = rows.upstreams().await?.into_iter().next().context("it has an upstream")?;
    let count = rows.tools().await?.len();
    let news = format!("Seen in round {round} at {}.", store.revision().await?);
    rows.replace_tools(&upstream, &fill::tools(number, count, &news)?).await?;
    Ok(())
}

/// Somebody with three grants, in one tenant.
fn caller(number: usize) -> Result<Caller> {
    let groups = (0..3).map(|place| fill::group(number, place).parse()).collect::<Result<Vec<Group>, _>>()?;
    let principal = Principal { issuer: "corp".parse()?, subject: "somebody".parse()? };
    Ok(Caller::supposed(principal, groups.into(), Bounds::Everything))
}

/// The median and the worst, in milliseconds.
fn figures(changes: &[Change]) -> Value {
    let figures = |of: fn(&Change) -> Duration| {
        let mut times: Vec<f64> = changes.iter().map(|change| of(change).as_secs_f64() * 1_000.0).collect();
        times.sort_by(f64::total_cmp);
        json!({ "median": times.get(times.len() / 2), "worst": times.last() })
    };
    json!({ "reload": figures(|change| change.reload), "list": figures(|change| change.list) })
}

/// What the kernel says about this process's memory, in MiB.
fn memory(of: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':')).context("the kernel says it")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}
