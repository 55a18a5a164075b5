//! `mcp-mux serve`: the server, until it is told to stop.

use anyhow::Result;

use super::{Settings, start_log};
use crate::app::App;
use crate::lifecycle::stop_signal;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    start_log(&config)?;
    let app = App::start(&config).await?;
    stop_signal().await;
    tracing::info!("stopping: running calls are finished first; a second signal ends at once");
    tokio::select! {
        finished = app.stop() => {
            if !finished {
                tracing::warn!("some calls did not finish in time and were ended");
            }
        }
        () = stop_signal() => tracing::warn!("ended at once, as asked"),
    }
    Ok(())
}
