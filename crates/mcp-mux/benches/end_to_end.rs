//! What mcp-mux costs from end to end: the same load against an upstream directly, a minimal gateway in front of it (the floor),
//! and mcp-mux in front of it.
//!
//! `just bench` measures, `just bench --json` prints JSON, and `just bench call` measures the cases with that word in their names;
//! `just bench --scale` grows tenants and views instead, and `just bench --streams` opens 10,000 streams. `--quick` only shows that it works, as `cargo test` does. Upstream, floor and
//! mcp-mux are processes of their own: this program started again with the name of a role, so that the operating system can tell what
//! each of them spent. See `docs/benchmarks.md`.

mod end_to_end {
    pub(crate) mod child;
    pub(crate) mod compare;
    pub(crate) mod floor;
    pub(crate) mod flow;
    pub(crate) mod http1;
    pub(crate) mod load;
    pub(crate) mod measure;
    pub(crate) mod mux;
    pub(crate) mod quick;
    pub(crate) mod report;
    pub(crate) mod scale;
    pub(crate) mod streams;
    pub(crate) mod upstream;
    pub(crate) mod wire;
}
#[path = "support/signer.rs"]
mod signer;
#[path = "support/tenants.rs"]
mod tenants;

use anyhow::{Result, bail};
use tokio::runtime::{Builder, Runtime};

use mimalloc::MiMalloc;

use end_to_end::measure::Effort;
use end_to_end::{compare, floor, mux, quick, scale, streams, upstream};

/// The program's own, for the floor as well.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["role", role, settings] => Runtime::new()?.block_on(play(role, settings)),
        _ => answer(&words),
    }
}

/// One of the processes that are measured.
async fn play(role: &str, settings: &str) -> Result<()> {
    match role {
        "upstream" => upstream::serve().await,
        "floor" => floor::serve(settings).await,
        "mux" => mux::serve(settings).await,
        _ => bail!("there is no role `{role}`"),
    }
}

/// What `cargo bench`, `cargo test` or `cargo nextest` asks for. The load comes from one thread, which leaves the other processors
/// to what is measured.
fn answer(words: &[&str]) -> Result<()> {
    let has = |word: &str| words.contains(&word);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if has("--list") {
        quick::list(has("--ignored"))
    } else if !has("--bench") {
        runtime.block_on(quick::run())
    } else if has("--scale") {
        runtime.block_on(scale::run(has("--json")))
    } else if has("--streams") {
        let count = words.iter().find_map(|word| word.parse().ok()).unwrap_or(streams::STREAMS);
        runtime.block_on(streams::run(count))
    } else {
        let effort = if has("--quick") { Effort::quick() } else { Effort::full() };
        let wanted: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("--")).collect();
        runtime.block_on(compare::run(effort, &wanted, has("--json")))
    }
}
