//! The `mcp-mux` program: reads its arguments, runs one command, and says in words what went wrong.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use mcp_mux::cli::Cli;
use mimalloc::MiMalloc;

/// A call makes some hundred small allocations, in threads that free each other's: see docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(error) => {
            mcp_mux::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    // Before the first secret is read, an argument included.
    mcp_mux::lifecycle::withhold_memory().context("switching core dumps off")?;
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli.run())
}
