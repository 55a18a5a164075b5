//! An upstream's tools, page by page, within bounds. A malformed tool costs only itself, a cursor that does not advance ends
//! the walk, and a walk that fails half way is no list at all, so that tools never vanish because a page did.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::Answer;
use super::credential::Proofs;
use super::error::UpstreamError;
use super::link::{Link, Reply};
use super::negotiate::answer_in;
use super::request::Rpc;
use crate::json::{self, Members};

/// Most pages of one list.
pub(super) const PAGES_MAX: usize = 100;
/// Most tools of one upstream; those beyond are left out, and the log says so.
pub(super) const TOOLS_MAX: usize = 2_000;
/// Most bytes of all definitions of one upstream; tools beyond are left out, and the log says so.
pub(super) const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest definition, in bytes; schemas of real tools stay far below. A larger one costs only its own tool.
pub(crate) const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// Longest cursor that is sent back, in bytes.
const CURSOR_BYTES_MAX: usize = 4 * 1024;
/// How long the whole walk may take.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_mins(1);

/// What an upstream listed.
#[derive(Debug, Default)]
pub(crate) struct ListedTools {
    /// Each tool's definition, in the upstream's order.
    pub tools: Vec<Box<RawValue>>,
    /// A bound was reached, so that there may be more.
    pub truncated: bool,
    bytes: usize,
}

impl ListedTools {
    /// Takes what there is room for.
    fn take(&mut self, page: Vec<&RawValue>) {
        for tool in page {
            let bytes = tool.get().len();
            let fits = bytes <= DEFINITION_BYTES_MAX
                && self.tools.len() < TOOLS_MAX
                && self.bytes.saturating_add(bytes) <= LIST_BYTES_MAX;
            if fits {
                self.bytes += bytes;
                self.tools.push(tool.to_owned());
            } else {
                self.truncated = true;
            }
        }
    }
}

/// Lists the tools of the link's upstream.
pub(crate) async fn list_tools(link: &Arc<Link>, proofs: &Proofs<'_>) -> Result<ListedTools, UpstreamError> {
    let deadline = Instant::now() + LIST_TIMEOUT;
    let mut listed = ListedTools::default();
    let mut seen = HashSet::new();
    let mut cursor: Option<Box<RawValue>> = None;
    for _ in 0..PAGES_MAX {
        let params = cursor.as_ref().map(|cursor| format!("\"cursor\":{}", cursor.get())).unwrap_or_default();
        let rpc = Rpc { params, answer_bytes_max: LIST_BYTES_MAX, ..Rpc::new("tools/list") };
        let answer = match link.ask(proofs, &rpc, deadline).await? {
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
        listed.take(tools);
        let next = page.get("nextCursor").filter(|raw| json::as_str(raw).is_some_and(|text| !text.is_empty()));
        let Some(next) = next.filter(|next| seen.insert(next.get().to_owned())) else { return Ok(listed) };
        let is_full = listed.tools.len() == TOOLS_MAX || listed.bytes > LIST_BYTES_MAX - DEFINITION_BYTES_MAX;
        if is_full || next.get().len() > CURSOR_BYTES_MAX {
            listed.truncated = true;
            return Ok(listed);
        }
        cursor = Some(next.to_owned());
    }
    listed.truncated = true;
    Ok(listed)
}
