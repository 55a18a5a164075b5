//! The audit record: who called what, who was refused and why, who was shown which lists, and what operators did. Never tokens or secrets,
//! arguments and results only where a tenant wants them and sealed with its key, and of what nobody has, no name: that is the caller's own
//! text.
//!
//! Whoever serves pushes an event into a queue and goes on; one task of the process writes. An event lies in the chain of the tenant whose
//! thing it is about, if the caller has access there, and in the platform's otherwise: no tenant learns who of another company guessed its
//! names. See `docs/audit.md`.

mod backlog;
mod content;
mod disk;
mod event;
mod export;
mod heads;
mod killed;
mod line;
mod once;
mod pressure;
mod prune;
mod pushed;
mod reader;
mod signer;
mod spool;
mod spooled;
mod used;
mod verify;
mod whole;
mod writer;
mod wrong;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crypto::KeyRing;
use tenant_store::{Clock, Store, StoreError, TenantId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::{Instant, timeout, timeout_at};

use self::content::ContentRoom;
pub use self::content::{Content, Recorded, Texts};
pub use self::event::{
    Administered, Call, ConsentAct, ConsentOutcome, Consented, Decided, Event, Flowed, Head, List, Named, Outcome,
    TENANTS_NAMED_MAX, What, Who, name_digest,
};
pub use self::export::{ExportError, FileReport, export, verify_file};
pub use self::heads::Heads;
pub use self::line::Line;
pub use self::once::record_once;
pub use self::pressure::Pressure;
pub use self::prune::{Pruned, Pruning, Retention, before};
pub use self::pushed::{Pushed, Pushing, Through, pushed};
pub use self::signer::{PublicKey, Signer};
pub use self::used::{Owner, Purpose, SecretUsed, SecretUses, Shown, Used, UsedSecret, Using};
pub use self::verify::{Found, Verifier};
pub use self::whole::{Checked, Report, verify_store};
use self::writer::Writer;
pub use self::wrong::Wrong;
use crate::config::{AuditConfig, OnFull};
use crate::lifecycle::Tasks;

/// How many events wait for the writer to look at them, calls that still run among them.
const QUEUE_EVENTS_MAX: usize = 16_384;
/// How long a call waits for room in the queue.
const ROOM_TIMEOUT: Duration = Duration::from_secs(2);

/// An event on its way to the writer.
enum Queued {
    Event(Box<Event>),
    /// What is not found out before the writer takes it.
    Later(Box<dyn FnOnce() -> Event + Send>),
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => event.fmt(f),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Where events go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: mpsc::Sender<Queued>,
    signer: Arc<Signer>,
    /// How many found no room since the writer looked last.
    lost: Arc<AtomicU64>,
    pressure: Pressure,
    on_full: OnFull,
    contents: ContentRoom,
}

/// There is no room for a call's event, and the configuration says that it is not made then.
#[derive(Debug)]
pub struct Full;

/// Room for one event, which then always arrives.
#[derive(Debug)]
pub struct Room {
    audit: Audit,
    permit: Option<OwnedPermit<Queued>>,
}

impl Audit {
    /// Starts the one writer of this process. It ends after everything else, when all is written.
    pub async fn start(
        store: &Store,
        platform: &KeyRing,
        config: &AuditConfig,
        (clock, tasks): (Arc<dyn Clock>, &Tasks),
    ) -> Result<Self, StoreError> {
        let signer = Arc::new(Signer::of(store, platform).await?);
        let (queue, events) = mpsc::channel(QUEUE_EVENTS_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new(store.clone(), Arc::clone(&signer), clock, config.checkpoint_every());
        if config.on_full == OnFull::Spool {
            writer = writer.with_disk((config.spool_directory.clone(), config.spool_bytes()), platform.clone());
        }
        writer.begin().await?;
        let (losses, pressure) = (Arc::clone(&lost), writer.pressure());
        tasks.spawn_last(|over| writer.run(events, losses, over));
        let contents = ContentRoom::default();
        Ok(Self { queue, signer, lost, pressure, on_full: config.on_full, contents })
    }

    /// How much it is behind.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Records what needs no more than that it is known, such as lists. Waits for nothing, and leaves half of the queue to calls, so that
    /// nobody who lists again and again takes their room; what finds no room is counted, and the record says so.
    pub fn push(&self, event: Event) {
        if let Some(room) = self.spare_room() {
            room.put(event);
        }
    }

    /// Room for what needs no more than that it is known, as [`Audit::push`] has it; none, if there is none.
    pub fn spare_room(&self) -> Option<Room> {
        if self.queue.capacity() < self.queue.max_capacity() / 2 {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Room { audit: self.clone(), permit: None })
    }

    fn queue(&self, queued: Queued) {
        match self.queue.try_send(queued) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.pressure.loses_one();
            }
            Err(TrySendError::Closed(_)) => tracing::error!("an audit event came after the end, and is lost"),
        }
    }

    /// Room for what is about to be called, which has time until then.
    pub async fn room_until(&self, deadline: Instant) -> Result<Room, Full> {
        if self.on_full == OnFull::Spool {
            return Ok(self.room().await);
        }
        let permit = match self.queue.clone().try_reserve_owned() {
            Ok(permit) => permit,
            Err(_) if self.on_full == OnFull::Refuse => return Err(Full),
            Err(_) => {
                let room = timeout_at(deadline, self.queue.clone().reserve_owned()).await;
                room.map_err(|_| Full)?.map_err(|_| Full)?
            }
        };
        Ok(Room { audit: self.clone(), permit: Some(permit) })
    }

    /// Room for what happens in any case. Where there is none, it is waited for, but not for ever.
    pub async fn room(&self) -> Room {
        let permit = match self.queue.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(_) => timeout(ROOM_TIMEOUT, self.queue.clone().reserve_owned()).await.ok().and_then(Result::ok),
        };
        Room { audit: self.clone(), permit }
    }
}

impl Room {
    /// What a request to that tenant brought, as it is recorded.
    pub fn seal(&self, content: &Content, of: (TenantId, &str)) -> Recorded {
        content.recorded(of, &self.audit.contents)
    }

    /// Records what happened.
    pub fn put(self, event: Event) {
        self.queue(Queued::Event(Box::new(event)));
    }

    /// Records what happened, which the writer finds out.
    pub fn put_later(self, event: impl FnOnce() -> Event + Send + 'static) {
        self.queue(Queued::Later(Box::new(event)));
    }

    fn queue(self, queued: Queued) {
        match self.permit {
            Some(permit) => drop(permit.send(queued)),
            None => self.audit.queue(queued),
        }
    }
}

#[cfg(test)]
mod tests;
