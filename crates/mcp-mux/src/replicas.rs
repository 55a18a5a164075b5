//! The replicas that serve from one database: each says every few seconds that it is there and which revision it has come to, so that whoever
//! changed something can wait until it holds everywhere.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tenant_store::{Beat, Clock, Replica, ReplicaId, Revision, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::Fault;

/// How often a replica says that it is there.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// How long it waits for the database then.
const BEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a replica waits at its end for the database to forget it.
const FORGET_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked for replicas that are behind.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After how long what a leader does is begun again when it broke off.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This replica, as it makes itself known.
#[derive(Debug)]
pub struct Heart {
    store: Store,
    id: ReplicaId,
    beat: Beat,
    /// The revisions of everything that requests are decided by. What all of them have come to is served.
    served: [watch::Receiver<Revision>; 2],
}

/// Whether what a replica said reached the database.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error("the database does not answer in time")]
    Late,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Heart {
    /// A new replica, which serves the older one of these revisions.
    pub fn new(store: Store, clock: &dyn Clock, served: [watch::Receiver<Revision>; 2]) -> Self {
        let (started_at, revision) = (clock.now(), Revision(0));
        let id = ReplicaId::new(started_at);
        let beat = Beat { id, version: VERSION.to_owned(), started_at, revision };
        Self { store, id, beat, served }
    }

    /// Which replica this is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Makes it known for the first time, before it serves anybody.
    pub async fn begin(&mut self) {
        if let Err(error) = self.beat().await {
            told_nobody(&error);
        }
    }

    /// Makes it known now and then, and at once when it serves another revision, until it is `over`. Then it is forgotten.
    pub async fn run(mut self, over: CancellationToken) {
        let mut is_told = false;
        while !over.is_cancelled() {
            let beaten = self.beat().await;
            match &beaten {
                Err(error) if !is_told => told_nobody(error),
                Ok(()) if is_told => tracing::info!("the other replicas are told again that this one is there"),
                _ => {}
            }
            is_told = beaten.is_err();
            tokio::select! {
                () = over.cancelled() => {}
                () = sleep(BEAT_EVERY) => {}
                () = another(&mut self.served) => {}
            }
        }
        // Without its database it is forgotten by the others.
        timeout(FORGET_TIMEOUT, self.store.forget_replica(self.id)).await.ok();
    }

    async fn beat(&mut self) -> Result<(), BeatError> {
        let served = self.served.each_mut().map(|served| *served.borrow_and_update());
        self.beat.revision = served.into_iter().min().unwrap_or(Revision(0));
        Ok(timeout(BEAT_TIMEOUT, self.store.beat(&self.beat)).await.map_err(|_| BeatError::Late)??)
    }
}

fn told_nobody(error: &BeatError) {
    tracing::warn!(error = error as &dyn Error, "the other replicas cannot be told that this one is there");
}

/// Waits until one of them is another one.
async fn another([one, other]: &mut [watch::Receiver<Revision>; 2]) {
    // Whoever sends them lives as long as the server; otherwise there is nothing to wait for.
    let is_gone = tokio::select! {
        changed = one.changed() => changed.is_err(),
        changed = other.changed() => changed.is_err(),
    };
    if is_gone {
        std::future::pending::<()>().await;
    }
}

/// Does whenever no other replica does what one is enough for, for ever.
pub async fn lead<W: Future>(store: &Store, work: impl Fn() -> W) {
    loop {
        let mut lead = store.lead().await;
        tracing::info!(
            "this replica leads: it lists the upstreams, asks the directories that are to be asked, and deletes what is old"
        );
        tokio::select! {
            () = lead.lost() => tracing::warn!("this replica cannot tell any more whether another one leads"),
            ended = AssertUnwindSafe(work()).catch_unwind() => if ended.is_err() {
                // A mistake of ours costs one round and not all that follow.
                tracing::error!(fault = Fault::Ours.as_str(), "what the leader does broke off, and is begun again");
                sleep(AGAIN_AFTER).await;
            },
        }
    }
}

/// Waits until every replica serves `revision` or a later one, for as long as `patience`. Says which do not yet: those that are slow, and those
/// that were not heard of, which may have ended without a word or serve without their database. Nobody knows of one that was silent for
/// longer than [`tenant_store::REPLICA_SILENCE_MAX`].
pub async fn wait_for_replicas(
    store: &Store,
    revision: Revision,
    patience: Duration,
) -> Result<Vec<Replica>, StoreError> {
    let deadline = Instant::now() + patience;
    loop {
        let mut behind = store.replicas().await?;
        behind.retain(|replica| replica.beat.revision < revision);
        if behind.is_empty() || Instant::now() >= deadline {
            return Ok(behind);
        }
        sleep(LOOK_EVERY).await;
    }
}
