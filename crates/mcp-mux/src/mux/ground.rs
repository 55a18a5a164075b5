//! Whether what was decided about a running call may be decided otherwise by now. A new snapshot in which nothing changed that the decision
//! rests on costs a comparison, however many calls run.

use tenant_store::{Revision, TenantId};
use tokio::sync::watch;

use super::{Mux, Sight};
use crate::catalog::Ground;

/// What the decision about a running call rests on, and the news that it may be something else.
#[derive(Debug)]
pub(super) struct Grounds {
    tenant: TenantId,
    changes: watch::Receiver<Revision>,
    ground: Option<Ground>,
}

impl Mux {
    /// For a call in that tenant that was decided by what was seen then. Where nobody knows that any more, it is to be decided at once.
    pub(super) fn grounds(&self, tenant: TenantId, seen: Option<&Sight>) -> Grounds {
        let mut changes = self.revisions();
        if !seen.is_some_and(|sight| self.is_current(sight)) {
            changes.mark_changed();
        }
        Grounds { tenant, changes, ground: seen.and_then(|sight| sight.snapshot.ground(tenant)) }
    }
}

impl Grounds {
    /// Waits until the decision may be another one. Nothing is lost when it is not waited for to its end.
    pub(super) async fn moved(&mut self, mux: &Mux) {
        while self.changes.changed().await.is_ok() {
            let now = mux.catalog.snapshot().ground(self.tenant);
            if now.is_none() || now != self.ground {
                self.ground = now;
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
