//! The mux: from a caller's request to the upstream of one tenant, or to the merged list of all of them.

mod arguments;
mod call;
mod counted;
mod error;
mod flows;
mod ground;
mod handle;
mod input;
mod listen;
mod matter;
mod measured;
mod own_accounts;
mod pace;
mod parked;
mod questions;
mod record;
mod relay;
mod round;
mod stage;
mod subscriptions;
mod tasks;
mod uris;
mod wish;

pub use call::{Ask, CallError, Outcome};
pub use error::UNRECORDED_RETRY_SECONDS;
pub use handle::{Bond, Handles, Purpose};
pub use input::{Input, URL_ELICITATION_REQUIRED};
pub use listen::{Changes, Wanted};
pub use matter::Matter;
pub use own_accounts::{OwnAccount, OwnAccountError, OwnAccounts};
pub use relay::{Relay, Step};
pub use subscriptions::Subscriptions;
pub use tasks::{Task, TaskAct};
pub use wish::{Thing, Wish};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenant_store::{Clock, Revision, Store};
use tokio::sync::watch;

use self::parked::ParkingLot;
use self::questions::Questions;
use self::record::Came;
use self::subscriptions::SOURCES_MAX;
use crate::allowance::Allowances;
use crate::audit::Audit;
use crate::caller::{Caller, Principal, Quota};
use crate::catalog::{Catalog, Face, Page, Snapshot, View};
use crate::flow::FlowGuard;
use crate::lifecycle::Tasks;
use crate::limits::Limits;
use crate::policy::Reach;
use crate::upstream::Pool;
use crate::usage::Usage;

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
    audit: Audit,
    handles: Handles,
    questions: Questions,
    parked: ParkingLot,
    /// At how many upstreams each principal listens.
    listening: Quota,
    limits: Limits,
    allowances: Allowances,
    usage: Usage,
    flows: FlowGuard,
    clock: Arc<dyn Clock>,
    recheck_every: Duration,
    page_items: usize,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
    /// `skills/list`, at a tenant's own endpoint only
    Skills,
}

/// A page of a list.
#[derive(Debug)]
pub struct ListPage {
    /// The definitions, with commas between them.
    pub bytes: Bytes,
    /// What leads to the rest, if there is more.
    pub next: Option<String>,
}

/// What one request sees: a snapshot, and the caller's part of it.
struct Sight {
    snapshot: Arc<Snapshot>,
    reach: Reach,
    view: Arc<View>,
    face: Face,
    /// Whether its caller reaches several tenants, be it at another endpoint.
    reaches_several: bool,
}

/// How long a cursor is good.
const CURSOR_LIFE: Duration = Duration::from_hours(1);

impl Mux {
    /// Puts the parts together. A call that streams is decided again every `recheck_every`; lists have at most `page_items` on a page.
    pub fn new(
        (catalog, pool, store, audit): (Arc<Catalog>, Pool, Store, Audit),
        (handles, clock, tasks): (Handles, Arc<dyn Clock>, Tasks),
        (limits, (allowances, usage)): (Limits, (Allowances, Usage)),
        recheck_every: Duration,
        page_items: usize,
    ) -> Self {
        let (questions, parked, listening) = (Questions::new(), ParkingLot::new(tasks), Quota::new(SOURCES_MAX));
        Self {
            catalog,
            pool,
            store,
            audit,
            handles,
            questions,
            parked,
            listening,
            limits,
            allowances,
            usage,
            flows: FlowGuard::new(),
            clock,
            recheck_every,
            page_items,
        }
    }

    /// What `caller` sees of one kind at `endpoint`: the first page, or the one that `cursor` leads to. None, if that is no cursor of
    /// this caller's for this list, or if what is before its place is gone. Reads memory only.
    pub fn list(&self, caller: &Caller, endpoint: &Endpoint, listed: Listed, cursor: Option<&str>) -> Option<ListPage> {
        let sight = self.sight(caller, endpoint);
        let view = &sight.view;
        let bond = || Bond::new(Purpose::Cursor, caller, &[listed.as_str(), endpoint.slug()]);
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let place = self.handles.open(&bond(), self.clock.now(), cursor.as_bytes())?;
                Some(String::from_utf8(place).ok()?)
            }
        };
        let Page { bytes, digest, end } = match listed {
            Listed::Tools => view.tools.page(after.as_deref(), self.page_items),
            Listed::Prompts => view.prompts.page(after.as_deref(), self.page_items),
            Listed::Resources => view.resources.page(after.as_deref(), self.page_items),
            Listed::Templates => view.templates.page(after.as_deref(), self.page_items),
            Listed::Skills => view.skills.page(after.as_deref(), self.page_items),
        }?;
        let next =
            end.and_then(|place| self.handles.seal_for(&bond(), (self.clock.now(), CURSOR_LIFE), place.as_bytes()));
        self.record_list(Came { caller, endpoint }, &sight, (listed, digest));
        Some(ListPage { bytes, next })
    }

    /// Whether `caller` may use that now, and it still leads to the same upstream.
    pub fn may_use(&self, caller: &Caller, matter: &Matter) -> bool {
        let sight = self.sight(caller, &matter.endpoint);
        sight.target(&matter.thing).is_some_and(|target| target.place() == matter.target)
    }

    /// Whether nobody is let in as that principal.
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.catalog.snapshot().grants().revoked().has(principal)
    }

    /// Tells of each new snapshot: what was decided may be decided otherwise then.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.catalog.changes()
    }

    /// What becomes of a call that its caller may not make any more.
    fn taken_back(&self, caller: &Caller, thing: &Thing) -> CallError {
        if self.is_revoked(&caller.principal) { CallError::SignedOut } else { CallError::Unknown(thing.word()) }
    }

    /// Waits until `caller` may not use that any more, or it leads elsewhere.
    async fn until_taken_back(&self, caller: &Caller, sight: &Sight, matter: impl Fn() -> Matter) {
        let mut grounds = self.grounds(matter().target.0, Some(sight));
        loop {
            grounds.moved(self).await;
            if !self.may_use(caller, &matter()) {
                return;
            }
        }
    }

    /// Whether nothing changed since that was seen.
    fn is_current(&self, sight: &Sight) -> bool {
        Arc::ptr_eq(&sight.snapshot, &self.catalog.snapshot())
    }

    fn sight(&self, caller: &Caller, endpoint: &Endpoint) -> Sight {
        let snapshot = self.catalog.snapshot();
        let reach = snapshot.grants().reach(caller);
        let reaches_several = reach.accesses().len() > 1;
        let (face, reach) = match endpoint {
            Endpoint::Aggregate => (Face::Aggregate, reach),
            Endpoint::Tenant(slug) => (Face::Tenant, reach.narrowed_to(slug)),
        };
        let view = snapshot.view(face, &reach);
        Sight { snapshot, reach, view, face, reaches_several }
    }
}

impl Endpoint {
    /// What tells endpoints apart. No slug is empty.
    fn slug(&self) -> &str {
        match self {
            Self::Aggregate => "",
            Self::Tenant(slug) => slug,
        }
    }
}

impl Listed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "templates",
            Self::Skills => "skills",
        }
    }
}
