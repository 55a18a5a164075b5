//! `mcp-mux serve`: the server, until it is told to stop.

use anyhow::Result;

use super::{Settings, start_log};
use crate::app::App;
use crate::lifecycle::until_told;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    start_log(&config)?;
    let app = App::start(&config).await?;
    if !until_told(app.stop()).await {
        tracing::warn!("some calls were ended before they finished");
    }
    Ok(())
}
