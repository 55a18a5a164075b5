//! Hearing of changes: a caller is told that a list is another one when the caller's own view of it is, and never of anybody else's.

use tenant_store::Revision;
use tokio::sync::watch;

use super::{Endpoint, Mux};
use crate::caller::Caller;
use crate::catalog::ListDigest;

/// Which lists somebody wants to hear of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The tools.
    pub tools: bool,
    /// The prompts.
    pub prompts: bool,
    /// The resources and their templates.
    pub resources: bool,
}

/// The changes of one caller's lists.
#[derive(Debug)]
pub struct Changes {
    mux: Mux,
    caller: Caller,
    endpoint: Endpoint,
    wanted: Wanted,
    seen: Seen,
    snapshots: watch::Receiver<Revision>,
}

/// A view's lists as they were last. Not the lists themselves: an open stream would keep them in memory.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    tools: ListDigest,
    prompts: ListDigest,
    resources: [ListDigest; 2],
}

impl Mux {
    /// What changes from now on of what `caller` sees at `endpoint`.
    pub fn changes(&self, caller: &Caller, endpoint: &Endpoint, wanted: Wanted) -> Changes {
        // Before the first look, so that nothing is missed between the two.
        let snapshots = self.catalog.changes();
        let seen = self.seen(caller, endpoint);
        Changes { mux: self.clone(), caller: caller.clone(), endpoint: endpoint.clone(), wanted, seen, snapshots }
    }

    fn seen(&self, caller: &Caller, endpoint: &Endpoint) -> Seen {
        let view = self.sight(caller, endpoint).view;
        Seen {
            tools: view.tools.digest(),
            prompts: view.prompts.digest(),
            resources: [view.resources.digest(), view.templates.digest()],
        }
    }
}

impl Changes {
    /// Which of the wanted lists changed next.
    pub async fn next(&mut self) -> Wanted {
        loop {
            if self.snapshots.changed().await.is_err() {
                // The catalog lives as long as the process.
                std::future::pending::<()>().await;
            }
            let seen = self.mux.seen(&self.caller, &self.endpoint);
            let changed = Wanted {
                tools: self.wanted.tools && seen.tools != self.seen.tools,
                prompts: self.wanted.prompts && seen.prompts != self.seen.prompts,
                resources: self.wanted.resources && seen.resources != self.seen.resources,
            };
            self.seen = seen;
            if changed != Wanted::default() {
                return changed;
            }
        }
    }
}

impl Wanted {
    /// The notifications that tell of them.
    pub fn methods(self) -> impl Iterator<Item = &'static str> {
        let methods = [
            (self.tools, "notifications/tools/list_changed"),
            (self.prompts, "notifications/prompts/list_changed"),
            (self.resources, "notifications/resources/list_changed"),
        ];
        methods.into_iter().filter(|(is_it, _)| *is_it).map(|(_, method)| method)
    }
}
