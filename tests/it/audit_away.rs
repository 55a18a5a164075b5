//! The audit record while the database takes nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use mcp_mux::App;
use mcp_mux::audit::Checked;
use serde_json::json;
use tokio::time::timeout;

use crate::audit::{checked, events, of, stopped, two_tenants};
use crate::support::client::Http;

/// How long something may take to be written.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_a_server_could_not_record_before_it_ended_waits_on_disk_for_the_next_one() -> Result<()> {
    let server = two_tenants("audit_spooled").await?;
    let folder = &server.config.audit.spool_directory;
    let spooled = || fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>();
    let other = server.replica().await?;
    let client = |app: &App| {
        let claims = server.idp.claims("carol", &["acme", "globex"], &app.endpoint());
        Http::new(&app.endpoint(), Some(&server.idp.sign(&claims)?))
    };
    let (here, there) = (client(&server.app)?, client(&other)?);
    server.refuse_audit(true).await?;
    for round in 0..10 {
        for client in [&here, &there] {
            let name = if round % 2 == 0 { "acme__whoami" } else { "globex__whoami" };
            assert!(client.call(name, json!({})).await?["result"].is_object());
        }
    }
    server.until_logged("it waits until the database is there again").await?;
    ensure!(other.stop().await);
    server.until_logged("it waits on disk for the next start").await?;
    // That one's file, and that of the one which goes on.
    let files = spooled()?;
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let bytes = fs::read(file.path())?;
        assert!(!bytes.windows(6).any(|bytes| bytes == b"whoami"), "{file:?}");
    }
    server.refuse_audit(false).await?;

    let next = server.replica().await?;
    let all_written = async {
        while !spooled()?.is_empty() {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all_written).await??;
    ensure!(next.stop().await);
    let left = stopped(server).await?;
    for tenant in ["acme", "globex"] {
        let calls = events(&left.store, Some(tenant)).await?;
        assert_eq!(of(&calls, "call").len(), 10, "{tenant}");
    }
    for Checked { name, found, wrong } in checked(&left.store).await? {
        ensure!(wrong.is_empty() && found.lost == 0 && found.unsigned == 0, "{name}: {wrong:?} {found:?}");
    }
    Ok(())
}
