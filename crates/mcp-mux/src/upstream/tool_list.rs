//! An upstream's tools, page by page, within bounds. A malformed tool costs only itself, a cursor that does not advance ends
//! the walk, and a walk that fails half way is no list at all, so that tools never vanish because a page did.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tenant_store::{SealedCredential, TenantStore};
use tokio::time::Instant;

use super::error::UpstreamError;
use super::link::{Answer, Link, Reply};
use super::negotiate::answer_in;
use super::request::Rpc;
use crate::json::{self, Members};

/// Most pages of one list.
pub(super) const PAGES_MAX: usize = 100;
/// Most tools of one upstream; those beyond are left out, and the log says so.
pub(super) const TOOLS_MAX: usize = 2_000;
/// How long the whole walk may take.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_mins(1);

/// What an upstream listed.
#[derive(Debug, Default)]
pub(crate) struct ListedTools {
    /// Each tool's definition, in the upstream's order.
    pub tools: Vec<Box<RawValue>>,
    /// A bound was reached, so that there may be more.
    pub truncated: bool,
}

/// Lists the tools of the link's upstream.
pub(crate) async fn list_tools(
    link: &Arc<Link>,
    rows: &TenantStore,
    stored: &[&SealedCredential],
) -> Result<ListedTools, UpstreamError> {
    let deadline = Instant::now() + LIST_TIMEOUT;
    let mut listed = ListedTools::default();
    let mut seen = HashSet::new();
    let mut cursor: Option<Box<RawValue>> = None;
    for _ in 0..PAGES_MAX {
        let params = cursor.as_ref().map(|cursor| format!("\"cursor\":{}", cursor.get())).unwrap_or_default();
        let rpc = Rpc { params, ..Rpc::new("tools/list") };
        let answer = match link.ask(rows, stored, &rpc, deadline).await? {
            Reply::Whole(answer) => answer,
            Reply::Stream(mut streaming) => {
                let answer = answer_in(&mut streaming.events, streaming.id, deadline).await?;
                streaming.running.finish();
                answer
            }
        };
        let Answer::Result(page) = answer else { return Err(UpstreamError::NotMcp) };
        let page = Members::parse(page.get()).map_err(|_| UpstreamError::NotMcp)?;
        let tools = page.get("tools").ok_or(UpstreamError::NotMcp)?;
        let tools: Vec<&RawValue> = serde_json::from_str(tools.get()).map_err(|_| UpstreamError::NotMcp)?;
        let room = TOOLS_MAX - listed.tools.len();
        listed.truncated |= tools.len() > room;
        listed.tools.extend(tools.into_iter().take(room).map(ToOwned::to_owned));

        let next = page.get("nextCursor").filter(|raw| json::as_str(raw).is_some_and(|text| !text.is_empty()));
        let Some(next) = next.filter(|next| seen.insert(next.get().to_owned())) else { return Ok(listed) };
        if listed.truncated {
            return Ok(listed);
        }
        cursor = Some(next.to_owned());
    }
    listed.truncated = true;
    Ok(listed)
}
