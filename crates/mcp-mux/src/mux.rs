//! The mux: from a caller's request to the upstream of one tenant, or to the merged list of all of them.

mod call;
mod own_accounts;
mod relay;

pub use call::{CallError, Outcome, ToolCall};
pub use own_accounts::{OwnAccount, OwnAccountError, OwnAccounts};
pub use relay::{Relay, Step};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenant_store::Store;

use crate::caller::Caller;
use crate::catalog::{Catalog, Face, Snapshot, View};
use crate::policy::Reach;
use crate::upstream::Pool;

/// Which endpoint a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/mcp`: all tenants of the caller.
    Aggregate,
    /// `/t/{tenant}/mcp`: what the caller reaches in one tenant. The text comes from the path and proves nothing.
    Tenant(String),
}

/// What requests need: the catalog to decide by, the links to call through, and the store that opens credentials.
#[derive(Debug, Clone)]
pub struct Mux {
    catalog: Arc<Catalog>,
    pool: Pool,
    store: Store,
    recheck_every: Duration,
}

/// What one request sees: a snapshot, and the caller's part of it.
struct Sight {
    snapshot: Arc<Snapshot>,
    reach: Reach,
    view: Arc<View>,
}

impl Mux {
    /// Puts the parts together. A call that streams is decided again every `recheck_every`.
    pub fn new(catalog: Arc<Catalog>, pool: Pool, store: Store, recheck_every: Duration) -> Self {
        Self { catalog, pool, store, recheck_every }
    }

    /// The definitions of all tools that `caller` sees at `endpoint`, as one JSON array. Reads memory only.
    pub fn tools(&self, caller: &Caller, endpoint: &Endpoint) -> Bytes {
        self.sight(caller, endpoint).view.tools()
    }

    /// Whether nothing changed since that was seen.
    fn is_current(&self, sight: &Sight) -> bool {
        Arc::ptr_eq(&sight.snapshot, &self.catalog.snapshot())
    }

    fn sight(&self, caller: &Caller, endpoint: &Endpoint) -> Sight {
        let snapshot = self.catalog.snapshot();
        let reach = snapshot.grants().reach(caller);
        let (face, reach) = match endpoint {
            Endpoint::Aggregate => (Face::Aggregate, reach),
            Endpoint::Tenant(slug) => (Face::Tenant, reach.narrowed_to(slug)),
        };
        let view = snapshot.view(face, &reach);
        Sight { snapshot, reach, view }
    }
}
