//! The `mcp-mux` program: reads its arguments, runs one command, and says in words what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use mcp_mux::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(cli.run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            mcp_mux::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
