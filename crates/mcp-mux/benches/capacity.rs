//! How much one process holds: a database with many tenants is filled, and it is measured how long a start takes and how much memory, and
//! what one change costs then.
//!
//! `just capacity` takes 10,000 tenants with 10 tools and 5 grants each, `just capacity 1000 20 5` other numbers; within
//! `tests/with-postgres.sh` it is PostgreSQL instead of SQLite. What is measured is a process of its own: this program started again with the
//! word `measure`, so that its memory holds nothing else. See `docs/capacity.md`.

mod capacity {
    pub(crate) mod fill;
    pub(crate) mod measure;
    pub(crate) mod report;
}

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use mimalloc::MiMalloc;
use secrecy::ExposeSecret as _;
use tenant_store::testing::TestDatabase;
use tokio::runtime::Runtime;

use capacity::fill::{self, Sizes};
use capacity::{measure, report};

/// The program's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const FULL: Sizes = Sizes { tenants: 10_000, tools: 10, grants: 5 };
const QUICK: Sizes = Sizes { tenants: 30, tools: 2, grants: 5 };
const TEST: &str = "a_full_database_is_measured_and_the_table_is_whole";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let has = |word: &str| words.contains(&word);
    if let ["measure", url] = words.as_slice() {
        return Runtime::new()?.block_on(measure::run(url));
    }
    if has("--list") {
        return if has("--ignored") { Ok(()) } else { print(&format!("{TEST}: test\n")) };
    }
    let sizes = if has("--bench") { sizes(&words)? } else { QUICK };
    let table = Runtime::new()?.block_on(fill_and_measure(sizes))?;
    ensure!(table.lines().count() == report::LINES, "the table is not whole:\n{table}");
    print(&table)
}

/// How many tenants, tools of each and grants of each.
fn sizes(words: &[&str]) -> Result<Sizes> {
    let numbers = words.iter().filter(|word| !word.starts_with("--")).map(|word| word.parse());
    let numbers: Vec<usize> = numbers.collect::<Result<_, _>>().context("sizes are numbers")?;
    let number = |index: usize, usual: usize| numbers.get(index).copied().unwrap_or(usual);
    Ok(Sizes { tenants: number(0, FULL.tenants), tools: number(1, FULL.tools), grants: number(2, FULL.grants) })
}

async fn fill_and_measure(sizes: Sizes) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let database = TestDatabase::new(&folder.path().join("capacity.db")).await;
    let took = fill::run(&database.url, sizes).await?;
    let measured = Command::new(std::env::current_exe()?)
        .args(["measure", database.url.expose_secret()])
        .stderr(Stdio::inherit())
        .output()
        .context("this program starts itself again")?;
    ensure!(measured.status.success(), "the measured process failed");
    report::table(sizes, took, &serde_json::from_slice(&measured.stdout)?)
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
