//! Listening to upstreams that tell when their lists change.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tenant_store::{EgressHosts, SealedCredential, TenantSlug, Upstream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::schedule::Key;
use super::snapshot::{Catalog, Snapshot};
use crate::upstream::{Pause, Peer, Pool, Proofs, Told, UpstreamError, hear};

/// How often it is looked for upstreams that are not listened to.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The wait before a stream that ended is begun anew, and the longest.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(10)];
/// How many upstreams are listened to at once; the others are listed at their regular times.
const HEARD_MAX: usize = 1_000;

/// What upstreams said of their lists.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Words>, Notify);

#[derive(Debug, Default)]
struct Words {
    /// Those that can be listened to, as they said when they were listed last.
    tellers: HashSet<Key>,
    told: HashMap<Key, Told>,
}

/// One upstream as it is listened to: at an address, with credentials, to hosts.
#[derive(Debug, Clone, PartialEq)]
struct Source {
    tenant: TenantSlug,
    upstream: Arc<Upstream>,
    stored: Vec<SealedCredential>,
    hosts: Option<EgressHosts>,
}

/// An upstream's streams, one after the other.
#[derive(Debug)]
struct Ear {
    source: Source,
    /// Ends the stream that runs.
    runs: Option<CancellationToken>,
    begun: Instant,
    pause: Pause,
}

impl Heard {
    /// Whether it tells of changes, as far as is known by now.
    pub(super) fn note(&self, key: Key, tells: bool) {
        let tellers = &mut self.words().tellers;
        if tells {
            tellers.insert(key)
        } else {
            tellers.remove(&key)
        };
    }

    fn tell(&self, key: Key, told: Told) {
        let known = &mut *self.words();
        known.told.entry(key).and_modify(|known| *known = told.max(*known)).or_insert(told);
        self.1.notify_one();
    }

    /// Those who said so since the last time; waits until there is one.
    pub(super) async fn next(&self) -> HashMap<Key, Told> {
        self.1.notified().await;
        mem::take(&mut self.words().told)
    }

    /// Those of `sources` that can be listened to. What is not configured any more is forgotten.
    fn tellers(&self, sources: &HashMap<Key, Source>) -> Vec<Key> {
        let tellers = &mut self.words().tellers;
        tellers.retain(|key| sources.contains_key(key));
        tellers.iter().copied().collect()
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    fn new(source: &Source, now: Instant) -> Self {
        Self { source: source.clone(), runs: None, begun: now, pause: Pause::new(AGAIN_AFTER, now) }
    }

    fn begin(&mut self, now: Instant) -> CancellationToken {
        let runs = CancellationToken::new();
        (self.runs, self.begun) = (Some(runs.clone()), now);
        runs
    }

    fn cancel(&self) {
        self.runs.iter().for_each(CancellationToken::cancel);
    }
}

/// Listens to whoever can be listened to, for ever.
pub(super) async fn listen(catalog: &Catalog, pool: &Pool, heard: &Heard) {
    let mut ears: HashMap<Key, Ear> = HashMap::new();
    let mut streams = FuturesUnordered::new();
    let mut snapshot = catalog.snapshot();
    let mut sources = sources_of(&snapshot);
    loop {
        let current = catalog.snapshot();
        if !Arc::ptr_eq(&current, &snapshot) {
            sources = sources_of(&current);
            snapshot = current;
        }
        for (key, ended) in next(&mut ears, &sources, &heard.tellers(&sources), Instant::now()) {
            if let Some(source) = sources.get(&key) {
                streams.push(stream(catalog, pool, heard, (key, source.clone(), ended)));
            }
        }
        tokio::select! {
            Some((key, ended)) = streams.next() => {
                // Under the same key another one may run by now.
                if let Some(ear) = ears.get_mut(&key).filter(|_| !CancellationToken::is_cancelled(&ended)) {
                    let now = Instant::now();
                    ear.runs = None;
                    ear.pause.begin(now.duration_since(ear.begun), now);
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Ends the streams that are not what is configured any more, and says which are to begin.
fn next(
    ears: &mut HashMap<Key, Ear>,
    sources: &HashMap<Key, Source>,
    tellers: &[Key],
    now: Instant,
) -> Vec<(Key, CancellationToken)> {
    ears.retain(|key, ear| {
        let stays = sources.get(key) == Some(&ear.source);
        if !stays {
            ear.cancel();
        }
        stays
    });
    let mut room = HEARD_MAX.saturating_sub(ears.values().filter(|ear| ear.runs.is_some()).count());
    let mut begun = Vec::new();
    for key in tellers {
        let Some(source) = sources.get(key).filter(|_| room > 0) else { continue };
        let ear = ears.entry(*key).or_insert_with(|| Ear::new(source, now));
        if ear.runs.is_none() && ear.pause.until() <= now {
            begun.push((*key, ear.begin(now)));
            room -= 1;
        }
    }
    begun
}

fn sources_of(snapshot: &Snapshot) -> HashMap<Key, Source> {
    let mut sources = HashMap::new();
    for (id, shelf) in snapshot.shelves() {
        for upstream in shelf.upstreams_in_use() {
            let stored = shelf.credentials(upstream.id).into_iter().cloned().collect();
            let (tenant, hosts) = (shelf.tenant_slug().clone(), shelf.egress_hosts().cloned());
            let source = Source { tenant, upstream: Arc::clone(upstream), stored, hosts };
            sources.insert((id, upstream.id), source);
        }
    }
    sources
}

async fn stream(
    catalog: &Catalog,
    pool: &Pool,
    heard: &Heard,
    (key, source, ended): (Key, Source, CancellationToken),
) -> (Key, CancellationToken) {
    let listening = async {
        let result = once(catalog, pool, heard, (key, &source)).await;
        if let Err(error) = result {
            let upstream = source.upstream.id;
            tracing::info!(upstream.id = %upstream, error = &error as &dyn Error, "an upstream cannot be listened to");
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = listening => {}
    }
    (key, ended)
}

async fn once(
    catalog: &Catalog,
    pool: &Pool,
    heard: &Heard,
    (key, source): (Key, &Source),
) -> Result<(), UpstreamError> {
    let scope = catalog.administration().scope(source.upstream.tenant);
    let (rows, stored) = (catalog.store().tenant(scope), source.stored.iter().collect::<Vec<_>>());
    let proofs = Proofs { caller: None, rows: &rows, stored: &stored, shown: None };
    let link =
        pool.link(scope, &source.upstream, (&proofs, Peer::default()), (&source.tenant, source.hosts.as_ref()))?;
    hear(&link, &proofs, |told| heard.tell(key, told)).await
}
