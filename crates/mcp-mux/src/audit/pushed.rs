//! What becomes of directories: who said it, and of whom. It is the platform's: a directory belongs to an issuer, and to no tenant.

use serde::Serialize;
use tenant_store::{AuditChain, Directory, DirectoryChange, DirectoryChanges, Moved, Timestamp};

use super::event::{Event, What};
use super::{Audit, Room};

/// How it was heard of.
#[derive(Debug, Clone)]
pub enum Through {
    /// The provider pushed it, with the token of its directory.
    Scim {
        /// The id of the request, as in the log.
        request_id: String,
    },
    /// Microsoft Graph was asked.
    Graph {
        /// Who had it asked, where that was the command line.
        operator: Option<String>,
    },
}

/// What one request, or one answer of the provider's, changed of a directory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    issuer: String,
    through: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<String>,
    /// `done`, or `unsure` where nobody waited for the end, or the database did not say that it lasts.
    outcome: &'static str,
    change_count: u64,
    /// Some of the changes.
    changes: Vec<Change>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    became: &'static str,
    #[serde(skip_serializing_if = "is_nothing")]
    added_count: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(skip_serializing_if = "is_nothing")]
    removed_count: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_nothing(count: &usize) -> bool {
    *count == 0
}

/// What a directory is changed by, on its way into the record. It is recorded, too, if nobody waits for its end.
#[derive(Debug)]
pub struct Pushing {
    room: Option<Room>,
    directory: Directory,
    at: Timestamp,
    through: Through,
}

impl Audit {
    /// Records what changes through this directory until what is returned is dropped, in one event. If nothing does, there is none.
    pub async fn pushing(&self, directory: &Directory, at: Timestamp, through: Through) -> Pushing {
        Pushing { room: Some(self.room().await), directory: directory.clone(), at, through }
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        let event = pushed(&self.directory, self.at, self.through.clone());
        if let (Some(room), Some(event)) = (self.room.take(), event) {
            room.put(event);
        }
    }
}

/// What was changed through that directory since it was asked last; nothing, if nothing was.
pub fn pushed(directory: &Directory, at: Timestamp, through: Through) -> Option<Event> {
    let DirectoryChanges { count, named, is_unsure } = directory.take_changes();
    if count == 0 {
        return None;
    }
    let (through, request_id, operator) = match through {
        Through::Scim { request_id } => ("scim", Some(request_id), None),
        Through::Graph { operator } => ("graph", None, operator),
    };
    let what = Pushed {
        issuer: directory.issuer().to_string(),
        through,
        request_id,
        operator,
        outcome: if is_unsure { "unsure" } else { "done" },
        change_count: count,
        changes: named.into_iter().map(Change::of).collect(),
    };
    Some(Event { at, chain: AuditChain::Platform, what: What::Directory(what) })
}

impl Change {
    fn of(change: DirectoryChange) -> Self {
        let DirectoryChange { thing, act, name, was, added, removed } = change;
        let Moved { count: added_count, names: added } = added;
        let Moved { count: removed_count, names: removed } = removed;
        let (kind, became) = (thing.as_str(), act.as_str());
        Self { kind, name, was, became, added_count, added, removed_count, removed }
    }
}
