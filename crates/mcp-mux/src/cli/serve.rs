//! `mcp-mux serve`: the server, until it is told to stop.

use anyhow::Result;

use super::{Settings, start_log};
use crate::app::App;
use crate::lifecycle::StopSignals;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    start_log(&config)?;
    let mut signals = StopSignals::listen()?;
    let Some(app) = signals.unless_told(Box::pin(App::start(&config))).await else { return Ok(()) };
    if !signals.until_told(app?.stop()).await {
        tracing::warn!("some calls were ended before they finished");
    }
    Ok(())
}
