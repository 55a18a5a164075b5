//! What an upstream lists, page by page, within bounds. What is malformed costs only itself, a cursor that does not advance ends
//! the walk, and a walk that fails half way is no list at all, so that nothing vanishes because a page did.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::{Answer, error_code};
use super::credential::Proofs;
use super::error::UpstreamError;
use super::link::{Link, Reply};
use super::negotiate::{Capabilities, answer_in};
use super::request::Rpc;
use crate::json::{self, Members};

/// Most pages of one list.
pub(super) const PAGES_MAX: usize = 100;
/// Most items of one list; those beyond are left out, and the log says so.
pub(super) const ITEMS_MAX: usize = 2_000;
/// Most bytes of all definitions of one list; items beyond are left out, and the log says so.
pub(super) const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest definition, in bytes; schemas of real tools stay far below. A larger one costs only its own place.
pub(crate) const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// Longest cursor that is sent back, in bytes.
const CURSOR_BYTES_MAX: usize = 4 * 1024;
/// The code of a method that nobody knows (JSON-RPC 2.0 §5.1).
const METHOD_NOT_FOUND: i64 = -32601;
/// How long the whole walk may take.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_mins(1);

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
    Skills,
}

/// What an upstream listed.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Each definition, in the upstream's order.
    pub items: Vec<Box<RawValue>>,
    /// A bound was reached, so that there may be more.
    pub truncated: bool,
    bytes: usize,
}

impl ListKind {
    /// The method, and the member of its result that holds the list.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools/list", "tools"),
            Self::Prompts => ("prompts/list", "prompts"),
            Self::Resources => ("resources/list", "resources"),
            Self::Templates => ("resources/templates/list", "resourceTemplates"),
            Self::Skills => ("skills/list", "skills"),
        }
    }

    /// Whether the upstream says that it has any. Tools are asked for in any case: some forget to say so.
    fn is_offered(self, capabilities: Capabilities) -> bool {
        match self {
            Self::Tools => true,
            Self::Prompts => capabilities.prompts,
            Self::Resources | Self::Templates => capabilities.resources,
            Self::Skills => capabilities.skills,
        }
    }
}

impl Listed {
    /// Takes what there is room for.
    fn take(&mut self, page: Vec<&RawValue>) {
        for item in page {
            let bytes = item.get().len();
            let fits = bytes <= DEFINITION_BYTES_MAX
                && self.items.len() < ITEMS_MAX
                && self.bytes.saturating_add(bytes) <= LIST_BYTES_MAX;
            if fits {
                self.bytes += bytes;
                self.items.push(item.to_owned());
            } else {
                self.truncated = true;
            }
        }
    }
}

/// Lists what the link's upstream has of one kind: nothing, where it says that it has none, or knows no such method.
pub(crate) async fn list(link: &Arc<Link>, proofs: &Proofs<'_>, kind: ListKind) -> Result<Listed, UpstreamError> {
    let deadline = Instant::now() + LIST_TIMEOUT;
    let (method, member) = kind.words();
    let mut listed = Listed::default();
    if link.agreed.load_full().is_some_and(|agreement| !kind.is_offered(agreement.capabilities)) {
        return Ok(listed);
    }
    let mut seen = HashSet::new();
    let mut cursor: Option<Box<RawValue>> = None;
    for _ in 0..PAGES_MAX {
        let params = cursor.as_ref().map(|cursor| format!("\"cursor\":{}", cursor.get())).unwrap_or_default();
        let mut rpc = Rpc { params, answer_bytes_max: LIST_BYTES_MAX, ..Rpc::new(method) };
        let answer = match link.ask(proofs, &mut rpc, deadline).await? {
            Reply::Whole(answer) => answer,
            Reply::Stream(mut streaming) => {
                let answer = answer_in(&mut streaming.events, streaming.id, deadline).await?;
                streaming.running.answered(&answer);
                answer
            }
        };
        let page = match answer {
            Answer::Result(page) => page,
            Answer::Error(error) if error_code(&error) == Some(METHOD_NOT_FOUND) => return Ok(listed),
            Answer::Error(_) => return Err(UpstreamError::NotMcp),
        };
        let page = Members::parse(page.get()).map_err(|_| UpstreamError::NotMcp)?;
        let items = page.get(member).ok_or(UpstreamError::NotMcp)?;
        listed.take(serde_json::from_str(items.get()).map_err(|_| UpstreamError::NotMcp)?);
        let next = page.get("nextCursor").filter(|raw| json::as_str(raw).is_some_and(|text| !text.is_empty()));
        let Some(next) = next.filter(|next| seen.insert(next.get().to_owned())) else { return Ok(listed) };
        let is_full = listed.items.len() == ITEMS_MAX || listed.bytes > LIST_BYTES_MAX - DEFINITION_BYTES_MAX;
        if is_full || next.get().len() > CURSOR_BYTES_MAX {
            listed.truncated = true;
            return Ok(listed);
        }
        cursor = Some(next.to_owned());
    }
    listed.truncated = true;
    Ok(listed)
}
